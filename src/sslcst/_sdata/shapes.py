"""Shapes of any kind as polygons, drawn on a raster by parts; what cannot be drawn is counted and told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from skimage.draw import polygon2mask

from sslcst._logging import logger
from sslcst._sdata.source_ids import number
from sslcst.errors import DataError

_POINT, _POLYGON = 0, 3  # shapely's numbers of types
_NAMED = 5  # rows that a message names at the most


@dataclass(frozen=True)
class Outlines:
    """The polygons of shapes, in their own coordinates."""

    key: str  # name of the shapes
    names: pd.Index  # index of the shapes, (n,)
    polygons: np.ndarray  # (m,), several for a shape in pieces
    row: np.ndarray  # of each polygon's shape, rising, (m,)
    useless: dict[str, np.ndarray]  # rows of the shapes that have no polygon, by the reason

    @classmethod
    def of(cls, shapes: GeoDataFrame, key: str) -> Outlines:
        """Points become circles of their radius, which nothing else has; polygons that cross themselves are mended."""
        geometry = shapely.force_2d(shapes.geometry.to_numpy())
        useless = {"empty or missing": shapely.is_missing(geometry) | shapely.is_empty(geometry)}
        places, of = shapely.get_coordinates(geometry, return_index=True)
        useless["with coordinates that are not finite"] = np.isin(
            np.arange(len(geometry)), of[~np.isfinite(places).all(axis=1)]
        )
        points = (shapely.get_type_id(geometry) == _POINT) & ~_any(useless)
        radius = np.full(len(geometry), np.nan)
        if "radius" in shapes:
            radius = pd.to_numeric(shapes["radius"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        circles = points & (radius > 0) & np.isfinite(radius)
        useless["points without a positive radius"] = points & ~circles
        geometry[circles] = shapely.buffer(geometry[circles], radius[circles], quad_segs=16)
        geometry[_any(useless)] = None
        invalid = ~shapely.is_missing(geometry) & ~shapely.is_valid(geometry)
        geometry[invalid] = shapely.make_valid(geometry[invalid])

        pieces, row = shapely.get_parts(geometry, return_index=True)
        polygons, of = shapely.get_parts(pieces, return_index=True)  # of multipolygons within collections
        chosen = (shapely.get_type_id(polygons) == _POLYGON) & (shapely.area(polygons) > 0)
        polygons, row = polygons[chosen], row[of][chosen]
        useless["without an area"] = ~np.isin(np.arange(len(geometry)), row) & ~_any(useless)
        useless = {reason: np.flatnonzero(which) for reason, which in useless.items() if which.any()}
        outlines = cls(key, shapes.index, polygons, row, useless)
        if not len(polygons):
            raise DataError(f"Nothing can be made of shapes {key!r}: {outlines.describe(useless) or 'there are none'}.")
        return outlines

    def describe(self, rows: dict[str, np.ndarray]) -> str:
        """How many shapes there are of each kind, and which."""
        parts = []
        for reason, which in rows.items():
            named = ", ".join(repr(name) for name in self.names[which[:_NAMED]].tolist())
            parts.append(f"{len(which)} {reason} ({named}{', ...' if len(which) > _NAMED else ''})")
        return "; ".join(parts)

    def diameter(self) -> float:
        """That of the disc as large as the median shape."""
        area = np.bincount(self.row, shapely.area(self.polygons))
        return 2 * float(np.sqrt(np.median(area[area > 0]) / np.pi))


def _any(masks: dict[str, np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(masks.values()))


@dataclass(frozen=True)
class DrawnShapes:
    """Outlines to be drawn on a raster of some pixels; of two that overlap the later one is seen."""

    shape: tuple[int, int]  # pixels (height, width)
    outlines: Outlines  # what is drawn
    numbers: np.ndarray  # of the shapes, uint32 (n,)
    source_ids: pd.Series | None  # the index of the shapes by these numbers; None where it is the same
    rings: list[np.ndarray]  # corners (k, 2) of each polygon in pixels, whose centres are at integers
    # pixels around each polygon, the first and those behind the last, int64 (m, 2); none where it is off the raster
    low: np.ndarray
    high: np.ndarray
    part: bool = False  # whether the raster is a part of an image, off which shapes may lie

    @classmethod
    def of(cls, outlines: Outlines, shape: tuple[int, int], to_pixel: np.ndarray, *, part: bool = False) -> DrawnShapes:
        """Place outlines on a raster by the affine matrix (3, 3) on (y, x) to its pixels."""
        xy, ring = shapely.get_coordinates(shapely.get_exterior_ring(outlines.polygons), return_index=True)
        yx = xy[:, ::-1] @ to_pixel[:2, :2].T + to_pixel[:2, 2] - 0.5
        start = np.flatnonzero(np.diff(ring, prepend=-1))
        low = np.clip(np.floor(np.minimum.reduceat(yx, start)), 0, shape).astype(np.int64)
        high = np.clip(np.ceil(np.maximum.reduceat(yx, start)) + 1, low, shape).astype(np.int64)
        numbers, source_ids = number(outlines.names, f"Shapes {outlines.key!r}")
        return cls(shape, outlines, numbers, source_ids, np.split(yx, start[1:]), low, high, part)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The labels of some pixels, uint32 (y, x)."""
        start, stop = np.array([(rows.start, columns.start), (rows.stop, columns.stop)])
        labels = np.zeros(stop - start, np.uint32)
        for i in np.flatnonzero(self._on_raster & ((self.low < stop) & (self.high > start)).all(axis=1)):
            first, last = np.maximum(self.low[i], start), np.minimum(self.high[i], stop)
            seen = self._mask(i)[tuple(map(slice, first - self.low[i], last - self.low[i]))]
            labels[tuple(map(slice, first - start, last - start))][seen] = self.numbers[self.outlines.row[i]]
        return labels

    def check(self, found: np.ndarray, what: str = "nuclei") -> None:
        """Say which shapes are not among the labels that were found once all was drawn, and why."""
        n = len(self.numbers)
        known = np.zeros(n, bool)
        known[np.concatenate([np.zeros(0, np.int64), *self.outlines.useless.values()])] = True
        lost = ~known & ~np.isin(self.numbers, found)
        of_lost = lost[self.outlines.row]
        on, seen = np.zeros(n, bool), np.zeros(n, bool)
        on[self.outlines.row[of_lost & self._on_raster]] = True
        for i in np.flatnonzero(of_lost & self._on_raster):
            seen[self.outlines.row[i]] |= self._mask(i).any()
        reasons = {
            "off the image": lost & ~on,
            "too small for a pixel": lost & on & ~seen,
            "hidden under others": lost & seen,
        }
        reasons = self.outlines.useless | {name: np.flatnonzero(rows) for name, rows in reasons.items() if rows.any()}
        key, told = self.outlines.key, self.outlines.describe(reasons)
        if not len(found):
            raise DataError(
                f"There are no {what} in {key!r}: none of the {n} shapes is seen on the raster: {told}. "
                "See that their transformation is right."
            )
        if self.part and reasons.pop("off the image", None) is not None:
            told = self.outlines.describe(reasons)
        if reasons:
            n_lost = sum(map(len, reasons.values()))
            logger.warning("%d of %d shapes in %r are left out: %s.", n_lost, n, key, told)

    @property
    def _on_raster(self) -> np.ndarray:
        return (self.low < self.high).all(axis=1)

    def _mask(self, i: int) -> np.ndarray:
        """Which of the pixels around a polygon it covers; as a whole, so that parts of a raster give what it gives."""
        return polygon2mask(self.high[i] - self.low[i], self.rings[i] - self.low[i])
