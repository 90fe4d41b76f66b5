"""Transcripts to spots: the occupied bins of a square grid, their counts, and the genes that vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sslcst.errors import DataError


@dataclass(frozen=True)
class Grid:
    """A grid of bins laid over a raster, both with their origin at the raster's corner.

    Parameters
    ----------
    raster_shape
        Pixels (height, width) of the raster.
    step
        Side of a bin in pixels along y and x.
    bin_size
        Side of a bin in units of the coordinate system.
    """

    raster_shape: tuple[int, int]
    step: tuple[float, float]
    bin_size: float

    @property
    def shape(self) -> tuple[int, int]:
        """Bins along y and x."""
        height, width = (int(np.ceil(size / step)) for size, step in zip(self.raster_shape, self.step, strict=True))
        return height, width

    def bins(self, yx: np.ndarray) -> np.ndarray:
        """Bin (row, column) of each position, int32 (n, 2); positions (n, 2) in pixels of the raster."""
        # A position just below the raster's edge may round up to the bin behind it.
        return np.minimum(np.floor(yx / self.step), np.array(self.shape) - 1).astype(np.int32)

    def centers(self, index: np.ndarray) -> np.ndarray:
        """Position (n, 2) in pixels of the middle of each bin (n, 2)."""
        return (index + 0.5) * self.step

    def from_raster(self, raster: np.ndarray) -> np.ndarray:
        """The raster's value in the middle of each bin, `shape`."""
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * step).astype(np.intp), size - 1)
            for n, step, size in zip(self.shape, self.step, self.raster_shape, strict=True)
        )
        return raster[np.ix_(rows, columns)]

    def to_raster(self, values: np.ndarray) -> np.ndarray:
        """Each pixel gets the value of the bin that holds its middle, `raster_shape`."""
        rows, columns = (
            ((np.arange(size) + 0.5) / step).astype(np.intp)
            for size, step in zip(self.raster_shape, self.step, strict=True)
        )
        return values[np.ix_(rows, columns)]


@dataclass(frozen=True)
class Spots:
    """Occupied bins, in row-major order.

    Parameters
    ----------
    grid
        The grid they lie on.
    index
        Row and column of each spot, int32 (n, 2).
    counts
        Counts of each gene in each spot, csr (n, n_genes).
    """

    grid: Grid
    index: np.ndarray
    counts: sparse.csr_matrix

    def __len__(self) -> int:
        return len(self.index)

    def on_grid(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Values (n, ...) of the spots laid out on the grid (rows, columns, ...), `fill` in empty bins."""
        out = np.full((*self.grid.shape, *values.shape[1:]), fill, values.dtype)
        out[self.index[:, 0], self.index[:, 1]] = values
        return out


def inside_raster(yx: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which positions (n, 2), in pixels, lie on a raster of this shape."""
    return ((yx >= 0) & (yx < shape)).all(axis=1)


def bin_transcripts(
    yx: np.ndarray, gene: np.ndarray, count: np.ndarray | None = None, *, n_genes: int, grid: Grid
) -> Spots:
    """Sum transcripts into the bins of a grid.

    Parameters
    ----------
    yx
        Positions (n, 2) in pixels of the grid's raster; those off the raster are left out.
    gene
        Gene of each transcript as an integer in [0, n_genes).
    count
        Molecules of each transcript; None is one each.
    n_genes
        Number of genes.
    grid
        Where the bins lie.

    Raises
    ------
    DataError
        No transcript lies on the raster.
    """
    on = inside_raster(yx, grid.raster_shape)
    if not on.any():
        raise DataError(
            f"None of the {len(yx)} transcripts lies on the image: do both lie in the same coordinate system?"
        )
    index = grid.bins(yx[on])
    flat = index[:, 0].astype(np.int64) * grid.shape[1] + index[:, 1]
    occupied, spot = np.unique(flat, return_inverse=True)
    values = np.ones(len(flat), np.int64) if count is None else count[on].astype(np.int64)
    counts = sparse.csr_matrix((values, (spot, gene[on])), shape=(len(occupied), n_genes))
    rows, columns = np.divmod(occupied, grid.shape[1])
    return Spots(grid, np.stack([rows, columns], axis=1).astype(np.int32), counts)


def variable_genes(spots: Spots, n_genes: int, *, block: int = 16) -> np.ndarray:
    """Genes that vary most between blocks of the tissue, as sorted indices.

    A gene's variance over blocks of ``block x block`` bins is divided by its mean, which is 1 for molecules strewn at
    random (Poisson) and higher for genes that depend on the place.
    """
    total = np.asarray(spots.counts.sum(axis=0)).ravel()
    present = np.flatnonzero(total)
    if len(present) <= n_genes:
        return present
    flat = (spots.index // block).astype(np.int64) @ (spots.grid.shape[1] // block + 1, 1)
    blocks, member = np.unique(flat, return_inverse=True)
    summing = sparse.csr_matrix((np.ones(len(spots)), (member, np.arange(len(spots)))), shape=(len(blocks), len(spots)))
    summed = (summing @ spots.counts).tocsc()[:, present]
    mean = np.asarray(summed.mean(axis=0)).ravel()
    dispersion = (np.asarray(summed.multiply(summed).mean(axis=0)).ravel() - mean**2) / mean
    return np.sort(present[np.argsort(-dispersion, kind="stable")[:n_genes]])
