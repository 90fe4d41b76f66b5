"""What a run is of: changes with its input and its parameters, and stays the same from session to session."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from spatialdata import SpatialData, get_dask_backing_files
from spatialdata.transformations import get_transformation

from sslcst._sdata.listing import LISTING
from sslcst._sdata.raster import full_scale
from sslcst._sdata.store import told_by, written


def digest(about: dict[str, Any]) -> str:
    """Hash of plain values."""
    return hashlib.sha256(_as_text(about)).hexdigest()


def weights_in(params: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Sizes and times of the files of weights that parameters name, by the path; a name of a model tells all itself."""
    models = {str(section["model"]) for section in params.values() if section.get("model")}
    return {model: _stamps(Path(model).expanduser()) for model in models if Path(model).expanduser().exists()}


def fingerprint(sdata: SpatialData, keys: Iterable[str], about: dict[str, Any]) -> str:
    """Hash of some rasters and shapes of an object, and of plain values.

    Of a raster on disk, names, sizes and times of its files count, and how it is read from them; of all else the
    values. Transformations count too.
    """
    found = hashlib.sha256(_as_text(about))
    for key in sorted(keys):
        element = sdata[key]
        found.update(key.encode())
        systems = {name: str(system) for name, system in get_transformation(element, get_all=True).items()}
        found.update(_as_text(systems))
        for part in _identity(full_scale(element)):
            found.update(part)
    return found.hexdigest()


def _as_text(about: Mapping[str, Any]) -> bytes:
    return json.dumps(about, sort_keys=True, default=str).encode()


def recorded(store: Path, results: Mapping[str, str]) -> str | None:
    """The run that results (name -> kind) in a store are of, by what their table tells; None where one is gone."""
    [table] = (name for name, kind in results.items() if kind == "tables")
    made = written(store, table)
    if not made or not all((store / results[name] / name / LISTING).is_file() for name in made.keys() & results):
        return None
    return told_by(store, table, "run")


def _identity(element: Any) -> Iterable[bytes]:
    if isinstance(element, pd.DataFrame):  # shapes
        columns = element.index.to_frame() if "radius" not in element else element[["radius"]]
        yield pd.util.hash_pandas_object(columns).to_numpy().tobytes()
        yield b"".join(shape or b"none" for shape in element.geometry.to_wkb())
        return
    data = element.data
    channels = [str(name) for name in element.coords["c"].values] if "c" in element.coords else None
    yield repr((element.dims, channels, data.shape, str(data.dtype), getattr(data, "name", None))).encode()
    if not hasattr(data, "dask"):
        yield data.tobytes()
        return
    for place in sorted(get_dask_backing_files(element)):
        yield _stamps(Path(place)).encode()


def _stamps(place: Path) -> str:
    """Where a file really lies, its size and time; of a folder those of all files in it."""
    files = [(os.path.realpath(file), file.stat()) for file in sorted([place, *place.rglob("*")]) if file.is_file()]
    return "".join(repr((path, about.st_size, about.st_mtime_ns)) for path, about in files)
