"""What the nuclei tell of scale: how large the bins are, and how large a cell is to be expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst.core.spots import Grid
from sslcst.params import Params

_BINS_ACROSS = 16  # a nucleus of median diameter


@dataclass(frozen=True)
class Layout:
    """The grid of bins over the raster; in bins, the expected radius r of a cell and how far it may reach."""

    grid: Grid
    radius: float
    max_distance: float


def lay_out(
    diameter: float, raster_shape: tuple[int, int], *, pixel_size: float, pixel_sides: np.ndarray, params: Params
) -> Layout:
    """Lay a grid of bins over a raster of nuclei.

    Parameters
    ----------
    diameter
        Of the median nucleus, in pixels.
    raster_shape
        Pixels (height, width).
    pixel_size, pixel_sides
        Side of a square of a pixel's area, and sides of a pixel along y and x, in units of the coordinate system.
    params
        Sections ``spots`` and ``cells``.
    """
    bin_size = params.spots.bin_size or max(1, round(diameter / _BINS_ACROSS)) * pixel_size
    height, width = bin_size / pixel_sides
    grid = Grid(raster_shape, (float(height), float(width)), bin_size)
    radius = (params.cells.radius or diameter * pixel_size) / bin_size
    return Layout(grid, radius, params.cells.max_distance * radius)
