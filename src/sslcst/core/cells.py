"""Cells on the grid: one piece each, without holes; from bins to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label

from sslcst.core.spots import Grid
from sslcst.core.threads import compiled

_FOUR = ((0, 1), (1, 0))
_SMOOTH = 0.6  # bins; standard deviation of the weights by which boundaries are smoothed


@dataclass(frozen=True)
class Occupancy:
    """How many bins lie in nuclei, and how many of these hold a spot; of parts of a chip they add up."""

    n_bins: int
    n_spots: int

    def __add__(self, other: Occupancy) -> Occupancy:
        return Occupancy(self.n_bins + other.n_bins, self.n_spots + other.n_spots)

    @property
    def spacing(self) -> float:
        """Half the mean spacing of the spots within nuclei, in bins and at least 1: how far a prediction speaks for."""
        return max(1.0, 0.5 * float(np.sqrt(self.n_bins / max(self.n_spots, 1))))

    @classmethod
    def of(cls, nuclei: np.ndarray, nucleus: np.ndarray) -> Occupancy:
        """From nucleus labels on the grid, and at each spot."""
        return cls(int(np.count_nonzero(nuclei)), int(np.count_nonzero(nucleus)))


def decide(probability: np.ndarray, owner: np.ndarray, nuclei: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Cells (rows, columns) of what is likely in one, each in one piece around its nucleus and without holes.

    Bins of nuclei stay theirs; others of a probability below the threshold are outside every cell.
    """
    labels = np.where(nuclei > 0, nuclei, np.where(probability >= threshold, owner, 0))
    return fill_holes(keep_attached(labels, nuclei))


def keep_attached(cells: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """Cells without the pieces that do not hang together (4-neighbours) with their nucleus."""
    piece = label(cells, connectivity=1)
    attached = np.zeros(piece.max() + 1, bool)
    attached[piece[(nuclei > 0) & (cells == nuclei)]] = True
    return np.where(attached[piece], cells, 0)


def largest_pieces(cells: np.ndarray, nuclei: np.ndarray | None = None) -> np.ndarray:
    """Of each cell the pieces that hang together with its nucleus, and of one without a nucleus the largest."""
    piece = label(cells, connectivity=1)
    area = np.bincount(piece.ravel())
    owner = np.zeros(len(area), cells.dtype)
    owner[piece] = cells
    kept = np.zeros(len(area), bool)
    if nuclei is not None:
        kept[piece[(nuclei > 0) & (cells == nuclei)]] = True
    order = np.lexsort([-area, ~kept, owner])  # of each cell the piece that is kept first, then the largest
    kept[order[np.unique(owner[order], return_index=True)[1]]] = True
    return np.where(kept[piece], cells, 0)


def fill_holes(cells: np.ndarray) -> np.ndarray:
    """Cells with every background region filled that one cell alone encloses; regions at the border stay open."""
    padded = np.pad(cells, 1)
    region, n_regions = ndimage.label(padded == 0)
    pairs = []
    for dy, dx in _FOUR:
        one, other = np.s_[dy:, dx:], np.s_[: padded.shape[0] - dy, : padded.shape[1] - dx]
        for a, b in ((one, other), (other, one)):
            edge = (padded[a] == 0) & (padded[b] > 0)
            pairs.append(np.stack([region[a][edge], padded[b][edge].astype(np.int64)], axis=1))
    pairs = np.unique(np.concatenate(pairs), axis=0)
    alone = np.bincount(pairs[:, 0], minlength=n_regions + 1) == 1
    alone[region[0, 0]] = False  # the outside
    owner = np.zeros(n_regions + 1, cells.dtype)
    owner[pairs[:, 0]] = pairs[:, 1]
    return np.where(alone[region], owner[region], padded)[1:-1, 1:-1]


def to_pixels(cells: np.ndarray, grid: Grid, nuclei: np.ndarray) -> np.ndarray:
    """Cells (rows, columns) on the raster of the nuclei (y, x), of the same ids; a nucleus' pixels are always its own.

    Where bins are wider than pixels, a pixel takes the label that weighs most among its bin and the eight around, so
    that boundaries are smooth instead of stairs of bins.
    """
    labels = grid.to_raster(cells)
    if max(grid.step) > 1:
        (rows, below), (columns, right) = (_weights(axis) for axis in grid.pixel_places())
        labels = _smoothed(labels, np.pad(cells, 1), rows, columns, below, right)
    labels = np.where(nuclei > 0, nuclei, labels).astype(np.uint32)
    # Smoothing cuts where a cell is a bin wide and bends, nuclei where they are too thin for a bin.
    return largest_pieces(labels, nuclei) if max(grid.step) > 1 else labels


def _weights(place: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of pixels along an axis, their bin, and the weights of the bin before, itself and the one behind (n, 3)."""
    bins, offset = place
    return bins, np.exp(-0.5 * ((np.arange(-1, 2) - offset[:, None]) / _SMOOTH) ** 2)


@compiled(nogil=True)
def _smoothed(labels, cells, rows, columns, below, right):  # pragma: no cover (compiled)
    """`cells` are padded by one bin; of labels that weigh the same, the one of the pixel's own bin stays."""
    out = labels.copy()
    found, weight = np.zeros(9, cells.dtype), np.zeros(9)
    for y in range(len(rows)):
        for x in range(len(columns)):
            row, column = rows[y] + 1, columns[x] + 1
            own = cells[row, column]
            n = 1
            found[0], weight[0] = own, 0.0
            for i in range(3):
                for j in range(3):
                    label = cells[row + i - 1, column + j - 1]
                    k = 0
                    while k < n and found[k] != label:
                        k += 1
                    if k == n:
                        found[n], weight[n] = label, 0.0
                        n += 1
                    weight[k] += below[y, i] * right[x, j]
            best = 0
            for k in range(1, n):
                if weight[k] > weight[best] + 1e-12:
                    best = k
            out[y, x] = found[best]
    return out
