"""One run: nuclei, transcripts, spots, the passes of a method, cells, results; each stage in what is not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sslcst._logging import logger, progress
from sslcst._sdata.labels import NucleusSource
from sslcst._sdata.raster import Raster
from sslcst._sdata.region import Area
from sslcst._sdata.scratch import Scratch
from sslcst._sdata.transcripts import TranscriptSource
from sslcst.core.covered import Covered
from sslcst.core.geometry import Regions
from sslcst.core.nuclei import load_backend, none_found
from sslcst.errors import DataError
from sslcst.methods.base import Fit, Method, Tissue
from sslcst.params import Params
from sslcst.run import results
from sslcst.run.execute import check_workers
from sslcst.run.stages import alignment, nuclei
from sslcst.run.stages.cells import Found, Job, find_cells
from sslcst.run.stages.passes import learn, predict
from sslcst.run.stages.spots import find_spots
from sslcst.run.stages.transcripts import bucket, count, fill
from sslcst.run.stages.whole_cells import Matched, match
from sslcst.run.tiling import Tile, cut, seen, tile_bytes
from sslcst.run.workspace import MATCHED, NUCLEI, WHOLE_CELLS, Workspace, is_done

NUCLEI_ACROSS = 2  # a whole cell: what nuclei that are grown reach by default


@dataclass(frozen=True)
class Field:
    """A part of the raster whose results are elements of their own."""

    raster: Raster  # its own pixels, with the transformations of its results
    window: tuple[slice, slice]  # its rows and columns on the raster of all
    points: Any  # the element that its transcripts come from
    record: Mapping[str, str]  # what it was made of, for `sslcst._sdata.provenance`
    marks: Mapping[str, str] = field(default_factory=dict)  # what columns of the table say of its cells


@dataclass(frozen=True)
class Input:
    """What a run reads, checked. Stains are arrays that are read by slices, on all of an image."""

    raster: Raster  # the pixels of results; with an area a part of the image's
    image: Any | None  # the stain of nuclei (y, x), or None where they are given
    cell_stain: Any | None  # the stain that whole cells are found in, and that of their nuclei (2, y, x), or None
    image_name: str  # what warnings and errors call it
    nuclei: NucleusSource | None  # those that are given, checked and ready to be read, or None
    cells: NucleusSource | None  # whole cells that are given, likewise
    transcripts: TranscriptSource  # ready to be read
    pair: str  # what must lie on one another, in words
    fields: Mapping[str, Field]  # by their names; one without a name where the raster is that of one image
    keys: tuple[str, ...]  # the rasters, and the shapes, that are read
    about: dict[str, Any]  # what the result depends on beside these elements, in plain values
    area: Area | None = None  # where on the raster the nuclei of the wanted cells lie; None: anywhere
    covered: Covered | None = None  # where the fields of a mosaic lie on the raster; None where it is none

    def home(self, yx: np.ndarray) -> np.ndarray:
        """Which of the fields each position (n, 2) in pixels is of, int64 (n,)."""
        return np.zeros(len(yx), np.int64) if self.covered is None else self.covered.owner(yx)


@dataclass(frozen=True)
class Outcome:
    """What a run found: all that is needed to make elements of it."""

    workspace: Workspace
    tiles: list[Tile]
    tissue: Tissue
    fit: Fit
    found: Found
    matched: Matched | None


def run(
    given: Input,
    scratch: Scratch,
    *,
    params: Params,
    method: Method,
    model: Any | None = None,
    boundaries: bool = False,
    transcripts: bool = False,
) -> Outcome:
    """Do the stages one after the other; their results lie in the scratch folder.

    A model is a fit to take as it is, instead of learning one. The cells' boundaries, and the cell of each transcript,
    are made where they are asked for.
    """
    raster, area = given.raster, given.area
    regions, matched = _find_regions(given, params, scratch, method)
    what = "cell" if method.whole_cells else "nucleus"
    if area is not None and not area.holds(regions.centers).any():
        raise DataError(f"No {what} has its centroid in {area.name}: {len(regions)} lie around it.")
    layout = raster.lay_out(regions.diameter / (NUCLEI_ACROSS if method.whole_cells else 1), params)
    method.check_grid(layout.grid, int(regions.ids[-1]) + 1)
    reach = method.reach(params.cells.max_distance, layout.radius)
    genes = np.asarray(given.transcripts.genes)
    nuclei_file = MATCHED if matched else NUCLEI
    image = nuclei.on_raster(given.image, raster)
    workspace = Workspace(scratch, layout.grid, params.tiles.block, len(genes), image, nuclei_file, given.covered)
    fill(given.transcripts, layout.grid, scratch, params.tiles, pair=given.pair)
    n_bins = seen(params.tiles.size, layout.grid.whole_shape)
    share = n_bins / np.prod(layout.grid.whole_shape)
    check_workers(tile_bytes(n_bins, count(scratch) * share, method.bytes_per_spot))
    with progress("check alignment"):
        alignment.check(
            workspace, regions, whole_cells=method.whole_cells, pixel_size=raster.pixel_size, pair=given.pair
        )
    tiles = _tiles(workspace, regions, reach, params, method)
    tissue = find_spots(workspace, tiles, regions=regions, radius=layout.radius, max_distance=reach, genes=genes)
    logger.info(
        "%d spots of %.3g, expected cell radius %.3g, in coordinate system %r, where a pixel is %.4g wide.",
        tissue.n_spots,
        layout.grid.bin_size,
        layout.radius * layout.grid.bin_size,
        raster.coordinate_system,
        raster.pixel_size,
    )
    fit = learn(workspace, tiles, tissue, method) if model is None else method.fit_of(model, tissue)
    predict(workspace, tiles, tissue, method, fit)
    wanted = Job(
        workspace,
        tissue,
        method,
        fit,
        params.cells,
        raster.pixel_size,
        area,
        len(given.fields),
        boundaries,
        transcripts,
    )
    found = find_cells(tiles, wanted)
    results.join_labels(workspace, tiles)
    return Outcome(workspace, tiles, tissue, fit, found, matched)


def _find_regions(given: Input, params: Params, scratch: Scratch, method: Method) -> tuple[Regions, Matched | None]:
    """The nuclei; or the whole cells, where the method takes them, and which nuclei are theirs."""
    shape, how = given.raster.shape, method.cell_params
    to_find = {"device": method.device, "name": given.image_name, "covered": given.covered}
    if how is not None:
        load_backend(how, device=method.device)  # what is missing is known before any work
    if given.image is None and given.nuclei is None:
        logger.info("There are no nuclei, and no image to find them in.")
        nuclei.create(scratch, shape, NUCLEI)
    else:
        found = nuclei.find(given.nuclei, given.image, given.raster, scratch, params, **to_find)
        if not len(found):
            raise none_found(given.image_name, params.nuclei.method)
        logger.info("%d nuclei.", len(found))
    if not method.whole_cells:
        return found, None
    if how is not None:
        # As wide as is told, or twice as wide as their nuclei.
        across = how.diameters or (NUCLEI_ACROSS * found.diameter * given.raster.pixel_size,)
        params = replace(params, nuclei=replace(how, diameters=across))
    cells = nuclei.find(given.cells, given.cell_stain, given.raster, scratch, params, **to_find, to=WHOLE_CELLS)
    if not len(cells):
        raise DataError(
            f"No cells were found beside the nuclei of {given.image_name} with method {how.method!r}: see whether "
            "channels= names the stain of whole cells and that of nuclei, give stain.diameters, or bring cells of your "
            "own with cells_key=."
        )
    return cells, match(scratch, shape, cells, params)


def _tiles(workspace: Workspace, regions: Regions, reach: float, params: Params, method: Method) -> list[Tile]:
    """The tiles that hold a transcript, or that a cell may reach into, row by row."""
    step = workspace.grid.step
    low, high = regions.low / step - reach, regions.high / step + reach

    def is_empty(tile: Tile) -> bool:
        if method.anywhere:
            return False
        start, stop = np.array(tile.ranges).T
        near_nucleus = ((low < stop) & (high > start)).all(axis=1).any()
        return not near_nucleus and not any(
            workspace.scratch.has(bucket(name)) for name, _ in workspace.blocks(tile.ranges)
        )

    every = cut(workspace.grid, params.tiles)
    tiles = [tile for tile in every if not is_empty(tile)]
    empty = [tile.name for tile in every if tile not in tiles]
    done = sum(is_done(workspace.scratch, "cells", tile) for tile in tiles)
    if len(every) > 1 or done:
        skipped = f"; {len(empty)} more are empty and skipped: {', '.join(empty)}" if empty else ""
        logger.info("%d tiles of %d bins%s; %d were done before.", len(tiles), params.tiles.size, skipped, done)
    return tiles
