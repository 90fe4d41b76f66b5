"""Nuclei from a stain image, or from elements that are there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import (
    add_labels,
    channel_in_words,
    check_addable,
    choose_channel,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    read_channel,
    read_with_ids,
)
from sslcst._sdata.provenance import as_record, note
from sslcst._sdata.raster import Raster, matrix_of, raster_of, raster_over_points
from sslcst._sdata.shapes import Outlines
from sslcst.core.nuclei import choose_method, none_found
from sslcst.core.nuclei import segment_nuclei as segment_array
from sslcst.core.nuclei.intensity import check_image, merge_channels
from sslcst.device import choose_device
from sslcst.methods import shared_params
from sslcst.params import Params
from sslcst.run.stages.nuclei import doubt_of_size, sample_stain

_FEW = 0.005  # share of a stain that nuclei cover, below which most may have been missed
_PIXELS_ACROSS = (16, 32)  # a nucleus, or a whole cell, where shapes are drawn and no image gives the pixels


@checked
def segment_nuclei(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | Sequence[str | int] | None = None,
    scale: str | None = None,
    method: str | None = None,
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
    key_added: str = "sslcst_nuclei",
) -> None:
    """Segment the nuclei of a stain image (paper: "Nuclei segmentation").

    Parameters
    ----------
    sdata
        Holds the image.
    image_key
        The image (c, y, x), multiscale or not; may be left out if there is only one.
    channel
        Its channel that shows nuclei; may be left out if there is only one, or one is named DAPI or ssDNA. Several are
        scaled, each by its own percentiles, and the brightest taken at each pixel.
    scale
        Of a multiscale image, the scale to segment ("scale0", ...), on whose grid labels lie; by default the finest.
    method
        How; by default what the parameters name, see `sslcst.params.NucleiParams`.
    coordinate_system
        In whose units the diameters of `params` are; by default "global" or the only one.
    params
        Section ``nuclei`` holds the method's settings.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    key_added
        Name of the labels, uint32, on the image's grid; a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        No such image, channel, scale or coordinate system, or several that could be meant.
    ParameterError
        There is no such method, or a diameter that the image cannot show.
    DataError
        An image without contrast or with values that are not finite; no nucleus is found.
    BackendError
        The model that was asked for cannot be had.
    """
    check_addable(sdata, "labels", key_added)
    params = shared_params(params).nuclei
    device = choose_device(device)
    if method is not None:
        params = replace(params, method=method)
    image_key = choose_image(sdata, image_key, finds_nuclei=True)
    source = sdata if scale is None else _at_scale(sdata, image_key, scale)
    coordinate_system = choose_coordinate_system(source, [image_key], coordinate_system)
    raster, name = raster_of(source, image_key, coordinate_system), channel_in_words(image_key, channel)
    if not isinstance(channel, str | Integral | None):  # of several, in a list or an array
        channel = [choose_channel(source, image_key, each) for each in channel]
        parts = {channel_in_words(image_key, each): read_channel(source, image_key, each) for each in channel}
        image = merge_channels([check_image(part, each) for each, part in parts.items()], params.percentiles)
    else:
        channel = choose_channel(source, image_key, channel)
        image = read_channel(source, image_key, channel)
    params = choose_method(params)
    labels = segment_array(image, pixel_size=raster.pixel_size, params=params, device=device, name=name)
    if not labels.any():
        raise none_found(name, params.method)
    if params.diameters:
        sample = sample_stain(image, image.shape, params)
        how = {"pixel_size": raster.pixel_size, "params": params, "device": device, "name": name}
        if warning := doubt_of_size(sample, **how):
            logger.warning("%s", warning)
    if (covered := (labels > 0).mean()) < _FEW:
        logger.warning(
            "The nuclei cover only %.2g%% of %s. If there are more, see whether it is the right channel (channel=), "
            "look at it with sslcst.pl.nuclei, and give nuclei.diameters.",
            100 * covered,
            name,
        )
    logger.info("%d nuclei in image %r.", labels.max(), image_key)
    add_labels(sdata, key_added, labels, raster)
    note(sdata, key_added, as_record(image_key=image_key, channel=channel, coordinate_system=coordinate_system))


def _at_scale(sdata: SpatialData, image_key: str, scale: str) -> SpatialData:
    """An object of one scale of a multiscale image, under the image's name."""
    levels = getattr(sdata.images[image_key], "children", {})
    choose_key(levels, scale, kind="scale", of=f"of image {image_key!r}", argument="scale")
    return SpatialData(images={image_key: next(iter(levels[scale].data_vars.values()))}, attrs=sdata.attrs)


