"""A picture of nuclei and, where there is one, a reference, on the stain: what to look at before all else is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used
from sslcst.pl._canvas import NUCLEI, REFERENCE, View, draw_outlines

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
    image_key, channel
        Stain to draw in grey; by default that of the nuclei, else as `sslcst.tl.segment` chooses, or the first
        channel. With no image, the ground is black.
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
    The axes. The legend counts the nuclei that are shown: at least, where pixels had to be left out.

    Raises
    ------
    KeyMissingError
        An element, channel or coordinate system is not there, or there are several images to choose from.
    ParameterError
        `region` has no area.
    DataError
        An element does not reach into the region.
    """
    keys = {"reference": truth_key, "nuclei": nuclei_key}  # the nuclei are drawn over it
    view = View.of(Used.by(sdata, nuclei_key), keys, "nuclei", image_key, channel, coordinate_system, region)
    ax = view.draw_stain(ax)
    colours = {"reference": REFERENCE, "nuclei": NUCLEI}
    layers = {name: (raster, colours[name]) for name, raster in view.cells.items()}
    return view.finish(ax, draw_outlines(ax, layers, count=True), save)
