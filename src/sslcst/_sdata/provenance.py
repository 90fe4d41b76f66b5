"""What results were made of: kept with them, and what every later call takes where its user names nothing else.

A table keeps it in ``uns["sslcst"]``, under the names of the arguments. Labels of a step have no such place: what is
known of them lies in the object's ``attrs["sslcst"]``, under their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from anndata import AnnData
from spatialdata import SpatialData

from sslcst._logging import logger
from sslcst._sdata.elements import (
    choose_channel,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    regions_of,
)
from sslcst._sdata.fields import by_number
from sslcst._sdata.microns import in_system, through
from sslcst._sdata.raster import plane, systems_of
from sslcst._sdata.transcripts import columns_of
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.params import Params, TranscriptParams

PLACE = "sslcst"  # in attrs and uns
# What is taken from one record as a whole: the columns and channels of one element say nothing of another.
_GROUPS = (
    ("image_key", "channel", "channels"),
    ("points_key", "gene_key", "count_key"),
    ("coordinate_system",),
    ("nuclei_key",),
    ("cells_key",),
)
_NOTHING: Mapping[str, str] = MappingProxyType({})


def as_record(former: Mapping[str, str] = _NOTHING, /, **keys: str | Sequence[str] | None) -> dict[str, str]:
    """The keys of a call as they are kept, beside those of what it was called on: several channels become one text."""
    record = {}
    for group in _GROUPS:
        source = former if keys.get(group[0]) is None else keys
        texts = {name: source[name] for name in group if source.get(name) is not None}
        record |= {name: text if isinstance(text, str) else "\n".join(text) for name, text in texts.items()}
    return record


def note(sdata: SpatialData, labels_key: str, record: Mapping[str, str]) -> None:
    """Keep what labels were made of; it holds until a run replaces them."""
    noted = dict(record) | {"after_run": _run_of(_maker(sdata, labels_key))}
    # Anew, since objects that were cut from one share its attrs.
    sdata.attrs = dict(sdata.attrs) | {PLACE: dict(sdata.attrs.get(PLACE, {})) | {labels_key: noted}}


def note_made(table: AnnData, name: str, kind: str, *, beside: str) -> None:
    """Keep that an element was made for a run's result: a run that replaces this replaces it too."""
    about = table.uns.get(PLACE, {})
    for each in (about, *about.get("fields", {}).values()):
        if beside in each.get("results", {}):
            each["results"] = dict(each["results"]) | {name: kind}


def is_of_step(sdata: SpatialData, labels_key: str) -> bool:
    """Whether a step of this package has made these labels, in the object."""
    return labels_key in sdata.attrs.get(PLACE, {})


def nuclei_of(sdata: SpatialData, cells_key: str, key: str) -> str:
    """The name of the nuclei that cells were made around; of cells that nothing is known of, those of a result."""
    about = _about(sdata, cells_key)
    own = [name for name in about.get("results", {}) if name.endswith("_nuclei")] or [about.get("nuclei_key")]
    return own[0] or result_name(sdata, key, "nuclei")


def result_name(sdata: SpatialData, key: str, kind: str) -> str:
    """The name of a result, cells, table, ..., of a run; a key may end with a sample, as `_parts` tells."""
    stem, sample = _parts(sdata, key)
    return f"{stem}_{kind}{sample}"


def _parts(sdata: SpatialData, key: str) -> tuple[str, str]:
    """A run's `key_added`, and what `spatialdata.concatenate` put behind the names of its results: "-old"."""
    cuts = [len(key), *(i for i, letter in enumerate(key) if letter == "-")]
    there = (i for i in cuts if any(f"{key[:i]}_{kind}{key[i:]}" in sdata for kind in ("table", "cells")))
    cut = next(there, len(key))
    return key[:cut], key[cut:]


def keys_of_fields(sdata: SpatialData, key: str) -> list[str]:
    """What names the result of each field of a run, or the run itself where it is not of several."""
    (stem, sample), about = _parts(sdata, key), dict(_records(sdata)).get(result_name(sdata, key, "table"), {})
    return [f"{stem}_{field}{sample}" for field in sorted(about.get("fields", {}), key=by_number)] or [key]


def run_of(sdata: SpatialData, key: str) -> tuple[list[str], AnnData]:
    """What names the result of each field of a run (`keys_of_fields`), all of which are there, and its table."""
    keys, table_key = keys_of_fields(sdata, key), result_name(sdata, key, "table")
    for name, about in _records(sdata):
        if _of_field(about, result_name(sdata, key, "cells")) is not about:
            whole = "".join(name.rpartition("_table")[::2])
            raise KeyMissingError(f"key={key!r} is one field of a run: give key={whole!r}.")
    for each in keys:
        choose_key(sdata.labels, result_name(sdata, each, "cells"), kind="labels element", argument="key")
    return keys, sdata.tables[choose_key(sdata.tables, table_key, kind="table", argument="key")]


