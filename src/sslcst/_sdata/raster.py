"""The pixels of a raster element: where they lie in a coordinate system, and those of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation, get_transformation
from xarray import DataArray, DataTree

from sslcst.core.counts import owners
from sslcst.core.layout import Layout, lay_out
from sslcst.errors import DataError
from sslcst.params import Params

YX = ("y", "x")
PHASE = 60  # pixels: bins of 1 to 6 pixels begin in a part, or a field, where they do in the whole, or the field alone
_SCALES, _FLATTENED = (1e-9, 1e9), 1e4  # of a transformation: bounds, and the most that its axes may differ
# A grid without an image may have so many squares of pixels; more where this share of them holds points; never more.
_SQUARE, _SQUARES, _HELD, _MOST_SQUARES = 256, 1000, 0.01, 8_000_000


@dataclass(frozen=True)
class Raster:
    """The pixel grid that labels lie on."""

    shape: tuple[int, int]  # pixels (height, width)
    to_system: np.ndarray  # affine matrix (3, 3) from pixels (y, x) to the coordinate system
    coordinate_system: str  # its name
    transformations: dict[str, Any]  # of the element the raster was taken from, to all its coordinate systems
    # of the scales of that element, from one to the next; empty where there is one alone
    scale_factors: tuple[int, ...] = ()
    # the raster of which it is a part, and its rows and columns there; None where it is whole itself
    whole: Raster | None = None
    window: tuple[slice, slice] | None = None

    @property
    def pixel_sides(self) -> np.ndarray:
        """Length of a pixel along its y and its x axis, in units of the coordinate system, (2,)."""
        return np.linalg.norm(self.to_system[:2, :2], axis=0)

    @property
    def pixel_size(self) -> float:
        """Side of a square of a pixel's area, in units of the coordinate system."""
        return float(np.sqrt(abs(np.linalg.det(self.to_system[:2, :2]))))

    def lay_out(self, diameter: float, params: Params) -> Layout:
        """The grid of bins over it, where the median nucleus measures so many pixels."""
        sides = {"pixel_size": self.pixel_size, "pixel_sides": self.pixel_sides}
        return lay_out(diameter, self.shape, **sides, params=params)

    def to_pixel(self, element: Any, key: str) -> np.ndarray:
        """Affine matrix (3, 3) on (y, x) from an element's own coordinates to pixels."""
        return np.linalg.inv(self.to_system) @ matrix_of(element, key, self.coordinate_system)

    def lying_in(self, system: str, step: np.ndarray) -> Raster:
        """The same raster in one more system, if it does not lie there yet, by an affine matrix (3, 3) from its own."""
        own = self.transformations
        return replace(self, transformations={system: followed(own[self.coordinate_system], step)} | own)

    def cropped(self, rows: slice, columns: slice) -> Raster:
        """A part of it; a translation comes before each transformation, as spatialdata's own queries have it."""
        if self.whole is not None:
            shifted = [
                slice(own.start + part.start, own.start + part.stop)
                for own, part in zip(self.window, (rows, columns), strict=True)
            ]
            return self.whole.cropped(*shifted)
        to_whole = np.array([[1, 0, rows.start], [0, 1, columns.start], [0, 0, 1.0]])

        def moved(step: Any) -> Any:
            first = Translation([rows.start, columns.start], axes=YX)
            return first if isinstance(step, Identity) else Sequence([first, step])

        shape = (rows.stop - rows.start, columns.stop - columns.start)
        n_scales = int((np.cumprod(self.scale_factors) <= min(shape)).sum())  # of which a pixel is left
        transformations = {name: moved(step) for name, step in self.transformations.items()}
        own = (shape, self.to_system @ to_whole, self.coordinate_system, transformations)
        return Raster(*own, self.scale_factors[:n_scales], whole=self, window=(rows, columns))

    def pair(self, key: str, points_key: str) -> str:
        """What must lie on one another, in words: an image or nuclei on this raster, and points."""
        side = f"a pixel measures {self.pixel_size:.4g} there"
        return f"{key!r} and the points {points_key!r} in coordinate system {self.coordinate_system!r} ({side})"


