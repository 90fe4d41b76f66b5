"""A picture of nuclei and, where there is one, a reference, on the stain: what to look at before all else is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from sslcst._arguments import checked
from sslcst.pl._canvas import (
    NUCLEI,
    REFERENCE,
    Region,
    check_region,
    draw_outlines,
    extent_of,
    finish_axes,
    pick,
    pick_image,
    prepare_axes,
    read_raster,
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
    coordinate_system: str = "global",
    region: Region | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the outlines of nuclei on the stain (paper: Fig. 4).

    Of a large element only the region is read, at the coarsest stored scale that still fills the picture.

    Parameters
    ----------
    sdata
        Holds the labels.
    nuclei_key
        Labels of the nuclei.
    image_key
        Stain to draw in grey. ``None`` takes the only image there is; with no image, the ground is black.
    channel
        Channel of the stain. ``None`` takes the first.
    truth_key
        Labels of a reference to outline as well.
    coordinate_system
        In whose units the axes are, y downward.
    region
        (x0, y0, x1, y1) to show, in units of the coordinate system. ``None`` shows all of the labels.
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
    labels = {"nuclei": pick(sdata.labels, nuclei_key, "labels")}
    if truth_key is not None:
        labels = {"reference": pick(sdata.labels, truth_key, "labels"), **labels}  # the nuclei are drawn over it
    image = pick_image(sdata, image_key)
    region = extent_of(labels["nuclei"], coordinate_system) if region is None else check_region(region)
    rasters = {name: read_raster(element, coordinate_system, region, name) for name, element in labels.items()}
    stain = None if image is None else read_raster(image, coordinate_system, region, "the image", channel)

    ax = prepare_axes(ax, stain)
    handles = [
        draw_outlines(ax, raster, f"{name} ({np.count_nonzero(np.unique(raster.pixels))})", colour)
        for (name, raster), colour in zip(rasters.items(), (REFERENCE, NUCLEI)[-len(rasters) :], strict=True)
    ]
    return finish_axes(ax, region, coordinate_system, handles, save)
