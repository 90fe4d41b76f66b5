"""Several fields of view, or samples, chosen and checked before any work, as one input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spatialdata import SpatialData

from sslcst._logging import progress, warnings_only
from sslcst._sdata.fields import FieldName, find_fields, key_of, part_of
from sslcst._sdata.mosaic import MosaicImage, MosaicNuclei, MosaicTranscripts, lay_out
from sslcst._section import check
from sslcst.core.spots import slices
from sslcst.errors import KeyMissingError
from sslcst.methods.base import Method
from sslcst.params import Params
from sslcst.run.pipeline import Input
from sslcst.tl._sources import choose_sources, margin

_ELEMENTS = ("cells_key", "nuclei_key", "image_key", "points_key")


def choose_fields(
    sdata: SpatialData, fields: str | Sequence[str] | None, keys: Mapping[str, Any]
) -> Sequence[FieldName]:
    """The fields that are asked for; where none are, all of the object is one, without a name."""
    if fields is None:
        return (FieldName("", ""),)
    beside = next((keys[name] for name in _ELEMENTS[:-1] if keys[name]), None)
    return find_fields(sdata, fields, points_key=keys["points_key"], beside=beside)


def keys_of(sdata: SpatialData, field: FieldName, keys: Mapping[str, Any]) -> dict[str, str | None]:
    """The elements of a field that are meant by keys for all."""
    return {name: key_of(sdata, field, keys[name]) if field.name else keys[name] for name in _ELEMENTS}


def choose_input(
    sdata: SpatialData, fields: Sequence[FieldName], keys: dict[str, Any], *, params: Params, method: Method
) -> tuple[Input, Params]:
    """Choose what a run reads: one image or nuclei with their points, or those of several fields.

    The parameters come back with the method of the nuclei named.
    """
    if not fields[0].name:
        return choose_sources(sdata, keys, params=params, method=method)
    rule = "goes with one field: leave out fields, or segment those in which it lies and choose among their cells"
    check(keys["region"] is None, "region", keys["region"], rule)
    chosen: list[Input] = []
    with progress("fields", len(fields), unit="field") as bar:
        for field in fields:
            own = keys_of(sdata, field, keys)
            with warnings_only(on=bool(chosen)):  # of all fields the log would say the same
                part = part_of(sdata, field, own.values())
                given, params = choose_sources(part, keys | own, params=params, method=method)
            chosen.append(given)
            bar.update()
    bare = [field.name for field, each in zip(fields, chosen, strict=True) if each.image is None]
    if 0 < len(bare) < len(fields):
        raise KeyMissingError(
            f"Field {bare[0]!r} has no image to find nuclei in, as others have: leave it out of fields=, or name "
            "nuclei by nuclei_key=."
        )
    return _joined(fields, chosen, params), params


def _joined(fields: Sequence[FieldName], chosen: list[Input], params: Params) -> Input:
    names, rasters = [field.name for field in fields], [each.raster for each in chosen]
    samples = [field.suffix for field in fields]
    largest = max(chosen, key=lambda each: each.raster.shape[0] * each.raster.shape[1])
    gap = margin(largest.image, largest.cells or largest.nuclei, largest.raster, params)
    raster, covered = lay_out(names, rasters, samples, gap)

    def joined(name: str, join: Callable[..., Any], *how: Any) -> Any | None:
        each = [getattr(given, name) for given in chosen]
        return None if each[0] is None else join(each, *how)

    of_images = ([each.image_name for each in chosen], samples, params.nuclei.percentiles, covered, raster.shape)
    told = [name for name in fields[0].marks if any(field.marks[name] for field in fields)]
    return Input(
        raster=raster,
        image=joined("image", MosaicImage.of, *of_images),
        cell_stain=joined("cell_stain", MosaicImage.of, *of_images),
        image_name=f"{chosen[0].image_name}, and those of all fields",
        nuclei=joined("nuclei", MosaicNuclei.of, covered),
        cells=joined("cells", MosaicNuclei.of, covered),
        transcripts=MosaicTranscripts.of([each.transcripts for each in chosen], covered),
        pair=f"{chosen[0].pair}, and those of all fields",
        fields={
            field.name: replace(
                each.fields[""],
                window=slices(place),
                marks={name: field.marks[name] for name in told},
            )
            for field, each, place in zip(fields, chosen, covered.rectangles, strict=True)
        },
        keys=tuple(key for each in chosen for key in each.keys),
        about={name: [each.about, own] for name, each, own in zip(names, chosen, covered.rectangles, strict=True)},
        covered=covered,
    )
