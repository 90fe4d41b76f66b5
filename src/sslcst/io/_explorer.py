"""Cells for the Xenium Explorer, through sopa."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import TableModel

from sslcst._arguments import checked
from sslcst._files import writing
from sslcst._logging import logger, progress
from sslcst._sdata.boundaries import boundaries_of
from sslcst._sdata.columns import counts_of
from sslcst._sdata.elements import choose_image
from sslcst._sdata.microns import NAME, check_unit, find_microns, pixel_side
from sslcst._sdata.provenance import Used, nuclei_of, result_name, result_table
from sslcst._sdata.raster import plane
from sslcst.errors import BackendError, StoreError

_CORNERS = 25  # of a polygon, as many as Xenium's own may have


@checked
def write_xenium_explorer(
    sdata: SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    pixel_size: float | None = None,
) -> None:
    """Write image, transcripts, cells, nuclei, counts and clusters as a folder that the Xenium Explorer opens.

    `sopa.io.explorer.write` does it (``pip install "sslcst[explorer]"``), for data of any platform. A cell has its
    ``cell_id`` there in Xenium's letters (`sopa.io.explorer.int_cell_id`), categories of the table's ``obs`` become
    groups of cells, and polygons have at most 25 corners.

    Parameters
    ----------
    sdata
        Holds labels ``{key}_cells``, their nuclei and the table ``{key}_table``, whose cells are written; one without a
        nucleus shows its own boundary in place of that.
    path
        The folder to write, whose file ``experiment.xenium`` is to be opened. Files of an earlier call are replaced.
    key
        The `key_added` of the segmentation.
    image_key
        The image; may be left out as in `sslcst.tl.segment`.
    points_key, gene_key
        The transcripts and the column of their genes; by default those that the cells were made of. Points without
        such a column are left out.
    pixel_size
        Side of a pixel of the image in microns; may be left out where the object tells it, as in
        `sslcst.pp.add_microns`.

    Raises
    ------
    BackendError
        sopa is not installed.
    KeyMissingError
        An element or column is not there, or several could be meant.
    ParameterError
        Nothing tells the size of a pixel, or something else than `pixel_size`.
    DataError
        The table has cells that the labels lack, or its ``X``, or else ``layers["counts"]``, holds no counts.
    StoreError
        The folder cannot be written.
    """
    check_unit(NAME, pixel_size)
    if find_spec("sopa") is None:
        raise BackendError("The Xenium Explorer's files are written by sopa: pip install 'sslcst[explorer]'.")
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file: give a folder.")
    cells_key, table_key, boundaries_key = (result_name(sdata, key, kind) for kind in ("cells", "table", "boundaries"))
    nuclei_key = nuclei_of(sdata, cells_key, key)
    table = result_table(sdata, key, cells_key, nuclei_key)
    used = Used.by(sdata, cells_key)
    image_key = choose_image(sdata, used.image(image_key))
    points = used.transcripts(points_key, gene_key, None)
    points_key, gene_key = points["points_key"], points.get("gene_key")
    keys = [image_key, cells_key, points_key]
    sdata = used.sdata
    microns = find_microns(sdata, keys, raster_key=image_key, pixel_size=pixel_size)
    side = pixel_side(sdata, image_key, microns.base) * microns.scale
    counts = counts_of(table, table_key)

    with progress("write for Xenium Explorer"), warnings.catch_warnings():
        from sopa.io import explorer

        ids = table.obs["cell_id"].to_numpy()
        cells, nuclei = _shapes(sdata, ids, cells_key, nuclei_key, boundaries_key)
        names = pd.Index([explorer.str_cell_id(int(i)) for i in ids])
        groups = table.obs.select_dtypes("category").drop(columns="source_id", errors="ignore")
        about = {"cell_id": names, "region": pd.Categorical([cells_key] * len(ids))}
        written = AnnData(counts, obs=groups.assign(**about).set_index(names), var=table.var[[]])
        written = SpatialData(
            images={image_key: sdata.images[image_key]},
            points={points_key: sdata.points[points_key]} if gene_key else {},
            shapes={cells_key: cells.set_index(names), nuclei_key: nuclei.set_index(names)},
            tables={table_key: TableModel.parse(written, cells_key, "region", "cell_id")},
        )
        # It writes metadata into its zip files twice, which readers do not mind, and calls xarray as of old.
        warnings.filterwarnings("ignore", "Duplicate name|Supplying chunks")
        with writing(path):
            explorer.write(
                path,
                written,
                table_key=table_key,
                image_key=image_key,
                nucleus_shapes_key=nuclei_key,
                gene_column=gene_key,
                pixel_size=side,
                polygon_max_vertices=_CORNERS,
                mode="-m",
            )
            # By itself, since `write` of sopa 2.2 does not pass the size of a pixel on to it.
            explorer.write_metadata(path, image_key, cells_key, len(ids), pixel_size=side)
    logger.info("%s: %d cells, in pixels of %.4g microns.", path, len(ids), side)


def _shapes(
    sdata: SpatialData, ids: np.ndarray, cells_key: str, nuclei_key: str, boundaries_key: str
) -> tuple[GeoDataFrame, GeoDataFrame]:
    """Cells and their nuclei, in the order of their ids."""
    cells = sdata.shapes.get(boundaries_key)
    if cells is None or not np.isin(ids, cells.index).all():
        cells = boundaries_of(sdata, cells_key, ids)
    cells = cells.loc[ids]
    nuclei = plane(sdata, nuclei_key).to_numpy()
    with_nucleus = ids[np.isin(ids, nuclei)]
    outlines = cells.copy()
    outlines.loc[with_nucleus, "geometry"] = boundaries_of(sdata, nuclei_key, with_nucleus).geometry
    return cells, outlines
