"""What of a raster is there at all, where it is a mosaic of fields of view with gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sslcst.core.spots import Grid, Ranges, in_ranges, meet, overlap, within


@dataclass(frozen=True)
class Covered:
    """Rectangles of a raster's pixels; all else is empty, and belongs to nothing."""

    rectangles: tuple[Ranges, ...]  #: Rows and columns (start, stop) of each

    def in_view(self, ranges: Ranges) -> Iterator[tuple[int, Ranges]]:
        """Which rectangles reach into these rows and columns of pixels, and what of each lies there."""
        for i, own in enumerate(self.rectangles):
            if meet(own, ranges):
                yield i, overlap(own, ranges)

    def meets(self, ranges: Ranges) -> bool:
        """Whether any does."""
        return any(meet(own, ranges) for own in self.rectangles)

    def pixels(self, ranges: Ranges) -> np.ndarray:
        """Which of these pixels lie in one, bool (rows, columns)."""
        out = np.zeros([stop - start for start, stop in ranges], bool)
        for _, seen in self.in_view(ranges):
            out[within(seen, ranges)] = True
        return out

    def bins(self, grid: Grid) -> np.ndarray:
        """Which of the bins in view any of them touches, bool (rows, columns)."""
        out = np.zeros(grid.shape, bool)
        for own in self.rectangles:
            touched = tuple(
                (int(start // step), int(np.ceil(stop / step)))
                for (start, stop), step in zip(own, grid.step, strict=True)
            )
            if meet(touched, grid.ranges):
                out[within(overlap(touched, grid.ranges), grid.ranges)] = True
        return out

    def owner(self, yx: np.ndarray) -> np.ndarray:
        """The first rectangle that holds each position (n, 2) in pixels, or else the nearest, int64 (n,)."""
        best, owner = np.full(len(yx), np.inf), np.zeros(len(yx), np.int64)
        for i, own in enumerate(self.rectangles):
            low, high = np.array(own).T
            off = np.maximum(np.maximum(low - yx, yx - high), 0).max(axis=1, initial=0)
            off[in_ranges(yx, own)] = -1
            nearer = off < best
            best[nearer], owner[nearer] = off[nearer], i
        return owner

    def at_edge(self, labels: np.ndarray, ranges: Ranges) -> np.ndarray:
        """Labels of these pixels (rows, columns) that touch what is not covered, each once."""
        empty = np.pad(~self.pixels(ranges), 1, mode="edge")
        beside = empty[:-2, 1:-1] | empty[2:, 1:-1] | empty[1:-1, :-2] | empty[1:-1, 2:]
        return np.unique(labels[beside & (labels > 0)])
