"""A region of interest: which cells are wanted, and what part of a raster they need."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely.affinity import translate
from spatialdata import SpatialData

from sslcst._arguments import Region
from sslcst._sdata.elements import choose_key
from sslcst._sdata.raster import PHASE, Raster, apply_affine, systems_of
from sslcst._sdata.shapes import Outlines
from sslcst.errors import DataError, KeyMissingError, ParameterError

_NAMED = 5  # rows that a message names at the most
_locating = threading.Lock()  # GEOS builds the index of a polygon as it is first asked, and dies where two threads ask


@dataclass(frozen=True)
class Area:
    """A region on the pixels of a raster."""

    polygon: Any  # of shapely, in pixels (x, y)
    name: str  # what messages call it

    def holds(self, yx: np.ndarray) -> np.ndarray:
        """Which positions (n, 2) in pixels lie in it or on its edge, bool (n,)."""
        with _locating:
            shapely.prepare(self.polygon)
            return shapely.intersects_xy(self.polygon, yx[:, 1], yx[:, 0])

    def window(self, shape: tuple[int, int], around: float) -> tuple[slice, slice]:
        """Rows and columns of a raster of that shape that hold it and so many pixels around."""
        left, top, right, bottom = self.polygon.bounds
        low = np.maximum(np.floor(np.array([top, left]) - around).astype(int), 0)
        high = np.minimum(np.ceil(np.array([bottom, right]) + around).astype(int), shape)
        rows, columns = map(slice, low.tolist(), high.tolist())
        return rows, columns

    def on(self, raster: Raster, around: float) -> tuple[Raster, Area]:
        """The part of a raster that holds it and so many pixels around, and the region on the pixels of that part."""
        rows, columns = self.window(raster.shape, around)
        rows, columns = (slice(part.start // PHASE * PHASE, part.stop) for part in (rows, columns))
        return raster.cropped(rows, columns), Area(translate(self.polygon, -columns.start, -rows.start), self.name)


def choose_area(sdata: SpatialData, region: str | Region, raster: Raster) -> Area:
    """The region that is meant, on a raster.

    It is the name of shapes, of which all polygons count, or (x0, y0, x1, y1) in the raster's coordinate system.
    """
    if isinstance(region, str):
        polygon, to_pixel, name = *_of_shapes(sdata, region, raster), f"region {region!r}"
    else:
        x0, y0, x1, y1 = box = tuple(map(float, region))
        if not (np.isfinite(box).all() and x0 < x1 and y0 < y1):
            raise ParameterError(f"region={box!r}: must be (x0, y0, x1, y1), finite, with x0 < x1 and y0 < y1.")
        polygon, to_pixel, name = shapely.box(*box), np.linalg.inv(raster.to_system), f"region={box!r}"
    polygon = shapely.transform(polygon, lambda xy: apply_affine(to_pixel, xy[:, ::-1])[:, ::-1])
    height, width = raster.shape
    seen = shapely.intersection(polygon, shapely.box(0, 0, width, height))
    if not seen.area > 0:
        corners = apply_affine(raster.to_system, np.array([[0, 0], [0, width], [height, 0], [height, width]]))
        (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
        raise DataError(
            f"{name} lies off the image, which reaches from x={left:.6g}, y={top:.6g} to x={right:.6g}, y={bottom:.6g} "
            f"in coordinate system {raster.coordinate_system!r}: see in what units the region is."
        )
    return Area(seen, name)


def _of_shapes(sdata: SpatialData, key: str, raster: Raster) -> tuple[Any, np.ndarray]:
    """The polygons of shapes as one, and the affine matrix (3, 3) to pixels of a raster."""
    choose_key(sdata.shapes, key, kind="shapes element", argument="region")
    shapes = sdata.shapes[key]
    systems, system = systems_of(shapes), raster.coordinate_system
    if system not in systems:
        raise KeyMissingError(
            f"region={key!r} lies in {', '.join(map(repr, sorted(systems)))}, and not in coordinate system {system!r}: "
            "relate them with spatialdata's set_transformation."
        )
    geometry = shapes.geometry.to_numpy()
    crossing = np.flatnonzero(~shapely.is_missing(geometry) & ~shapely.is_valid(geometry))
    if len(crossing):
        named = ", ".join(map(repr, shapes.index[crossing[:_NAMED]].tolist()))
        raise DataError(
            f"{len(crossing)} polygons of region {key!r} are not valid ({named}): "
            f"{shapely.is_valid_reason(geometry[crossing[0]])}. Mend them with shapely.make_valid, or draw them again."
        )
    return shapely.union_all(Outlines.of(shapes, key).polygons), raster.to_pixel(shapes, key)
