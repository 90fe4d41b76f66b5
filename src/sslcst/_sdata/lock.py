"""One run at a time on a folder; a lock goes with its process, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sslcst._logging import logger
from sslcst.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CAN_LOCK = fcntl is not None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, which is no link, where the system has file locks; a `BlockingIOError` if another process does."""
    if not CAN_LOCK:
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold a store, so that no second run works on it."""
    if not CAN_LOCK:
        logger.warning("This system has no file locks: do not start a second run on %s.", store)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(Path(os.path.realpath(store))))
        except BlockingIOError as error:
            raise StoreError(f"Another run is at work on {store}: wait for its end, or stop it.") from error
        yield
