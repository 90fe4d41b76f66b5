"""Which elements a run reads, chosen and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._sdata.elements import (
    channel_in_words,
    channel_of,
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
from sslcst._sdata.raster import Raster, raster_of
from sslcst._sdata.region import choose_area
from sslcst._sdata.transcripts import columns_of, open_transcripts
from sslcst.core.geometry import Regions
from sslcst.core.nuclei import choose_method
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.params import Params
from sslcst.pp._nuclei import grid_of_nuclei, image_of_nuclei, raster_of_nuclei
from sslcst.run.execute import with_real_paths
from sslcst.run.pipeline import Input

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst._arguments import Region

# Around a region, in nucleus diameters or expected cell radii: what bears on its nuclei and on how far its cells reach.
_AROUND = 12
_SAMPLE = 1024  # pixels, side of the part of a region that tells the size of its nuclei
_NUCLEUS = 40  # pixels, of nuclei whose size nothing tells


@dataclass(frozen=True)
class Sources(Input):
    """What a run reads, and what it is called.

    Parameters
    ----------
    keys
        The raster, or the shapes, that are read.
    points_key
        The transcripts.
    record
        Every key, for `sslcst._sdata.provenance`.
    """

    keys: tuple[str, ...]
    points_key: str
    record: dict[str, str]

    @property
    def about(self) -> dict[str, Any]:
        """What the result depends on beside the elements of `keys`, in plain values."""
        raster, transcripts = self.raster, self.transcripts
        source_ids = None if self.nuclei is None else self.nuclei.source_ids
        return {
            "image": str(getattr(self.image, "name", None)),
            "raster": [raster.shape, raster.to_system.tolist(), raster.coordinate_system],
            "systems": {name: str(system) for name, system in raster.transformations.items()},
            "region": None if self.area is None else self.area.polygon.wkb_hex,
            "source_ids": None if source_ids is None else str(pd.util.hash_pandas_object(source_ids).sum()),
            "transcripts": [self.points_key, transcripts.digest, transcripts.to_pixel.tolist()],
        }


def choose_sources(
    sdata: SpatialData,
    *,
    image_key: str | None,
    channel: str | int | None,
    points_key: str | None,
    gene_key: str | None,
    count_key: str | None,
    nuclei_key: str | None,
    coordinate_system: str | None,
    unit: str | None = None,
    pixel_size: float | None = None,
    region: str | Region | None = None,
    params: Params,
) -> tuple[Sources, Params]:
    """Choose what a run reads; the parameters come back with the method of the nuclei named.

    Raises
    ------
    KeyMissingError, DataError, ParameterError, StoreError
        As `sslcst.tl.segment`.
    """
    check_unit(unit, pixel_size)
    points_key = choose_points(sdata, points_key, beside=nuclei_key or image_key)
    if nuclei_key is None:
        params = replace(params, nuclei=choose_method(params.nuclei))
        image_key = pixels_of = choose_image(sdata, image_key, beside=points_key)
    else:
        choose_key([*sdata.labels, *sdata.shapes], nuclei_key, kind="labels or shapes element", argument="nuclei_key")
        pixels_of = grid_of_nuclei(sdata, nuclei_key, image_key)
    if unit is not None:
        read = dict.fromkeys(key for key in (nuclei_key, pixels_of, points_key) if key is not None)
        microns = find_microns(
            sdata, list(read), raster_key=pixels_of, pixel_size=pixel_size, coordinate_system=coordinate_system
        )
        sdata, coordinate_system = in_system(sdata, microns), microns.name
    if nuclei_key is None:
        coordinate_system = choose_coordinate_system(sdata, [image_key, points_key], coordinate_system)
        raster = raster_of(sdata, image_key, coordinate_system)
        channel = choose_channel(sdata, image_key, channel)
        image, keys = with_real_paths(channel_of(sdata, image_key, channel).data), (image_key,)
    else:
        coordinate_system = choose_coordinate_system(sdata, [nuclei_key, points_key], coordinate_system)
        raster = raster_of_nuclei(
            sdata, nuclei_key, image_key=image_key, points_key=points_key, coordinate_system=coordinate_system
        )
        image_key = image_of_nuclei(sdata, nuclei_key, image_key)
        image, channel, keys = None, None, (nuclei_key,)
    if unit is not None:
        raster = raster.lying_in(microns.base, np.linalg.inv(microns.step))
    check_there(sdata, [*keys, points_key])
    area = whole = None
    if region is not None:
        area = choose_area(sdata, region, raster)
        whole, asked = image, raster.cropped(*area.window(raster.shape, 0))
        stain, nuclei = _read(sdata, image, nuclei_key, asked)
        raster, area = area.on(raster, _margin(stain, nuclei, asked, params))
    image, nuclei = _read(sdata, image, nuclei_key, raster)
    columns = columns_of(sdata, points_key, gene_key, count_key)
    transcripts = open_transcripts(sdata, points_key, **columns, raster=raster, params=params.transcripts)
    return Sources(
        raster=raster,
        image=image,
        image_name=channel_in_words(keys[0], channel),
        nuclei=nuclei,
        transcripts=transcripts if area is None else replace(transcripts, within=raster.shape),
        points=sdata.points[points_key],
        pair=raster.pair(keys[0], points_key),
        area=area,
        whole=whole,
        keys=keys,
        points_key=points_key,
        record=as_record(
            Used.by(sdata, nuclei_key).record,
            image_key=image_key,
            channel=channel,
            points_key=points_key,
            **columns,
            nuclei_key=nuclei_key,
            coordinate_system=coordinate_system,
        ),
    ), params


def _read(
    sdata: SpatialData, image: Any | None, nuclei_key: str | None, raster: Raster
) -> tuple[Any | None, NucleusSource | None]:
    """The stain, or the nuclei that are given, on a raster that may be a part of theirs."""
    if image is not None and raster.window is not None:
        image = image[raster.window]
    return image, None if nuclei_key is None else open_nuclei(sdata, nuclei_key, raster)


def _margin(image: Any | None, nuclei: NucleusSource | None, raster: Raster, params: Params) -> float:
    """Pixels around a region that its cells depend on, by the size of the nuclei that are seen in its middle."""
    pixels = [slice((size - side) // 2, (size + side) // 2) for size in raster.shape for side in [min(size, _SAMPLE)]]
    told = [length / raster.pixel_size for length in (*params.nuclei.diameters, params.cells.radius or 0)]
    if nuclei is not None:
        regions = Regions.of(nuclei.read(*pixels))
        seen = regions.diameter if len(regions) else None
    else:
        stain = read_part(image, *pixels).astype(np.float32)
        flat = not np.isfinite(stain).all() or stain.min() == stain.max()
        seen = None if flat else estimate_diameter(scale_intensity(stain, *intensity_range(stain, (1, 99.8))))
    return _AROUND * max(seen or _NUCLEUS, *told)
