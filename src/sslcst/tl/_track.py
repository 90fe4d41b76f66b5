"""From the predictions of the spots to cell labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcst._arguments import checked
from sslcst._logging import logger, progress
from sslcst.core.cells import cells_near_nuclei, find_cells, to_pixels
from sslcst.core.density import cell_share, look_around
from sslcst.core.model import take_genes
from sslcst.elements import add_labels, check_addable, choose_key, raster_of, read_nuclei
from sslcst.errors import KeyMissingError
from sslcst.params import Params
from sslcst.pp._spots import as_levels, as_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def track(
    sdata: SpatialData,
    *,
    spots_key: str = "sslcst_spots",
    nuclei_key: str = "sslcst_nuclei",
    params: Params | Mapping[str, Any] | None = None,
    key_added: str = "sslcst_cells",
) -> None:
    """Make cells of the predictions: by the nuclei near each bin, or by the flow to them (Li et al. 2007).

    Parameters
    ----------
    sdata
        Holds the spots, with their predictions, and the nuclei.
    spots_key
        The table that `sslcst.tl.predict` completed.
    nuclei_key
        Labels of the nuclei.
    params
        Sections ``flow`` and ``prior``.
    key_added
        Name of the cell labels, uint32 on the grid of the nuclei, each with the id of its nucleus. They are added to
        the object; a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        There are no such elements, or the spots have no predictions yet.
    """
    check_addable(sdata, "labels", key_added)
    params = Params.of(params)
    choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")
    choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    table = sdata.tables[spots_key]
    if "inside" not in table.obs or "direction" not in table.obsm:
        raise KeyMissingError(f"Table {spots_key!r} has no predictions: run sslcst.tl.predict on it first.")
    (spots, _), layout = as_spots(table), table.uns["sslcst"]
    raster = raster_of(sdata, nuclei_key, layout["coordinate_system"])
    nuclei = read_nuclei(sdata, nuclei_key, raster)
    with progress("track"):
        on_grid = spots.grid.from_raster(nuclei)
        if params.flow.decoding == "nuclei":
            cells = _cells_near_nuclei(table, on_grid, params)
        else:
            cells = find_cells(
                spots,
                direction=table.obsm["direction"],
                inside=table.obs["inside"].to_numpy(),
                nuclei=on_grid,
                reach=(1 + params.prior.sigma) * layout["radius"],
                spacing=float(layout["spacing"]),
                first_orphan=int(nuclei.max()) + 1,
                params=params.flow,
            )
        labels = to_pixels(cells, spots.grid, nuclei)
    logger.info("%d cells.", len(np.unique(labels[labels > 0])))
    add_labels(sdata, key_added, labels, raster)


def _cells_near_nuclei(table: AnnData, nuclei: np.ndarray, params: Params) -> np.ndarray:
    (spots, _), layout = as_spots(table), table.uns["sslcst"]
    radius = float(layout["radius"])
    around = look_around(spots.totals(), nuclei, radius=radius, reach=(1 + params.prior.sigma) * radius)
    variable = np.flatnonzero(table.var["variable"])
    return cells_near_nuclei(
        around,
        replace(spots, counts=take_genes(table.X, variable)),
        share=cell_share(around, as_levels(table), radius=radius),
        predicted=table.obs["inside"].to_numpy(),
        gene_total=np.asarray(table.X.sum(axis=0)).ravel()[variable],
        trust=float(layout["trust"]),
        radius=radius,
        threshold=params.flow.threshold,
    )
