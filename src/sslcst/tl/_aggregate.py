"""The table of cells by genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import add_element, check_addable, choose_key, read_with_ids
from sslcst._sdata.microns import systems_of
from sslcst._sdata.provenance import Used, as_record, is_of_step
from sslcst._sdata.raster import apply_affine, as_labels, plane, raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.measure import measure
from sslcst.methods import shared_params
from sslcst.params import Params
from sslcst.pp._spots import as_spots
from sslcst.run.results import as_table
from sslcst.run.stages.cells import tell_dropped


@checked
def aggregate(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    cells_key: str = "sslcst_cells",
    nuclei_key: str | None = None,
    spots_key: str = "sslcst_spots",
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | None = None,
    key_added: str = "sslcst_table",
) -> None:
    """Count the transcripts of each cell.

    Parameters
    ----------
    sdata
        Holds points, cells, nuclei and spots.
    points_key, gene_key, count_key
        The transcripts; by default those that were binned.
    cells_key, nuclei_key
        Labels of the cells and the nuclei, on one grid; by default the nuclei that the spots were binned on.
    spots_key
        The table that `sslcst.tl.predict` completed.
    coordinate_system
        Where points and cells meet, and whose units count; by default that of the spots.
    params
        Section ``transcripts``; and ``cells``, whose ``min_counts`` and ``min_area`` say which cells are dropped: from
        the table, and with their nuclei from the labels in the object if these were made by a step; others' stay.
    key_added
        Name of the table of cells x genes, which annotates the cell labels by ``obs["cell_id"]``. ``X`` holds counts
        (integer csr), ``layers["nuclear"]`` those within the nucleus. ``obs``: ``area`` and ``nucleus_area`` (square
        units of the coordinate system), ``n_counts``, ``n_genes``, ``n_spots``, ``mean_prob`` (mean probability of the
        cell's spots to lie in a cell; NaN without spots), ``touches_border``, and where cells or nuclei were imported
        with ids that cannot be those of labels, ``source_id``: that id. ``obsm["spatial"]``: centroid (x, y).
        ``uns["sslcst"]``: the names of all that it was made of. It is added to the object; a store on disk is not
        touched.

    Raises
    ------
    KeyMissingError, DataError
        As in `sslcst.pp.bin_spots`; all cells are dropped.
    """
    check_addable(sdata, "tables", key_added)
    params = shared_params(params)
    choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")
    used = Used.by(sdata, spots_key)
    if nuclei_key is None:
        nuclei_key = used.record.get("nuclei_key", "sslcst_nuclei")
    for key in (cells_key, nuclei_key):
        choose_key(sdata.labels, key, kind="labels element", argument="cells_key and nuclei_key")
    molecules = used.transcripts(points_key, gene_key, count_key)
    coordinate_system = used.system([molecules["points_key"], cells_key], coordinate_system)
    raster = raster_of(used.sdata, cells_key, coordinate_system)
    (cells, cell_ids), (nuclei, nucleus_ids) = (read_with_ids(sdata, key, raster) for key in (cells_key, nuclei_key))
    if cell_ids is not None and nucleus_ids is not None:
        nuclei = _numbered_as_cells(nuclei, nucleus_ids, cell_ids)
    transcripts = read_transcripts(used.sdata, **molecules, raster=raster, params=params.transcripts)

    of_spots = sdata.tables[spots_key]
    spots, _ = as_spots(of_spots)
    measured = measure(
        cells,
        nuclei,
        raster_shape=raster.shape,
        pixel=transcripts.yx,
        gene=transcripts.gene,
        count=transcripts.count,
        n_genes=len(transcripts.genes),
        spot=spots.grid.centers(spots.index),
        inside=of_spots.obs["probability"].to_numpy(),
    )
    n_cells = len(measured)
    measured, dropped = measured.without_small(params.cells, raster.pixel_size)
    tell_dropped(len(dropped), n_cells, params.cells)
    source_ids = nucleus_ids if cell_ids is None else cell_ids
    center, regions = apply_affine(raster.to_system, measured.center), pd.Categorical([cells_key] * len(measured))
    table = as_table(measured, center, raster.pixel_size, transcripts.genes, regions, source_ids)
    table.uns["sslcst"] = as_record(
        used.record, **molecules, nuclei_key=nuclei_key, coordinate_system=coordinate_system
    )
    total = of_spots.X.sum()
    held = 100 * measured.n_counts.sum() / max(1, total)
    logger.info("%d cells hold %.1f%% of the transcripts on the raster.", len(measured), held)
    if len(dropped):
        for key, labels in ((cells_key, cells), (nuclei_key, nuclei)):
            if is_of_step(sdata, key):
                kept = np.where(np.isin(labels, dropped), 0, plane(sdata, key).to_numpy())
                own = raster_of(sdata, key, min(systems_of(sdata[key])))
                add_element(sdata, "labels", key, as_labels(kept, own))
    add_element(sdata, "tables", key_added, table)


def _numbered_as_cells(nuclei: np.ndarray, nucleus_ids: pd.Series, cell_ids: pd.Series) -> np.ndarray:
    """Nuclei with the numbers of the cells that have their original ids; others, which no cell has, are left out."""
    number = pd.Series(cell_ids.index, index=cell_ids.array)
    number = number[~number.index.duplicated()].reindex(nucleus_ids.array).fillna(0)
    new = np.zeros(int(nuclei.max(initial=nucleus_ids.index.max())) + 1, np.uint32)
    new[nucleus_ids.index] = number
    return new[nuclei]
