"""Cells by genes: transcripts counted in whatever label they lie in."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sslcst.core.spots import inside_raster


def owners(yx: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Label at each position (n, 2) in pixels, 0 off the raster."""
    out = np.zeros(len(yx), labels.dtype)
    on = inside_raster(yx, labels.shape)
    rows, columns = np.floor(yx[on]).astype(np.intp).T
    out[on] = labels[rows, columns]
    return out


def count_matrix(
    owner: np.ndarray, gene: np.ndarray, count: np.ndarray | None, *, ids: np.ndarray, n_genes: int
) -> sparse.csr_matrix:
    """Molecules of each gene in each of the m cells `ids`, ascending: integer csr (m, n_genes).

    `owner`, `gene` and `count` (None: one each) are of each transcript, (n,); those of other cells are not counted.
    Sums are int32, or int64 where one needs it.
    """
    owned = np.isin(owner, ids)
    row = np.searchsorted(ids, owner[owned])
    values = np.ones(len(row), np.int64) if count is None else count[owned].astype(np.int64)
    matrix = sparse.csr_matrix((values, (row, gene[owned])), shape=(len(ids), n_genes))
    return narrow(matrix)


def narrow(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Counts as int32, where that holds them."""
    fits = counts.data.max(initial=0) <= np.iinfo(np.int32).max
    return counts.astype(np.int32) if fits else counts
