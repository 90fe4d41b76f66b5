"""What is to change in a store, noted before anything changes, so that it can be finished or undone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcst._sdata import durable, listing
from sslcst._sdata.listing import KINDS, LISTING
from sslcst._sdata.scratch import checksum
from sslcst.errors import StoreError
from sslcst.names import is_valid

NEW, OLD = "new.zarr", "old"  # in the scratch folder: results to come, and those that give way
BEFORE = "before"  # the metadata of the store and of its groups, byte by byte, as they were
WHOLE = "whole.json"  # written when all results to come are there


def taken(others: Iterable[str], places: Iterable[str]) -> list[str]:
    """Those of other elements whose names are, case apart, those of results."""
    names = {place.split("/", 1)[1].lower() for place in places}
    return sorted(place for place in others if place.split("/", 1)[1].lower() in names)


def meanwhile(taken: list[str]) -> str:
    """What to say of them."""
    return (
        f"{' and '.join(taken)} was written while the run was at work, and is left as it is: move it away and call "
        "again, which goes on from there, or choose another key_added."
    )


def _places(noted: Iterable[str]) -> list[str]:
    """Elements as ``kind/name``; raise ValueError for what would lead elsewhere."""
    places = list(noted)
    for kind, name in (place.split("/", 1) for place in places):
        if kind not in KINDS or not is_valid(name):
            raise ValueError(f"{kind}/{name} is no place of an element")
    return places


@dataclass(frozen=True)
class Journal:
    """What is to be put in its place."""

    folder: Path  # the scratch folder, in which results lie as in a store
    new: list[str]  # each result, as ``kind/name``
    former: list[str]  # what may give way to them; those that the results do not replace are removed
    whole: bool = True  # whether the file that tells so could be read; else it is what lies in the folder
    sums: dict[str, Any] = field(default_factory=dict)  # checksum of each result, where that was noted

    @classmethod
    def of(cls, folder: Path) -> Journal:
        """What a run noted, of which there is a copy as soon as anything moves."""
        for file in (folder / WHOLE, folder / BEFORE / WHOLE):
            try:
                noted = json.loads(file.read_text(encoding="utf-8"))
                return cls(folder, _places(noted["new"]), _places(noted["former"]), sums=dict(noted["new"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged, or not there
                continue
        return cls(folder, sorted(listing.on_disk(folder / NEW)), sorted(listing.on_disk(folder / OLD)), whole=False)

    @property
    def places(self) -> set[str]:
        """All that it is about."""
        return {*self.new, *self.former}

    def names(self, kind: str) -> list[str]:
        """Names of what it is about, of a kind."""
        return [place.removeprefix(f"{kind}/") for place in sorted(self.places) if place.startswith(f"{kind}/")]

    def write(self) -> None:
        """Note it, from when on it is done, sooner or later."""
        sums = {place: checksum(self.folder / NEW / place) for place in self.new}
        noted = json.dumps({"new": sums, "former": self.former})
        durable.write_text(self.folder / WHOLE, noted, self.folder / f".{WHOLE}.new")
        durable.flush(self.folder.parent)

    def changing(self, store: Path) -> list[str]:
        """All that is added, replaced or removed; not what another tool wrote in the place of what was removed."""
        gone = [place for place in self.former if place not in self.new]
        return self.new + [
            place for place in gone if not ((self.folder / OLD / place).exists() and (store / place).exists())
        ]

    def waits(self, place: str) -> bool:
        """Whether a result is not in its place yet."""
        return (self.folder / NEW / place).exists()

    def stands(self, place: str) -> bool:
        """Whether what is to give way has not done so yet."""
        gives_way = place in self.former and not (self.folder / OLD / place).exists()
        return gives_way and (place not in self.new or self.waits(place))

    def damage(self, store: Path) -> str:
        """Which result is no longer what it was, here or in its place, as a run finds that did not write it itself."""
        lies = {place: (self.folder / NEW if self.waits(place) else store) / place for place in self.new}
        damaged = [place for place in self.new if checksum(lies[place]) != self.sums.get(place)]
        return f"{' and '.join(damaged)} was damaged since." if damaged else ""

    def hindrance(self, store: Path) -> str:
        """Why the results cannot be put in their places; empty where they can."""
        if not self.whole:
            return f"{self.folder / WHOLE}, which tells of them, is damaged."
        theirs = listing.listed(store) | listing.on_disk(store)
        theirs -= {place for place in self.former if self.stands(place)}
        found = taken(theirs - {place for place in self.new if not self.waits(place)}, self.new)
        return meanwhile(found) if found else ""


def move(places: Iterable[str], source: Path, target: Path) -> None:
    """Move those that are there."""
    for place in places:
        if (source / place).exists():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            durable.move(source / place, target / place)


def _metadata_files(journal: Journal) -> list[str]:
    """Those that change: of the groups of kinds, then of the store."""
    return [*(f"{kind}/{LISTING}" for kind in KINDS if journal.names(kind)), LISTING]


def keep_metadata(store: Path, journal: Journal) -> None:
    """Copy what will change, unless that was done; where there is none, there is no copy."""
    before = journal.folder / BEFORE
    if before.exists():
        return
    new = before.with_name(f"{BEFORE}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    shutil.copy2(journal.folder / WHOLE, new)
    for name in _metadata_files(journal):
        if (store / name).exists():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copy2(store / name, new / name)
    durable.flush_tree(new)
    durable.move(new, before)


def write_listing(store: Path, journal: Journal, seen: Iterable[str]) -> None:
    """List, of what changes, these; all others stay as they are listed."""
    listing.relist(store, journal.changing(store), seen, journal.folder / "listing.json")


def put_back(store: Path, journal: Journal) -> None:
    """Undo what was done to put results in their places."""
    new, old, before = (journal.folder / name for name in (NEW, OLD, BEFORE))
    try:
        if before.exists():
            # Where what gives way has not gone, it is what lies there, even if the result was lost.
            stays = {place for place in journal.former if not (old / place).exists()}
            move([place for place in journal.new if not journal.waits(place) and place not in stays], store, new)
            move([place for place in journal.former if not (store / place).exists()], old, store)
            for name in _metadata_files(journal):
                _restore(store / name, before / name, journal)
    except OSError as error:
        raise StoreError(
            f"{store} could not be written, nor be put back as it was ({error}): what is missing lies in "
            f"{journal.folder}, and is put in its place by the next run, or by `sslcst repair`."
        ) from error
    (journal.folder / WHOLE).unlink(missing_ok=True)


def _restore(file: Path, before: Path, journal: Journal) -> None:
    """Put a metadata file back byte by byte, unless others wrote into it meanwhile: then only what is ours goes."""
    if not before.exists():  # the group of a kind that had no element
        if file.parent.exists() and [*file.parent.glob("*")] in ([], [file]):
            shutil.rmtree(file.parent)
    elif file.read_bytes() == before.read_bytes():
        return
    elif _others(file, journal) == _others(before, journal):
        before.replace(file)
        durable.flush(file.parent)
    elif file.parent.name in KINDS:
        kind = file.parent.name
        there = {name: (file.parent / name).exists() for name in journal.names(kind)}
        group = listing.group_with(listing.read_metadata(file), kind, there)
        listing.write_metadata(file, group, journal.folder / "group.json")
    else:
        back = [place for place in sorted(journal.places) if (file.parent / place / LISTING).exists()]
        write_listing(file.parent, journal, back)


def _others(file: Path, journal: Journal) -> Any:
    """What a metadata file says of others: all but our entries and those of groups, which have files of their own."""
    metadata, kind = listing.read_metadata(file), file.parent.name
    found = listing.entries(metadata)
    if found is not None:
        ours = tuple(f"{place}/" for place in journal.places)
        found = {path: value for path, value in found.items() if not f"{path}/".startswith(ours) and "/" in path}
        return metadata | {"consolidated_metadata": found}
    return listing.group_with(metadata, kind, dict.fromkeys(journal.names(kind), False))