def check_own(sdata: SpatialData, names: Iterable[str], table_key: str) -> None:
    """Raise KeyMissingError where any is a result of another run than the one whose table that is or is to be."""
    for other, about in _records(sdata):
        made = about.get("results", {})
        if other != table_key and other in made and (theirs := sorted(set(names) & set(made))):
            raise KeyMissingError(f"{theirs[0]!r} is a result of the run of {other!r}: choose another key_added.")


def check_one(sdata: SpatialData, key: str) -> None:
    """Raise KeyMissingError where a key names a run of several fields, and one is to be looked at."""
    keys = keys_of_fields(sdata, key)
    if keys != [key]:
        listed = ", ".join(map(repr, keys))
        raise KeyMissingError(f"key={key!r} is a run of several fields: choose one of them with key=, among {listed}.")


def result_table(sdata: SpatialData, key: str, *labels_keys: str) -> AnnData:
    """The table of a result, whose labels are there too: of one field of a run of several, the rows of its cells.

    Raises
    ------
    KeyMissingError
        It is not there, or labels are not; the key is of several fields.
    """
    check_one(sdata, key)
    for name in labels_keys:
        choose_key(sdata.labels, name, kind="labels element", argument="key")
    table, cells_key = table_of(sdata, key), result_name(sdata, key, "cells")
    about = _as_named(sdata, table)
    own = _of_field(about, cells_key)
    if own is not about:
        table = table[table.obs["region"].isin(own["results"])].copy()
        table.uns = dict(table.uns) | {PLACE: own}
    elif cells_key in (regions := regions_of(table)) and len(regions) > 1:
        table = table[table.obs[table.uns["spatialdata_attrs"]["region_key"]] == cells_key].copy()
    return table


def table_of(sdata: SpatialData, key: str) -> AnnData:
    """The table of a run, or of the run of several fields that a field's key is of; else raise KeyMissingError.

    Or the one table that annotates the cells, as `spatialdata.concatenate` joins those of several samples.
    """
    cells_key, table_key = (result_name(sdata, key, kind) for kind in ("cells", "table"))
    for name, about in _records(sdata):
        if _of_field(about, cells_key) is not about:
            return sdata.tables[name]
    joined = [name for name, table in sdata.tables.items() if cells_key in regions_of(table)]
    if table_key not in sdata.tables and len(joined) == 1:
        [table_key] = joined
    return sdata.tables[choose_key(sdata.tables, table_key, kind="table", argument="key")]


@dataclass(frozen=True)
class Used:
    """What the makers of some elements used."""

    # holds the elements, all of which lie in the coordinate system that was used, where one that lies there tells how.
    sdata: SpatialData
    record: Mapping[str, str]  # as `as_record` made it
    name: str | None  # of the first of them; what is named as of the same field or sample comes before what is not
    taken: TranscriptParams = TranscriptParams()  # which of the transcripts were taken

    @classmethod
    def by(cls, sdata: SpatialData, *names: str | None) -> Used:
        """What is known of elements: first of those that a run made, then in their order."""
        known = [about for name in names if name in sdata and (about := _about(sdata, name))]
        record: dict[str, str] = {}
        params = [about["params"] for about in known if "params" in about]
        taken = params[0].get("transcripts", {}) if params else {}
        for about in sorted(known, key=lambda about: "points_key" not in about):
            for group in _GROUPS:
                if group[0] not in record:
                    record |= {name: str(about[name]) for name in group if group[0] in about and name in about}
        if own := record.get("coordinate_system"):
            sdata = _in_system(sdata, own, [*names, record.get("image_key"), record.get("points_key")])
        try:
            return cls(sdata, record, names[0], Params.of({"transcripts": taken}).transcripts)
        except ParameterError as error:
            raise DataError(f"What the table of {names[0]!r} tells is of another version of sslcst: {error}") from error

    def transcripts(self, points_key: str | None, gene_key: str | None, count_key: str | None) -> dict[str, str | None]:
        """Points and their columns: as asked for, as they were used, or as `sslcst.tl.segment` chooses."""
        own = self._there("points_key", self.sdata.points)
        points_key = choose_points(self.sdata, own if points_key is None else points_key, beside=self.name)
        if points_key == own:
            columns = self.sdata.points[points_key].columns
            gene_key = self._there("gene_key", columns) if gene_key is None else gene_key
            count_key = self._there("count_key", columns) if count_key is None else count_key
        return {"points_key": points_key} | columns_of(self.sdata, points_key, gene_key, count_key)

    def system(self, keys: Iterable[str | None], coordinate_system: str | None) -> str:
        """The coordinate system: as asked for, as it was used if these elements share it, or as `segment` chooses."""
        keys, own = [key for key in keys if key is not None], self.record.get("coordinate_system")
        if coordinate_system is None and own is not None:
            if all(own in systems_of(self.sdata[key]) for key in keys):
                return own
            chosen = choose_coordinate_system(self.sdata, keys, None)
            named = " and ".join(map(repr, keys))
            logger.warning(
                "The run was in coordinate system %r, which %s do not share: %r is taken.", own, named, chosen
            )
            return chosen
        return choose_coordinate_system(self.sdata, keys, coordinate_system)

    def image(self, image_key: str | None) -> str | None:
        """The image: as asked for, as it was used, or as `segment` chooses; None where there is none to choose."""
        if image_key is None:
            image_key = self.known_image
        if image_key is None and not self.sdata.images:
            return None
        try:
            beside = self.record.get("nuclei_key", self.record.get("points_key", self.name))
            return choose_image(self.sdata, image_key, beside=beside)
        except KeyMissingError as error:
            if image_key is not None or "image_key" in self.record or "nuclei_key" not in self.record:
                raise
            logger.info("The run took nuclei that were there, and no image. %s", error)
            return None

    @property
    def known_image(self) -> str | None:
        """The image that was used, if it is there still."""
        return self._there("image_key", self.sdata.images)

    def channel(self, image_key: str, channel: str | int | None) -> str | int | list[str]:
        """The channel, or channels, of an image: as asked for, as was used, as `segment` chooses, or the first."""
        if channel is not None:
            return channel
        names = [str(name) for name in plane(self.sdata, image_key).coords["c"].values]
        own = self.record.get("channel", "").split("\n") if self.record.get("image_key") == image_key else []
        if own and set(own) <= set(names):
            return own if len(own) > 1 else own[0]
        try:
            return choose_channel(self.sdata, image_key, None)
        except KeyMissingError:
            said = "The channel of image %r is %r, unless channel= says otherwise; there are: %s."
            logger.info(said, image_key, names[0], ", ".join(map(repr, names)))
            return names[0]

    def _there(self, name: str, candidates: Iterable[str]) -> str | None:
        """A key that was used, if there is such an element or column still."""
        key = self.record.get(name)
        return key if key in set(candidates) else None


