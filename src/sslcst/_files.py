"""Files that a user names: refused before the work that they are to hold, and by an error of the package after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslcst.errors import StoreError


def check_folder(path: Path) -> None:
    """Raise StoreError where there is no folder for a file."""
    if not path.parent.is_dir():
        raise StoreError(f"{path} could not be written: there is no folder {path.parent}.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the system into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}.") from error
