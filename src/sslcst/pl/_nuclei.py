"""A picture of nuclei and, where there is one, a reference, on the stain: what to look at before all else is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used
from sslcst.pl._canvas import (
    NUCLEI,
    REFERENCE,
    check_cells,
    check_region,
    draw_outlines,
    extent_of,
    finish_axes,
    prepare_axes,
    read_cells,
    read_stain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


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

    Of a large element only the region is read, at the coarsest stored scale that still fills the picture.

    Parameters
    ----------
    sdata
        Holds the nuclei.
    nuclei_key
        Labels or shapes of the nuclei.
    image_key
        Stain to draw in grey; by default the one the nuclei were made of, else as `sslcst.tl.segment` chooses.
        With no image, the ground is black.
    channel
        Channel of the stain; by default the one that was segmented, else one named DAPI or the like, else the first.
    truth_key
        Labels or shapes of a reference to outline as well.
    coordinate_system
        In whose units the axes are, y downward; by default that in which the nuclei were made, else "global" or
        the only one.
    region
        (x0, y0, x1, y1) to show, in units of the coordinate system. ``None`` shows all of the nuclei.
    ax
        Where to draw; a new figure otherwise.
    save
        File to write the figure to.

    Returns
    -------
    The axes. The legend counts the nuclei that are shown.

    Raises
    ------
    KeyMissingError
        An element, channel or coordinate system is not there, or there are several images to choose from.
    ParameterError
        `region` has no area.
    DataError
        An element does not reach into the region.
    """
    used = Used.by(sdata, nuclei_key)
    sdata = used.sdata
    keys = {"nuclei": nuclei_key}
    if truth_key is not None:
        keys = {"reference": truth_key} | keys  # the nuclei are drawn over it
    check_cells(sdata, keys.values())
    image_key = used.image(image_key)
    if coordinate_system is None:
        coordinate_system = used.system([nuclei_key, truth_key, image_key], None)
    region = extent_of(sdata[nuclei_key], coordinate_system) if region is None else check_region(region)
    rasters = read_cells(sdata, keys, coordinate_system, region)
    stain = read_stain(used, image_key, channel, coordinate_system, region)

    ax = prepare_axes(ax, stain)
    colours = {"reference": REFERENCE, "nuclei": NUCLEI}
    layers = {name: (raster, colours[name]) for name, raster in rasters.items()}
    return finish_axes(ax, region, coordinate_system, draw_outlines(ax, layers, count=True), save)
