"""What a store lists of itself: the metadata of its elements, gathered in one file, which all readers go by.

Nothing but entries of our own is ever added to that list: what another tool left half written would keep the store from
opening.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spatialdata import SpatialData

from sslcst._sdata import durable
from sslcst.errors import KeyMissingError, StoreError

LISTING = "zarr.json"
KINDS = ("images", "labels", "points", "shapes", "tables")
_INLINE = {"kind": "inline", "must_understand": False}


def read_metadata(file: Path) -> dict[str, Any]:
    """The content of a metadata file of zarr format 3."""
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        metadata = error
    if not isinstance(metadata, dict) or "node_type" not in metadata:
        reason = metadata if isinstance(metadata, Exception) else "it is no metadata of zarr format 3"
        raise StoreError(f"{file} cannot be read ({reason}): put it back from a copy. Nothing was changed.") from None
    return metadata


def write_metadata(file: Path, metadata: dict[str, Any], new: Path) -> None:
    """Put metadata, as zarr writes them, in the place of others at once; `new` is where they are written first."""
    durable.write_text(file, json.dumps(metadata, indent=2), new)


def entries(root: dict[str, Any]) -> dict[str, Any] | None:
    """Path -> metadata of all that the root of a store lists; None where it has no list, and all that is there counts.

    It is the list itself, not a copy.
    """
    return (root.get("consolidated_metadata") or {}).get("metadata")


def on_disk(store: Path) -> set[str]:
    """Each folder that an element is in, or would be in, listed or not, as ``kind/name``."""
    return {f"{kind}/{folder.name}" for kind in KINDS for folder in (store / kind).glob("*/") if folder.is_dir()}


def listed(store: Path) -> set[str]:
    """The elements that readers see, as ``kind/name``."""
    found = entries(read_metadata(store / LISTING))
    if found is None:
        return {place for place in on_disk(store) if (store / place / LISTING).is_file()}
    return {place for place in found if place.count("/") == 1 and place.split("/")[0] in KINDS}


def present(sdata: SpatialData) -> set[tuple[str, str]]:
    """(kind, name) of each element of an object and, since it may hold a part of it only, of all in its store."""
    found = {(kind, name) for kind, name, _ in sdata.gen_elements()}
    if sdata.path is not None and (Path(sdata.path) / LISTING).exists():
        places = listed(Path(sdata.path)) | on_disk(Path(sdata.path))
        found |= {tuple(place.split("/", 1)) for place in places}
    return found


def check_case(kind: str, there: str, name: str) -> None:
    """Raise a `KeyMissingError` where an element that is there and one to come differ in case alone."""
    if there != name and there.lower() == name.lower():
        raise KeyMissingError(
            f"{there!r} exists among the {kind}, and {name!r} differs from it in case alone, which spatialdata does "
            "not allow: choose another key_added."
        )


def check_metadata(store: Path) -> None:
    """See that the metadata of a store and of its groups can be read; raise a `StoreError` else."""
    for file in (store / LISTING, *(store / kind / LISTING for kind in KINDS)):
        if file.exists():
            read_metadata(file)


def gather(store: Path, place: str) -> dict[str, Any]:
    """Path -> metadata of an element and of all in it, as they are listed."""
    metadata = read_metadata(store / place / LISTING)
    if metadata["node_type"] != "group":
        return {place: metadata}
    found = {place: _entry(metadata)}
    for file in sorted((store / place).glob(f"*/{LISTING}")):
        found |= gather(store, f"{place}/{file.parent.name}")
    return found


def relist(store: Path, places: Iterable[str], seen: Iterable[str], new: Path) -> None:
    """Write the list anew, with other entries for some places: those of them that are seen are listed as they lie."""
    root = read_metadata(store / LISTING)
    found, kinds = entries(root), {place.split("/")[0] for place in places}
    hidden = tuple(f"{place}/" for place in places)
    kept = {path: value for path, value in (found or {}).items() if not f"{path}/".startswith(hidden)}
    if found is None:  # what is there counts, so that all of it that can be read is to be listed
        kinds = {kind for kind in KINDS if (store / kind / LISTING).is_file()}
        for place in listed(store) - set(places):
            with suppress(StoreError):
                kept |= gather(store, place)
    for place in seen:
        kept |= gather(store, place)
    for kind in kinds:
        if (store / kind / LISTING).is_file():
            kept[kind] = _entry(read_metadata(store / kind / LISTING))
        else:
            kept.pop(kind, None)
    # Zarr asks for all that is in a group to stand together, after the group.
    in_order = sorted(kept, key=lambda path: (path.count("/"), path.rpartition("/")[0], path.casefold()))
    root |= {"consolidated_metadata": _INLINE | {"metadata": {path: kept[path] for path in in_order}}}
    write_metadata(store / LISTING, root, new)


def _entry(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a group as it is listed."""
    return metadata | {"consolidated_metadata": _INLINE | {"metadata": {}}}


def group_with(metadata: dict[str, Any] | None, kind: str, there: Mapping[str, bool]) -> dict[str, Any]:
    """Metadata of the group of a kind, in which elements are or are not; OME-NGFF asks for a list of the labels."""
    metadata = metadata or {"attributes": {}, "zarr_format": 3, "node_type": "group"}
    attributes = metadata.get("attributes", {})
    ome = attributes.get("ome", {})
    known = ome.get("labels", [])
    names = [name for name in known if there.get(name, True)]
    names += [name for name, is_there in there.items() if is_there and name not in known]
    if kind != "labels" or names == known:
        return metadata
    return metadata | {"attributes": attributes | {"ome": ome | {"labels": names}}}
