"""A picture of nuclei and, where there is one, a reference, on the stain: what to look at before all else is built."""

from __future__ import annotations

import os

from matplotlib.axes import Axes
from spatialdata import SpatialData

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used
from sslcst.pl._canvas import NUCLEI, REFERENCE, View, check_save, draw_outlines


@checked
def nuclei(
    sdata: SpatialData,
    *,
    nuclei_key: str = "sslcst_nuclei",
    image_key: str | None = None,
    channel: str | int | None = None,
    truth_key: str | None = None,
    coordinate_system: str | None = None,
    region: Region | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the outlines of nuclei on the stain (paper: Fig. 4).

    Parameters
    ----------
    sdata
        Holds the nuclei.
    nuclei_key
        Labels or shapes of the nuclei.
    image_key, channel, truth_key, coordinate_system, region, ax, save
        As in `sslcst.pl.segmentation`, of the nuclei in place of the cells.

    Returns
    -------
    The axes. The legend counts the nuclei that are shown: at least, where pixels had to be left out.

    Raises
    ------
    KeyMissingError, ParameterError, DataError, StoreError
        As in `sslcst.pl.segmentation`.
    """
    check_save(save)
    keys = {"reference": truth_key, "nuclei": nuclei_key}  # the nuclei are drawn over it
    view = View.of(Used.by(sdata, nuclei_key), keys, "nuclei", image_key, channel, coordinate_system, region)
    ax = view.draw_stain(ax)
    colours = {"reference": REFERENCE, "nuclei": NUCLEI}
    layers = {name: (raster, colours[name]) for name, raster in view.cells.items()}
    return view.finish(ax, draw_outlines(ax, layers, count=True), save)
