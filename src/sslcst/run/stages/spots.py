"""Spots and local density of each tile, and what they add up to, before a method looks at the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from sslcst.core.cells import Occupancy
from sslcst.core.counts import narrow
from sslcst.core.density import local_density, margin
from sslcst.core.geometry import Regions
from sslcst.core.spots import Spots, sum_spots, within
from sslcst.methods.base import Part, Tissue
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, map_tiles, statistics

STAGE = "spots"


@dataclass(frozen=True)
class _Job:
    workspace: Workspace
    radius: float
    max_distance: float


def find_spots(
    workspace: Workspace,
    tiles: list[Tile],
    *,
    regions: Regions,
    radius: float,
    max_distance: float,
    genes: np.ndarray,
) -> Tissue:
    """Make the spots of all tiles that are not empty, and add up what is to be known of them.

    Nuclei and transcripts are in the workspace; the expected cell radius, and how far from its nucleus a cell may
    reach, are in bins.
    """
    map_tiles(STAGE, _of_tile, _Job(workspace, radius, max_distance), tiles)
    parts = [statistics(workspace.scratch, STAGE, tile) for tile in tiles]
    occupancy = reduce(add, (Occupancy(int(part["n_bins"]), int(part["n_occupied"])) for part in parts))
    return Tissue(
        grid=workspace.grid,
        regions=regions,
        radius=radius,
        max_distance=max_distance,
        genes=genes,
        gene_total=sum(part["gene_total"] for part in parts),
        n_spots=sum(int(part["n_spots"]) for part in parts),
        spacing=occupancy.spacing,
        block=workspace.block,
    )


def _of_tile(job: _Job, tile: Tile) -> tuple[Part, Spots]:
    workspace = job.workspace
    scale = {"radius": job.radius, "reach": job.max_distance}
    ranges = tile.around(margin(**scale), workspace.grid.whole_shape)
    grid = workspace.grid.view(ranges)
    seen = transcripts_in(ranges, workspace.grid, workspace.scratch, workspace.block)
    nuclei = grid.from_raster(workspace.nuclei(grid.pixels()))
    own_view = workspace.grid.view(tile.ranges)
    own_bins = within(tile.ranges, ranges)
    own = tile.holds(seen.bins)
    spots = sum_spots(seen.bins[own], seen.gene[own], seen.count[own], n_genes=workspace.n_genes, grid=own_view)
    in_bin = np.zeros(grid.shape, np.int64)
    np.add.at(in_bin, tuple((seen.bins - grid.corner).T), seen.count.astype(np.int64))
    covered = None if workspace.covered is None else workspace.covered.bins(grid)
    around = local_density(in_bin, nuclei, n_nearest=1, covered=covered, **scale).crop(own_bins)
    occupancy = Occupancy.of(nuclei[own_bins], around.in_nucleus[spots.place])
    totals = {
        "gene_total": np.asarray(spots.counts.sum(axis=0), np.int64).ravel(),
        "n_spots": len(spots),
        "n_bins": occupancy.n_bins,
        "n_occupied": occupancy.n_spots,
    }
    of_bins = {f"around.{name}": _narrow(values) for name, values in vars(around).items()}
    return Part(totals, of_bins=of_bins), Spots(spots.grid, spots.index, narrow(spots.counts))


def _narrow(values: np.ndarray) -> np.ndarray:
    """Whole numbers, of which none is negative, in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0)))) if values.dtype.kind in "iu" else values
