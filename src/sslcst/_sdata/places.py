"""Where things really lie: the folder of a store, and one for what runs in memory keep on the disk for a while."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spatialdata import SpatialData, get_dask_backing_files

from sslcst._sdata.lock import CAN_LOCK, held
from sslcst._sdata.scratch import Scratch, fingerprint_in, is_ours
from sslcst.errors import StoreError

_PREFIX = "sslcst-run-"


def real_store(sdata: SpatialData) -> Path | None:
    """The folder of an object's store, whatever links lead there and wherever one works later; None in memory."""
    if sdata.path is None:
        return None
    store = Path(os.path.realpath(sdata.path))
    if not store.is_dir():
        hint = "" if Path(sdata.path).is_absolute() else ", or the working directory is no longer that of its path"
        raise StoreError(f"There is no store {store}: it was moved or deleted{hint}. Read it from where it lies.")
    return store


def check_there(sdata: SpatialData, keys: list[str]) -> None:
    """See that the files that elements are read from are there: a missing chunk would be read as zeros."""
    for key in keys:
        for place in get_dask_backing_files(sdata[key]):
            if not Path(place).exists():
                raise StoreError(
                    f"{key!r} is read from {place}, which is not there: it was moved or deleted, or was read by a "
                    "relative path from another working directory. Read it from where it lies."
                )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes in the end; those of processes that were killed go too."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_if_dead(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with held(folder):
        try:
            yield folder
        finally:
            Scratch(folder).remove()


def _remove_if_dead(folder: Path) -> None:
    """Remove the folder of a run in memory whose process is no more; never what is of others."""
    if not CAN_LOCK:
        return
    try:
        # One that tells no run may be about to be held.
        if is_ours(folder) and folder.stat().st_uid == os.getuid() and fingerprint_in(folder):
            with held(folder):
                Scratch(folder).remove()
    except OSError:  # its run is at work, or another one removes it at this moment
        return
