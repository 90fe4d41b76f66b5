"""Whether what a segmentation adds to a cell is expressed like the rest of it (paper: fig. 2, 5 and 8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from sslcst._arguments import checked
from sslcst._section import check
from sslcst.core.counts import count_matrix
from sslcst.errors import DataError, ParameterError
from sslcst.metrics._matching import checked_pairs, match
from sslcst.metrics._overlap import check_ids


class Correlation(NamedTuple):
    """What :func:`correlation` finds."""

    a: float  #: Mean over the pairs in which all three parts hold enough counts; NaN where there is no such pair
    b: float  #: That of the second segmentation, over the same pairs
    n_pairs: int  #: Number of these pairs
    #: A row for each pair of cells, with ids ``a`` and ``b``, counts ``shared``, ``only_a`` and ``only_b``, and
    #: ``correlation_a`` and ``correlation_b``, NaN where that part or the shared one holds too few counts
    pairs: pd.DataFrame


@checked
def correlation(
    owner_a: ArrayLike,
    owner_b: ArrayLike,
    gene: ArrayLike,
    count: ArrayLike | None = None,
    *,
    n_genes: int | None = None,
    pairs: ArrayLike | None = None,
    min_counts: int = 100,
) -> Correlation:
    """Correlate the part that two segmentations of a cell share with the part that each has alone.

    Let S, A and B be the counts of each gene in the part of a cell that both segmentations hold, that the first alone
    and that the second alone holds. The score of the first is Pearson's correlation of S and A over all genes, that of
    the second of S and B (Petukhov et al. 2022). The shared part is mostly the middle of the cell, so that the
    segmentation with the higher score has added what belongs to it. Neither is taken for the truth.

    Parameters
    ----------
    owner_a, owner_b
        (n,) cell of each transcript in the two segmentations, 0 = none.
    gene
        (n,) gene of each transcript, 0, 1, ...
    count
        (n,) molecules of each transcript. ``None`` is one each.
    n_genes
        Number of genes that are correlated over, including those without a count. ``None`` takes the largest
        gene + 1.
    pairs
        (k, 2) ids in `owner_a` and `owner_b` of the same cell, each once. ``None`` pairs them by
        :func:`sslcst.metrics.match` on the transcripts.
    min_counts
        Counts that each part needs, as in the evaluation of SCS (Chen et al. 2023).

    Returns
    -------
    The mean of each segmentation, and all pairs. A part in which all genes have the same count correlates with nothing:
    0. Where one segmentation holds the other, as a cell its nucleus, the mean is NaN, since one part is always empty;
    ``correlation_b`` of the pairs then tells how well the cytoplasm goes with the nucleus.

    Raises
    ------
    ParameterError
        `min_counts` or `n_genes` is too small, or `pairs` are none.
    DataError
        The arrays differ in length, hold negative or fractional numbers, or no transcript lies in a cell of `owner_a`.
    """
    owner_a, owner_b, gene = check_ids("owner_a", owner_a), check_ids("owner_b", owner_b), check_ids("gene", gene)
    count = np.ones(gene.shape, np.int64) if count is None else check_ids("count", count)
    shapes = {array.shape for array in (owner_a, owner_b, gene, count)}
    if len(shapes) > 1 or gene.ndim != 1:
        raise DataError(f"owner_a, owner_b, gene and count must be (n,) of one length; their shapes are {shapes}.")
    least = int(gene.max(initial=-1)) + 1
    n_genes = least if n_genes is None else n_genes
    if n_genes < least:
        raise ParameterError(f"n_genes={n_genes}: gene goes up to {least - 1}, so that there are at least {least}.")
    check(min_counts >= 1, "min_counts", min_counts, "must be at least 1")

    pairs = match(owner_a, owner_b) if pairs is None else checked_pairs(pairs)
    in_a, in_b = _place(owner_a, pairs[:, 0]), _place(owner_b, pairs[:, 1])
    both = (in_a >= 0) & (in_a == in_b)
    where = {"gene": gene, "count": count, "ids": np.arange(len(pairs)), "n_genes": n_genes}
    shared, only_a, only_b = (
        sparse.csr_array(count_matrix(np.where(part, place, -1), **where), dtype=np.float64)
        for part, place in ((both, in_a), (~both, in_a), (~both, in_b))
    )
    table = pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1]})
    for name, part in (("shared", shared), ("only_a", only_a), ("only_b", only_b)):
        table[name] = part.sum(axis=1).astype(np.int64)
    for side, part in (("a", only_a), ("b", only_b)):
        enough = table[["shared", f"only_{side}"]].min(axis=1) >= min_counts
        table[f"correlation_{side}"] = np.where(enough, _pearson(shared, part), np.nan)
    scored = table[["correlation_a", "correlation_b"]].dropna()
    return Correlation(*(float(mean) for mean in scored.mean()), len(scored), table)


def _place(owner: NDArray[np.integer], ids: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Index of each owner among the ids, -1 where it is none of them."""
    return pd.Index(ids).get_indexer(owner.astype(np.uint64))


def _pearson(x: sparse.csr_array, y: sparse.csr_array) -> NDArray[np.float64]:
    """Pearson's correlation of each row of x with that of y, zeros included; 0 where a row does not vary."""
    n = x.shape[1]
    covariance = n * (x * y).sum(axis=1) - x.sum(axis=1) * y.sum(axis=1)
    variances = [n * (z * z).sum(axis=1) - z.sum(axis=1) ** 2 for z in (x, y)]
    product = np.sqrt(variances[0] * variances[1])
    return np.divide(covariance, product, out=np.zeros(len(product)), where=product > 0)
