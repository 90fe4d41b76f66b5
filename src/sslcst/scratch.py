"""The folder beside a store that holds what a run has done so far, so that a run that was stopped goes on.

Every file is written under another name first, and exists only when it is whole. The folder knows what input and which
parameters it is of: other ones start anew.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from sslcst.errors import StoreError

_MANIFEST = "run.json"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


@dataclass(frozen=True)
class Scratch:
    """A folder of whole files.

    Parameters
    ----------
    folder
        Where it lies; workers on other machines must see it under the same path.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> tuple[Scratch, bool]:
        """The folder of a run with this fingerprint, emptied if it is another run's; and whether there was one."""
        known = fingerprint_in(folder) == fingerprint
        if not known:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            scratch = cls(folder)
            scratch.write_text(_MANIFEST, json.dumps(fingerprint))
        return cls(folder), known

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).exists()

    def path(self, name: str) -> Path:
        """Where a file lies, in a folder that exists."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

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

    def load(self, name: str) -> dict[str, Any]:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            The file is damaged. It is removed, so that the same call makes it anew.
        """
        path = self.folder / name
        try:
            with np.load(path) as file:
                flat = {key: file[key] for key in file.files}
        except _DAMAGED as error:
            path.unlink()
            raise StoreError(
                f"{path}, which an earlier part of this run wrote, is damaged ({error}) and was removed: "
                "call again with the same arguments, and what it held is made anew."
            ) from error
        matrices = {key.removesuffix(".indptr") for key in flat if key.endswith(".indptr")}
        out = {key: value for key, value in flat.items() if key.split(".")[0] not in matrices}
        for key in matrices:
            data, indices, indptr, shape = (flat[f"{key}.{part}"] for part in ("data", "indices", "indptr", "shape"))
            out[key] = sparse.csr_matrix((data, indices, indptr), shape=tuple(shape))
        return out

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint_in(folder: Path) -> str | None:
    """The fingerprint of the run that a folder is of, if it is of one."""
    manifest = folder / _MANIFEST
    return json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
