"""What a cell holds of its neighbours: genes together that nuclei never hold together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sslcst._arguments import checked
from sslcst._section import check
from sslcst.errors import DataError
from sslcst.metrics._overlap import check_ids

_BLOCK = 500  # genes that are paired with all at once


@checked
def exclusive_pairs(
    nuclear: sparse.sparray, *, min_expected: float = 5.0, max_ratio: float = 0.2, max_pairs: int = 10_000
) -> NDArray[np.intp]:
    """Pairs of genes that exclude each other in nuclei, where there is next to no spill from neighbours.

    Of m nuclei let n_g hold gene g and n_gh both g and h. Were the genes independent, one would expect
    e_gh = n_g n_h / m nuclei with both. A pair is exclusive where e_gh >= `min_expected`, so that few common nuclei are
    no chance, and n_gh <= `max_ratio` e_gh.

    Parameters
    ----------
    nuclear
        (m, n_genes) counts in each nucleus.
    min_expected
        Nuclei with both genes that independence would give, at least; above 0.
    max_ratio
        Share of these that may be there, in [0, 1).
    max_pairs
        Of more pairs, those with the largest e_gh are taken; at least 1.

    Returns
    -------
    (k, 2) genes, g < h, in rising order. None where there are too few nuclei or counts to tell.

    Raises
    ------
    ParameterError
        A parameter is out of its bounds.
    """
    check(0 < min_expected < np.inf, "min_expected", min_expected, "must be above 0")
    check(0 <= max_ratio < 1, "max_ratio", max_ratio, "must lie in [0, 1)")
    check(max_pairs >= 1, "max_pairs", max_pairs, "must be at least 1")
    present = _presence(nuclear)
    holding = present.sum(axis=0)
    kept = np.flatnonzero(holding * holding.max(initial=0) >= min_expected * present.shape[0])  # the others cannot
    present, holding = present[:, kept].tocsc(), holding[kept].astype(float)
    pairs, surety = [np.empty((0, 2), np.intp)], [np.empty(0)]
    for start in range(0, len(kept), _BLOCK):  # a dense table of all genes by all would outgrow memory
        block = slice(start, start + _BLOCK)
        expected = np.outer(holding[block], holding) / max(1, present.shape[0])
        observed = (present[:, block].T @ present).toarray()
        later = np.arange(len(kept)) > np.arange(len(kept))[block, None]
        g, h = np.nonzero(later & (expected >= min_expected) & (observed <= max_ratio * expected))
        pairs.append(np.stack([kept[start + g], kept[h]], axis=1))
        surety.append(expected[g, h])
    surest = np.argsort(-np.concatenate(surety), kind="stable")[:max_pairs]
    return np.concatenate(pairs)[np.sort(surest)]


@checked
def contamination(counts: sparse.sparray, pairs: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of exclusive pairs that each cell holds together: the lower, the less it has of its neighbours.

    For a cell, of the pairs (g, h) of which it holds g or h, the share of which it holds both:
    c = #{g and h} / #{g or h}. It is the mutually exclusive co-expression rate (Hartman & Satija 2024) within a cell
    instead of across them. It grows with the counts of a cell, by whatever it is segmented: compare segmentations of
    the same data by the same pairs, and look at the size of the cells beside it.

    Parameters
    ----------
    counts
        (m, n_genes) counts in each cell.
    pairs
        (k, 2) genes that exclude each other, from :func:`exclusive_pairs`.

    Returns
    -------
    (m,) between 0 and 1; NaN for a cell with no gene of any pair.

    Raises
    ------
    DataError
        A pair names a gene that `counts` lacks.
    """
    pairs = check_ids("pairs", pairs)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise DataError(f"pairs have shape {pairs.shape}: not (k, 2), the two genes of each.")
    pairs = pairs.reshape(-1, 2)
    if pairs.max(initial=-1) >= counts.shape[1]:
        raise DataError(f"pairs name gene {pairs.max()}, but counts have {counts.shape[1]} genes.")
    present = _presence(counts)
    genes, end = np.unique(pairs, return_inverse=True)
    end = end.reshape(pairs.shape)
    partners = sparse.coo_array((np.ones(len(pairs), np.int64), end.T), shape=(len(genes), len(genes))).tocsr()
    present = present[:, genes]
    both = (present * (present @ partners)).sum(axis=1)
    holding = present @ np.bincount(end.ravel(), minlength=len(genes))  # pairs, those of both genes twice
    either = holding - both
    return np.divide(both, either, out=np.full(len(either), np.nan), where=either > 0)


def _presence(counts: sparse.sparray) -> sparse.csr_array:
    """1 where a gene has counts, int64 (m, n_genes)."""
    return (sparse.csr_array(counts) > 0).astype(np.int64)
