"""How close a segmentation comes to a reference: overlap of cells, splits and merges, transcripts in the right cell.

Every function takes plain integer arrays of ids, 0 = no cell. Ids are names: they need not be consecutive, and the two
segmentations need not share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sslcst.errors import DataError, ParameterError

__all__ = [
    "Overlap",
    "SplitsMerges",
    "average_precision",
    "best_iou",
    "f1",
    "fraction_right",
    "match",
    "mean_best_iou",
    "overlap",
    "splits_merges",
]


class Overlap(NamedTuple):
    """Contingency table of two segmentations; row and column 0 are "no cell".

    Attributes
    ----------
    reference_ids
        (n + 1,) uint64: 0, then the reference's ids, rising.
    label_ids
        (m + 1,) uint64: 0, then the segmentation's ids, rising.
    pixels
        (n + 1, m + 1) sparse int64, number of elements shared by each pair. Its row and column sums are the areas.
    """

    reference_ids: NDArray[np.uint64]
    label_ids: NDArray[np.uint64]
    pixels: sparse.csr_array


class SplitsMerges(NamedTuple):
    """What :func:`splits_merges` counts.

    Attributes
    ----------
    splits
        Reference cells that came out in several pieces.
    merges
        Segmented cells that hold several reference cells.
    """

    splits: int
    merges: int


def overlap(reference: ArrayLike, labels: ArrayLike) -> Overlap:
    """Count the elements (pixels, or transcripts) that each reference cell shares with each segmented cell.

    Parameters
    ----------
    reference, labels
        Integer ids, 0 = no cell; same shape, any number of dimensions.

    Returns
    -------
    The contingency table.

    Raises
    ------
    DataError
        Shapes differ, an array does not hold non-negative integers, or the reference has no cell.
    """
    reference, labels = _ids("reference", reference), _ids("labels", labels)
    if reference.shape != labels.shape:
        raise DataError(
            f"reference has shape {reference.shape}, labels {labels.shape}: both must lie on the same grid."
        )
    if not reference.any():
        raise DataError("reference holds no cell (all ids are 0): there is nothing to compare with.")

    # Rows of a label image are runs of equal pairs: counting runs instead of pixels is some ten times faster.
    reference, labels = reference.ravel(), labels.ravel()
    changed = (reference[1:] != reference[:-1]) | (labels[1:] != labels[:-1])
    start = np.concatenate([[0], np.flatnonzero(changed) + 1])
    length = np.diff(start, append=reference.size)
    reference_ids, row = _number(reference[start])
    label_ids, column = _number(labels[start])
    shape = (len(reference_ids), len(label_ids))
    return Overlap(reference_ids, label_ids, sparse.coo_array((length, (row, column)), shape=shape).tocsr())


def best_iou(reference: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Best intersection over union of each reference cell with any segmented cell.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.

    Returns
    -------
    (n,) in the order of rising reference ids; 0 for a cell that no segmented cell touches.

    Raises
    ------
    DataError
        As in :func:`overlap`.
    """
    table = overlap(reference, labels)
    row, _, iou = _ious(table)
    best = np.zeros(len(table.reference_ids) - 1)
    np.maximum.at(best, row, iou)
    return best


def mean_best_iou(reference: ArrayLike, labels: ArrayLike) -> float:
    """Mean of :func:`best_iou` over all reference cells: the paper's mean IoU.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    DataError
        As in :func:`overlap`.
    """
    return float(best_iou(reference, labels).mean())


def f1(reference: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> float:
    """F1 score of detection: a reference cell and a segmented cell are the same where their IoU exceeds `threshold`.

    Above an IoU of 0.5 a cell has at most one partner, so no assignment has to be chosen; this is why smaller
    thresholds are refused.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.
    threshold
        In [0.5, 1); the IoU of a pair must exceed it.

    Returns
    -------
    ``2 TP / (reference cells + segmented cells)``.

    Raises
    ------
    ParameterError
        `threshold` lies outside [0.5, 1).
    DataError
        As in :func:`overlap`.
    """
    _check_unique("threshold", threshold)
    table = overlap(reference, labels)
    _, _, iou = _ious(table)
    return float(2 * (iou > threshold).sum() / _n_cells(table))


def average_precision(
    reference: ArrayLike, labels: ArrayLike, *, thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9)
) -> NDArray[np.float64]:
    """Average precision of detection, as the literature on nuclei has it, at each threshold of the IoU.

    Pairs are those of :func:`f1`; a wrong cell and a missed one count in full, where F1 counts them by half.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.
    thresholds
        Each in [0.5, 1); the IoU of a pair must exceed it.

    Returns
    -------
    ``TP / (TP + FP + FN)`` at each threshold, in their order.

    Raises
    ------
    ParameterError
        A threshold lies outside [0.5, 1).
    DataError
        As in :func:`overlap`.
    """
    for threshold in thresholds:
        _check_unique("thresholds", threshold)
    table = overlap(reference, labels)
    _, _, iou = _ious(table)
    hits = np.array([(iou > threshold).sum() for threshold in thresholds])
    return hits / (_n_cells(table) - hits)


