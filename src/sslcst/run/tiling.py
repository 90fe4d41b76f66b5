"""How a chip is cut: blocks, tiles of blocks, what a tile must see around itself, and what memory that takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from sslcst.core.spots import Grid, Ranges, in_ranges, overlap, widened
from sslcst.params import TileParams

_BYTES_PER_BIN = 90  # of a tile and what it sees around; rounded from what benchmarks/chip.py gave
_AROUND = 128  # bins, about, that a tile sees around


@dataclass(frozen=True)
class Tile:
    """A square of blocks that is worked on at once."""

    name: str  # of its files
    ranges: Ranges  # rows and columns (start, stop) of its bins

    def around(self, halo: int, shape: tuple[int, int]) -> Ranges:
        """Rows and columns (start, stop) of its bins and of those around it, as far as the grid goes."""
        return overlap(widened(self.ranges, halo), tuple((0, size) for size in shape))

    def holds(self, bins: np.ndarray) -> np.ndarray:
        """Which bins, or points in units of bins, (n, 2) lie in it."""
        return in_ranges(bins, self.ranges)


def cut(grid: Grid, params: TileParams) -> list[Tile]:
    """The tiles of a grid, row by row. Their sides are whole numbers of blocks, so that no block is in two."""
    side = max(1, -(-params.size // params.block)) * params.block
    return [Tile(f"{row:03}-{column:03}", ranges) for row, column, ranges in squares(grid.whole_shape, side)]


def blocks(ranges: Ranges, side: int, shape: tuple[int, int]) -> Iterator[tuple[str, Ranges]]:
    """Names and ranges of the blocks of the grid that reach into these rows and columns."""
    numbers = (range(start // side, -(-stop // side)) for start, stop in ranges)
    for row, column in product(*numbers):
        yield (
            f"{row:04}-{column:04}",
            tuple((n * side, min((n + 1) * side, size)) for n, size in _zip((row, column), shape)),
        )


def squares(shape: tuple[int, int], side: int) -> Iterator[tuple[int, int, Ranges]]:
    """Row, column and ranges of the squares that an array is cut into."""
    for row, column in product(*(range(-(-size // side)) for size in shape)):
        yield row, column, tuple((n * side, min((n + 1) * side, size)) for n, size in _zip((row, column), shape))


def seen(side: int, whole_shape: tuple[int, int]) -> int:
    """Bins or pixels, about, that a tile sees with those around it."""
    return int(np.prod([min(side + 2 * _AROUND, size) for size in whole_shape]))


def tile_bytes(n_bins: int, n_transcripts: float, bytes_per_spot: int) -> float:
    """What a tile takes in memory, about, that sees so many bins, and so many transcripts on them."""
    return _BYTES_PER_BIN * n_bins + bytes_per_spot * occupied(n_transcripts, n_bins)


def occupied(n: float, n_bins: float) -> float:
    """Bins that hold one of n transcripts strewn at random."""
    return n_bins * -np.expm1(-n / n_bins)


def _zip(*pairs):
    return zip(*pairs, strict=True)
