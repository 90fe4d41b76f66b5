"""Transcripts binned to spots, with what the nuclei say of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._logging import logger
from sslcst.core.geometry import centroids, nearest_centroid
from sslcst.core.spots import Grid, Spots, bin_transcripts, inside_raster, variable_genes
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
from sslcst.transcripts import read_transcripts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_BINS_ACROSS = 16  # a nucleus of median diameter


def bin_spots(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str = "sslcst_nuclei",
    cores_key: str = "sslcst_cores",
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | None = None,
    key_added: str = "sslcst_spots",
) -> None:
    """Sum transcripts into spots, the occupied bins of a grid that is laid over the nuclei's pixels (paper: eq. 1-3).

    Parameters
    ----------
    sdata
        Holds points and nuclei.
    points_key
        Molecules with a gene each, or places annotated by a table of counts; may be left out if there is only one.
    gene_key, count_key
        Columns of the gene and of the number of molecules; by default those the element names, or of a usual name.
    nuclei_key, cores_key
        Labels of the nuclei and of their cores.
    coordinate_system
        Where points and nuclei meet, and whose units count; by default "global" or the only one.
    params
        Sections ``transcripts``, ``spots`` and ``prior``.
    key_added
        Name of the table of n spots x genes. ``X`` holds counts (csr); ``obs`` row and column on the grid, the labels
        of nucleus and core (0 outside), the nearest nucleus and the distance to its centroid (units of the coordinate
        system); ``obsm["spatial"]`` the position (x, y) in the coordinate system; ``obsm["to_nucleus"]`` the vector
        (dy, dx), in bins, to the centroid of the spot's own nucleus or else of the nearest. It is added to the object;
        a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        No such element, column or coordinate system, or several that could be meant.
    DataError
        No transcripts, none on the raster of the nuclei, or ones that are not valid; no nuclei.
    """
    import anndata

    params = Params.of(params)
    points_key = choose_points(sdata, points_key)
    for key in (nuclei_key, cores_key):
        choose_key(sdata.labels, key, kind="labels element", argument="nuclei_key and cores_key")
    coordinate_system = choose_coordinate_system(sdata, [points_key, nuclei_key], coordinate_system)
    raster = raster_of(sdata, nuclei_key, coordinate_system)
    transcripts = read_transcripts(
        sdata, points_key, gene_key=gene_key, count_key=count_key, raster=raster, params=params.transcripts
    )
    off = len(transcripts.yx) - int(inside_raster(transcripts.yx, raster.shape).sum())
    if off:
        logger.info("%d of %d transcripts lie off the image and belong to no cell.", off, len(transcripts.yx))

    nuclei = read_nuclei(sdata, nuclei_key, raster)
    ids, centers, areas = centroids(nuclei)
    diameter = 2 * float(np.sqrt(np.median(areas) / np.pi))  # pixels
    bin_size = params.spots.bin_size or max(1, round(diameter / _BINS_ACROSS)) * raster.pixel_size
    radius = params.prior.radius or diameter * raster.pixel_size
    height, width = bin_size / raster.pixel_sides
    grid = Grid(raster.shape, (float(height), float(width)), bin_size)
    spots = bin_transcripts(
        transcripts.yx, transcripts.gene, transcripts.count, n_genes=len(transcripts.genes), grid=grid
    )

    middle, centers = spots.index + 0.5, centers / grid.step  # bins
    nearest, distance = nearest_centroid(middle, centers)
    nucleus = _at(grid.from_raster(nuclei), spots)
    own = np.where(nucleus > 0, np.searchsorted(ids, nucleus), nearest)
    obs = pd.DataFrame(
        {
            "row": spots.index[:, 0],
            "column": spots.index[:, 1],
            "nucleus": nucleus,
            "core": _at(grid.from_raster(np.asarray(sdata.labels[cores_key])), spots),
            "nearest": ids[nearest],
            "distance": distance * bin_size,
        },
        index=pd.RangeIndex(len(spots)).astype(str),
    )
    table = anndata.AnnData(spots.counts, obs=obs, var=pd.DataFrame(index=transcripts.genes))
    table.var["variable"] = np.isin(np.arange(table.n_vars), variable_genes(spots, params.spots.n_genes))
    table.obsm["spatial"] = apply_affine(raster.to_system, grid.centers(spots.index))[:, ::-1]
    table.obsm["to_nucleus"] = centers[own] - middle
    table.uns["sslcst"] = {
        "raster_shape": np.array(raster.shape),
        "step": np.array(grid.step),
        "bin_size": bin_size,
        "radius": radius,
        "centroids": centers,
        "coordinate_system": coordinate_system,
    }
    logger.info("%d spots of %.3g units, expected cell radius %.3g units.", len(spots), bin_size, radius)
    add_element(sdata, "tables", key_added, table)


def as_spots(table: AnnData) -> Spots:
    """The spots of a table that `bin_spots` made."""
    layout = table.uns["sslcst"]
    grid = Grid(tuple(map(int, layout["raster_shape"])), tuple(map(float, layout["step"])), float(layout["bin_size"]))
    return Spots(grid, table.obs[["row", "column"]].to_numpy(np.int32), table.X)


def _at(on_grid: np.ndarray, spots: Spots) -> np.ndarray:
    return on_grid[spots.index[:, 0], spots.index[:, 1]]
