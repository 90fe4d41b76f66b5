"""Cells on the grid: one piece each, without holes; from bins to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label

from sslcst.core.spots import Grid

_FOUR = ((0, 1), (1, 0))


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


def keep_attached(cells: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """Cells without the pieces that do not hang together (4-neighbours) with their nucleus."""
    piece = label(cells, connectivity=1)
    attached = np.zeros(piece.max() + 1, bool)
    attached[piece[(nuclei > 0) & (cells == nuclei)]] = True
    return np.where(attached[piece], cells, 0)


def fill_holes(cells: np.ndarray) -> np.ndarray:
    """Cells with every background region filled that one cell alone encloses; regions at the border stay open."""
    region, n_regions = ndimage.label(np.pad(cells, 1) == 0)
    padded = np.pad(cells, 1)
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
    """Cells on the raster of the nuclei: each pixel takes its bin's cell, and a nucleus' pixels always its own.

    Parameters
    ----------
    cells
        Labels on the grid (rows, columns).
    grid
        The grid.
    nuclei
        Labels on the pixels in view (y, x), of the same ids.
    """
    return np.where(nuclei > 0, nuclei, grid.to_raster(cells)).astype(np.uint32)
