"""What the stages of a run make, kept by blocks of bins, and read for any window of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from scipy import sparse

from sslcst._sdata.labels import read_part
from sslcst._sdata.scratch import DAMAGED, Scratch
from sslcst.core.covered import Covered
from sslcst.core.density import LocalDensity
from sslcst.core.spots import Grid, Ranges, Spots, overlap, within
from sslcst.methods.base import Part
from sslcst.run.execute import run
from sslcst.run.tiling import Tile, blocks

# Labels: nuclei; where a method takes whole cells, these as well, and the nuclei as they were matched to them.
NUCLEI, WHOLE_CELLS, MATCHED = "nuclei.zarr", "whole_cells.zarr", "matched_nuclei.zarr"


@dataclass(frozen=True)
class Workspace:
    """What the stages of a run make; a source of the windows that methods see (`sslcst.methods.base.Source`)."""

    scratch: Scratch  # where it lies
    grid: Grid  # all bins
    block: int  # side in bins of the squares that are files of their own
    n_genes: int  # genes of the transcripts
    image: Any | None  # the stain (y, x), an array that is read by slices; None where nuclei were given
    nuclei_file: str = NUCLEI  # where the nucleus labels lie
    covered: Covered | None = None  # what of the raster there is; None: all

    def blocks(self, ranges: Ranges) -> list[tuple[str, Ranges]]:
        """Names and ranges of the blocks that reach into these rows and columns."""
        return list(blocks(ranges, self.block, self.grid.whole_shape))

    def spots(self, ranges: Ranges, *, counts: bool = True) -> Spots:
        """The occupied bins, with or without their counts of genes."""
        parts = self._of_blocks("spots.index", ranges)
        index, order = self._ordered(parts, ranges)
        matrix = None
        if counts:
            matrices = self._of_blocks("spots.counts", ranges)
            none = sparse.csr_matrix((0, self.n_genes), dtype=np.int32)
            matrix = sparse.vstack([none, *matrices], format="csr")[order]
        return Spots(self.grid.view(ranges), index, matrix)

    def of_spots(self, name: str, ranges: Ranges) -> np.ndarray:
        """Values of the occupied bins (n, ...) that a stage gave."""
        _, order = self._ordered(self._of_blocks("spots.index", ranges), ranges)
        return np.concatenate(self._of_blocks(f"of_spots.{name}", ranges))[order]

    def of_bins(self, name: str, ranges: Ranges, fill: float = 0) -> np.ndarray:
        """Values of all bins (..., rows, columns) that a stage gave, `fill` in empty tiles."""
        out = None
        for block, inner in self.blocks(ranges):
            file = f"of_bins.{name}/{block}.npz"
            if not self.scratch.has(file):
                continue
            values = self.scratch.load(file)["values"]
            if out is None:
                shape = tuple(stop - start for start, stop in ranges)
                out = np.full((*values.shape[:-2], *shape), fill, values.dtype)
            out = out.astype(np.result_type(out, values), copy=False)
            seen = overlap(ranges, inner)
            out[..., *within(seen, ranges)] = values[..., *within(seen, inner)]
        return out

    def has_of_bins(self, name: str) -> bool:
        """Whether a stage gave such values of the bins."""
        return self.scratch.has(f"of_bins.{name}")

    def local_density(self, ranges: Ranges) -> LocalDensity:
        """Nuclei and counts around all bins."""
        nuclei, distance, counts, density, wide = (
            self.of_bins(f"around.{name}", ranges, fill)
            for name, fill in (("nuclei", 0), ("distance", np.inf), ("counts", 0), ("density", 0), ("wide", 0))
        )
        return LocalDensity(nuclei.astype(np.uint32), distance, counts.astype(np.int64), density, wide.astype(np.int64))

    def nuclei(self, pixels: tuple[slice, slice]) -> np.ndarray:
        """The nucleus labels of some pixels, uint32, once they are there."""
        return read_labels(self.scratch, self.nuclei_file, pixels)

    def whole_cells(self, pixels: tuple[slice, slice]) -> np.ndarray:
        """The labels of the cells that a method takes as they are, of some pixels, uint32."""
        return read_labels(self.scratch, WHOLE_CELLS, pixels)

    def stain(self, pixels: tuple[slice, slice]) -> np.ndarray | None:
        """The stain of some pixels; None where nuclei were given."""
        return None if self.image is None else read_part(self.image, *pixels)

    def save(self, name: str, tile: Tile, part: Part, spots: Spots | None = None) -> list[str]:
        """Write what a stage made of a tile, and the spots where it finds them; the names of the files."""
        files = [_file(name, tile)]
        self.scratch.save(files[0], part.statistics)
        if spots is None and part.of_spots:
            spots = self.spots(tile.ranges, counts=False)
        of_spots = {f"of_spots.{key}": values for key, values in part.of_spots.items()}
        if spots is not None and spots.counts is not None:
            of_spots |= {"spots.index": spots.index, "spots.counts": spots.counts}
        for block, ranges in self.blocks(tile.ranges):
            if of_spots:
                chosen = np.flatnonzero(spots.within(ranges))
                for key, values in of_spots.items():
                    files.append(f"{key}/{block}.npz")
                    self.scratch.save(files[-1], {"values": values[chosen]})
            inner = within(ranges, tile.ranges)
            for key, values in part.of_bins.items():
                files.append(f"of_bins.{key}/{block}.npz")
                self.scratch.save(files[-1], {"values": values[..., *inner]})
        return files

    def _of_blocks(self, name: str, ranges: Ranges) -> list[Any]:
        files = [f"{name}/{block}.npz" for block, _ in self.blocks(ranges)]
        return [self.scratch.load(file)["values"] for file in files if self.scratch.has(file)]

    def _ordered(self, parts: list[np.ndarray], ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
        """The bins among those of several blocks that lie in the ranges, in row-major order, and their places."""
        index = np.concatenate([np.zeros((0, 2), np.int32), *parts])
        spots = Spots(self.grid, index, None)
        order = np.flatnonzero(spots.within(ranges))
        order = order[np.argsort(spots.keys[order])]
        return index[order], order


def map_tiles(
    name: str, task: Callable[[Any, Tile], tuple[Part, Spots | None]], job: Any, tiles: Sequence[Tile]
) -> None:
    """Do a stage's task on all tiles that it was not done on yet.

    It is a function of a module, called with `job`, what all have in common with the workspace as its `workspace`, and
    a tile; what it makes, and the spots where it finds them.
    """
    scratch = job.workspace.scratch
    left = [tile for tile in tiles if not is_done(scratch, name, tile)]
    run(name, _map_tile, (name, task, job), left)


def statistics(scratch: Scratch, name: str, tile: Tile, *only: str) -> dict[str, Any]:
    """The statistics that a stage gave of a tile, all or some of them."""
    return scratch.load(_file(name, tile), *only)


def _map_tile(work: tuple[str, Callable, Any], tile: Tile) -> None:
    name, task, job = work
    part, spots = task(job, tile)
    files = job.workspace.save(name, tile, part, spots)
    job.workspace.scratch.finish(_mark(name, tile), files)


def is_done(scratch: Scratch, name: str, tile: Tile) -> bool:
    """Whether a stage was done on a tile."""
    return scratch.is_finished(_mark(name, tile))


def _file(name: str, tile: Tile) -> str:
    return f"{name}/{tile.name}.npz"


def _mark(name: str, tile: Tile) -> str:
    return f"{name}/{tile.name}.done"


def read_labels(scratch: Scratch, file: str, pixels: tuple[slice, slice]) -> np.ndarray:
    """The labels of some pixels (rows, columns), uint32, once they are there."""
    try:
        return zarr.open_array(scratch.folder / file, mode="r")[pixels]
    except (*DAMAGED, RuntimeError) as error:  # the last is what the decompressor raises
        raise scratch.discard(file, error) from error
