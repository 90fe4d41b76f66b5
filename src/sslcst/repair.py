"""Cleaning a store of what killed runs and failed writes left in it and beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sslcst.errors import StoreError
from sslcst.store import LISTING, consolidate, finish, left_behind, locked

_KINDS = ("images", "labels", "points", "shapes", "tables")
_FILE = {"points": "points.parquet", "shapes": "shapes.parquet"}  # without which there is nothing to read


def repair(store: Path, *, dry_run: bool = False) -> list[str]:
    """Clean a store, and touch nothing else.

    Results that a killed run of `sslcst.tl.segment` had made whole are put in their places; folders beside the store in
    which stopped runs keep what they have done are removed, so that those runs begin anew; in the store, groups of
    elements that were never written to their end, which keep spatialdata from reading it, are removed; and the list of
    what the store holds is made anew where it tells of other elements than there are.

    Parameters
    ----------
    store
        Folder of a SpatialData store of zarr format 3.
    dry_run
        Whether only to say what would be done.

    Returns
    -------
    What was done, a line each; empty where nothing was to be done.

    Raises
    ------
    StoreError
        It is no such store, a run is at work on it, or it cannot be written to.
    """
    if not (store / LISTING).is_file():
        raise StoreError(f"{store} is no SpatialData store of zarr format 3: it has no {LISTING}.")
    try:
        with locked(store):
            return _repair(store, dry_run)
    except OSError as error:
        raise StoreError(f"{store} could not be repaired: {error}.") from error


def _repair(store: Path, dry_run: bool) -> list[str]:
    done = []
    unfinished, left = left_behind(store)
    for folder in unfinished:
        done.append(f"results that a killed run had made whole, in {folder.name}, are put in their places")
    if not dry_run:
        finish(store)
    for folder in left:
        done.append(f"{folder.name}, in which a stopped run kept what it had done ({_size(folder)}), is removed")
        if not dry_run:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    broken = [place for kind in _KINDS for place in sorted((store / kind).glob("*/")) if not _is_whole(kind, place)]
    for place in broken:
        done.append(f"{place.relative_to(store)}, which was never written to its end, is removed")
        if not dry_run:
            shutil.rmtree(place)
            _forget_label(place)
    listed = _listed(store)
    there = {f"{kind}/{place.name}" for kind in _KINDS for place in (store / kind).glob("*/") if place not in broken}
    if broken or listed != there:
        names = ", ".join(sorted(listed ^ there)) or "what is inside of elements"
        done.append(f"the list of what the store holds, which is wrong about {names}, is made anew")
        if not dry_run:
            consolidate(store)
    return done


def _is_whole(kind: str, place: Path) -> bool:
    """Whether a folder holds an element that spatialdata can read."""
    listing = place / LISTING
    if not listing.is_file():
        return False
    try:
        attributes: dict[str, Any] = json.loads(listing.read_text(encoding="utf-8")).get("attributes", {})
    except json.JSONDecodeError:
        return False
    if kind in _FILE:
        return (place / _FILE[kind]).exists()
    if kind == "tables":
        return "encoding-type" in attributes
    return bool(attributes.get("ome", attributes).get("multiscales"))


def _listed(store: Path) -> set[str]:
    """Elements in the list of what the store holds."""
    listing = json.loads((store / LISTING).read_text(encoding="utf-8"))
    places = (listing.get("consolidated_metadata") or {}).get("metadata", {})
    return {place for place in places if place.count("/") == 1 and place.split("/")[0] in _KINDS}


def _forget_label(place: Path) -> None:
    """Take a name from the OME-NGFF list of labels."""
    listing = place.parent / LISTING
    if place.parent.name != "labels" or not listing.is_file():
        return
    group = json.loads(listing.read_text(encoding="utf-8"))
    names = group.get("attributes", {}).get("ome", {}).get("labels", [])
    if place.name in names:
        names.remove(place.name)
        listing.write_text(json.dumps(group), encoding="utf-8")


def _size(folder: Path) -> str:
    n_bytes = sum(file.stat().st_size for file in [folder, *folder.rglob("*")] if file.is_file())
    return f"{n_bytes / 2**20:.1f} MiB"
