"""Cleaning a store of what killed runs and failed writes left in it and beside it."""

from __future__ import annotations

import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from spatialdata import read_zarr

from sslcst._sdata import listing
from sslcst._sdata.journal import Journal
from sslcst._sdata.listing import LISTING
from sslcst._sdata.lock import locked
from sslcst._sdata.scratch import Scratch, is_ours
from sslcst._sdata.store import UNREADABLE, finish, left_behind, unharmed, written
from sslcst.errors import StoreError


def repair(store: Path, *, dry_run: bool = False) -> list[str]:
    """Clean a store, and touch nothing else; what was done, or would be, and what only its owner can mend, a line each.

    Results that a killed run of `sslcst.tl.segment` had made whole are put in their places; folders beside the store in
    which stopped runs keep what they have done are removed, so that those runs begin anew. Elements that keep
    spatialdata from reading the store leave the list of what it holds: those that are gone, that cannot be read, and
    results of ours whose names differ in case alone from those of others. Their folders stay as they are, whatever is
    in them.
    """
    if not (store / LISTING).is_file():
        raise StoreError(f"{store} is no SpatialData store of zarr format 3: it has no {LISTING}.")
    listing.check_metadata(store)
    with unharmed(store), locked(store):
        done, pending = _settle(store, dry_run)
        return done + _relist(store, pending, dry_run)


def _settle(store: Path, dry_run: bool) -> tuple[list[str], set[str]]:
    """Finish what can be finished and remove what else runs left; what is said of it, and the elements it is about."""
    done, pending = [], set()
    unfinished, left = left_behind(store)
    for folder in unfinished:
        journal = Journal.of(folder)
        pending |= journal.places
        done.append(f"results that a killed run had made whole, in {folder.name}, are put in their places")
        if reason := journal.hindrance(store) or journal.damage(store):
            done[-1] = f"what a killed run had made, in {folder.name}, is not put into the store: {reason}"
    if not dry_run:
        finish(store)
    for path in left:
        if path.parent == store.parent and not is_ours(path):
            what = "is a link, which no run makes," if path.is_symlink() else "is no folder of a run"
            done.append(f"{path.name} {what} and is left: see what it is, and move it")
            continue
        done.append(f"{path.name}, in which a stopped run kept what it had done ({_size(path)}), is removed")
        if not dry_run and path.exists():
            Scratch(path).remove() if path.is_dir() else path.unlink()
    return done, pending


def _relist(store: Path, pending: set[str], dry_run: bool) -> list[str]:
    """Take from the list what keeps the store from being read."""
    seen = listing.listed(store) - pending
    gone = {place for place in seen if not (store / place).is_dir()}
    broken = {place: reason for place in sorted(seen - gone) if (reason := _fault(store, place))}
    doubles, said = _doubles(store, seen - gone - broken.keys())
    done = [f"{place}, which is not there, is taken from the list of what the store holds" for place in sorted(gone)]
    kept = {place for place in broken if _holds_data(store / place)}
    note = store.with_name(f"{store.name}.unlisted.json")
    for place, reason in broken.items():
        done.append(f"{place} cannot be read ({reason}) and is taken from the list of what the store holds; ")
        done[-1] += (
            f"its folder is left as it is: write it anew or, where only metadata are missing, put them back from "
            f"{note.name}, which keeps what the list told, and call write_consolidated_metadata() on the object read"
            if place in kept
            else "its folder, which holds no data, is left as it is: write it anew, or delete it"
        )
    done += said
    done += [
        f"{place} is not listed, and cannot be read ({reason}): it is left as it is; write it anew, or delete it"
        for place in sorted(listing.on_disk(store) - seen - pending)
        if (store / place / LISTING).is_file() and _holds_data(store / place) and (reason := _fault(store, place))
    ]
    unlisted = [*sorted(gone), *broken, *sorted(doubles)]
    if unlisted and not dry_run:
        _unlist(store, unlisted, kept, note)
    return done


