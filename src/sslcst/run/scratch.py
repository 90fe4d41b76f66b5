"""The folder beside a store that holds what a run has done so far, so that a run that was stopped goes on.

Every file is written under another name first, and exists only when it is whole. The folder knows what input and which
parameters it is of: other ones start anew.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from sslcst.errors import StoreError

_MANIFEST = "run.json"
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)  # what reading a damaged file raises


@dataclass(frozen=True)
class Scratch:
    """A folder of whole files.

    Parameters
    ----------
    folder
        Where it lies; workers on other machines must see it under the same path.
    """

    folder: Path

    def open(self, fingerprint: str) -> bool:
        """Make the folder that of a run with this fingerprint, empty unless it was; whether it was."""
        known = fingerprint_in(self.folder) == fingerprint
        if not known:
            self.remove()
            self.folder.mkdir(exist_ok=True)
            self.write_text(_MANIFEST, json.dumps(fingerprint))
        return known

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
        self.write_text(mark, json.dumps({name: self._size(name) for name in names}))

    def is_finished(self, mark: str) -> bool:
        """Whether a step was noted, and its files are there in the size that they had then."""
        if not self.has(mark):
            return False
        try:
            sizes = json.loads((self.folder / mark).read_text(encoding="utf-8"))
        except ValueError:
            return False
        return all(self.has(name) and self._size(name) == size for name, size in sizes.items())

    def _size(self, name: str) -> int:
        path = self.folder / name
        return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of text."""
        path = self.path(name)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
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
        path = self.path(name)
        new = path.with_name(f".{path.name}.new")
        with new.open("wb") as file:
            np.savez(file, **flat)
        new.replace(path)

    def load(self, name: str, *only: str) -> dict[str, Any]:
        """Read what `save` wrote, all of it or some of the arrays.

        Raises
        ------
        StoreError
            The file is damaged. It is removed, so that the same call makes it anew.
        """
        path = self.folder / name
        try:
            with np.load(path) as file:
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
        """Remove a damaged file or folder; the error to raise."""
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return StoreError(
            f"{path}, which an earlier part of this run wrote, is damaged ({error}) and was removed: "
            "call again with the same arguments, and what it held is made anew."
        )

    def remove(self) -> None:
        """Remove the folder and all in it; what it is of first, so that nobody goes on from a part of it."""
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint_in(folder: Path) -> str | None:
    """The fingerprint of the run that a folder is of, if it is of one."""
    manifest = folder / _MANIFEST
    try:
        return json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
    except ValueError:  # damaged
        return None
