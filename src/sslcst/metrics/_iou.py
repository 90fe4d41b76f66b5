"""Intersection over union of each reference cell with its best partner (paper: fig. 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslcst._arguments import checked
from sslcst.metrics._overlap import ious, overlap


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

    Raises
    ------
    DataError
        As in :func:`overlap`.
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

    Raises
    ------
    DataError
        As in :func:`overlap`.
    """
    return float(best_iou(reference, labels).mean())
