"""The table of cells by genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._logging import logger
from sslcst.core.counts import count_matrix, owners
from sslcst.core.geometry import centroids
from sslcst.elements import (
    add_element,
    apply_affine,
    choose_coordinate_system,
    choose_key,
    choose_points,
    raster_of,
    read_nuclei,
)
from sslcst.params import Params
from sslcst.pp import as_spots
from sslcst.transcripts import read_transcripts

if TYPE_CHECKING:
    from spatialdata import SpatialData


def aggregate(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    cells_key: str = "sslcst_cells",
    nuclei_key: str = "sslcst_nuclei",
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
        The transcripts, as in `sslcst.pp.bin_spots`.
    cells_key, nuclei_key
        Labels of the cells and the nuclei, on one grid.
    spots_key
        The table that `sslcst.tl.predict` completed.
    coordinate_system
        Where points and cells meet, and whose units count; by default "global" or the only one.
    params
        Section ``transcripts``.
    key_added
        Name of the table of cells x genes, which annotates the cell labels by ``obs["cell_id"]``. ``X`` holds counts
        (integer csr), ``layers["nuclear"]`` those within the nucleus. ``obs``: ``area`` and ``nucleus_area`` (square
        units of the coordinate system), ``n_counts``, ``n_genes``, ``n_spots``, ``mean_prob`` (mean probability of the
        cell's spots to lie in a cell; NaN without spots), ``touches_border``. ``obsm["spatial"]``: centroid (x, y). It
        is added to the object; a store on disk is not touched.

    Raises
    ------
    KeyMissingError, DataError
        As in `sslcst.pp.bin_spots`.
    """
    import anndata
    from spatialdata.models import TableModel

    params = Params.of(params)
    points_key = choose_points(sdata, points_key)
    for key in (cells_key, nuclei_key):
        choose_key(sdata.labels, key, kind="labels element", argument="cells_key and nuclei_key")
    choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")
    coordinate_system = choose_coordinate_system(sdata, [points_key, cells_key], coordinate_system)
    raster = raster_of(sdata, cells_key, coordinate_system)
    cells, nuclei = (read_nuclei(sdata, key, raster) for key in (cells_key, nuclei_key))
    transcripts = read_transcripts(
        sdata, points_key, gene_key=gene_key, count_key=count_key, raster=raster, params=params.transcripts
    )

    ids, centers, areas = centroids(cells)
    owner = owners(transcripts.yx, cells)
    in_nucleus = owners(transcripts.yx, nuclei) == owner
    counts, nuclear = (
        count_matrix(who, transcripts.gene, transcripts.count, ids=ids, n_genes=len(transcripts.genes))
        for who in (owner, np.where(in_nucleus, owner, 0))
    )
    table = anndata.AnnData(
        counts,
        obs=pd.DataFrame({"cell_id": ids, "region": pd.Categorical([cells_key] * len(ids))}, index=ids.astype(str)),
        var=pd.DataFrame(index=transcripts.genes),
        layers={"nuclear": nuclear},
        obsm={"spatial": apply_affine(raster.to_system, centers)[:, ::-1]},
    )
    table = TableModel.parse(table, region=cells_key, region_key="region", instance_key="cell_id")
    # Columns of our own come after parsing, which would reorder and retype them.
    pixel_area = raster.pixel_size**2
    nuclear_pixels = np.searchsorted(ids, nuclei[nuclei > 0])
    table.obs["area"] = areas * pixel_area
    table.obs["nucleus_area"] = np.bincount(nuclear_pixels, minlength=len(ids)) * pixel_area
    table.obs["n_counts"] = np.asarray(counts.sum(axis=1)).ravel()
    table.obs["n_genes"] = np.diff(counts.indptr)
    table.obs["n_spots"], table.obs["mean_prob"] = _of_spots(sdata.tables[spots_key], cells, ids)
    border = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    table.obs["touches_border"] = np.isin(ids, border)
    logger.info(
        "%d cells hold %.1f%% of the counts.",
        len(ids),
        100 * counts.sum() / max(1, _total(transcripts.count, len(owner))),
    )
    add_element(sdata, "tables", key_added, table)


def _of_spots(table, cells: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of spots in each cell, and their mean probability to lie in a cell."""
    spots, _ = as_spots(table)
    owner = owners(spots.grid.centers(spots.index), cells)
    owned, inside = np.searchsorted(ids, owner[owner > 0]), table.obs["inside"].to_numpy()[owner > 0]
    n_spots, total = (np.bincount(owned, weights, minlength=len(ids)) for weights in (None, inside))
    return n_spots, np.divide(total, n_spots, out=np.full(len(ids), np.nan), where=n_spots > 0)


def _total(count: np.ndarray | None, n: int) -> int:
    return n if count is None else int(count.sum())
