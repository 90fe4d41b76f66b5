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
from sslcst.methods.base import Tissue
from sslcst.run import results
from sslcst.run.pipeline import Field, Input, Outcome
from sslcst.run.warnings import warnings_of


def elements(
    outcome: Outcome, given: Input, names: Mapping[tuple[str, str], str], about: Mapping[str, Any], *, in_memory: bool
) -> dict[str, Any]:
    """The elements of a run's results.

    `names` are by field, "" where there are none and for the table, and by kind: nuclei, cells, table and, if asked
    for, boundaries and transcripts. `about` becomes the table's ``uns["sslcst"]``, with what the outcome knows. In
    memory the elements hold their data, else they read what lies in the scratch folder.
    """
    scratch, tiles, tissue, found = outcome.workspace.scratch, outcome.tiles, outcome.tissue, outcome.found
    fields = given.fields or {"": _whole(given, tissue)}
    cells = results.join_cells(scratch, tiles)
    ids = cells.id
    homes = np.zeros(len(cells), int) if given.covered is None else given.covered.owner(cells.center)
    outlines = results.join_boundaries(scratch, tiles) if any(kind == "boundaries" for _, kind in names) else None
    made: dict[str, Any] = {}
    for i, (field, own) in enumerate(fields.items()):
        for kind, path in (("nuclei", outcome.workspace.nuclei_file), ("cells", results.CELLS)):
            made[names[field, kind]] = results.labels_element(
                scratch, path, own.raster, found.left_out, own.window, in_memory=in_memory
            )
        if outlines is not None:
            made[names[field, "boundaries"]] = _boundaries(outlines, ids[homes == i], given, own)
        if name := names.get((field, "transcripts")):
            holding = tiles
            if given.fields is not None:
                holding = [tile for tile in tiles if _reaches(tissue.grid.pixels(tile.ranges), own.window)]
            made[name] = results.transcripts_element(
                scratch, holding, own.points, found.left_out, i, in_memory=in_memory
            )
    made[names["", "table"]] = _table(outcome, given, names, about, cells, homes)
    return made


def _whole(given: Input, tissue: Tissue) -> Field:
    """Of what has no fields the only one: of a region, as far beyond it as a cell may reach."""
    if given.area is None:
        return Field(given.raster, None, given.points, {}, {})
    around = (tissue.extent + tissue.max_distance + 1) * max(tissue.grid.step)
    window = given.area.window(given.raster.shape, around)
    return Field(given.raster.cropped(*window), window, given.points, {}, {})


def _boundaries(
    outlines: tuple[np.ndarray, np.ndarray, np.ndarray], wanted: np.ndarray, given: Input, own: Field
) -> Any:
    """Boundaries of cells, polygons in pixels with a raster's transformations; the index holds the cells' ids."""
    ids, corners, size = outlines
    if given.fields is None:
        return as_boundaries(ids, corners, size, given.raster.transformations)
    is_own = np.isin(ids, wanted)
    corners = corners[np.repeat(is_own, size)] - [part.start for part in own.window]
    return as_boundaries(ids[is_own], corners, size[is_own], own.raster.transformations)


def _reaches(pixels: tuple[slice, slice], window: tuple[slice, slice]) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(pixels, window, strict=True))


def _table(
    outcome: Outcome,
    given: Input,
    names: Mapping[tuple[str, str], str],
    about: Mapping[str, Any],
    cells: Cells,
    homes: np.ndarray,
) -> Any:
    """The table of the cells, each of which is of one field: that of its centroid."""
    tissue, found, area = outcome.tissue, outcome.found, given.area
    held = cells.counts.data.sum(dtype=np.int64) / max(found.n_counts.sum(), 1)
    where = "on the raster" if area is None else f"in {area.name}"
    logger.info("%d cells hold %.1f%% of the transcripts %s.", len(cells), 100 * held, where)
    source = given.nuclei if outcome.matched is None else given.cells
    source_ids = None if source is None else source.source_ids
    if source_ids is not None:  # cells without a nucleus may have the number of one that was left out
        source_ids = source_ids[source_ids.index.isin(tissue.regions.ids)]
    genes, more, n_in_all = given.transcripts.genes, {}, found.n_nuclei
    of_cell = None if outcome.matched is None else outcome.matched.n_nuclei(cells.id)
    if given.fields is None:
        table = results.as_table(cells, given.raster, genes, names["", "cells"], source_ids)
    else:
        fields = list(given.fields.values())
        keys = np.array([names[field, "cells"] for field in given.fields])
        center = np.empty_like(cells.center)
        for i, own in enumerate(fields):
            at = cells.center[homes == i] - [part.start for part in own.window]
            center[homes == i] = apply_affine(own.raster.to_system, at)
        table = results.as_table(cells, given.raster, genes, keys[homes], source_ids, center)
        for column in fields[0].marks:
            marks = [own.marks[column] for own in fields]
            table.obs[column] = pd.Categorical(np.array(marks)[homes], categories=list(dict.fromkeys(marks)))
        n_nuclei = np.bincount(given.covered.owner(tissue.regions.centers), minlength=len(fields))
        if of_cell is not None:
            n_nuclei = np.bincount(homes, of_cell, len(fields))
        more["fields"] = {
            field: own.record
            | {
                "results": {name: about["results"][name] for (of, _), name in names.items() if of in (field, "")},
                "n_nuclei": int(n_nuclei[i]),
                "total_counts": int(found.n_counts[i]),
            }
            for i, (field, own) in enumerate(given.fields.items())
        }
    if of_cell is not None:
        table.obs["n_nuclei"] = of_cell
        n_in_all = int(of_cell.sum())
    table.uns["sslcst"] = (
        dict(about)
        | {
            "bin_size": tissue.grid.bin_size,
            "radius": tissue.radius * tissue.grid.bin_size,
            "n_nuclei": n_in_all,
            "n_dropped": len(found.small),
            "total_counts": int(found.n_counts.sum()),
            "warnings": "\n".join(warnings_of(outcome.workspace.scratch)),  # lists in uns crash copies under some numpy
        }
        | more
    )
    return table
