"""Transcripts binned to spots, with what the nuclei say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst.core.cells import Occupancy
from sslcst.core.composition import compare_mixes, tally_ratios, trust_of
from sslcst.core.density import Levels, Membership, cell_share, look_around, measure_levels
from sslcst.core.geometry import Regions
from sslcst.core.layout import lay_out
from sslcst.core.relations import Relations, relate
from sslcst.core.spots import GeneMoments, Grid, Spots, bin_transcripts, inside_raster
from sslcst.elements import (
    add_element,
    apply_affine,
    check_addable,
    choose_coordinate_system,
    choose_key,
    choose_points,
    full_scale,
    raster_of,
    read_nuclei,
)
from sslcst.params import Params
from sslcst.transcripts import check_on_image, is_of_gem, read_transcripts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
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
        of nucleus and core (0 outside), the nearest nucleus and the distance to its centroid (in bins), the nucleus
        whose edge is nearest as ``owner`` (0 beyond reach), and as ``share`` the probability to lie in its cell that
        the density of transcripts tells; ``obsm["spatial"]`` the position (x, y) in the coordinate system;
        ``obsm["to_nucleus"]`` the vector (dy, dx), in bins, to the centroid of the spot's own nucleus or else of the
        nearest. It is added to the object; a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        No such element, column or coordinate system, or several that could be meant.
    DataError
        No transcripts, none on the raster of the nuclei, or ones that are not valid; no nuclei.
    """
    import anndata

    check_addable(sdata, "tables", key_added)
    params = Params.of(params)
    points_key = choose_points(sdata, points_key)
    for key in (nuclei_key, cores_key):
        choose_key(sdata.labels, key, kind="labels element", argument="nuclei_key and cores_key")
    coordinate_system = choose_coordinate_system(sdata, [points_key, nuclei_key], coordinate_system)
    raster = raster_of(sdata, nuclei_key, coordinate_system)
    transcripts = read_transcripts(
        sdata, points_key, gene_key=gene_key, count_key=count_key, raster=raster, params=params.transcripts
    )
    n_on, pair = int(inside_raster(transcripts.yx, raster.shape).sum()), raster.pair(nuclei_key, points_key)
    if warning := check_on_image(n_on, len(transcripts.yx), pair, of_gem=is_of_gem(sdata)):
        logger.warning("%s", warning)

    nuclei = read_nuclei(sdata, nuclei_key, raster)
    regions = Regions.of(nuclei)
    layout = lay_out(
        regions.diameter, raster.shape, pixel_size=raster.pixel_size, pixel_sides=raster.pixel_sides, params=params
    )
    grid = layout.grid
    spots = bin_transcripts(
        transcripts.yx, transcripts.gene, transcripts.count, n_genes=len(transcripts.genes), grid=grid
    )
    on_grid = grid.from_raster(nuclei)
    relations = relate(spots, on_grid, grid.from_raster(full_scale(sdata.labels[cores_key]).to_numpy()), regions)
    lengths = {"radius": layout.radius, "reach": layout.reach(params.prior.sigma)}
    around = look_around(spots.totals(), on_grid, **lengths)
    levels = measure_levels(around, **lengths)
    share = cell_share(around, levels, radius=layout.radius)
    moments = GeneMoments.of(spots)
    variable = moments.variable(params.spots.n_genes)
    told = replace(spots, counts=spots.counts[:, variable])
    inside = (share >= params.flow.threshold) | (on_grid > 0)
    likelihood = compare_mixes(around, told, inside, gene_total=moments.total[variable], radius=layout.radius)
    obs = pd.DataFrame(
        {
            "row": spots.index[:, 0],
            "column": spots.index[:, 1],
            "nucleus": relations.nucleus,
            "core": relations.core,
            "nearest": relations.nearest,
            "distance": relations.distance,
            "owner": around.nuclei[0][spots.place],
            "share": share[spots.place],
        },
        index=pd.RangeIndex(len(spots)).astype(str),
    )
    table = anndata.AnnData(spots.counts, obs=obs, var=pd.DataFrame(index=transcripts.genes))
    table.var["variable"] = np.isin(np.arange(table.n_vars), variable)
    table.obsm["spatial"] = apply_affine(raster.to_system, grid.centers(spots.index))[:, ::-1]
    table.obsm["to_nucleus"] = relations.offset
    table.uns["sslcst"] = {
        "raster_shape": np.array(raster.shape),
        "step": np.array(grid.step),
        "bin_size": grid.bin_size,
        "radius": layout.radius,
        "spacing": Occupancy.of(on_grid, relations.nucleus).spacing,
        "centroids": regions.centers / grid.step,
        "levels": {name: np.array(value) for name, value in asdict(levels).items()},
        "trust": trust_of(tally_ratios(around, likelihood, inside, radius=layout.radius)),
        "coordinate_system": coordinate_system,
    }
    logger.info(
        "%d spots of %.3g, expected cell radius %.3g, in coordinate system %r, where a pixel is %.4g wide.",
        len(spots),
        grid.bin_size,
        layout.radius * grid.bin_size,
        coordinate_system,
        raster.pixel_size,
    )
    add_element(sdata, "tables", key_added, table)


def as_spots(table: AnnData) -> tuple[Spots, Relations]:
    """The spots of a table that `bin_spots` made, and what it says of their nuclei."""
    layout, obs = table.uns["sslcst"], table.obs
    grid = Grid(tuple(map(int, layout["raster_shape"])), tuple(map(float, layout["step"])), float(layout["bin_size"]))
    relations = Relations(
        *(obs[name].to_numpy() for name in ("nucleus", "core", "nearest", "distance")), table.obsm["to_nucleus"]
    )
    return Spots(grid, obs[["row", "column"]].to_numpy(np.int32), table.X), relations


def as_membership(table: AnnData) -> Membership:
    """What the density of transcripts tells of each spot of a table that `bin_spots` made."""
    return Membership(table.obs["owner"].to_numpy(), table.obs["share"].to_numpy())


def as_levels(table: AnnData) -> Levels:
    """What the density of transcripts tells of the tissue of a table that `bin_spots` made."""
    return Levels(**{name: np.asarray(value).tolist() for name, value in table.uns["sslcst"]["levels"].items()})