def splits_merges(reference: ArrayLike, labels: ArrayLike, *, share: float = 0.5) -> SplitsMerges:
    """Count the reference cells that were split, and the segmented cells that merge several of them.

    A cell lies in another one where that one holds more than `share` of its elements. A reference cell is split where
    two or more segmented cells lie in it, and a segmented cell is a merge where two or more reference cells lie in it;
    exchanging the two segmentations exchanges the two counts.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.
    share
        In [0.5, 1), where a cell lies in one other cell at most.

    Returns
    -------
    Splits, and merges.

    Raises
    ------
    ParameterError
        `share` lies outside [0.5, 1).
    DataError
        As in :func:`overlap`.
    """
    _check_unique("share", share)
    table = overlap(reference, labels)
    row, column, shared, reference_area, label_area = _pairs(table)
    pieces = np.bincount(row[shared > share * label_area[column]])
    members = np.bincount(column[shared > share * reference_area[row]])
    return SplitsMerges(int((pieces > 1).sum()), int((members > 1).sum()))


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

    Raises
    ------
    DataError
        As in :func:`overlap`.
    """
    table = overlap(reference, labels)
    shared = table.pixels[1:, 1:].tocoo()
    row, column = _assign(shared.row.astype(np.int64), shared.col.astype(np.int64), shared.data, shared.shape)
    return np.stack([table.reference_ids[1:][row], table.label_ids[1:][column]], axis=1)


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
    DataError
        As in :func:`overlap`.
    """
    table = overlap(reference_owner, owner)
    pairs = match(reference_owner, owner) if pairs is None else _checked_pairs(pairs)
    known = np.isin(pairs[:, 0], table.reference_ids) & np.isin(pairs[:, 1], table.label_ids)
    row = np.searchsorted(table.reference_ids, pairs[known, 0])
    column = np.searchsorted(table.label_ids, pairs[known, 1])
    right = table.pixels[0, 0] + table.pixels[row, column].sum()
    return float(right / table.pixels.sum())


def _ids(name: str, array: ArrayLike) -> NDArray[np.integer]:
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} is of type {array.dtype}: cell ids must be integers, 0 = no cell.")
    if np.issubdtype(array.dtype, np.signedinteger) and array.size and array.min() < 0:
        raise DataError(f"{name} holds the negative id {array.min()}: cell ids are positive, 0 = no cell.")
    return array


def _number(ids: NDArray[np.integer]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct ids with 0 always first, and the place of each id among them.

    One type for all ids: where signed and unsigned 64-bit integers meet, numpy would compare them as floats.
    """
    largest = int(ids.max())
    if largest > 4 * ids.size:  # a table over all ids would outgrow the data: sort instead
        distinct, place = np.unique(ids, return_inverse=True)
        absent = int(distinct[0] != 0)
        return np.concatenate([np.zeros(absent, np.uint64), distinct.astype(np.uint64)]), place + absent
    occurs = np.zeros(largest + 1, bool)
    occurs[ids] = True
    occurs[0] = True
    return np.flatnonzero(occurs).astype(np.uint64), (np.cumsum(occurs) - 1)[ids]


def _pairs(table: Overlap) -> tuple[NDArray[np.integer], ...]:
    """Row, column (counted without "no cell") and shared elements of each pair that touch; the areas of all cells."""
    shared = table.pixels[1:, 1:].tocoo()
    return shared.row, shared.col, shared.data, table.pixels.sum(axis=1)[1:], table.pixels.sum(axis=0)[1:]


def _ious(table: Overlap) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.float64]]:
    """Row, column and IoU of each pair of cells that touch."""
    row, column, shared, reference_area, label_area = _pairs(table)
    return row, column, shared / (reference_area[row] + label_area[column] - shared)


def _n_cells(table: Overlap) -> int:
    """Reference cells and segmented cells together."""
    return sum(table.pixels.shape) - 2


def _check_unique(name: str, share: float) -> None:
    if not 0.5 <= share < 1:
        raise ParameterError(f"{name}={share!r}: must lie in [0.5, 1), where the partner of a cell is unique.")


def _checked_pairs(pairs: ArrayLike) -> NDArray[np.uint64]:
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
