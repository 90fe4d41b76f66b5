"""What every task knows of the chip, and how it reads the part that it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from scipy import sparse

from sslcst.core.geometry import Regions
from sslcst.core.layout import Layout
from sslcst.methods.ssl_cst.model import take_genes
from sslcst.methods.ssl_cst.relations import Relations
from sslcst.core.spots import Grid, Spots
from sslcst.params import Params
from sslcst.run.scratch import DAMAGED, Scratch
from sslcst.run.tiling import Ranges, Tile, blocks, cut

NUCLEI = "nuclei.zarr"


@dataclass(frozen=True)
class Chip:
    """A chip whose nuclei are known.

    Parameters
    ----------
    scratch
        Where everything lies that the stages make.
    layout
        The grid of bins, and the expected cell radius.
    regions
        The nuclei, in pixels.
    n_genes
        Genes of the transcripts.
    image
        The stain (y, x), an array that is read by slices; None where nuclei were given.
    params, seed
        Of the run.
    """

    scratch: Scratch
    layout: Layout
    regions: Regions
    n_genes: int
    image: Any | None
    params: Params
    seed: int

    @property
    def grid(self) -> Grid:
        """All bins."""
        return self.layout.grid

    @property
    def reach(self) -> float:
        """How far from its nucleus a cell may reach, r + sigma, in bins."""
        return self.layout.reach(self.params.prior.sigma)

    @property
    def centers(self) -> np.ndarray:
        """Centroids of the nuclei in bins."""
        return self.regions.centers / self.grid.step

    @property
    def extent(self) -> int:
        """Longest side of a nucleus' bounding box, in bins."""
        return int(np.ceil(((self.regions.high - self.regions.low) / self.grid.step).max()))

    def tiles(self) -> list[Tile]:
        """The tiles that hold a transcript, or that a cell may reach into, row by row."""
        low, high = (self.regions.low / self.grid.step - self.reach, self.regions.high / self.grid.step + self.reach)

        def is_empty(tile: Tile) -> bool:
            start, stop = np.array(tile.ranges).T
            near_nucleus = ((low < stop) & (high > start)).all(axis=1).any()
            return not near_nucleus and not any(self.scratch.has(bucket(name)) for name, _ in self.blocks(tile.ranges))

        return [tile for tile in cut(self.grid, self.params.tiles) if not is_empty(tile)]

    def blocks(self, ranges: Ranges) -> list[tuple[str, Ranges]]:
        """Names and ranges of the blocks that reach into these rows and columns."""
        return list(blocks(ranges, self.params.tiles.block, self.grid.whole_shape))

    def nuclei(self, grid: Grid) -> np.ndarray:
        """Nucleus labels of the pixels in view."""
        return read_nuclei(self.scratch, grid.pixels())

    def spots(self, ranges: Ranges, genes: np.ndarray | None = None) -> tuple[Spots, Relations]:
        """The spots in these rows and columns with the counts of all genes or of some, and their relations."""
        parts = [self._read_spots(f"spots/{name}.npz", genes) for name, _ in self.blocks(ranges)]
        parts = [part for part in parts if part is not None]
        grid = self.grid.view(ranges)
        if not parts:
            n_genes = self.n_genes if genes is None else len(genes)
            none = np.zeros(0, np.uint32)
            empty = Relations(none, none, none, np.zeros(0), np.zeros((0, 2)))
            return Spots(grid, np.zeros((0, 2), np.int32), sparse.csr_matrix((0, n_genes), dtype=np.int64)), empty
        together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "counts"}
        spots = Spots(grid, together["index"], sparse.vstack([part["counts"] for part in parts], format="csr"))
        chosen = np.flatnonzero(spots.within(ranges))
        chosen = chosen[np.argsort(spots.keys[chosen])]
        relations = Relations(
            *(together[name][chosen] for name in ("nucleus", "core", "nearest", "distance", "offset"))
        )
        return Spots(grid, spots.index[chosen], spots.counts[chosen]), relations

    def _read_spots(self, name: str, genes: np.ndarray | None) -> dict[str, Any] | None:
        if not self.scratch.has(name):
            return None
        part = self.scratch.load(name)
        if genes is not None:
            part["counts"] = take_genes(part["counts"], genes)
        return part


def bucket(block: str) -> str:
    """Name of the file that holds a block's transcripts."""
    return f"transcripts/{block}.bin"


def read_nuclei(scratch: Scratch, pixels: tuple[slice, slice]) -> np.ndarray:
    """The nucleus labels of some pixels (rows, columns), uint32, once they are there."""
    try:
        return zarr.open_array(scratch.folder / NUCLEI, mode="r")[pixels]
    except (*DAMAGED, RuntimeError) as error:  # the last is what the decompressor raises
        raise scratch.discard(NUCLEI, error) from error
