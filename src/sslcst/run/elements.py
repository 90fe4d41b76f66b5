"""What a run found, as elements: of the whole raster, of a region, or of each field of a mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sslcst._logging import logger
from sslcst._sdata.boundaries import as_boundaries
from sslcst._sdata.raster import apply_affine
from sslcst.core.measure import Cells
from sslcst.core.spots import meet, ranges_of
from sslcst.run import results
from sslcst.run.pipeline import Input, Outcome
from sslcst.run.warnings import warnings_of


def elements(
    outcome: Outcome,
    given: Input,
    names: Mapping[tuple[str, str], str],
    about: Mapping[str, Any],
    *,
    in_memory: bool,
    load_table: bool,
) -> dict[str, Any]:
    """The elements of a run's results.

    `names` are by field, "" where there are none and for the table, and by kind: nuclei, cells, table and, if asked
    for, boundaries, of fields that have cells, and transcripts. `about` becomes the table's ``uns["sslcst"]``, with
    what the outcome knows. In memory the elements hold their data, else they read what lies in the scratch folder;
    the table holds its own unless it is not to be loaded.
    """
    scratch, tiles, tissue, found = outcome.workspace.scratch, outcome.tiles, outcome.tissue, outcome.found
    cells = results.join_cells(scratch, tiles, in_memory=load_table)
    home = given.home(cells.center)
    outlined = np.zeros(0, int)
    if any(kind == "boundaries" for _, kind in names):
        ids, corners, size = results.join_boundaries(scratch, tiles)
        outlined = home[np.searchsorted(cells.id, ids)]
    made: dict[str, Any] = {}
    for i, (field, own) in enumerate(given.fields.items()):
        raster, window = own.raster, own.window
        if given.area is not None:  # as far beyond it as a cell may reach
            around = (tissue.extent + tissue.max_distance + 1) * max(tissue.grid.step)
            window = given.area.window(raster.shape, around)
            raster = raster.cropped(*window)
        for kind, path in (("nuclei", outcome.workspace.nuclei_file), ("cells", results.CELLS)):
            made[names[field, kind]] = results.labels_element(
                scratch, path, raster, found.left_out, window, in_memory=in_memory
            )
        if (of := outlined == i).any():  # of no cells there can be no shapes
            at = corners[np.repeat(of, size)] - [part.start for part in own.window]
            made[names[field, "boundaries"]] = as_boundaries(ids[of], at, size[of], own.raster.transformations)
        if name := names.get((field, "transcripts")):
            there = ranges_of(*own.window)
            holding = [tile for tile in tiles if meet(ranges_of(*tissue.grid.pixels(tile.ranges)), there)]
            made[name] = results.transcripts_element(
                scratch, holding, own.points, found.left_out, i, in_memory=in_memory
            )
    table = names["", "table"]
    about = dict(about) | {"results": {name: about["results"][name] for name in [*made, table]}}
    made[table] = _table(outcome, given, names, about, cells, home)
    return made


def _table(
    outcome: Outcome,
    given: Input,
    names: Mapping[tuple[str, str], str],
    about: Mapping[str, Any],
    cells: Cells,
    home: np.ndarray,
) -> Any:
    """The table of the cells, each of which is of one field: that of its centroid."""
    tissue, found, area, fields = outcome.tissue, outcome.found, given.area, list(given.fields.values())
    held = cells.n_counts.sum() / max(found.total_counts.sum(), 1)
    where = "on the raster" if area is None else f"in {area.name}"
    logger.info("%d cells hold %.1f%% of the transcripts %s.", len(cells), 100 * held, where)
    source = given.nuclei if outcome.matched is None else given.cells
    source_ids = None if source is None else source.source_ids
    if source_ids is not None:  # cells without a nucleus may have the number of one that was left out
        source_ids = source_ids[source_ids.index.isin(tissue.regions.ids)]
    center = np.empty_like(cells.center)
    for i, own in enumerate(fields):
        at = cells.center[home == i] - [part.start for part in own.window]
        center[home == i] = apply_affine(own.raster.to_system, at)
    keys = pd.Categorical.from_codes(home, [names[field, "cells"] for field in given.fields])
    if given.covered is not None:  # fields without a cell are none that the table annotates
        keys = keys.remove_unused_categories()
    table = results.as_table(cells, center, given.raster.pixel_size, given.transcripts.genes, keys, source_ids)
    for column in fields[0].marks:
        marks = [own.marks[column] for own in fields]
        table.obs[column] = pd.Categorical(np.array(marks)[home], categories=list(dict.fromkeys(marks)))
    if outcome.matched is None:
        centers = tissue.regions.centers
        n_nuclei = np.bincount(given.home(centers if area is None else centers[area.holds(centers)]), None, len(fields))
    else:
        table.obs["n_nuclei"] = outcome.matched.n_nuclei(cells.id)
        n_nuclei = np.bincount(home, table.obs["n_nuclei"], len(fields)).astype(int)
    told = [{"n_nuclei": int(n), "total_counts": int(m)} for n, m in zip(n_nuclei, found.total_counts, strict=True)]
    made = about["results"]
    of_fields = {
        field: own.record
        | {"results": {name: made[name] for (of, _), name in names.items() if of in (field, "") and name in made}}
        | numbers
        for (field, own), numbers in zip(given.fields.items(), told, strict=True)
    }
    table.uns["sslcst"] = (
        dict(about)
        | (fields[0].record if given.covered is None else {"fields": of_fields})
        | {
            "bin_size": tissue.grid.bin_size,
            "radius": tissue.radius * tissue.grid.bin_size,
            "n_nuclei": int(n_nuclei.sum()),
            "n_dropped": len(found.small),
            "total_counts": int(found.total_counts.sum()),
            "warnings": "\n".join(warnings_of(outcome.workspace.scratch)),  # lists in uns crash copies under some numpy
        }
    )
    return table
