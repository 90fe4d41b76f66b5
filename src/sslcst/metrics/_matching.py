"""One-to-one pairs of cells, and the transcripts that are in the right one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sslcst._arguments import checked
from sslcst.errors import ParameterError
from sslcst.metrics._overlap import overlap


@checked
def match(reference: ArrayLike, labels: ArrayLike) -> NDArray[np.uint64]:
    """Pair reference cells with segmented cells one to one so that the elements shared within pairs are most.

    A cell may stay without a partner, and cells that share nothing are never paired. Among pairings that share equally
    many elements, one is taken by a fixed rule: the same input gives the same pairs.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`: two label images, or the two owners of each transcript.

    Returns
    -------
    (k, 2) uint64, pairs of a reference id and a segmented id, in the order of rising reference ids.
    """
    table = overlap(reference, labels)
    shared = table.pixels[1:, 1:].tocoo()
    row, column = _assign(shared.row.astype(np.int64), shared.col.astype(np.int64), shared.data, shared.shape)
    return np.stack([table.reference_ids[1:][row], table.label_ids[1:][column]], axis=1)


@checked
def fraction_right(reference_owner: ArrayLike, owner: ArrayLike, *, pairs: ArrayLike | None = None) -> float:
    """Fraction of transcripts that are given to the right cell, or rightly to none.

    Parameters
    ----------
    reference_owner, owner
        (n,) id of each transcript's cell in the reference and in the segmentation, 0 = none.
    pairs
        (k, 2) pairs of a reference id and the segmented id that stands for the same cell, each id once. ``None`` pairs
        them by :func:`match` on the transcripts, which favours the segmentation as far as one-to-one pairs can. Where
        both use the same ids, for example cells grown from the reference's nuclei, give ``stack([ids, ids], axis=1)``.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ParameterError
        `pairs` are not (k, 2) integers above 0, or an id is paired twice.
    """
    table = overlap(reference_owner, owner)
    pairs = match(reference_owner, owner) if pairs is None else checked_pairs(pairs)
    known = np.isin(pairs[:, 0], table.reference_ids) & np.isin(pairs[:, 1], table.label_ids)
    row = np.searchsorted(table.reference_ids, pairs[known, 0])
    column = np.searchsorted(table.label_ids, pairs[known, 1])
    right = table.pixels[0, 0] + table.pixels[row, column].sum()
    return float(right / table.pixels.sum())


def checked_pairs(pairs: ArrayLike) -> NDArray[np.uint64]:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer) or (pairs <= 0).any():
        raise ParameterError(f"pairs of shape {pairs.shape} and type {pairs.dtype}: must be (k, 2) integers above 0.")
    for side, name in enumerate(("reference", "segmented")):
        ids, count = np.unique(pairs[:, side], return_counts=True)
        if (count > 1).any():
            raise ParameterError(f"pairs: the {name} id {ids[count > 1][0]} occurs more than once.")
    return pairs.astype(np.uint64)


def _assign(
    row: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Maximum-weight one-to-one assignment of a sparse graph with positive weights; rows come back rising.

    An edge that weighs as much as the next heaviest at its row and at its column together belongs to some optimum:
    swapping it in for whatever they hold loses nothing. Nearly all cells are settled that way, in a few sorts. What is
    left goes to scipy's solver, whose time grows with the square of its rows. That solver wants every row assigned, so
    each row gets a column of its own for "no partner".
    """
    pairs = []
    while True:
        heaviest_of_row, next_of_row = _heaviest(row, weight)
        heaviest_of_column, next_of_column = _heaviest(column, weight)
        sure = heaviest_of_row & heaviest_of_column & (weight >= next_of_row + next_of_column)
        if sure.sum() < 0.01 * len(row) + 1:
            break
        pairs.append((row[sure], column[sure]))
        left = ~(np.isin(row, row[sure]) | np.isin(column, column[sure]))
        row, column, weight = row[left], column[left], weight[left]

    rows, row = np.unique(row, return_inverse=True)
    own = np.arange(len(rows))
    # The solver drops zero weights: every weight is raised by one, which shifts all complete assignments alike.
    weights = np.concatenate([weight + 1, np.ones(len(rows), np.int64)])
    ends = (np.concatenate([row, own]), np.concatenate([column, shape[1] + own]))
    graph = sparse.csr_array((weights, ends), shape=(len(rows), shape[1] + len(rows)))
    assigned_row, assigned_column = min_weight_full_bipartite_matching(graph, maximize=True)
    partnered = assigned_column < shape[1]
    pairs.append((rows[assigned_row[partnered]], assigned_column[partnered]))

    row, column = (np.concatenate(side).astype(np.int64) for side in zip(*pairs, strict=True))
    order = np.argsort(row)
    return row[order], column[order]


def _heaviest(group: NDArray[np.int64], weight: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether an edge is the (first) heaviest of its group, and the weight of the second heaviest of that group."""
    order = np.lexsort((-weight, group))
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    second = np.where(size > 1, np.append(weight[order], 0)[first + 1], 0)
    heaviest = np.zeros(len(group), bool)
    heaviest[order[first]] = True
    runner_up = np.empty(len(group), np.int64)
    runner_up[order] = np.repeat(second, size)
    return heaviest, runner_up
