"""Writing to a store so that it is never harmed: results are whole before the first of them can be seen.

What a reader sees of a store is what its consolidated metadata lists. So the results are written to a folder of their
own beside the store, moved into it where nobody sees them yet, and made visible by one atomic rewrite of that list.
Results that are replaced are taken from the list first. Whenever a run is killed, the store opens; what it left is
swept by the next run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcst._logging import logger
from sslcst.errors import KeyMissingError, StoreError
from sslcst.run.scratch import Scratch, fingerprint_in

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from spatialdata import SpatialData

LISTING = "zarr.json"
_NEW, _OLD = "new.zarr", "old"  # in the scratch folder: results to come, and those they replace
_WHOLE = "whole.json"  # written when all results to come are there


def check_free(sdata: SpatialData, names: Mapping[str, str], *, overwrite: bool) -> None:
    """See that results can be written, before they are computed.

    Parameters
    ----------
    sdata
        The object and, where it has a path, its store.
    names
        Name -> kind (``"labels"``, ``"tables"``) of each result.
    overwrite
        Whether results of these names and kinds may be replaced.

    Raises
    ------
    KeyMissingError
        An element of such a name exists, and may not be replaced or is of another kind.
    StoreError
        The store cannot be written to.
    """
    present = [(kind, name) for kind, name, _ in sdata.gen_elements()]
    if sdata.path is not None:
        path = Path(sdata.path)
        if not (path / LISTING).exists():
            raise StoreError(f"{path} is no store of zarr format 3: read it and `write` it to a new place first.")
        for folder in (path, path.parent):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise StoreError(
                    f"{folder} cannot be written to, and the results belong there: copy the store, or set its rights."
                )
        # The object may hold a part of its store only.
        present += [tuple(place.split("/")) for place in sdata.elements_paths_on_disk()]
    for kind, name in present:
        if name in names and kind != names[name]:
            raise KeyMissingError(f"{name!r} exists among the {kind} and is none of ours: choose another key_added.")
        if name in names and not overwrite:
            raise KeyMissingError(f"{name!r} exists: choose another key_added, or overwrite=True.")


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold a store, so that no second run works on it; the lock goes with the process, however it ends.

    Raises
    ------
    StoreError
        Another run holds it.
    """
    if fcntl is None:
        logger.warning("This system has no file locks: do not start a second run on %s.", store)
        yield
        return
    handle = os.open(store, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"Another run is at work on {store}: wait for its end, or stop it.") from error
        yield
    finally:
        os.close(handle)


def scratch_folder(store: Path, key_added: str) -> Path:
    """Where a run keeps what it has done so far: beside the store, on the same disk."""
    return store.parent / f"{_prefix(store)}{key_added}"


def _prefix(store: Path) -> str:
    return f".{store.name}.sslcst-"


def is_half_published(sdata: SpatialData) -> bool:
    """Whether a killed run left results that are whole but not yet all in their places (`finish`)."""
    return sdata.path is not None and bool(_marks(Path(sdata.path)))


def _marks(store: Path) -> list[Path]:
    return sorted(store.parent.glob(f"{escape(_prefix(store))}*/{_WHOLE}"))


def finish(store: Path) -> list[str | None]:
    """Finish what killed runs had begun to publish, and remove their scratch folders; the fingerprints of the runs.

    Raises
    ------
    StoreError
        The store could not be written; it is as it was.
    """
    shutil.rmtree(_trash(store), ignore_errors=True)
    runs = []
    for mark in _marks(store):
        runs.append(fingerprint_in(mark.parent))
        with _unharmed(store):
            _swap(store, mark.parent)
            _retire(store, mark.parent)
    return runs


def left_behind(store: Path) -> tuple[list[Path], list[Path]]:
    """What lies beside a store, or as a stray file in it: scratch folders that `finish` ends, and all else of runs."""
    unfinished = [mark.parent for mark in _marks(store)]
    left = [*store.parent.glob(f"{escape(_prefix(store))}*"), _trash(store), store / f".{LISTING}.sslcst"]
    left += [*store.glob("zarr.*.partial"), *store.glob("*/zarr.*.partial")]  # of a kill while zarr wrote a listing
    return unfinished, sorted(path for path in left if path.exists() and path not in unfinished)