def apply_affine(matrix: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Positions (n, 2) under an affine matrix (3, 3); each the same to the last bit, however many they are."""
    y, x = yx.T
    return np.stack([of_y * y + of_x * x + shift for of_y, of_x, shift in matrix[:2]], axis=1)


def is_identity(matrix: np.ndarray) -> bool:
    """Whether an affine matrix (3, 3), from pixels to pixels, moves nothing."""
    return np.allclose(matrix, np.eye(3), rtol=0, atol=1e-6)


def affine_matrix(element: Any, coordinate_system: str) -> np.ndarray:
    """Affine matrix (3, 3) on (y, x) from an element's own coordinates to the coordinate system."""
    return get_transformation(element, to_coordinate_system=coordinate_system).to_affine_matrix(YX, YX)


def matrix_of(element: Any, key: str, coordinate_system: str) -> np.ndarray:
    """An element's `affine_matrix`, if it is finite, flattens nothing and has a sane scale; else a `DataError`."""
    matrix = affine_matrix(element, coordinate_system)
    sides = np.linalg.svd(matrix[:2, :2], compute_uv=False) if np.isfinite(matrix).all() else np.zeros(2)
    if not _SCALES[0] <= sides[1] <= sides[0] <= min(_SCALES[1], _FLATTENED * sides[1]):
        raise DataError(
            f"The transformation of {key!r} to {coordinate_system!r} cannot be inverted, or can hardly be meant: "
            f"{matrix.tolist()}."
        )
    return matrix


def followed(first: Any, step: np.ndarray) -> Any:
    """A transformation, and then an affine matrix (3, 3) on (y, x); as simple as it comes."""

    def is_none(matrix: np.ndarray) -> bool:
        return np.allclose(matrix, np.eye(3), rtol=0, atol=1e-9)

    if is_none(step):
        return first
    if is_none(step @ first.to_affine_matrix(YX, YX)):
        return Identity()
    only_scales = np.array_equal(step, np.diag(np.diag(step)))
    second = Scale(np.diag(step)[:2], axes=YX) if only_scales else Affine(step, YX, YX)
    return second if isinstance(first, Identity) else Sequence([first, second])


def systems_of(element: Any) -> set[str]:
    """The coordinate systems that an element lies in."""
    return set(get_transformation(element, get_all=True))


def full_scale(element: Any) -> DataArray:
    """A raster element itself, or the finest scale of a multiscale one."""
    if isinstance(element, DataTree):
        return next(iter(next(iter(element.children.values())).data_vars.values()))
    return element


def plane(sdata: SpatialData, key: str) -> DataArray:
    """An image or labels element at its finest scale, which must not be three-dimensional."""
    element = full_scale(sdata[key])
    if "z" in element.dims:
        raise DataError(
            f"{key!r} is three-dimensional, with {element.sizes['z']} planes: add one of them, or what is brightest in "
            "all, to the object as an element of its own, and name that."
        )
    return element


def raster_of(sdata: SpatialData, key: str, coordinate_system: str) -> Raster:
    """The pixel grid of an image or labels element."""
    element = plane(sdata, key)
    shape, matrix = (element.sizes["y"], element.sizes["x"]), matrix_of(element, key, coordinate_system)
    transformations = get_transformation(element, get_all=True)
    return Raster(shape, matrix, coordinate_system, transformations, _scale_factors(sdata[key]))


def _scale_factors(element: Any) -> tuple[int, ...]:
    """From each scale of a multiscale raster to the next, by how much it is coarser."""
    heights = [next(iter(scale.data_vars.values())).sizes["y"] for scale in getattr(element, "children", {}).values()]
    return tuple(max(1, round(fine / coarse)) for fine, coarse in pairwise(heights))


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused
def raster_over_points(sdata: SpatialData, points_key: str, coordinate_system: str, pixel_size: float) -> Raster:
    """A pixel grid that just holds the points, where there is no image; no grid nearly all of which would be empty."""
    points = sdata.points[points_key]
    matrix = matrix_of(points, points_key, coordinate_system)
    low, high, held = np.full(2, np.inf), np.full(2, -np.inf), pd.DataFrame(columns=YX, dtype=float)
    for partition in points[list(YX)].partitions:
        yx = apply_affine(matrix, partition.compute().to_numpy(np.float64))
        if not np.isfinite(yx).all():
            raise DataError(f"Points {points_key!r} have coordinates that are not finite.")
        low, high = np.minimum(low, yx.min(axis=0, initial=np.inf)), np.maximum(high, yx.max(axis=0, initial=-np.inf))
        squares = pd.DataFrame(np.floor(yx / (_SQUARE * pixel_size)), columns=YX).drop_duplicates()
        if len(held) < _MOST_SQUARES:
            held = squares if held.empty else pd.concat([held, squares]).drop_duplicates()
    if not np.isfinite(low).all():
        raise DataError(f"Points {points_key!r} are empty: there is no transcript.")
    origin = np.floor(low / pixel_size) * pixel_size
    sides = np.floor((high - origin) / pixel_size) + 1
    if not np.prod(np.ceil(sides / _SQUARE)) <= min(max(_SQUARES, len(held) / _HELD), _MOST_SQUARES):
        (top, left), (bottom, right) = low, high
        raise DataError(
            f"Points {points_key!r} reach from x={left:.6g}, y={top:.6g} to x={right:.6g}, y={bottom:.6g} in "
            f"coordinate system {coordinate_system!r}: {sides[1]:.6g} x {sides[0]:.6g} pixels of {pixel_size:.3g}, "
            "nearly all of them empty. Leave out the points that lie far off, check the units of points and shapes, "
            "or give the image or labels whose pixels count."
        )
    height, width = map(int, sides)
    matrix = np.array([[pixel_size, 0, origin[0]], [0, pixel_size, origin[1]], [0, 0, 1.0]])
    return Raster((height, width), matrix, coordinate_system, {coordinate_system: Affine(matrix, YX, YX)})


def as_labels(labels: Any, raster: Raster) -> Any:
    """Labels (y, x) on a raster as an element, of as many scales as the raster's own."""
    # A copy, since parsing keeps the dict it is given.
    transformations, scale_factors = dict(raster.transformations), list(raster.scale_factors) or None
    return Labels2DModel.parse(labels, dims=YX, transformations=transformations, scale_factors=scale_factors)


def labels_on(labels: np.ndarray, own: Raster, other: Raster) -> np.ndarray:
    """Labels on another raster of the same coordinate system: what lies at each pixel's centre, 0 off the labels."""
    to_own = np.linalg.inv(own.to_system) @ other.to_system
    if own.shape == other.shape and is_identity(to_own):
        return labels
    out = np.empty(other.shape, labels.dtype)
    for rows, yx in centers(other.shape, to_own):
        out[rows] = owners(yx, labels).reshape(-1, other.shape[1])
    return out


def centers(shape: tuple[int, int], matrix: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows, and where a matrix takes the centres of their pixels (n, 2), which need much more memory."""
    height, width = shape
    for start in range(0, height, 256):
        rows = slice(start, min(start + 256, height))
        yield rows, apply_affine(matrix, np.mgrid[rows, 0:width].reshape(2, -1).T + 0.5)