@checked
def import_nuclei(
    sdata: SpatialData,
    nuclei_key: str,
    *,
    image_key: str | None = None,
    points_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = "sslcst_nuclei",
) -> None:
    """Take nuclei that are there already, as labels or shapes.

    Parameters
    ----------
    sdata
        Holds the nuclei.
    nuclei_key
        Labels, which keep their grid; or shapes, drawn on the grid of an image or, without one, on a grid over the
        points: points as circles of their ``radius``, polygons as they are. What cannot be drawn or is not seen is left
        out, and logged. Ids, the index of shapes, stay what they are where all are distinct whole numbers from 1 to
        2^32 - 1. Others (text, larger or negative numbers, ...) are numbered.
    image_key, points_key
        What gives the grid of shapes; may be left out if there is only one.
    coordinate_system
        Where shapes, image and points meet; by default "global" or the only one.
    key_added
        Name of the labels, uint32; a store on disk is not touched. Where ids are numbered, a table ``{key_added}_ids``
        that annotates them tells the original of each ``cell_id`` in its column ``source_id``, which
        `sslcst.tl.segment` and `sslcst.tl.aggregate` pass on.

    Raises
    ------
    KeyMissingError
        No such element or coordinate system, or several that could be meant.
    DataError
        Labels that are negative or no integers; no nucleus.
    """
    check_addable(sdata, "labels", key_added)
    raster = raster_of_nuclei(
        sdata, nuclei_key, image_key=image_key, points_key=points_key, coordinate_system=coordinate_system
    )
    labels, source_ids = read_with_ids(sdata, nuclei_key, raster)
    add_labels(sdata, key_added, labels, raster, source_ids)
    record = as_record(image_key=image_of_nuclei(sdata, nuclei_key, image_key), coordinate_system=coordinate_system)
    note(sdata, key_added, record)


def raster_of_nuclei(
    sdata: SpatialData,
    nuclei_key: str,
    *,
    image_key: str | None,
    points_key: str | None,
    coordinate_system: str | None,
    whole_cells: bool = False,
) -> Raster:
    """The grid of nuclei, or cells, that are there already: those of labels, or as `import_nuclei` draws shapes."""
    choose_key([*sdata.labels, *sdata.shapes], nuclei_key, kind="labels or shapes element", argument="nuclei_key")
    if (grid_key := grid_of_nuclei(sdata, nuclei_key, image_key)) is not None:
        coordinate_system = choose_coordinate_system(sdata, [nuclei_key, grid_key], coordinate_system)
        return raster_of(sdata, grid_key, coordinate_system)
    points_key = choose_points(sdata, points_key)
    coordinate_system = choose_coordinate_system(sdata, [nuclei_key, points_key], coordinate_system)
    shapes = sdata.shapes[nuclei_key]
    matrix = matrix_of(shapes, nuclei_key, coordinate_system)
    diameter = Outlines.of(shapes, nuclei_key).diameter() * np.sqrt(abs(np.linalg.det(matrix)))
    return raster_over_points(sdata, points_key, coordinate_system, diameter / _PIXELS_ACROSS[whole_cells])


def rasters_of_cells(
    sdata: SpatialData, keys: Sequence[str], *, image_key: str | None, points_key: str | None, coordinate_system: str
) -> list[Raster]:
    """The pixel grid for each of some labels or shapes: of labels their own, of shapes that of the first labels.

    Where there are no labels, it is the one that `import_nuclei` takes for the first shapes.
    """
    own = {key: raster_of(sdata, key, coordinate_system) for key in keys if key in sdata.labels}
    where = {"image_key": image_key, "points_key": points_key, "coordinate_system": coordinate_system}
    shared = next(iter(own.values())) if own else raster_of_nuclei(sdata, keys[0], **where)
    return [own.get(key, shared) for key in keys]


def grid_of_nuclei(sdata: SpatialData, nuclei_key: str, image_key: str | None) -> str | None:
    """The element whose pixels are those of nuclei that are there already; None for shapes without an image."""
    if nuclei_key in sdata.labels:
        return nuclei_key
    return choose_image(sdata, image_key) if image_key is not None or len(sdata.images) == 1 else None


def image_of_nuclei(sdata: SpatialData, nuclei_key: str, image_key: str | None) -> str | None:
    """The image that gives the grid of shapes, or that the user names beside labels, which have their own grid."""
    if nuclei_key not in sdata.labels:
        return grid_of_nuclei(sdata, nuclei_key, image_key)
    return image_key if image_key in sdata.images else None
