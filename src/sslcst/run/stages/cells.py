"""From a method's predictions to cells, tile by tile: labels, counts, boundaries, and the cell of each transcript."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst.core.cells import to_pixels
from sslcst.core.measure import measure
from sslcst.core.polygons import polygons
from sslcst.methods.base import Fit, Method, Part, Tissue, Window
from sslcst.run.execute import computing
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, map_tiles

STAGE = "cells"


@dataclass(frozen=True)
class _Job:
    workspace: Workspace
    tissue: Tissue
    method: Method
    fit: Fit
    boundaries: bool
    transcripts: bool


def find_cells(
    workspace: Workspace,
    tiles: list[Tile],
    tissue: Tissue,
    method: Method,
    fit: Fit,
    *,
    boundaries: bool,
    transcripts: bool,
) -> None:
    """Decide, measure and count all tiles that are not done yet.

    Parameters
    ----------
    workspace
        Holds what the method's passes gave.
    tiles, tissue, method, fit
        Of the run.
    boundaries, transcripts
        Whether the cells' boundaries, and the cell of each transcript, are kept.
    """
    map_tiles(STAGE, _of_tile, _Job(workspace, tissue, method, fit, boundaries, transcripts), tiles)


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
    own = tuple(
        slice(part.start - start, part.stop - start)
        for part, start in zip(grid.view(tile.ranges).owned_pixels(), corner, strict=True)
    )
    found = {"labels": labels[own]} | vars(cells)
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
