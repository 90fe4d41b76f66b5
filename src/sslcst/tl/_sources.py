"""Which elements a run reads, chosen and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._sdata.elements import (
    channel_in_words,
    channel_of,
    channels_of,
    choose_cell_channel,
    choose_channel,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    open_nuclei,
)
from sslcst._sdata.labels import NucleusSource, read_part
from sslcst._sdata.microns import check_unit, find_microns, in_system
from sslcst._sdata.places import check_there
from sslcst._sdata.provenance import Used, as_record
from sslcst._sdata.raster import Raster, is_identity, raster_of
from sslcst._sdata.region import choose_area
from sslcst._sdata.transcripts import columns_of, open_transcripts
from sslcst._section import check
from sslcst.core.geometry import Regions
from sslcst.core.nuclei import choose_method
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.errors import DataError, ParameterError
from sslcst.params import Params
from sslcst.pp._nuclei import grid_of_nuclei, image_of_nuclei, raster_of_nuclei
from sslcst.run.execute import with_real_paths
from sslcst.run.pipeline import Field, Input
from sslcst.run.stages.nuclei import on_raster

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst._arguments import Region
    from sslcst.methods.base import Method

# Around a region, in nucleus diameters or expected cell radii: what bears on its nuclei and on how far its cells reach.
_AROUND = 12
_SAMPLE = 1024  # pixels, side of the part of a region that tells the size of its nuclei
_NUCLEUS = 40  # pixels, of nuclei whose size nothing tells


# What a call says of where things are: arguments of `sslcst.tl.segment` and `plan`.
KEYS = ("image_key", "channel", "channels", "points_key", "gene_key", "count_key", "nuclei_key", "cells_key")
KEYS += ("coordinate_system", "unit", "pixel_size", "region")


def choose_keys(arguments: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """What a call says of where things are, in plain values, where it goes together and with the method."""
    keys = {name: arguments[name] for name in KEYS}
    cells_key, channel, channels, region = (keys[name] for name in ("cells_key", "channel", "channels", "region"))
    check_unit(keys["unit"], keys["pixel_size"])
    takes_given = method.whole_cells and method.cell_params is None
    if takes_given and cells_key is None:
        raise ParameterError(f"method={method.name!r}: say with cells_key= which labels or shapes are the cells.")
    if cells_key is not None and not takes_given:
        raise ParameterError(
            f"cells_key={cells_key!r} gives the cells, and method={method.name!r} makes them: leave one out; cells to "
            "grow from are given by nuclei_key."
        )
    if channels is not None:
        if method.cell_params is None:
            raise ParameterError(
                f"channels are for method='stain', and channel for the nuclei of method={method.name!r}."
            )
        check(len(channels) == 2, "channels", channels, "must be two: that of whole cells, and that of nuclei")
        check(channel is None, "channel", channel, "channels names that of nuclei, too")
        keys["channels"] = list(channels)
    if region is not None and not isinstance(region, str):
        keys["region"] = [float(value) for value in region]
    return keys


def choose_sources(
    sdata: SpatialData,
    *,
    image_key: str | None,
    channel: str | int | None,
    channels: Sequence[str | int] | None,
    points_key: str | None,
    gene_key: str | None,
    count_key: str | None,
    nuclei_key: str | None,
    cells_key: str | None,
    coordinate_system: str | None,
    unit: str | None,
    pixel_size: float | None,
    region: str | Region | None,
    params: Params,
    method: Method,
) -> tuple[Input, Params]:
    """Choose what a run reads, before any work; the parameters come back with the method of the nuclei named."""
    stained = method.cell_params is not None
    given = {name: key for name, key in (("cells_key", cells_key), ("nuclei_key", nuclei_key)) if key is not None}
    for argument, key in given.items():
        choose_key([*sdata.labels, *sdata.shapes], key, kind="labels or shapes element", argument=argument)
    given = tuple(given.values())
    points_key = choose_points(sdata, points_key, beside=next(iter(given), image_key))
    # Where cells are given, and no image is there to find nuclei in, they have none.
    finds_nuclei = nuclei_key is None and (cells_key is None or image_key is not None or len(sdata.images) > 0)
    if finds_nuclei:
        params = replace(params, nuclei=choose_method(params.nuclei))
    keys = given
    if finds_nuclei or stained:
        image_key = choose_image(sdata, image_key, beside=points_key)
        keys = (*given, image_key)
    # The element whose pixels results have: labels that are given, else the image; None where there is neither.
    pixels_of = image_key
    if given and not stained:
        labels = [key for key in given if key in sdata.labels]
        pixels_of = grid_of_nuclei(sdata, (labels or given)[0], image_key)
    if unit is not None:
        read = dict.fromkeys(key for key in (*keys, pixels_of, points_key) if key is not None)
        microns = find_microns(
            sdata, list(read), raster_key=pixels_of, pixel_size=pixel_size, coordinate_system=coordinate_system
        )
        sdata, coordinate_system = in_system(sdata, microns), microns.name
    coordinate_system = choose_coordinate_system(sdata, [*keys, points_key], coordinate_system)
    if pixels_of is None:
        where = {"image_key": None, "points_key": points_key, "coordinate_system": coordinate_system}
        raster = raster_of_nuclei(sdata, given[0], **where, whole_cells=cells_key is not None)
    else:
        choose_coordinate_system(sdata, [pixels_of], coordinate_system)
        raster = raster_of(sdata, pixels_of, coordinate_system)
    for key in keys:
        if key not in sdata.shapes:
            _check_same_pixels(sdata, key, pixels_of, raster)
    image = cell_stain = None
    if image_key in keys:
        cell_channel, channel = channels or (None, channel)
        channel = choose_channel(sdata, image_key, channel)
        image = with_real_paths(channel_of(sdata, image_key, channel).data)
        if stained:
            channels = [choose_cell_channel(sdata, image_key, cell_channel), channel]
            cell_stain = with_real_paths(channels_of(sdata, image_key, channels).data)
    else:
        channel = None
    if unit is not None:
        raster = raster.lying_in(microns.base, np.linalg.inv(microns.step))
    check_there(sdata, [*keys, points_key])
    area = None
    if region is not None:
        area = choose_area(sdata, region, raster)
        asked = raster.cropped(*area.window(raster.shape, 0))
        source = open_nuclei(sdata, given[0], asked) if given else None
        raster, area = area.on(raster, margin(image, source, asked, params))
    columns = columns_of(sdata, points_key, gene_key, count_key)
    transcripts = open_transcripts(sdata, points_key, **columns, raster=raster, params=params.transcripts)
    if area is not None:
        transcripts = replace(transcripts, within=raster.shape)
    nuclei, cells = (None if key is None else open_nuclei(sdata, key, raster) for key in (nuclei_key, cells_key))
    record = as_record(
        Used.by(sdata, nuclei_key).record,
        image_key=image_key if image_key in keys else image_of_nuclei(sdata, given[0], image_key),
        channel=channel,
        channels=channels,
        points_key=points_key,
        **columns,
        nuclei_key=nuclei_key,
        cells_key=cells_key,
        coordinate_system=coordinate_system,
    )
    source_ids = [None if each is None else each.source_ids for each in (nuclei, cells)]
    return Input(
        raster=raster,
        image=image,
        cell_stain=cell_stain,
        image_name=channel_in_words(keys[-1], channel),
        nuclei=nuclei,
        cells=cells,
        transcripts=transcripts,
        pair=raster.pair(keys[0], points_key),
        fields={"": Field(raster, tuple(slice(0, size) for size in raster.shape), sdata.points[points_key], record)},
        keys=keys,
        about={
            "image": [str(getattr(stain, "name", None)) for stain in (image, cell_stain)],
            "raster": [raster.shape, raster.to_system.tolist(), raster.coordinate_system],
            "systems": {name: str(system) for name, system in raster.transformations.items()},
            "region": None if area is None else area.polygon.wkb_hex,
            "source_ids": [None if ids is None else str(pd.util.hash_pandas_object(ids).sum()) for ids in source_ids],
            "transcripts": [points_key, transcripts.digest, transcripts.to_pixel.tolist()],
        },
        area=area,
    ), params


def _check_same_pixels(sdata: SpatialData, key: str, pixels_of: str, raster: Raster) -> None:
    """See that labels, or an image, have the pixels of the results."""
    own = raster_of(sdata, key, raster.coordinate_system)
    if own.shape != raster.shape or not is_identity(np.linalg.inv(own.to_system) @ raster.to_system):
        raise DataError(
            f"{key!r} and {pixels_of!r} have other pixels, {own.shape} of {own.pixel_size:.4g} and {raster.shape} of "
            f"{raster.pixel_size:.4g} in coordinate system {raster.coordinate_system!r}: nuclei and cells must lie on "
            "the same. Give one of them as shapes (spatialdata.to_polygons), which are drawn on any."
        )


def margin(image: Any | None, nuclei: NucleusSource | None, raster: Raster, params: Params) -> float:
    """Pixels around a part of a raster that its cells depend on, by the size of the nuclei, or cells, in its middle."""
    pixels = [slice((size - side) // 2, (size + side) // 2) for size in raster.shape for side in [min(size, _SAMPLE)]]
    told = [length / raster.pixel_size for length in (*params.nuclei.diameters, params.cells.radius or 0)]
    if nuclei is not None:
        regions = Regions.of(nuclei.read(*pixels))
        seen = regions.diameter if len(regions) else None
    else:
        stain = read_part(on_raster(image, raster), *pixels).astype(np.float32)
        flat = not np.isfinite(stain).all() or stain.min() == stain.max()
        seen = None if flat else estimate_diameter(scale_intensity(stain, *intensity_range(stain, (1, 99.8))))
    return _AROUND * max(seen or _NUCLEUS, *told)
