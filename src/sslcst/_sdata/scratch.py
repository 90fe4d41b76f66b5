"""The folder beside a store that holds what a run has done so far, so that a run that was stopped goes on.

Every file is written under another name first, and exists only when it is whole. What a step made is noted with its
checksum. The folder knows what input and which parameters it is of: other ones start anew. Nothing that no run made is
taken for such a folder, worked in or removed.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from zipfile import BadZipFile

import numpy as np
from scipy import sparse

from sslcst.errors import StoreError

_MANIFEST, _NEW_MANIFEST = "run.json", ".run.json.new"
# numpy parses a header by ast, which in Python before 3.11.8 fails where two threads do so at once (gh-106905).
_parsing = threading.Lock()
_TRASH = "~"  # ends the name of a folder that is being removed; no name of a run holds it
# What reading a damaged file raises.
DAMAGED = (BadZipFile, zlib.error, struct.error, EOFError, KeyError, NotImplementedError, OverflowError, ValueError)
T = TypeVar("T")
_PIECE = 2**20  # bytes of a file that are read at once


@dataclass(frozen=True)
class Scratch:
    """A folder of whole files."""

    folder: Path  # where it lies; workers on other machines must see it under the same path
    run: str | None = None  # fingerprint of the run that writes there, and nobody else; None: whoever does

    def open(self, fingerprint: str) -> bool:
        """Make the folder that of a run with this fingerprint, empty unless it was; whether it was."""
        known = is_ours(self.folder) and fingerprint_in(self.folder) == fingerprint and not has_links(self.folder)
        if not known:
            if not self.is_empty():  # an empty one may be held by its lock, and stays the same
                self.remove()
                self.folder.mkdir()
            self.write_text(_MANIFEST, json.dumps(fingerprint))
        return known

    def is_empty(self) -> bool:
        """Whether nothing was done here yet."""
        return is_ours(self.folder) and {path.name for path in self.folder.iterdir()} <= {_MANIFEST}

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).exists()

    def path(self, name: str) -> Path:
        """Where a file lies, in a folder that exists."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)  # never the scratch folder itself: a task that comes too late leaves nothing
        return path

    def finish(self, mark: str, names: Iterable[str]) -> None:
        """Note that these files, and those in these folders, are all that a step makes, and whole."""
        self.write_text(mark, json.dumps({name: checksum(self.folder / name) for name in names}))

    def is_finished(self, mark: str) -> bool:
        """Whether a step was noted, and its files are, to the last bit, what they were then."""
        noted = read_json(self.folder / mark)
        return noted is not None and all(checksum(self.folder / name) == value for name, value in noted.items())

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of text."""
        with self._writing(name) as file:
            file.write(text.encode())

    @contextmanager
    def _writing(self, name: str) -> Iterator[BinaryIO]:
        """A file under another name, that of its own once it is whole; never what lay there, or where a link leads.

        What is no longer wanted is dropped: tasks of a run that was stopped may end when the folder is that of another.
        """
        path = self.path(name)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with new.open("xb") as file:
            yield file
        if self.run is not None and name != _MANIFEST and fingerprint_in(self.folder) != self.run:
            new.unlink(missing_ok=True)
            raise StoreError(f"{self.folder} is no longer that of the run that would write {name}.")
        new.replace(path)

    def save(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays and sparse csr matrices by their names."""
        flat: dict[str, np.ndarray] = {}
        for key, value in arrays.items():
            if sparse.issparse(value):
                parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr, "shape": value.shape}
                flat |= {f"{key}.{part}": np.asarray(array) for part, array in parts.items()}
            else:
                flat[key] = np.asarray(value)
        with self._writing(name) as file:
            np.savez(file, **flat)

    def load(self, name: str, *only: str) -> dict[str, Any]:
        """Read what `save` wrote, all or some of the arrays; a damaged file is emptied, so that it is made anew."""
        path = self.folder / name
        try:
            with _parsing, np.load(path) as file:
                wanted = [key for key in file.files if not only or key.split(".")[0] in only]
                flat = {key: file[key] for key in wanted}
        except DAMAGED as error:
            raise self.discard(name, error) from error
        matrices = {key.removesuffix(".indptr") for key in flat if key.endswith(".indptr")}
        out = {key: value for key, value in flat.items() if key.split(".")[0] not in matrices}
        for key in matrices:
            data, indices, indptr, shape = (flat[f"{key}.{part}"] for part in ("data", "indices", "indptr", "shape"))
            out[key] = sparse.csr_matrix((data, indices, indptr), shape=tuple(shape))
        return out

    def discard(self, name: str, error: Exception) -> StoreError:
        """Empty a damaged file, or folder of zarr, so that it is no longer what was noted; the error to raise.

        It stays in its place: for other tiles, which are at work meanwhile, what is not there is empty tissue.
        """
        path = self.folder / name
        self.write_text(f"{name}/zarr.json" if _is_folder(path) else name, "")
        return StoreError(
            f"{path}, which an earlier part of this run wrote, is damaged ({error}): "
            "call again with the same arguments, and what it held is made anew."
        )

    def remove(self) -> None:
        """Remove the folder and all in it: at once for all who look, since it takes another name first."""
        trash = self.folder.with_name(f"{self.folder.name}{_TRASH}")
        for folder in (trash, self.folder):
            if os.path.lexists(folder) and not is_ours(folder):
                raise StoreError(
                    f"{folder} is in the way: no run of sslcst made it, or it is a link. See what it is, then move it."
                )
        remove_trash(trash)
        if self.folder.exists():
            self.folder.rename(trash)
            remove_trash(trash)


def is_ours(folder: Path) -> bool:
    """Whether this is a folder that a run made: no link, and it says what it is of, or holds nothing yet."""
    if not _is_folder(folder):
        return False
    return _is_file(folder / _MANIFEST) or {path.name for path in folder.iterdir()} <= {_NEW_MANIFEST}


def is_trash(folder: Path) -> bool:
    """Whether this is a folder that was being removed."""
    return folder.name.endswith(_TRASH) and is_ours(folder)


def fingerprint_in(folder: Path) -> str | None:
    """The fingerprint of the run that a folder is of, if it is of one."""
    return read_json(folder / _MANIFEST, str)


def read_json(file: Path, kind: type[T] = dict) -> T | None:
    """What a file of JSON holds; None where there is no such file, or it holds no value of this kind."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def checksum(path: Path) -> list[int] | None:
    """Bytes and CRC-32 of a file, or of all files in a folder with their names; None where there is a link, or none."""
    if _is_file(path):
        return list(_add(path, 0, 0))
    if not _is_folder(path) or has_links(path):
        return None
    size, crc = 0, 0
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        size, crc = _add(file, size, zlib.crc32(file.relative_to(path).as_posix().encode(), crc))
    return [size, crc]


def _add(file: Path, size: int, crc: int) -> tuple[int, int]:
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def has_links(folder: Path) -> bool:
    """Whether there is a link anywhere below a folder."""
    return any(path.is_symlink() for path in folder.rglob("*"))


def remove_trash(trash: Path) -> None:
    """Remove a folder of that name, the word of what it is at last; what cannot be removed is left for another time."""
    if not trash.exists():
        return
    for path in trash.iterdir():
        if path.name != _MANIFEST:
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path, ignore_errors=True)
    if {path.name for path in trash.iterdir()} <= {_MANIFEST}:
        shutil.rmtree(trash, ignore_errors=True)
