"""What the nuclei tell of scale: how large the bins are, and how large a cell is to be expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst.core.spots import Grid
from sslcst.errors import DataError, ParameterError
from sslcst.params import Params

_BINS_ACROSS = 16  # a nucleus of median diameter
_BIN_SIZES = (0.01, 2.0)  # in diameters of the median nucleus: finer bins fill the memory, coarser ones show no cells
_RADII = (0.1, 20.0)
_LARGEST = 1e6  # a bin, in units of the coordinate system, as parameters and models have it


@dataclass(frozen=True)
class Layout:
    """The grid of bins over the raster, and the expected cell radius r in bins."""

    grid: Grid
    radius: float


def lay_out(
    diameter: float, raster_shape: tuple[int, int], *, pixel_size: float, pixel_sides: np.ndarray, params: Params
) -> Layout:
    """Lay a grid of bins over a raster of nuclei, the median of which measures `diameter` pixels.

    `pixel_size` is the side of a square of a pixel's area, `pixel_sides` are those of a pixel along y and x, in units
    of the coordinate system. Lengths in `params` must be lengths of what belongs to such nuclei (`ParameterError`).
    """
    nucleus = diameter * pixel_size
    _check_length("spots.bin_size", params.spots.bin_size, nucleus, _BIN_SIZES)
    _check_length("cells.radius", params.cells.radius, nucleus, _RADII)
    bin_size = params.spots.bin_size or max(1, round(diameter / _BINS_ACROSS)) * pixel_size
    if bin_size > _LARGEST:
        raise DataError(f"The median nucleus measures {nucleus:.3g}: choose a coordinate system of larger units.")
    height, width = bin_size / pixel_sides
    grid = Grid(raster_shape, (float(height), float(width)), bin_size)
    return Layout(grid, (params.cells.radius or nucleus) / bin_size)


def _check_length(name: str, value: float | None, nucleus: float, bounds: tuple[float, float]) -> None:
    low, high = (bound * nucleus for bound in bounds)
    if value is not None and not low <= value <= high:
        raise ParameterError(
            f"{name}={value!r}: must lie between {low:.3g} and {high:.3g}, in units of the coordinate system, in which "
            f"the median nucleus measures {nucleus:.3g}."
        )
