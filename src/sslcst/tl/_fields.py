"""Several fields of view, or samples, chosen and checked before any work, as one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sslcst._logging import progress, warnings_only
from sslcst._sdata.fields import FieldName, find_fields, key_of, part_of
from sslcst._sdata.mosaic import MosaicImage, MosaicNuclei, MosaicTranscripts, lay_out
from sslcst._section import check
from sslcst.params import Params
from sslcst.run.pipeline import Field, Input
from sslcst.tl._sources import Sources, choose_sources, margin

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.methods.base import Method


@dataclass(frozen=True)
class Mosaic(Input):
    """What a run of several fields reads (`Sources`)."""

    keys: tuple[str, ...]  # the rasters, or the shapes, that are read
    about: dict[str, Any]  # what the result depends on beside these elements, in plain values
    record: dict[str, str]  # nothing: each field has its own


def choose_fields(
    sdata: SpatialData, fields: str | Sequence[str] | None, points_key: str | None, *beside: str | None
) -> list[FieldName] | None:
    """The fields that are asked for; `beside` are the keys of what lies beside the points, the first one counts."""
    if fields is None:
        return None
    return find_fields(sdata, fields, points_key=points_key, beside=next(filter(None, beside), None))


def choose_input(
    sdata: SpatialData, fields: Sequence[FieldName] | None, *, params: Params, method: Method, **keys: Any
) -> tuple[Sources | Mosaic, Params]:
    """Choose what a run reads: one image or nuclei with their points, or those of several fields.

    Raises
    ------
    KeyMissingError, DataError, ParameterError, StoreError
        As `sslcst.tl.segment`.
    """
    if fields is None:
        return choose_sources(sdata, **keys, params=params, method=method)
    check(keys.get("region") is None, "region", keys.get("region"), "goes with one field: leave out fields")
    chosen: list[Sources] = []
    with progress("fields", len(fields), unit="field") as bar:
        for field in fields:
            own = keys_of(sdata, field, keys)
            with warnings_only(on=bool(chosen)):  # of all fields the log would say the same
                part = part_of(sdata, field, own.values())
                sources, params = choose_sources(part, **keys | own, params=params, method=method)
            chosen.append(sources)
            bar.update()
    return _joined(fields, chosen, params), params


def keys_of(sdata: SpatialData, field: FieldName, keys: Mapping[str, Any]) -> dict[str, str | None]:
    """The elements of a field that are meant by keys for all."""
    names = ("image_key", "points_key", "nuclei_key", "cells_key")
    return {name: key_of(sdata, field, keys[name]) for name in names}


def _joined(fields: Sequence[FieldName], chosen: list[Sources], params: Params) -> Mosaic:
    names, rasters = [field.name for field in fields], [each.raster for each in chosen]
    samples = [field.suffix for field in fields]
    largest = max(chosen, key=lambda each: each.raster.shape[0] * each.raster.shape[1])
    gap = margin(largest.image, largest.cells or largest.nuclei, largest.raster, params)
    raster, covered = lay_out(names, rasters, samples, gap)

    def images(name: str) -> MosaicImage | None:
        each = [getattr(sources, name) for sources in chosen]
        if each[0] is None:
            return None
        return MosaicImage.of(each, samples, params.nuclei.percentiles, covered, raster.shape)

    def labels(name: str) -> MosaicNuclei | None:
        each = [getattr(sources, name) for sources in chosen]
        return None if each[0] is None else MosaicNuclei.of(each, covered)

    marks = [
        {name: mark for name, mark in field.marks.items() if any(other.marks[name] for other in fields)}
        for field in fields
    ]
    places = [tuple(slice(*part) for part in own) for own in covered.rectangles]
    return Mosaic(
        raster=raster,
        image=images("image"),
        image_name=f"{chosen[0].image_name}, and those of all fields",
        nuclei=labels("nuclei"),
        cells=labels("cells"),
        cell_stain=images("cell_stain"),
        transcripts=MosaicTranscripts.of([each.transcripts for each in chosen], covered),
        points=None,
        pair=f"{chosen[0].pair}, and those of all fields",
        area=None,
        whole=None,
        fields={
            name: Field(each.raster, place, each.points, mark, each.record)
            for name, each, place, mark in zip(names, chosen, places, marks, strict=True)
        },
        covered=covered,
        keys=tuple(key for each in chosen for key in each.keys),
        about={name: [each.about, own] for name, each, own in zip(names, chosen, covered.rectangles, strict=True)},
        record={},
    )
