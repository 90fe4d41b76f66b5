"""Where a spot lies: nucleus centroids, distance to the nearest, position, nearest spots (paper: eq. 1-4)."""

from __future__ import annotations

import numba
import numpy as np
from scipy.spatial import cKDTree

from sslcst.errors import DataError


def centroids(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eq. 1: the mean position of each label's pixels.

    Parameters
    ----------
    labels
        Integer labels (y, x), 0 is background.

    Returns
    -------
    ids
        The labels that occur, ascending, (n,).
    centers
        Their centroids (n, 2) in pixels, where pixel i reaches from i to i + 1.
    areas
        Their numbers of pixels (n,).

    Raises
    ------
    DataError
        There is no label.
    """
    rows, columns = np.nonzero(labels)
    if not len(rows):
        raise DataError("There are no nuclei: all labels are 0.")
    ids, member, areas = np.unique(labels[rows, columns], return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(member, rows + 0.5), np.bincount(member, columns + 0.5)], axis=1)
    return ids, sums / areas[:, None], areas


def nearest_centroid(yx: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 2-3: index (n,) of the nearest centroid and the Euclidean distance (n,) to it."""
    distance, index = cKDTree(centers).query(yx)
    return index, distance


def normalize_distance(distance: np.ndarray, radius: float) -> np.ndarray:
    """Exponential normalisation exp(-d / r): 1 on a centroid, near 0 far from all, float32."""
    return np.exp(-distance / radius).astype(np.float32)


def normalize_position(offset: np.ndarray, radius: float) -> np.ndarray:
    """Eq. 4, with the expected cell around each spot for range: offsets in [-r, r] become [-1, 1].

    The paper takes the minimum and maximum over all samples, which would tie a prediction to the place of the tissue's
    border; relative to the spot itself it is read alike wherever it lies. The range is centred, since what all tokens
    have in common tells nothing.
    """
    return offset / radius


def nearest_spots(index: np.ndarray, shape: tuple[int, int], *, n_neighbors: int, window: int) -> np.ndarray:
    """The nearest occupied spots of each spot, itself first.

    Parameters
    ----------
    index
        Row and column of the spots (n, 2).
    shape
        Rows and columns of the grid.
    n_neighbors
        Neighbours wanted beside the spot itself.
    window
        Bins along each axis within which they are sought.

    Returns
    -------
    int32 (n, 1 + n_neighbors) of indices into the spots, by distance and, where that is equal, by row and column of the
    offset, so that the order depends on nothing but the spots around. -1 where there are no more.
    """
    lookup = np.full((shape[0] + 2 * window, shape[1] + 2 * window), -1, np.int32)
    lookup[index[:, 0] + window, index[:, 1] + window] = np.arange(len(index), dtype=np.int32)
    span = np.arange(-window, window + 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(span, span, indexing="ij"))
    rings = np.lexsort((columns, rows, rows**2 + columns**2))
    return _search_rings(index.astype(np.int64) + window, lookup, rows[rings], columns[rings], 1 + n_neighbors)


@numba.njit(parallel=True, cache=True)
def _search_rings(index, lookup, rows, columns, n):  # pragma: no cover (compiled)
    out = np.full((len(index), n), -1, np.int32)
    for spot in numba.prange(len(index)):
        found = 0
        for k in range(len(rows)):
            other = lookup[index[spot, 0] + rows[k], index[spot, 1] + columns[k]]
            if other >= 0:
                out[spot, found] = other
                found += 1
                if found == n:
                    break
    return out
