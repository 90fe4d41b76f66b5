"""Outlines of labels as polygons, exact to the pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from skimage.measure import label

from sslcst.core.threads import njit, parallel
from sslcst.errors import DataError

# Headings of a walk along the edges of pixels, clockwise where y runs downward: right, down, left, up.
_DY = (0, 1, 0, -1)
_DX = (1, 0, -1, 0)
# From a corner (y, x) that was reached with a heading, the pixel ahead to the left and the one ahead to the right.
_LEFT = ((-1, 0), (0, 0), (0, -1), (-1, -1))
_RIGHT = ((0, 0), (0, -1), (-1, -1), (-1, 0))


def polygons(labels: np.ndarray, ids: Sequence[int] | np.ndarray | None = None) -> dict[int, np.ndarray]:
    """The outline of each label (y, x), 0 being background, as one simple ring along the edges of its pixels.

    A label that hangs together (4-neighbours) and has no hole is exactly the ring's interior. Of a label in several
    pieces the largest is outlined, and what it encloses lies within the ring.

    By label, in the order of `ids` (by default all, ascending), it is int32 (n, 2): the corners (y, x) in pixels, where
    pixel i reaches from i to i + 1. They run clockwise on an image whose y runs downward, begin with the topmost and
    there leftmost pixel's upper left corner, and do not repeat the first at the end; straight edges have no points
    between. A `DataError` says that one of the `ids` does not occur.
    """
    known, first, pieces = _largest_pieces(labels)
    wanted = known if ids is None else np.asarray(ids)
    row = np.searchsorted(known, wanted)
    absent = row == len(known)
    absent[~absent] = known[row[~absent]] != wanted[~absent]
    if absent.any():
        raise DataError(f"{absent.sum()} of the labels to outline do not occur, among them {wanted[absent][0]}.")
    starts = np.stack(np.unravel_index(first[row], labels.shape), axis=1)
    sizes = _count_corners(pieces, starts)
    corners = _collect_corners(pieces, starts, np.cumsum(sizes) - sizes, int(sizes.sum()))
    rings = np.split(corners, np.cumsum(sizes)[:-1])
    return dict(zip(wanted.tolist(), rings, strict=False))  # of no labels, `split` makes one empty ring


def _largest_pieces(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels that occur, flat index of the first pixel of the largest piece of each, and the raster of all pieces."""
    pieces = label(labels, connectivity=1, background=0)
    pixel = np.flatnonzero(pieces)
    piece = pieces.ravel()[pixel]
    area = np.bincount(piece)[1:]
    first = np.empty(len(area), np.int64)
    first[piece[::-1] - 1] = pixel[::-1]  # of several pixels to one place, the last stays
    of_piece = labels.ravel()[first]
    order = np.lexsort((first, -area, of_piece))
    known, largest = np.unique(of_piece[order], return_index=True)
    return known, first[order][largest], pieces


@njit(nogil=True)
def _walk(pieces, y, x, corners):  # pragma: no cover (compiled)
    """Walk around a piece from its first pixel, write as many corners as there is room for, and count them.

    Where two pixels of the piece touch at a corner only, the walk crosses over to the other and so stays outside of
    what the piece encloses there: it never comes to one corner twice.
    """
    height, width = pieces.shape
    piece = pieces[y, x]
    first_y, first_x = y, x
    heading, n = 0, 0
    while True:
        if n < len(corners):
            corners[n, 0], corners[n, 1] = y, x
        n += 1
        while True:
            y, x = y + _DY[heading], x + _DX[heading]
            row, column = y + _LEFT[heading][0], x + _LEFT[heading][1]
            if 0 <= row < height and 0 <= column < width and pieces[row, column] == piece:
                heading = (heading + 3) % 4
                break
            row, column = y + _RIGHT[heading][0], x + _RIGHT[heading][1]
            if not (0 <= row < height and 0 <= column < width and pieces[row, column] == piece):
                heading = (heading + 1) % 4
                break
        if y == first_y and x == first_x:
            return n


@parallel()
def _count_corners(pieces, starts):  # pragma: no cover (compiled)
    sizes = np.zeros(len(starts), np.int64)
    nowhere = np.empty((0, 2), np.int32)
    for i in numba.prange(len(starts)):
        sizes[i] = _walk(pieces, starts[i, 0], starts[i, 1], nowhere)
    return sizes


@parallel()
def _collect_corners(pieces, starts, places, total):  # pragma: no cover (compiled)
    corners = np.empty((total, 2), np.int32)
    for i in numba.prange(len(starts)):
        _walk(pieces, starts[i, 0], starts[i, 1], corners[places[i] :])
    return corners
