"""Maximum-weight one-to-one assignment of a sparse graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching


def assign(
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
    sorted_group = group[order]
    new = np.ones(len(group) + 1, bool)
    new[1:-1] = sorted_group[1:] != sorted_group[:-1]
    first = np.flatnonzero(new[:-1])
    second = np.where(new[first + 1], 0, np.append(weight[order], 0)[first + 1])
    heaviest = np.zeros(len(group), bool)
    heaviest[order[first]] = True
    runner_up = np.empty(len(group), np.int64)
    runner_up[order] = second[np.cumsum(new[:-1]) - 1]
    return heaviest, runner_up
