"""Writing so that it outlives a loss of power, as far as the file system lets us: files first, then what names them."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# File systems, mostly those of a network, that know no flushing of such a thing.
_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}


def flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names, before anything that comes after."""
    if path.is_dir() and os.name == "nt":  # where a folder cannot be opened
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def flush_tree(folder: Path) -> None:
    """Have the disk hold a folder and all in it."""
    with ThreadPoolExecutor(8) as pool:  # which wait for the disk together
        for _ in pool.map(flush, [folder, *folder.rglob("*")]):
            pass


def write_text(path: Path, text: str, new: Path) -> None:
    """Put a small file in the place of another, at once and for good; `new` is where it is written first."""
    try:
        new.write_text(text, encoding="utf-8")
        flush(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    flush(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename on the same disk, for good."""
    source.rename(target)
    for folder in {source.parent, target.parent}:
        flush(folder)
