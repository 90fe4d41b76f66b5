"""How many cells there are, and how large (paper: fig. 3 and 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslcst._arguments import checked
from sslcst._section import check
from sslcst.errors import DataError
from sslcst.metrics._overlap import check_ids


@checked
def n_cells(labels: ArrayLike) -> int:
    """Number of cells, or nuclei, in labels.

    Parameters
    ----------
    labels
        Integer ids, 0 = no cell; any number of dimensions.

    Returns
    -------
    Number of distinct ids above 0.

    Raises
    ------
    DataError
        The array does not hold non-negative integers.
    """
    return len(_areas(labels))


@checked
def diameters(labels: ArrayLike, *, pixel_size: float = 1.0) -> NDArray[np.float64]:
    """Equivalent diameter of each cell or nucleus: that of the circle of its area, d = 2 sqrt(A / pi).

    Parameters
    ----------
    labels
        Integer labels (y, x), 0 = no cell.
    pixel_size
        Side of a pixel, in the units that are wanted.

    Returns
    -------
    (n,) in the order of rising ids.

    Raises
    ------
    ParameterError, DataError
        `pixel_size` is not a positive number; the labels are of several planes, or as in :func:`n_cells`.
    """
    if np.ndim(labels) != 2:
        raise DataError(f"labels have shape {np.shape(labels)}: a diameter is of one plane (y, x).")
    check(0 < pixel_size < np.inf, "pixel_size", pixel_size, "must be a positive number")
    return 2 * pixel_size * np.sqrt(_areas(labels) / np.pi)


def _areas(labels: ArrayLike) -> NDArray[np.intp]:
    """Pixels of each cell, in the order of rising ids."""
    labels = check_ids("labels", labels)
    return np.unique(labels[labels > 0], return_counts=True)[1]
