"""From a method's predictions to cells, tile by tile: labels, counts, boundaries, and the cell of each transcript."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst._logging import logger
from sslcst.core.cells import to_pixels
from sslcst.core.measure import measure
from sslcst.core.polygons import polygons
from sslcst.errors import DataError
from sslcst.methods.base import Fit, Method, Part, Tissue, Window
from sslcst.params import CellParams
from sslcst.run.execute import computing
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, map_tiles, statistics

STAGE = "cells"


@dataclass(frozen=True)
class _Job:
    workspace: Workspace
    tissue: Tissue
    method: Method
    fit: Fit
    params: CellParams
    pixel_size: float
    boundaries: bool
    transcripts: bool


def find_cells(
    workspace: Workspace,
    tiles: list[Tile],
    tissue: Tissue,
    method: Method,
    fit: Fit,
    *,
    params: CellParams,
    pixel_size: float,
    boundaries: bool,
    transcripts: bool,
) -> np.ndarray:
    """Decide, measure and count all tiles that are not done yet.

    A cell that is too small is dropped by the tile that measures it. It stays in the labels, and among the owners, of
    the tiles that it reaches into: these are rid of it once it is known by all.

    Parameters
    ----------
    workspace
        Holds what the method's passes gave.
    tiles, tissue, method, fit
        Of the run.
    params, pixel_size
        Which cells are dropped, and the side of a pixel in the units of that.
    boundaries, transcripts
        Whether the cells' boundaries, and the cell of each transcript, are kept.

    Returns
    -------
    Ids of the cells that are dropped.

    Raises
    ------
    DataError
        All are.
    """
    map_tiles(STAGE, _of_tile, _Job(workspace, tissue, method, fit, params, pixel_size, boundaries, transcripts), tiles)
    parts = [statistics(workspace.scratch, STAGE, tile, "id", "dropped") for tile in tiles]
    dropped = np.concatenate([part["dropped"] for part in parts])
    tell_dropped(len(dropped), len(dropped) + sum(len(part["id"]) for part in parts), params)
    return dropped


def tell_dropped(n: int, n_cells: int, params: CellParams) -> None:
    """Say how many of the cells are too small.

    Raises
    ------
    DataError
        All are.
    """
    if n:
        least = f"cells.min_counts={params.min_counts} and cells.min_area={params.min_area:g}"
        if n == n_cells:
            raise DataError(f"All of the {n} cells are below {least}: set these lower.")
        logger.info("%d of %d cells are below %s, and are dropped with their nuclei.", n, n_cells, least)


def _of_tile(job: _Job, tile: Tile) -> tuple[Part, None]:
    workspace, tissue, grid = job.workspace, job.tissue, job.tissue.grid
    ranges = tile.around(job.method.halo(tissue, job.fit), grid.whole_shape)
    window = Window(tissue, tile.ranges, ranges, workspace)
    seen = transcripts_in(ranges, grid, workspace.scratch, workspace.block)
    pixels = window.grid.pixels()
    nuclei = workspace.nuclei(pixels)
    corner = (pixels[0].start, pixels[1].start)
    with computing:
        labels = to_pixels(job.method.decide(window, job.fit), window.grid, nuclei)
        probability = window.probability
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
            wanted=_own_ids(tissue, tile, labels),
        )
    cells, small = cells.without_small(job.params, job.pixel_size)
    own = tuple(
        slice(part.start - start, part.stop - start)
        for part, start in zip(grid.view(tile.ranges).owned_pixels(), corner, strict=True)
    )
    found = {"labels": labels[own], "dropped": small} | vars(cells)
    if job.boundaries:
        found |= _boundaries(labels, cells.id, corner)
    if job.transcripts:
        mine = tile.holds(seen.bins)
        found |= {
            "row": seen.transcript[mine],
            "owner": labels[tuple((seen.pixels[mine] - corner).T)],
            "probability": probability[np.searchsorted(window.places.keys, grid.keys(seen.bins[mine]))],
        }
    return Part(found), None


def _own_ids(tissue: Tissue, tile: Tile, labels: np.ndarray) -> np.ndarray:
    """Ids of the cells that this tile measures: where the nucleus' centroid, or the bin an id is named after, lies."""
    ids, first = tissue.regions.ids[tile.holds(tissue.centers)], tissue.first_free_id
    seen = np.unique(labels)
    orphans = seen[seen >= first]
    bins = np.stack(np.divmod(orphans.astype(np.int64) - first, tissue.grid.whole_shape[1]), axis=1)
    return np.concatenate([ids, orphans[tile.holds(bins)]])


def _boundaries(labels: np.ndarray, ids: np.ndarray, corner: tuple[int, int]) -> dict[str, np.ndarray]:
    """Corners of all cells' rings one behind the other, and how many each has."""
    rings = [ring + corner for ring in polygons(labels, ids).values()]
    corners = np.concatenate([*rings, np.zeros((0, 2), np.int64)])
    return {"corners": corners, "n_corners": np.array([len(ring) for ring in rings], np.int64)}
