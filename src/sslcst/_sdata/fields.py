"""Fields of view, and samples, of one object: told by the names of their elements.

The readers of spatialdata-io put the field before the name ("1_image", "Roi1_DAPI"), and `spatialdata.concatenate` the
sample behind it ("dapi-old"). What the names of an image and of points share so is what both are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from spatialdata import SpatialData

from sslcst._logging import logger
from sslcst._sdata.elements import is_result, regions_of
from sslcst._sdata.field_names import FieldName, shared
from sslcst._sdata.microns import of_elements
from sslcst.errors import KeyMissingError, ParameterError, did_you_mean


def find_fields(
    sdata: SpatialData, wanted: str | Sequence[str], *, points_key: str | None = None, beside: str | None = None
) -> list[FieldName]:
    """The fields of an object that are asked for by their names, or "all"; in their order, numbers by their size.

    The points, and the image or nuclei, of all fields are called `points_key` and `beside`, without what the fields
    add; by default anything. Raises a `KeyMissingError` where there is no such field, or none at all, and a
    `ParameterError` where none is asked for, or one twice.
    """
    rasters = [*sdata.images] if beside is None else [*sdata.images, *sdata.labels, *sdata.shapes]
    found = set()
    for points in (name for name, element in sdata.points.items() if not is_result(name, element)):
        pairs = {shared(points, name) for name in rasters}
        pairs = {each for each in pairs if each.name and _has(sdata, each, points_key) and _has(sdata, each, beside)}
        found |= {each for each in pairs if len(each) == max(map(len, pairs))}
    if len({each.prefix for each in found}) == 1 < len(found):  # part of the elements' own names: samples differ alone
        found = {FieldName("", each.suffix) for each in found}
    by_name = {each.name: each for each in sorted(found, key=lambda each: by_number(each.name))}
    listed = ", ".join(map(repr, by_name)) or "none"
    if isinstance(wanted, str) and wanted == "all":
        wanted = list(by_name)
        if lone := [name for name in sdata.images if found and not any(each.holds(name) for each in found)]:
            said = "Images beside which there are no points, or not what the keys name, are left out: %s."
            logger.info(said, ", ".join(map(repr, lone)))
    else:
        wanted = [wanted] if isinstance(wanted, str) else list(map(str, wanted))
    if not by_name:
        raise KeyMissingError(
            "There are no fields: no image and points share the beginning of their names ('1_image' and '1_points'), "
            "or the end ('dapi-old' and 'transcripts-old'). Leave out fields= to segment one image; with it, keys are "
            "given without what the fields add to them ('image')."
        )
    if not wanted or len(set(wanted)) < len(wanted):
        raise ParameterError(f"fields={wanted!r}: name each field once; there are: {listed}.")
    for name in wanted:
        if name not in by_name:
            hint = did_you_mean(name, list(by_name))
            raise KeyMissingError(f"There is no field {name!r}; there are: {listed}{hint}.")
    return [by_name[name] for name in by_name if name in set(wanted)]


def key_of(sdata: SpatialData, field: FieldName, key: str | None) -> str | None:
    """The element of a field that is meant by a name for all fields; the name itself where there is none."""
    return None if key is None else next((name for name in field.own(key) if name in sdata), field.own(key)[0])


def part_of(sdata: SpatialData, field: FieldName, keys: Iterable[str | None]) -> SpatialData:
    """The elements of a field, those of some names, and the tables that annotate any of them."""
    held: dict[str, dict] = {}
    for kind, name, element in sdata.gen_spatial_elements():
        if field.holds(name) or name in set(keys):
            held.setdefault(kind, {})[name] = element
    names = {name for elements in held.values() for name in elements}
    held["tables"] = {name: table for name, table in sdata.tables.items() if names & set(regions_of(table))}
    return of_elements(held, sdata.attrs)


def _has(sdata: SpatialData, field: FieldName, key: str | None) -> bool:
    return key is None or any(name in sdata for name in field.own(key))


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """What names are sorted by, so that "2" comes before "10"."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]
