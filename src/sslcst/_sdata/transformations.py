"""Transformations of elements that are there, written to their store: the only thing in it that changes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from spatialdata import SpatialData
from spatialdata.transformations import remove_transformation

from sslcst._sdata import durable
from sslcst._sdata.listing import LISTING, listed, relist
from sslcst._sdata.lock import locked
from sslcst._sdata.places import real_store
from sslcst._sdata.store import check_writable, finish, unharmed


def write_transformations(sdata: SpatialData, names: Iterable[str], added: str) -> None:
    """Write the transformations of elements of an object to its store, if it has one and they lie there.

    The metadata of one element after the other are replaced at once, the list of all in the end: whenever that is
    stopped, what is written is whole, and readers find the store as it was or as it will be. Where it cannot be
    written, the elements lose the system that was `added`, and object and store are as they were.
    """
    with ExitStack() as on_error:
        for name in names:
            on_error.callback(remove_transformation, sdata[name], added)
        if sdata.path is not None:
            store = real_store(sdata)
            check_writable(store)
            with locked(store), unharmed(store):
                finish(store)
                there = listed(store)
                places = [place for kind, name, _ in sdata.gen_elements() if (place := f"{kind}/{name}") in there]
                places = [place for place in places if place.split("/", 1)[1] in set(names)]
                if places:
                    _rewrite(sdata, store, places)
        on_error.pop_all()


def _rewrite(sdata: SpatialData, store: Path, places: list[str]) -> None:
    new = store / f".{LISTING}.sslcst"
    with ExitStack() as on_error:
        for place in places:
            file = store / place / LISTING
            on_error.callback(durable.write_text, file, file.read_text(encoding="utf-8"), new)
            sdata.write_transformations(place.split("/", 1)[1])
            durable.flush(file)
        relist(store, places, places, new)
        on_error.pop_all()
