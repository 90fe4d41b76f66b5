"""Contingency table of two segmentations: how many elements each pair of cells shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from sslcst._arguments import checked
from sslcst.errors import DataError


class Overlap(NamedTuple):
    """Contingency table of two segmentations; row and column 0 are "no cell"."""

    reference_ids: NDArray[np.uint64]  #: 0, then the reference's ids, rising, (n + 1,)
    label_ids: NDArray[np.uint64]  #: 0, then the segmentation's ids, rising, (m + 1,)
    #: Elements that each pair shares, int64 (n + 1, m + 1); its row and column sums are the areas
    pixels: sparse.csr_array


@checked
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
    reference, labels = check_ids("reference", reference), check_ids("labels", labels)
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


def touching(table: Overlap) -> tuple[NDArray[np.integer], ...]:
    """Row, column (counted without "no cell") and shared elements of each pair that touch; the areas of all cells."""
    shared = table.pixels[1:, 1:].tocoo()
    return shared.row, shared.col, shared.data, table.pixels.sum(axis=1)[1:], table.pixels.sum(axis=0)[1:]


def ious(table: Overlap) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.float64]]:
    """Row, column and IoU of each pair of cells that touch."""
    row, column, shared, reference_area, label_area = touching(table)
    return row, column, shared / (reference_area[row] + label_area[column] - shared)


def check_ids(name: str, array: ArrayLike) -> NDArray[np.integer]:
    """Ids, genes or counts as an array, in the byte order that pandas wants and files need not have."""
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} is of type {array.dtype}: it must hold integers (.astype(int) of whole numbers).")
    if array.min(initial=0) < 0:
        raise DataError(f"{name} holds the negative number {array.min()}: it must hold 0 (for a cell: none) and more.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_places(name: str, array: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(array)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(f"{name} is of type {array.dtype}, or not finite: places are finite numbers.")
    return array.astype(np.float64)


def _number(ids: NDArray[np.integer]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct ids with 0 always first, and the place of each id among them.

    One type for all ids: where signed and unsigned 64-bit integers meet, numpy would compare them as floats.
    """
    place, distinct = pd.factorize(ids, sort=True)
    absent = int(distinct[0] != 0)
    return np.concatenate([np.zeros(absent, np.uint64), distinct.astype(np.uint64)]), place + absent
