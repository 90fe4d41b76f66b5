"""Which cells are found, and how well: best IoU (paper: fig. 7), F1, average precision, splits and merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslcst._arguments import checked
from sslcst._section import check
from sslcst.metrics._overlap import ious, overlap, touching


class SplitsMerges(NamedTuple):
    """What :func:`splits_merges` counts."""

    splits: int  #: Reference cells that came out in several pieces
    merges: int  #: Segmented cells that hold several reference cells


@checked
def best_iou(reference: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Best intersection over union of each reference cell with any segmented cell.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.

    Returns
    -------
    (n,) in the order of rising reference ids; 0 for a cell that no segmented cell touches.
    """
    table = overlap(reference, labels)
    row, _, iou = ious(table)
    best = np.zeros(len(table.reference_ids) - 1)
    np.maximum.at(best, row, iou)
    return best


@checked
def mean_best_iou(reference: ArrayLike, labels: ArrayLike) -> float:
    """Mean of :func:`best_iou` over all reference cells: the paper's mean IoU.

    Parameters
    ----------
    reference, labels
        As in :func:`overlap`.

    Returns
    -------
    Between 0 and 1.
    """
    return float(best_iou(reference, labels).mean())


@checked
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
    """
    hits, n_cells = _hits(reference, labels, "threshold", [threshold])
    return float(2 * hits[0] / n_cells)


@checked
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
    """
    hits, n_cells = _hits(reference, labels, "thresholds", thresholds)
    return hits / (n_cells - hits)


@checked
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
    """
    _check_unique("share", share)
    table = overlap(reference, labels)
    row, column, shared, reference_area, label_area = touching(table)
    pieces = np.bincount(row[shared > share * label_area[column]])
    members = np.bincount(column[shared > share * reference_area[row]])
    return SplitsMerges(int((pieces > 1).sum()), int((members > 1).sum()))


def _hits(
    reference: ArrayLike, labels: ArrayLike, name: str, thresholds: Sequence[float]
) -> tuple[NDArray[np.intp], int]:
    """Pairs whose IoU exceeds each threshold, and the number of reference and segmented cells together."""
    for threshold in thresholds:
        _check_unique(name, threshold)
    table = overlap(reference, labels)
    _, _, iou = ious(table)
    return np.array([(iou > threshold).sum() for threshold in thresholds]), sum(table.pixels.shape) - 2


def _check_unique(name: str, share: float) -> None:
    check(0.5 <= share < 1, name, share, "must lie in [0.5, 1), where the partner of a cell is unique")
