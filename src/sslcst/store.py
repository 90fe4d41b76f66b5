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
import tempfile
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcst.errors import KeyMissingError, StoreError

if TYPE_CHECKING:
    from spatialdata import SpatialData

_LISTING = "zarr.json"


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
        if not (path / _LISTING).exists():
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


def commit(sdata: SpatialData, elements: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Add results to an object and, where it has one, to its store; all of them or none.

    Parameters
    ----------
    sdata
        The object to add to.
    elements
        Name -> labels or table, in the order in which they are to appear.
    kinds
        Name -> ``"labels"`` or ``"tables"``.

    Raises
    ------
    StoreError
        The store could not be written; it is as it was.
    """
    if sdata.path is not None:
        _publish(Path(sdata.path), elements, kinds)
        elements = _read_back(Path(sdata.path), elements, kinds)
    for name, element in elements.items():
        if name in sdata:
            del sdata[name]
        getattr(sdata, kinds[name])[name] = element


def _publish(store: Path, elements: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    from spatialdata import SpatialData

    prefix = f".{store.name}.sslcst-"
    for left_over in store.parent.glob(f"{escape(prefix)}*"):
        shutil.rmtree(left_over)
    places = [Path(kinds[name]) / name for name in elements]
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=store.parent) as scratch:
            new, old = Path(scratch) / "new.zarr", Path(scratch) / "old"
            SpatialData.init_from_elements(dict(elements)).write(new, consolidate_metadata=False)
            _unlist(store, places)
            try:
                _move(places, store, old)
                for place in places:
                    _add_to_group(store, *place.parts)
                _move(places, new, store)
            except OSError:
                arrived = [place for place in places if not (new / place).exists()]
                _move(arrived, store, Path(scratch) / "undone")
                _move(places, old, store)
                raise
            finally:
                _consolidate(store)
    except OSError as error:
        raise StoreError(f"{store} could not be written: {error}. What was in it before is unharmed.") from error


def _move(places: list[Path], source: Path, target: Path) -> None:
    for place in places:
        if (source / place).exists():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (source / place).rename(target / place)


def _unlist(store: Path, places: list[Path]) -> None:
    """Take elements from the list of what is visible, so that nobody meets them half replaced."""
    listing = json.loads((store / _LISTING).read_text()) if (store / _LISTING).exists() else {}
    listed = (listing.get("consolidated_metadata") or {}).get("metadata", {})
    hidden = [key for key in listed for place in places if key == str(place) or key.startswith(f"{place}/")]
    if hidden:
        for key in hidden:
            del listed[key]
        new = store / f".{_LISTING}.sslcst"
        new.write_text(json.dumps(listing))
        new.replace(store / _LISTING)


def _add_to_group(store: Path, kind: str, name: str) -> None:
    """Make sure of the kind's group and, for labels, of the name in its OME-NGFF list."""
    import zarr

    group = zarr.open_group(store, mode="r+", use_consolidated=False).require_group(kind)
    if kind == "labels":
        ome = dict(group.attrs.get("ome", {}))
        if name not in ome.get("labels", []):
            group.attrs["ome"] = ome | {"labels": [*ome.get("labels", []), name]}


def _consolidate(store: Path) -> None:
    import warnings

    import zarr

    with warnings.catch_warnings():
        # Points are parquet files inside the store, which zarr does not know.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(store)


def _read_back(store: Path, elements: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Labels as they lie on disk, so that the computed arrays can be let go; the tables as they are."""
    from spatialdata import read_zarr

    on_disk = read_zarr(store, selection=("labels",))
    return {name: on_disk.labels[name] if kinds[name] == "labels" else element for name, element in elements.items()}
