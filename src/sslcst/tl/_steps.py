"""What the steps of a method read: the spots and nuclei of an object, as the one window of a tissue in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sslcst._sdata.elements import choose_image, choose_key, read_channel, read_nuclei
from sslcst._sdata.raster import Raster, raster_of
from sslcst.methods.base import Method, Window
from sslcst.params import Params
from sslcst.pp._spots import as_spots
from sslcst.run.memory import InMemory

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def spots_table(sdata: SpatialData, spots_key: str) -> AnnData:
    """The table of spots of that name."""
    return sdata.tables[choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")]


def raster_of_spots(sdata: SpatialData, table: AnnData) -> Raster:
    """The pixels of the nuclei that the spots were binned on."""
    about = table.uns["sslcst"]
    return raster_of(sdata, about["nuclei_key"], about["coordinate_system"])


def open_window(
    sdata: SpatialData,
    spots_key: str,
    method: Method,
    params: Params,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
) -> Window:
    """The tissue of a table of spots, with what `sslcst.tl.predict` gave if it did."""
    table = spots_table(sdata, spots_key)
    nuclei_key = table.uns["sslcst"]["nuclei_key"]
    choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    nuclei = read_nuclei(sdata, nuclei_key, raster_of_spots(sdata, table))
    image = None if image_key is None else read_channel(sdata, choose_image(sdata, image_key), channel)
    spots, layout = as_spots(table)
    by_spot = {name: table.obs[name].to_numpy() for name in ("probability",) if name in table.obs}
    by_spot |= {name: np.asarray(table.obsm[name]) for name in ("direction",) if name in table.obsm}
    by_bin = {name: np.asarray(values) for name, values in table.uns["sslcst"].get("of_bins", {}).items()}
    reach = method.reach(params.cells.max_distance, layout.radius)
    source = InMemory(spots, layout.radius, reach, nuclei, image, by_spot, by_bin)
    return source.window(np.asarray(table.var_names), params.tiles.block)