def _unlist(store: Path, places: list[str], kept: Iterable[str], note: Path) -> None:
    """Take elements from the list; what it told of some, which may be all that is left of their metadata, is noted."""
    new = store / f".{LISTING}.sslcst"
    told = listing.entries(listing.read_metadata(store / LISTING)) or {}
    if told := {path: told[path] for path in told if f"{path}/".startswith(tuple(f"{place}/" for place in kept))}:
        if note.exists():
            told = json.loads(note.read_text(encoding="utf-8")) | told
        listing.write_metadata(note, told, new)
    labels = store / "labels" / LISTING
    if labels.exists():
        metadata = listing.read_metadata(labels)
        gone = [place.removeprefix("labels/") for place in places if place.startswith("labels/")]
        group = listing.group_with(metadata, "labels", dict.fromkeys(gone, False))
        if group != metadata:
            listing.write_metadata(labels, group, new)
    listing.relist(store, places, [], new)


def _fault(store: Path, place: str) -> str:
    """Why spatialdata cannot read an element; empty where it can. It is asked, on a store that holds nothing else."""
    kind, name = place.split("/")
    with TemporaryDirectory(prefix="sslcst-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = Path(folder)
        root, group = listing.read_metadata(store / LISTING), listing.group_with(None, kind, {name: True})
        root.pop("consolidated_metadata", None)
        (alone / LISTING).write_text(json.dumps(root), encoding="utf-8")
        (alone / kind).mkdir()
        (alone / kind / LISTING).write_text(json.dumps(group), encoding="utf-8")
        (alone / kind / name).symlink_to(os.path.realpath(store / place), target_is_directory=True)
        try:
            element = read_zarr(alone)[name]
            if kind == "points":
                len(element)  # has each file of them opened
        except UNREADABLE as error:
            return f"{type(error).__name__}: {str(error).replace(str(alone), str(store))}".splitlines()[0]
    return ""


def _doubles(store: Path, places: set[str]) -> tuple[set[str], list[str]]:
    """Results of ours whose names differ in case alone from those of others, of which the later ones go."""
    alike = defaultdict(set)
    for place in places:
        alike[place.split("/")[1].lower()].add(place)
    runs = {}
    for run in (_run_of(store, place) for place in places if place.startswith("tables/")):
        runs |= dict.fromkeys(run, run)
    go, said = set(), []
    for group in map(sorted, (group for group in alike.values() if len(group) > 1)):
        ours = sorted((runs[place] for place in group if place in runs), key=lambda run: _time(store, run))
        stay = [place for place in group if place not in runs]
        if len(stay) > 1 or (not stay and len({_time(store, run) for run in ours}) < len(ours)):
            said.append(
                f"{' and '.join(group)} differ in case alone, which spatialdata does not read, and nothing tells "
                "which is a later result: move the folder of one out of the store, and repair it again"
            )
            continue
        go |= {place for run in (ours if stay else ours[1:]) for place in run if place in places}
    if go:
        said.append(
            f"{', '.join(sorted(go))} are results of a run, with names that differ in case alone from those of other "
            "elements, which spatialdata does not read: they are taken from the list of what the store holds, and "
            "their folders left as they are"
        )
    return go, said


def _run_of(store: Path, table: str) -> frozenset[str]:
    """What the run wrote that made a table; empty for a table of others, or a copy."""
    name = table.split("/")[1]
    record = {f"{kind}/{other}" for other, kind in written(store, name).items()}
    if not record and (store / table / "uns" / "sslcst" / "run").is_dir() and name.endswith("_table"):
        key = name.removesuffix("_table")  # by a version that kept no record: what all runs wrote
        record = {f"labels/{key}_nuclei", f"labels/{key}_cells", table}
    return frozenset(record) if table in record else frozenset()


def _time(store: Path, run: frozenset[str]) -> float:
    """When a run was written."""
    [table] = (place for place in run if place.startswith("tables/"))
    return (store / table / LISTING).stat().st_mtime


def _holds_data(folder: Path) -> bool:
    """Whether there is anything but metadata."""
    return any(file.name != LISTING for file in folder.rglob("*") if file.is_file())


def _size(folder: Path) -> str:
    n_bytes = sum(file.stat().st_size for file in [folder, *folder.rglob("*")] if file.is_file())
    return f"{n_bytes / 2**20:.1f} MiB"