def _in_system(sdata: SpatialData, system: str, names: Iterable[str | None]) -> SpatialData:
    """An object whose elements lie in a system too: a run in microns adds it to what it makes, and to nothing else."""
    spatial = {key: systems_of(element) for kind, key, element in sdata.gen_elements() if kind != "tables"}
    if all(system in systems for systems in spatial.values()):
        return sdata
    for name in names:
        for base in sorted(spatial.get(name, set()) - {system}) if system in spatial.get(name, ()) else ():
            sdata = in_system(sdata, through(sdata, name, base, system))
    return sdata


def _about(sdata: SpatialData, name: str) -> Mapping[str, Any]:
    """What is known of an element: by the run that made it, by the step that made it later, by what was made of it."""
    maker, noted = _of_field(_maker(sdata, name), name), sdata.attrs.get(PLACE, {}).get(name)
    if noted is not None and noted.get("after_run") == _run_of(maker):
        return noted
    return maker or next(
        (about for _, about in _records(sdata) if name in (about.get("nuclei_key"), about.get("cells_key"))), {}
    )


def _of_field(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a run of several fields tells of that which an element is of; of other elements all that it tells."""
    own = [each for each in about.get("fields", {}).values() if name in each["results"]]
    return dict(about) | own[0] if len(own) == 1 else about


def _maker(sdata: SpatialData, name: str) -> Mapping[str, Any]:
    """``uns["sslcst"]`` of the table that tells it made an element; rather of a result itself than of a copy."""
    tell = [
        (key not in about.get("results", {}), about)
        for key, about in _records(sdata)
        if name in (key, *about.get("results", {})) or name in regions_of(sdata.tables[key])[:1]
    ]
    return min(tell, key=lambda item: item[0], default=(False, {}))[1]


def _records(sdata: SpatialData) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, table in sdata.tables.items():
        if about := _as_named(sdata, table):
            yield key, about


def _as_named(sdata: SpatialData, table: AnnData) -> Mapping[str, Any]:
    """What a table tells, by the names of today: `spatialdata.concatenate` puts the sample behind those of elements."""
    about = table.uns.get(PLACE)
    if not isinstance(about, Mapping):
        return {}
    every = [name for each in (about, *about.get("fields", {}).values()) for name in each.get("results", {})]
    samples = {
        place.removeprefix(name) for place in regions_of(table) for name in every if place.startswith(f"{name}-")
    }
    if len(samples) != 1:
        return about
    [sample] = samples
    elements = [(name, element) for kind, name, element in sdata.gen_elements() if kind != "tables"]
    known = {*sdata.tables, *(name for name, _ in elements)}.union(*(systems_of(element) for _, element in elements))

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {renamed(name): renamed(item) for name, item in value.items()}
        return f"{value}{sample}" if isinstance(value, str) and f"{value}{sample}" in known else value

    return renamed(about)


def _run_of(about: Mapping[str, Any]) -> str:
    return str(about.get("run", ""))