@contextmanager
def _unharmed(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{store} could not be written: {error}. What was in it before is unharmed.") from error


def _trash(store: Path) -> Path:
    return store.parent / f".{store.name}.sslcst.trash"


def _retire(store: Path, folder: Path) -> None:
    """Remove the scratch folder of a run whose results are published: at once for all who look."""
    folder.rename(_trash(store))
    shutil.rmtree(_trash(store), ignore_errors=True)


def commit(
    sdata: SpatialData, elements: Mapping[str, Any], kinds: Mapping[str, str], *, folder: Path | None = None
) -> None:
    """Add results to an object and, where it has one, to its store; all of them or none.

    Parameters
    ----------
    sdata
        The object to add to.
    elements
        Name -> element, in the order in which they are to appear.
    kinds
        Name -> ``"labels"``, ``"tables"``, ``"shapes"`` or ``"points"``.
    folder
        Where the results are written first, on the store's disk; by default one that is removed in the end.

    Raises
    ------
    StoreError
        The store could not be written; it is as it was.
    """
    if sdata.path is not None:
        store = Path(sdata.path)
        _publish(store, elements, kinds, folder or scratch_folder(store, "write"))
        # Tables would be read into memory, where they are already.
        on_disk = read_back(store, {name: kind for name, kind in kinds.items() if kind != "tables"})
        elements = {name: on_disk.get(name, element) for name, element in elements.items()}
    add_to_object(sdata, elements, kinds)


def add_to_object(sdata: SpatialData, elements: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Add elements to the object alone, in place of those of their names."""
    for name, element in elements.items():
        if name in sdata:
            del sdata[name]
        getattr(sdata, kinds[name])[name] = element


def _publish(store: Path, elements: Mapping[str, Any], kinds: Mapping[str, str], folder: Path) -> None:
    """Write results, put them in their places, and remove the folder in which they were written."""
    import warnings

    from spatialdata import SpatialData

    finish(store)
    with _unharmed(store):
        try:
            _clear(folder)
            with warnings.catch_warnings():
                # anndata says at each array of a table what its next version will do about chunks.
                warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)
                SpatialData.init_from_elements(dict(elements)).write(folder / _NEW, consolidate_metadata=False)
            Scratch(folder).write_text(_WHOLE, json.dumps([f"{kinds[name]}/{name}" for name in elements]))
            _swap(store, folder)
        except OSError:
            _clear(folder)
            raise
        _retire(store, folder)


def _clear(folder: Path) -> None:
    """Make room, unless results are whole, which `finish` then needs."""
    if (folder / _WHOLE).exists():
        return
    for left in (_NEW, _OLD):
        shutil.rmtree(folder / left, ignore_errors=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _swap(store: Path, folder: Path) -> None:
    """Put whole results in the place of those before; begun again, it goes on where it was.

    On an error it goes back, by renaming alone, which needs no room on the disk.
    """
    places = [Path(place) for place in json.loads((folder / _WHOLE).read_text(encoding="utf-8"))]
    new, old, listing = folder / _NEW, folder / _OLD, folder / "listing.json"
    if not listing.exists():
        Scratch(folder).write_text(listing.name, (store / LISTING).read_text(encoding="utf-8"))
    try:
        _unlist(store, places, folder)
        _move([place for place in places if (new / place).exists()], store, old)
        for place in places:
            _add_to_group(store, *place.parts)
        _move(places, new, store)
        consolidate(store)
    except OSError:
        _move([place for place in places if not (new / place).exists()], store, new)
        _move(places, old, store)
        listing.replace(store / LISTING)
        (folder / _WHOLE).unlink()
        raise


def _move(places: list[Path], source: Path, target: Path) -> None:
    for place in places:
        if (source / place).exists():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (source / place).rename(target / place)


def _unlist(store: Path, places: list[Path], folder: Path) -> None:
    """Take elements from the list of what is visible, so that nobody meets them half replaced."""
    listing = json.loads((store / LISTING).read_text(encoding="utf-8"))
    listed = (listing.get("consolidated_metadata") or {}).get("metadata", {})
    hidden = [key for key in listed for place in places if key == str(place) or key.startswith(f"{place}/")]
    if hidden:
        for key in hidden:
            del listed[key]
        Scratch(folder).write_text("unlisted.json", json.dumps(listing))
        (folder / "unlisted.json").replace(store / LISTING)


def _add_to_group(store: Path, kind: str, name: str) -> None:
    """Make sure of the kind's group and, for labels, of the name in its OME-NGFF list."""
    import zarr

    group = zarr.open_group(store, mode="r+", use_consolidated=False).require_group(kind)
    if kind == "labels":
        ome = dict(group.attrs.get("ome", {}))
        if name not in ome.get("labels", []):
            group.attrs["ome"] = ome | {"labels": [*ome.get("labels", []), name]}


def consolidate(store: Path) -> None:
    """Make the list of what a store holds anew."""
    import warnings

    import zarr

    with warnings.catch_warnings():
        # Points are parquet files inside the store, which zarr does not know.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(store)


def read_back(store: Path, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Results as they lie on disk, so that computed arrays can be let go."""
    import warnings

    from spatialdata import read_zarr

    with warnings.catch_warnings():
        # Tables that were there may annotate elements of a kind that is not read here.
        warnings.filterwarnings("ignore", "The table is annotating", UserWarning)
        on_disk = read_zarr(store, selection=tuple(sorted(set(kinds.values()))))
    return {name: on_disk[name] for name in kinds}
