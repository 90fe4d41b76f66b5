"""Which elements a run reads, chosen and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData

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
from sslcst.methods.base import Method
from sslcst.params import Params
from sslcst.pp._nuclei import grid_of_nuclei, image_of_nuclei, raster_of_nuclei
from sslcst.run.execute import with_real_paths
from sslcst.run.pipeline import Field, Input
from sslcst.run.stages.nuclei import on_raster

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


@dataclass(frozen=True)
class _Elements:
    """Which elements a run reads, by their names."""

    given: tuple[str, ...]  # cells and nuclei that are there before
    image: str | None  # that of the stain, or that nuclei come from
    points: str
    read: tuple[str, ...]  # what is given, and the image if it is read
    pixels_of: str | None  # whose pixels the results have: labels that are given, else the image; None: of neither


def choose_sources(
    sdata: SpatialData, keys: Mapping[str, Any], *, params: Params, method: Method
) -> tuple[Input, Params]:
    """Choose what a run reads, before any work; the parameters come back with the method of the nuclei named."""
    chosen, params = _choose_elements(sdata, keys, params, method)
    sdata, raster = _choose_raster(sdata, chosen, keys)
    image, cell_stain, channel, channels = _open_stains(sdata, chosen, keys, method)
    check_there(sdata, [*chosen.read, chosen.points])
    area = None
    if keys["region"] is not None:
        area = choose_area(sdata, keys["region"], raster)
        asked = raster.cropped(*area.window(raster.shape, 0))
        source = open_nuclei(sdata, chosen.given[0], asked) if chosen.given else None
        raster, area = area.on(raster, margin(image, source, asked, params))
    columns = columns_of(sdata, chosen.points, keys["gene_key"], keys["count_key"])
    transcripts = open_transcripts(sdata, chosen.points, **columns, raster=raster, params=params.transcripts)
    if area is not None:
        transcripts = replace(transcripts, within=raster.shape)
    labels = {name: keys[name] for name in ("nuclei_key", "cells_key")}
    nuclei, cells = (None if key is None else open_nuclei(sdata, key, raster) for key in labels.values())
    is_read = chosen.image in chosen.read
    record = as_record(
        Used.by(sdata, keys["nuclei_key"]).record,
        image_key=chosen.image if is_read else image_of_nuclei(sdata, chosen.given[0], chosen.image),
        channel=channel,
        channels=channels,
        points_key=chosen.points,
        **columns,
        **labels,
        coordinate_system=raster.coordinate_system,
    )
    source_ids = [None if each is None else each.source_ids for each in (nuclei, cells)]
    about = {
        "image": [str(getattr(stain, "name", None)) for stain in (image, cell_stain)],
        "raster": [raster.shape, raster.to_system.tolist(), raster.coordinate_system],
        "systems": {name: str(system) for name, system in raster.transformations.items()},
        "region": None if area is None else area.polygon.wkb_hex,
        "source_ids": [None if ids is None else str(pd.util.hash_pandas_object(ids).sum()) for ids in source_ids],
        "transcripts": [chosen.points, transcripts.digest, transcripts.to_pixel.tolist()],
    }
    whole = tuple(slice(0, size) for size in raster.shape)
    return Input(
        raster=raster,
        image=image,
        cell_stain=cell_stain,
        image_name=channel_in_words(chosen.read[-1], channels or channel),
        nuclei=nuclei,
        cells=cells,
        transcripts=transcripts,
        pair=raster.pair(chosen.read[0], chosen.points),
        fields={"": Field(raster, whole, sdata.points[chosen.points], record)},
        keys=chosen.read,
        about=about,
        area=area,
    ), params


def _choose_elements(
    sdata: SpatialData, keys: Mapping[str, Any], params: Params, method: Method
) -> tuple[_Elements, Params]:
    stained, image = method.cell_params is not None, keys["image_key"]
    given = {name: keys[name] for name in ("cells_key", "nuclei_key") if keys[name] is not None}
    for argument, key in given.items():
        choose_key([*sdata.labels, *sdata.shapes], key, kind="labels or shapes element", argument=argument)
    given = tuple(given.values())
    points = choose_points(sdata, keys["points_key"], beside=next(iter(given), image))
    # Where cells are given, and no image is there to find nuclei in, they have none.
    has_image = image is not None or len(sdata.images) > 0
    finds_nuclei = keys["nuclei_key"] is None and (keys["cells_key"] is None or has_image)
    if finds_nuclei:
        params = replace(params, nuclei=choose_method(params.nuclei))
    read = given
    if finds_nuclei or stained:
        image = choose_image(sdata, image, beside=points, finds_nuclei=finds_nuclei)
        read = (*given, image)
    pixels_of = image
    if given and not stained:
        labels = [key for key in given if key in sdata.labels]
        pixels_of = grid_of_nuclei(sdata, (labels or given)[0], image)
    return _Elements(given, image, points, read, pixels_of), params


def _choose_raster(sdata: SpatialData, chosen: _Elements, keys: Mapping[str, Any]) -> tuple[SpatialData, Raster]:
    """The pixels of the results, and the object with its elements in microns where these are asked for."""
    system, pixels_of, microns = keys["coordinate_system"], chosen.pixels_of, None
    if keys["unit"] is not None:
        every = dict.fromkeys(key for key in (*chosen.read, pixels_of, chosen.points) if key is not None)
        microns = find_microns(
            sdata, list(every), raster_key=pixels_of, pixel_size=keys["pixel_size"], coordinate_system=system
        )
        sdata, system = in_system(sdata, microns), microns.name
    system = choose_coordinate_system(sdata, [*chosen.read, chosen.points], system)
    if pixels_of is None:
        where = {"image_key": None, "points_key": chosen.points, "coordinate_system": system}
        raster = raster_of_nuclei(sdata, chosen.given[0], **where, whole_cells=keys["cells_key"] is not None)
    else:
        choose_coordinate_system(sdata, [pixels_of], system)
        raster = raster_of(sdata, pixels_of, system)
    for key in chosen.read:
        if key not in sdata.shapes:
            _check_same_pixels(sdata, key, pixels_of, raster)
    if microns is not None:
        raster = raster.lying_in(microns.base, np.linalg.inv(microns.step))
    return sdata, raster


def _open_stains(
    sdata: SpatialData, chosen: _Elements, keys: Mapping[str, Any], method: Method
) -> tuple[Any | None, Any | None, str | int | None, list[str | int] | None]:
    """The stain of nuclei, that of whole cells beside it, and their channels; None where they are not read."""
    channels = keys["channels"]
    if chosen.image not in chosen.read:
        return None, None, None, channels
    cell_channel, channel = channels or (None, keys["channel"])
    if method.cell_params is not None:  # first, since where neither is known, both are to be named
        cell_channel = choose_cell_channel(sdata, chosen.image, cell_channel)
    channel = choose_channel(sdata, chosen.image, channel)
    image = with_real_paths(channel_of(sdata, chosen.image, channel).data)
    if method.cell_params is None:
        return image, None, channel, channels
    channels = [cell_channel, channel]
    return image, with_real_paths(channels_of(sdata, chosen.image, channels).data), channel, channels


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
