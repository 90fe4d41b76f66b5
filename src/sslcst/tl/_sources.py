"""Which elements a run reads, chosen and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from sslcst.core.nuclei import choose_method
from sslcst.elements import (
    Raster,
    channel_of,
    choose_channel,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    open_nuclei,
    raster_of,
)
from sslcst.labels import NucleusSource
from sslcst.params import Params
from sslcst.places import check_there
from sslcst.pp._nuclei import raster_of_nuclei
from sslcst.tiles.execute import with_real_paths
from sslcst.transcripts import TranscriptSource, open_transcripts

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Sources:
    """What a run reads.

    Parameters
    ----------
    keys
        The raster, or the shapes, that are read.
    points_key
        The transcripts.
    nuclei
        Those that are given, checked and ready to be read, or None.
    image
        The stain (y, x), an array that is read by slices, or None where nuclei are given.
    channel
        Its name, or None where nuclei are given.
    raster
        The pixels of stain and results.
    transcripts
        Checked, and ready to be read.
    """

    keys: tuple[str, ...]
    points_key: str
    nuclei: NucleusSource | None
    image: Any | None
    channel: str | None
    raster: Raster
    transcripts: TranscriptSource

    @property
    def pair(self) -> str:
        """What must lie on one another, in words."""
        return self.raster.pair(self.keys[0], self.points_key)

    @property
    def about(self) -> dict[str, Any]:
        """What the result depends on beside the elements of `keys`, in plain values."""
        raster, transcripts = self.raster, self.transcripts
        source_ids = None if self.nuclei is None else self.nuclei.source_ids
        return {
            "image": str(getattr(self.image, "name", None)),
            "raster": [raster.shape, raster.to_system.tolist(), raster.coordinate_system],
            "systems": {name: str(system) for name, system in raster.transformations.items()},
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
    params: Params,
) -> tuple[Sources, Params]:
    """Choose what a run reads; the parameters come back with the method of the nuclei named.

    Raises
    ------
    KeyMissingError, DataError, ParameterError, StoreError
        As `sslcst.tl.segment`.
    """
    points_key = choose_points(sdata, points_key)
    if nuclei_key is None:
        params = replace(params, nuclei=choose_method(params.nuclei))
        image_key = choose_image(sdata, image_key)
        coordinate_system = choose_coordinate_system(sdata, [image_key, points_key], coordinate_system)
        raster = raster_of(sdata, image_key, coordinate_system)
        channel = choose_channel(sdata, image_key, channel)
        image, keys = with_real_paths(channel_of(sdata, image_key, channel).data), (image_key,)
    else:
        choose_key([*sdata.labels, *sdata.shapes], nuclei_key, kind="labels or shapes element", argument="nuclei_key")
        coordinate_system = choose_coordinate_system(sdata, [nuclei_key, points_key], coordinate_system)
        raster = raster_of_nuclei(
            sdata, nuclei_key, image_key=image_key, points_key=points_key, coordinate_system=coordinate_system
        )
        image, channel, keys = None, None, (nuclei_key,)
    check_there(sdata, [*keys, points_key])
    nuclei = None if nuclei_key is None else open_nuclei(sdata, nuclei_key, raster)
    transcripts = open_transcripts(
        sdata, points_key, gene_key=gene_key, count_key=count_key, raster=raster, params=params.transcripts
    )
    return Sources(keys, points_key, nuclei, image, channel, raster, transcripts), params
