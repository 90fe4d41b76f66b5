"""Writing to a store so that it is never harmed: results are whole before the first of them can be seen.

What a reader sees of a store is what its consolidated metadata lists. So the results are written to a folder of their
own beside the store, moved into it where nobody sees them yet, and made visible by one atomic rewrite of that list.
Results that give way are taken from the list first. Whenever a run is killed, or the power is lost, the store opens;
what was begun is finished by the next run.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any

import zarr
from anndata.io import read_elem
from spatialdata import SpatialData, read_zarr

from sslcst._logging import logger
from sslcst._sdata import durable, listing
from sslcst._sdata.journal import (
    BEFORE,
    NEW,
    OLD,
    WHOLE,
    Journal,
    keep_metadata,
    meanwhile,
    put_back,
    taken,
    write_listing,
)
from sslcst._sdata.journal import move as _move
from sslcst._sdata.listing import LISTING
from sslcst._sdata.places import real_store
from sslcst._sdata.scratch import Scratch, fingerprint_in, has_links, is_ours, is_trash, remove_trash
from sslcst.errors import KeyMissingError, StoreError

# What reading a damaged element raises.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)


def check_free(
    sdata: SpatialData, names: Mapping[str, str], *, overwrite: bool, family: Mapping[str, str] | None = None
) -> dict[str, str]:
    """See, before any work, that results, name -> kind, can be written; name -> kind of what gives way to them.

    `family`, by default `names`, is all that other runs of this prefix may have written: what the results do not
    replace of it is removed. Raises `KeyMissingError` where something else has such a name, case apart, or may not be
    replaced.
    """
    if (path := real_store(sdata)) is not None:
        check_writable(path)
    family = dict(family or {}) | dict(names)
    by_case = {name.lower(): name for name in family}
    former = {}
    for kind, name in sorted(listing.present(sdata)):
        ours = by_case.get(name.lower())
        if ours is None:
            continue
        listing.check_case(kind, name, ours)
        if kind != family[name]:
            raise KeyMissingError(f"{name!r} exists among the {kind} and is none of ours: choose another key_added.")
        if not overwrite:
            raise KeyMissingError(f"{name!r} exists: choose another key_added, or overwrite=True.")
        former[name] = kind
    _check_ours(sdata, former, names)
    return former


def check_writable(path: Path) -> None:
    if not (path / LISTING).exists():
        raise StoreError(f"{path} is no store of zarr format 3: read it and `write` it to a new place first.")
    for folder in (path, path.parent):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(
                f"{folder} cannot be written to, and the results belong there: copy the store, or set its rights."
            )
    listing.check_metadata(path)


def _check_ours(sdata: SpatialData, former: Mapping[str, str], names: Mapping[str, str]) -> None:
    """See that what gives way was written by the run that the table tells of."""
    store, unlisted = real_store(sdata), []
    if store is not None and not _marks(store):  # else a killed run's results are not all in their places yet
        unlisted = sorted(_places(former) & (listing.on_disk(store) - listing.listed(store)))
    if unlisted:
        raise KeyMissingError(
            f"{', '.join(unlisted)} lies in {store} and is not listed, as what was never written to its end: it is "
            "left alone. Move it away, or choose another key_added."
        )
    record = {}
    for name in (name for name, kind in former.items() if kind == "tables"):
        record |= made_by(sdata, name)
    # Steps add labels and tables under these names; shapes and points are added by a run alone, whose table tells so.
    known = record or {name for name, kind in names.items() if kind in ("labels", "tables")}
    if others := sorted(former.keys() - set(known)):
        raise KeyMissingError(
            f"{', '.join(map(repr, others))} exists and was not written by the run that overwrite=True replaces: it is "
            "left alone. Rename or delete it, or choose another key_added."
        )


def made_by(sdata: SpatialData, table: str) -> dict[str, str]:
    """Name -> kind of what the run that made a table made, by the table in the store and in the object."""
    told = {} if sdata.path is None else written(real_store(sdata), table)
    about = sdata.tables[table].uns.get("sslcst") if table in sdata.tables else None
    own = about.get("results") if isinstance(about, Mapping) else None
    own = own if isinstance(own, Mapping) else {}
    # What lies in the object alone was made after the run, and is told of by the table there.
    there = listing.on_disk(real_store(sdata)) if told else set()
    return told | {other: kind for other, kind in own.items() if f"{kind}/{other}" not in there}


def told_by(store: Path, table: str, name: str) -> Any:
    """What ``uns["sslcst"]`` of a table tells of the run that made it; None where it does not, or is damaged."""
    try:
        return read_elem(zarr.open_group(store / "tables" / table, mode="r")[f"uns/sslcst/{name}"])
    except UNREADABLE:
        return None


def written(store: Path, table: str) -> dict[str, str]:
    """Name -> kind of what the run that made a table wrote; empty where the table does not tell."""
    told = told_by(store, table, "results")
    return dict(told) if isinstance(told, Mapping) else {}


def n_rows(store: Path, table: str) -> int:
    """How many rows a table in a store has."""
    return zarr.open_array(store / "tables" / table / "obs" / "cell_id", mode="r").shape[0]


def scratch_folder(store: Path, key_added: str) -> Path:
    """Where a run keeps what it has done so far: beside the store, on the same disk."""
    return store.parent / f"{_prefix(store)}{key_added}"


def _prefix(store: Path) -> str:
    return f".{store.name}.sslcst-"


def _folders(store: Path) -> list[Path]:
    """Folders of runs on a store, and those that were being removed; nothing that only bears such a name."""
    return [folder for folder in sorted(store.parent.glob(f"{escape(_prefix(store))}*")) if is_ours(folder)]


def _marks(store: Path) -> list[Path]:
    """What tells, in folders of killed runs, that their results are whole, if not all in their places (`finish`)."""
    return [folder / WHOLE for folder in _folders(store) if not is_trash(folder) and (folder / WHOLE).exists()]


def finish(store: Path) -> list[str | None]:
    """Finish what killed runs had begun to publish, and remove their scratch folders; the fingerprints of the runs.

    What cannot be finished, since an element of such a name was written meanwhile or results are no longer what they
    were, is taken back; so is all where the store cannot be written, or a folder was tampered with (`StoreError`).
    """
    for folder in filter(is_trash, _folders(store)):
        remove_trash(folder)
    runs = []
    for mark in _marks(store):
        folder = mark.parent
        if has_links(folder):
            raise StoreError(f"{folder} holds links, which no run makes: see where they lead, then move it.")
        with unharmed(store):
            journal = Journal.of(folder)
            if reason := journal.hindrance(store) or journal.damage(store):
                logger.warning("What %s holds is not put into the store: %s", folder, reason)
                put_back(store, journal)
                _clear(folder)
                continue
            run = fingerprint_in(folder)
            with ExitStack() as on_error:
                on_error.callback(_clear, folder)
                _swap(store, folder)
                on_error.pop_all()
            Scratch(folder).remove()
            runs.append(run)
    return runs


def left_behind(store: Path) -> tuple[list[Path], list[Path]]:
    """What lies beside a store, or as a stray file in it, of runs or named so: what `finish` ends, and all else."""
    unfinished = [mark.parent for mark in _marks(store)]
    left = [*store.parent.glob(f"{escape(_prefix(store))}*"), store / f".{LISTING}.sslcst"]
    left += [*store.glob("zarr.*.partial"), *store.glob("*/zarr.*.partial")]  # of a kill while zarr wrote a listing
    return unfinished, sorted(path for path in left if os.path.lexists(path) and path not in unfinished)


@contextmanager
def unharmed(store: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{store} could not be written: {error}. What was in it before is unharmed.") from error


def commit(
    sdata: SpatialData,
    elements: Mapping[str, Any],
    kinds: Mapping[str, str],
    *,
    former: Mapping[str, str] | None = None,
    folder: Path | None = None,
    unloaded: Iterable[str] = (),
) -> None:
    """Add results to an object and, where it has one, to its store; all of them or none (`StoreError`).

    `elements` come in the order in which they are to appear, and take the place of `former`, name -> kind
    (`check_free`); by default of what is there of their names. They are written to `folder` first, on the store's disk;
    by default to one that is removed in the end. Those that are `unloaded` are added to the store alone.
    """
    if sdata.path is not None:
        finish(real_store(sdata))
    there = listing.present(sdata)
    if former is None:
        former = {name: kind for kind, name in there if kinds.get(name) == kind}
    if others := taken({f"{kind}/{name}" for kind, name in there} - _places(former), _places(kinds)):
        raise StoreError(meanwhile(others))
    if sdata.path is not None:
        store = real_store(sdata)
        lies = _publish(store, elements, kinds, former, folder or scratch_folder(store, "write"))
        elements = {name: lies.get(name, element) for name, element in elements.items() if name not in unloaded}
    add_to_object(sdata, elements, kinds, former)


def _places(kinds: Mapping[str, str]) -> set[str]:
    return {f"{kind}/{name}" for name, kind in kinds.items()}


def add_to_object(
    sdata: SpatialData, elements: Mapping[str, Any], kinds: Mapping[str, str], former: Iterable[str] = ()
) -> None:
    """Add elements to the object alone, in place of those of their names and of those that give way."""
    for name in {*elements, *former}:
        if name in sdata:
            del sdata[name]
    for name, element in elements.items():
        getattr(sdata, kinds[name])[name] = element


def _publish(
    store: Path, elements: Mapping[str, Any], kinds: Mapping[str, str], former: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """Write results, put them in their places, and remove the folder in which they were written; what lies there."""
    with unharmed(store), ExitStack() as on_error:
        _clear(folder)
        if not folder.exists():
            Scratch(folder).open("write")
        on_error.callback(_clear, folder)
        with warnings.catch_warnings():
            # anndata says at each array of a table what its next version will do about chunks.
            warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)
            SpatialData.init_from_elements(dict(elements)).write(folder / NEW, consolidate_metadata=False)
        durable.flush_tree(folder / NEW)
        Journal(folder, [f"{kinds[name]}/{name}" for name in elements], sorted(_places(former))).write()
        there = _swap(store, folder)
        on_error.pop_all()
        Scratch(folder).remove()
    return there


def _clear(folder: Path) -> None:
    """Make room, unless results are whole, which `finish` then needs."""
    if (folder / WHOLE).exists():
        return
    for left in (NEW, OLD, BEFORE, f"{BEFORE}.new"):
        shutil.rmtree(folder / left, ignore_errors=True)
    if Scratch(folder).is_empty():
        Scratch(folder).remove()


def _swap(store: Path, folder: Path) -> dict[str, Any]:
    """Put whole results in the place of those before, and read them; begun again, it goes on where it was.

    On any error it goes back, by renaming alone, which needs no room on the disk.
    """
    journal = Journal.of(folder)
    if reason := journal.hindrance(store):
        (folder / WHOLE).unlink()
        raise StoreError(reason)
    with ExitStack() as on_error:
        on_error.callback(put_back, store, journal)
        keep_metadata(store, journal)
        _unlist(store, journal)
        _move(filter(journal.stands, journal.former), store, folder / OLD)
        for place in journal.changing(store):
            _add_to_group(store, journal, place)
        _move(journal.new, folder / NEW, store)
        consolidate(store, journal)
        kinds = {name: kind for kind, name in (place.split("/", 1) for place in journal.new)}
        # Tables would be read into memory, where they are already.
        found = read_back(store, {name: kind for name, kind in kinds.items() if kind != "tables"})
        on_error.pop_all()
    return found


def _unlist(store: Path, journal: Journal) -> None:
    """Take elements from the list of what is visible, so that nobody meets them half replaced."""
    found = listing.entries(listing.read_metadata(store / LISTING))
    if found is None or any(place in found for place in journal.changing(store)):
        write_listing(store, journal, [])


def _add_to_group(store: Path, journal: Journal, place: str) -> None:
    """Make sure of the kind's group and, for labels, of what OME-NGFF's list of their names tells."""
    kind, name = place.split("/", 1)
    file = store / kind / LISTING
    old = listing.read_metadata(file) if file.exists() else None
    new = listing.group_with(old, kind, {name: place in journal.new})
    if new != old:
        file.parent.mkdir(exist_ok=True)
        listing.write_metadata(file, new, journal.folder / "group.json")


def consolidate(store: Path, journal: Journal) -> None:
    """List the results, and nothing else that was not listed."""
    write_listing(store, journal, journal.new)


def read_back(store: Path, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Results as they lie on disk, so that computed arrays can be let go."""
    if not kinds:
        return {}
    with warnings.catch_warnings():
        # Tables that were there may annotate elements of a kind that is not read here.
        warnings.filterwarnings("ignore", "The table is annotating", UserWarning)
        try:
            found = read_zarr(store, selection=tuple(sorted(set(kinds.values()))))
            return {name: found[name] for name in kinds}
        except UNREADABLE as error:
            raise StoreError(
                f"{store} cannot be read ({type(error).__name__}: {error}), so that the results are not added to it."
            ) from error
