"""Transcripts to spots: the occupied bins of a square grid, their counts, and the genes that vary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from sslcst.errors import DataError

GENE_BLOCK = 16  # bins along each axis over which counts are summed to tell which genes vary

Ranges = tuple[tuple[int, int], tuple[int, int]]  # rows and columns (start, stop)


def slices(ranges: Ranges) -> tuple[slice, slice]:
    """Rows and columns as arrays are indexed by them."""
    rows, columns = (slice(start, stop) for start, stop in ranges)
    return rows, columns


def ranges_of(rows: slice, columns: slice) -> Ranges:
    """What `slices` were made of."""
    return (rows.start, rows.stop), (columns.start, columns.stop)


def meet(one: Ranges, other: Ranges) -> bool:
    """Whether any rows and columns are in both."""
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))


def within(ranges: Ranges, frame: Ranges) -> tuple[slice, slice]:
    """Where rows and columns lie in an array of those of the frame, which holds them."""
    rows, columns = (slice(a - start, b - start) for (a, b), (start, _) in zip(ranges, frame, strict=True))
    return rows, columns


def overlap(one: Ranges, other: Ranges) -> Ranges:
    """The rows and columns that both have, where they meet."""
    rows, columns = ((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return rows, columns


def widened(ranges: Ranges, by: float) -> Ranges:
    """The rows and columns with so many more on either side."""
    rows, columns = ((start - by, stop + by) for start, stop in ranges)
    return rows, columns


def in_ranges(yx: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Which positions (n, 2) lie in rows and columns (start, stop): bool (n,)."""
    (y, x), ((top, bottom), (left, right)) = yx.T, ranges
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


@dataclass(frozen=True)
class Grid:
    """A grid of bins laid over a raster, both with their origin at the raster's corner; or a window of it."""

    raster_shape: tuple[int, int]  #: Pixels (height, width) of the whole raster
    step: tuple[float, float]  #: Side of a bin in pixels along y and x
    bin_size: float  #: Side of a bin in units of the coordinate system
    #: Rows and columns (start, stop) of the bins in view; None: all. Arrays "on the grid" are of this window, while the
    #: index of a spot always counts from the corner of the whole.
    window: Ranges | None = None

    @property
    def whole_shape(self) -> tuple[int, int]:
        """Bins along y and x of the whole grid."""
        height, width = (_n_bins(size, step) for size, step in zip(self.raster_shape, self.step, strict=True))
        return height, width

    @property
    def ranges(self) -> Ranges:
        """Rows and columns (start, stop) in view."""
        height, width = self.whole_shape
        return self.window or ((0, height), (0, width))

    @property
    def shape(self) -> tuple[int, int]:
        """Bins along y and x in view."""
        (top, bottom), (left, right) = self.ranges
        return bottom - top, right - left

    @property
    def corner(self) -> np.ndarray:
        """Row and column of the first bin in view."""
        return np.array([start for start, _ in self.ranges])

    def view(self, window: Ranges) -> Grid:
        """The same grid seen through a window of rows and columns (start, stop)."""
        return replace(self, window=window)

    def pixels(self, ranges: Ranges | None = None) -> tuple[slice, slice]:
        """Pixels (rows, columns) of the whole raster that any of the bins in view, or in these ranges, touches."""
        low, high = zip(*(ranges or self.ranges), strict=True)
        starts = (int(np.floor(start * step)) for start, step in zip(low, self.step, strict=True))
        stops = (
            min(int(np.ceil(stop * step)), size)
            for stop, step, size in zip(high, self.step, self.raster_shape, strict=True)
        )
        rows, columns = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        return rows, columns

    def owned_pixels(self) -> tuple[slice, slice]:
        """Pixels (rows, columns) of the whole raster whose middle lies in view: windows side by side share none."""
        rows, columns = (
            slice(*np.searchsorted(_bin_of_pixel(size, step), bins).tolist())
            for size, step, bins in zip(self.raster_shape, self.step, self.ranges, strict=True)
        )
        return rows, columns

    def bins(self, yx: np.ndarray) -> np.ndarray:
        """Bin (row, column) of each position, int32 (n, 2); positions (n, 2) in pixels of the raster."""
        # A position just below the raster's edge may round up to the bin behind it.
        return np.minimum(np.floor(yx / self.step), np.array(self.whole_shape) - 1).astype(np.int32)

    def centers(self, index: np.ndarray) -> np.ndarray:
        """Position (n, 2) in pixels of the middle of each bin (n, 2)."""
        return (index + 0.5) * self.step

    def keys(self, index: np.ndarray) -> np.ndarray:
        """One whole number for each bin (n, 2), rising from row to row: int64 (n,)."""
        return index[:, 0].astype(np.int64) * self.whole_shape[1] + index[:, 1]

    def from_raster(self, raster: np.ndarray) -> np.ndarray:
        """The value in the middle of each bin, `shape`, from the pixels in view (`pixels`)."""
        rows, columns = (
            np.minimum(((np.arange(*bins) + 0.5) * step).astype(np.intp), size - 1) - pixels.start
            for bins, step, size, pixels in zip(self.ranges, self.step, self.raster_shape, self.pixels(), strict=True)
        )
        return raster[np.ix_(rows, columns)]

    def to_raster(self, values: np.ndarray) -> np.ndarray:
        """Each of the pixels in view (`pixels`) gets the value of the bin that holds its middle."""
        (rows, _), (columns, _) = self.pixel_places()
        return values[np.ix_(rows, columns)]

    def pixel_places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Along y and x, the bin in view of each pixel in view, and where from its middle the pixel's lies, in bins."""
        places = []
        for (start, stop), step, size, pixels in zip(
            self.ranges, self.step, self.raster_shape, self.pixels(), strict=True
        ):
            bins = np.clip(_bin_of_pixel(size, step)[pixels], start, stop - 1)
            middle = (np.arange(pixels.start, pixels.stop) + 0.5) / step
            places.append((bins - start, middle - (bins + 0.5)))
        return places


