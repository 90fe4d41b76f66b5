"""From a method's predictions to cells, tile by tile: labels, counts, boundaries, and the cell of each transcript."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sslcst._logging import logger
from sslcst._sdata.region import Area
from sslcst._sdata.transcripts import ROWS_OF_A_SOURCE
from sslcst.core.measure import measure
from sslcst.core.polygons import polygons
from sslcst.core.spots import ranges_of
from sslcst.errors import DataError
from sslcst.methods.base import Fit, Method, Part, Tissue, Window
from sslcst.params import CellParams
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, map_tiles, statistics

STAGE = "cells"


@dataclass(frozen=True)
class Job:
    """What all tiles have in common: what is known, and what is asked for."""

    workspace: Workspace
    tissue: Tissue
    method: Method
    fit: Fit
    params: CellParams
    pixel_size: float
    area: Area | None  # where the nuclei of the wanted cells lie
    n_sources: int  # points elements that transcripts come from
    boundaries: bool  # whether those of the cells are wanted
    transcripts: bool  # whether the cell of each is


@dataclass(frozen=True)
class Found:
    """What is known of the cells of all tiles."""

    small: np.ndarray  # ids of those that are too small, which are in no result
    outside: np.ndarray  # ids of those whose nucleus lies off the area, likewise
    total_counts: np.ndarray  # molecules in the area, of each source

    @property
    def left_out(self) -> np.ndarray:
        """Ids that are in the labels of tiles, and in no result."""
        return np.concatenate([self.small, self.outside])


def find_cells(tiles: list[Tile], job: Job) -> Found:
    """Decide, measure and count all tiles that are not done yet.

    A cell that is too small, or whose nucleus has its centroid off the area, is left out by the tile that measures it.
    It stays in the labels, and among the owners, of the tiles that it reaches into: these are rid of it once it is
    known by all.
    """
    map_tiles(STAGE, _of_tile, job, tiles)
    names = ("id", "small", "outside", "total_counts")
    parts = [statistics(job.workspace.scratch, STAGE, tile, *names) for tile in tiles]
    small, outside = (np.concatenate([part[name] for part in parts]) for name in ("small", "outside"))
    tell_dropped(len(small), len(small) + sum(len(part["id"]) for part in parts), job.params)
    return Found(small, outside, sum(part["total_counts"] for part in parts))


def tell_dropped(n: int, n_cells: int, params: CellParams) -> None:
    """Say how many of the cells are too small; an error where all are."""
    if n:
        least = f"cells.min_counts={params.min_counts} and cells.min_area={params.min_area:g}"
        if n == n_cells:
            raise DataError(f"All of the {n} cells are below {least}: set these lower.")
        logger.info("%d of %d cells are below %s, and are dropped with their nuclei.", n, n_cells, least)


def _of_tile(job: Job, tile: Tile) -> tuple[Part, None]:
    workspace, tissue, grid = job.workspace, job.tissue, job.tissue.grid
    ranges = tile.around(job.method.halo(tissue, job.fit), grid.whole_shape)
    window = Window(tissue, tile.ranges, ranges, workspace)
    seen = transcripts_in(ranges, grid, workspace.scratch, workspace.block)
    pixels = window.grid.pixels()
    nuclei = workspace.nuclei(pixels)
    corner = (pixels[0].start, pixels[1].start)
    mine = tile.holds(seen.bins)
    counted = mine if job.area is None else mine & job.area.holds(seen.pixels + 0.5)
    labels = job.method.label_pixels(window, job.fit, nuclei)
    at_edge = labels[:0, 0]
    if workspace.covered is not None:
        ranges = ranges_of(*pixels)
        labels = np.where(workspace.covered.pixels(ranges), labels, 0)
        at_edge = workspace.covered.at_edge(labels, ranges)
    probability = window.probability
    ids, outside = _own_ids(tissue, tile, labels, job.area)
    cells = measure(
        labels,
        nuclei,
        corner=corner,
        raster_shape=grid.raster_shape,
        pixel=seen.pixels,
        gene=seen.gene,
        count=seen.count,
        n_genes=len(tissue.genes),
        spot=grid.centers(window.places.index),
        inside=probability,
        wanted=ids,
    )
    cells = replace(cells, touches_border=cells.touches_border | np.isin(cells.id, at_edge))
    cells, small = cells.without_small(job.params, job.pixel_size)
    own = tuple(
        slice(part.start - start, part.stop - start)
        for part, start in zip(grid.view(tile.ranges).owned_pixels(), corner, strict=True)
    )
    found = {"labels": labels[own], "small": small, "outside": outside} | vars(cells)
    found["total_counts"] = np.zeros(job.n_sources, np.int64)
    np.add.at(found["total_counts"], seen.transcript[counted] // ROWS_OF_A_SOURCE, seen.count[counted])
    if job.boundaries:
        found |= _boundaries(labels, cells.id, corner)
    if job.transcripts:
        found |= {
            "row": seen.transcript[mine],
            "owner": labels[tuple((seen.pixels[mine] - corner).T)],
            "probability": probability[np.searchsorted(window.places.keys, grid.keys(seen.bins[mine]))],
        }
    return Part(found), None


def _own_ids(tissue: Tissue, tile: Tile, labels: np.ndarray, area: Area | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the cells that this tile measures, and of those that it leaves out as outside of the area.

    They are the tile's where the nucleus' centroid, or the bin an id is named after, lies.
    """
    regions, grid, first = tissue.regions, tissue.grid, tissue.first_free_id
    own = tile.holds(tissue.centers)
    seen = np.unique(labels)
    orphans = seen[seen >= first]
    bins = np.stack(np.divmod(orphans.astype(np.int64) - first, grid.whole_shape[1]), axis=1)
    orphans, bins = orphans[tile.holds(bins)], bins[tile.holds(bins)]
    ids = np.concatenate([regions.ids[own], orphans])
    if area is None:
        return ids, ids[:0]
    inside = area.holds(np.concatenate([regions.centers[own], grid.centers(bins)]))
    return ids[inside], ids[~inside]


def _boundaries(labels: np.ndarray, ids: np.ndarray, corner: tuple[int, int]) -> dict[str, np.ndarray]:
    """Corners of all cells' rings one behind the other, and how many each has."""
    rings = [ring + corner for ring in polygons(labels, ids).values()]
    corners = np.concatenate([*rings, np.zeros((0, 2), np.int64)])
    return {"corners": corners, "n_corners": np.array([len(ring) for ring in rings], np.int64)}
