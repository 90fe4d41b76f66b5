"""Transcripts binned to spots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import add_element, check_addable, choose_key, read_nuclei
from sslcst._sdata.provenance import Used, as_record
from sslcst._sdata.raster import apply_affine, raster_of
from sslcst._sdata.transcripts import is_of_gem, read_transcripts
from sslcst.core.geometry import Regions
from sslcst.core.layout import Layout
from sslcst.core.spots import Grid, Spots, bin_transcripts, inside_raster
from sslcst.methods import shared_params
from sslcst.params import Params
from sslcst.run.warnings import check_on_image


@checked
def bin_spots(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str = "sslcst_nuclei",
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | None = None,
    key_added: str = "sslcst_spots",
) -> None:
    """Sum transcripts into spots, the occupied bins of a grid that is laid over the nuclei's pixels.

    Parameters
    ----------
    sdata
        Holds points and nuclei.
    points_key, gene_key, count_key
        The transcripts, as in `sslcst.tl.segment`.
    nuclei_key
        Labels of the nuclei.
    coordinate_system
        Where points and nuclei meet, and whose units count; by default that in which the nuclei were segmented, else
        "global" or the only one.
    params
        Sections ``transcripts``, ``spots`` and ``cells``; those of a method are not read.
    key_added
        Name of the table of n spots x genes; a store on disk is not touched. ``X`` holds counts (csr); ``obs`` row and
        column on the grid, and the label of the nucleus (0 outside); ``obsm["spatial"]`` the position (x, y).

    Raises
    ------
    KeyMissingError
        No such element, column or coordinate system, or several that could be meant.
    DataError
        No transcripts, none on the raster of the nuclei, or ones that are not valid; no nuclei.
    """
    check_addable(sdata, "tables", key_added)
    params = shared_params(params)
    choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    used = Used.by(sdata, nuclei_key)
    molecules = used.transcripts(points_key, gene_key, count_key)
    points_key = molecules["points_key"]
    coordinate_system = used.system([points_key, nuclei_key], coordinate_system)
    raster = raster_of(used.sdata, nuclei_key, coordinate_system)
    transcripts = read_transcripts(used.sdata, **molecules, raster=raster, params=params.transcripts)
    n_on, pair = int(inside_raster(transcripts.yx, raster.shape).sum()), raster.pair(nuclei_key, points_key)
    if warning := check_on_image(n_on, len(transcripts.yx), pair, of_gem=is_of_gem(sdata)):
        logger.warning("%s", warning)

    nuclei = read_nuclei(sdata, nuclei_key, raster)
    layout = raster.lay_out(Regions.of(nuclei).diameter, params)
    grid = layout.grid
    spots = bin_transcripts(
        transcripts.yx, transcripts.gene, transcripts.count, n_genes=len(transcripts.genes), grid=grid
    )
    obs = pd.DataFrame(
        {"row": spots.index[:, 0], "column": spots.index[:, 1], "nucleus": grid.from_raster(nuclei)[spots.place]},
        index=pd.RangeIndex(len(spots)).astype(str),
    )
    table = AnnData(spots.counts, obs=obs, var=pd.DataFrame(index=transcripts.genes))
    table.obsm["spatial"] = apply_affine(raster.to_system, grid.centers(spots.index))[:, ::-1]
    table.uns["sslcst"] = {
        "raster_shape": np.array(raster.shape),
        "step": np.array(grid.step),
        "bin_size": grid.bin_size,
        "radius": layout.radius,
    } | as_record(used.record, **molecules, nuclei_key=nuclei_key, coordinate_system=coordinate_system)
    said = "%d spots of %.3g, expected cell radius %.3g, in coordinate system %r, where a pixel is %.4g wide."
    radius = layout.radius * grid.bin_size
    logger.info(said, len(spots), grid.bin_size, radius, coordinate_system, raster.pixel_size)
    add_element(sdata, "tables", key_added, table)


def as_spots(table: AnnData) -> tuple[Spots, Layout]:
    """The spots of a table that `bin_spots` made, and the grid and scale that they are of."""
    layout, obs = table.uns["sslcst"], table.obs
    grid = Grid(tuple(map(int, layout["raster_shape"])), tuple(map(float, layout["step"])), float(layout["bin_size"]))
    spots = Spots(grid, obs[["row", "column"]].to_numpy(np.int32), table.X)
    return spots, Layout(grid, float(layout["radius"]))