def _n_bins(size: int, step: float) -> int:
    """Bins along an axis: as many as begin before its end, to which rounding of the quotient may add one."""
    n = int(np.ceil(size / step))
    return n - 1 if (n - 1) * step >= size else n


def _bin_of_pixel(size: int, step: float) -> np.ndarray:
    """Bin that holds the middle of each pixel along one axis."""
    return ((np.arange(size) + 0.5) / step).astype(np.intp)


@dataclass(frozen=True)
class Spots:
    """Occupied bins, in row-major order."""

    grid: Grid  #: The grid, or the window of it, that they lie on
    index: np.ndarray  #: Row and column of each spot on the whole grid, int32 (n, 2)
    counts: sparse.csr_matrix  #: Counts of each gene in each spot, csr (n, n_genes)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each spot in arrays on the grid."""
        rows, columns = (self.index - self.grid.corner).T
        return rows, columns

    @property
    def keys(self) -> np.ndarray:
        """One whole number for each spot, wherever the window lies, rising: int64 (n,)."""
        return self.grid.keys(self.index)

    def on_grid(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Values (n, ...) of the spots laid out on the grid (rows, columns, ...), `fill` in empty bins."""
        out = np.full((*self.grid.shape, *values.shape[1:]), fill, values.dtype)
        out[self.place] = values
        return out

    def totals(self) -> np.ndarray:
        """Transcripts in each bin, int64 (rows, columns)."""
        return self.on_grid(np.asarray(self.counts.sum(axis=1), np.int64).ravel(), 0)

    def within(self, ranges: Ranges) -> np.ndarray:
        """Which spots lie in these rows and columns (start, stop): bool (n,)."""
        return in_ranges(self.index, ranges)


def inside_raster(yx: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which positions (n, 2), in pixels, lie on a raster of this shape."""
    return in_ranges(yx, tuple((0, size) for size in shape))


def bin_transcripts(
    yx: np.ndarray, gene: np.ndarray, count: np.ndarray | None = None, *, n_genes: int, grid: Grid
) -> Spots:
    """Sum transcripts into the bins of a grid.

    Positions `yx` (n, 2) are in pixels of the grid's raster; those off it are left out, and a `DataError` says that
    none lies on it. `gene` is that of each transcript, an integer in [0, n_genes), and `count` its molecules; None is
    one each.
    """
    on = inside_raster(yx, grid.raster_shape)
    if not on.any():
        raise DataError(f"None of the {len(yx)} transcripts lies on the image.")
    return sum_spots(grid.bins(yx[on]), gene[on], None if count is None else count[on], n_genes=n_genes, grid=grid)


def sum_spots(index: np.ndarray, gene: np.ndarray, count: np.ndarray | None, *, n_genes: int, grid: Grid) -> Spots:
    """Sum molecules by bin: as `bin_transcripts`, from each transcript's bin (n, 2), which is in view."""
    occupied, spot = np.unique(grid.keys(index), return_inverse=True)
    values = np.ones(len(gene), np.int64) if count is None else count.astype(np.int64)
    counts = sparse.csr_matrix((values, (spot, gene)), shape=(len(occupied), n_genes))
    rows, columns = np.divmod(occupied, grid.whole_shape[1])
    return Spots(grid, np.stack([rows, columns], axis=1).astype(np.int32), counts)


@dataclass(frozen=True)
class GeneMoments:
    """Sums over blocks of `GENE_BLOCK` bins a side, from which one sees which genes vary; of parts they add up."""

    n_blocks: int  #: Blocks that hold spots
    total: np.ndarray  #: Sum of each gene's counts in the blocks, int64 (n_genes,)
    squares: np.ndarray  #: Sum of their squares, float64 (n_genes,)

    def __add__(self, other: GeneMoments) -> GeneMoments:
        return GeneMoments(self.n_blocks + other.n_blocks, self.total + other.total, self.squares + other.squares)

    @classmethod
    def of(cls, spots: Spots) -> GeneMoments:
        """The moments of these spots, which hold all spots of each block or none."""
        blocks, member = np.unique(
            (spots.index // GENE_BLOCK).astype(np.int64) @ (spots.grid.whole_shape[1] // GENE_BLOCK + 1, 1),
            return_inverse=True,
        )
        ones = np.ones(len(spots), np.int64)
        summing = sparse.csr_matrix((ones, (member, np.arange(len(spots)))), shape=(len(blocks), len(spots)))
        summed = (summing @ spots.counts).astype(np.int64)
        total = np.asarray(summed.sum(axis=0)).ravel()
        squared = summed.astype(np.float64).power(2)  # exact where it matters; the largest fit no integer
        return cls(len(blocks), total, np.asarray(squared.sum(axis=0)).ravel())

    def variable(self, n_genes: int) -> np.ndarray:
        """Genes that vary most between blocks of the tissue, as sorted indices.

        A gene's variance over the blocks is divided by its mean, which is 1 for molecules strewn at random (Poisson)
        and higher for genes that depend on the place.
        """
        present = np.flatnonzero(self.total)
        if len(present) <= n_genes:
            return present
        mean = self.total[present] / self.n_blocks
        dispersion = (self.squares[present] / self.n_blocks - mean**2) / mean
        return np.sort(present[np.argsort(-dispersion, kind="stable")[:n_genes]])


def take_genes(counts: sparse.csr_matrix, places: np.ndarray) -> sparse.csr_matrix:
    """Columns of counts (n, genes) in the order of `places`; one at -1 counts 0."""
    there = np.flatnonzero(places >= 0)
    select = sparse.csr_matrix(
        (np.ones(len(there), counts.dtype), (places[there], there)), shape=(counts.shape[1], len(places))
    )
    return (counts @ select).tocsr()
