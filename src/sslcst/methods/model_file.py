"""Models as they are kept: a card in JSON that a person can read, and weights where there are any.

They lie in files, or in the table of the cells that they made, and come from anywhere: nothing is believed of them. The
card is checked field by field, the weights against the card, and a hash covers both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sslcst._files import check_folder, writing
from sslcst.errors import DataError, ParameterError, StoreError
from sslcst.methods import METHODS, method_class
from sslcst.methods.base import Method, Model

_FORMAT = 3
_MOST = {".json": 1 << 26, ".safetensors": 1 << 30}  # bytes: a million genes, and far more weights than any encoder has


@dataclass(frozen=True)
class Kept:
    """A model as it is kept."""

    card: bytes  #: JSON
    weights: bytes | None  #: Safetensors, of methods that have weights


def pack(method: type[Method], model: Model) -> Kept | None:
    """A model of a method as it is kept; None where the method keeps none."""
    packed = method.pack(model)
    if packed is None:
        return None
    card, weights = packed
    about = {"format": _FORMAT, "method": method.name, "sha256": sha256_of(method, model)} | card
    return Kept(json.dumps(about, indent=1).encode(), weights)


def sha256_of(method: type[Method], model: Model) -> str:
    """Hash of a model: its own, or that of what is kept of it."""
    if hasattr(model, "sha256"):
        return model.sha256()
    card, weights = method.pack(model)
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode() + (weights or b"")).hexdigest()


def unpack(kept: Kept, where: str, method: type[Method] | None = None) -> Model:
    """The model of what was kept, by `pack` or by anyone; errors call it `where`.

    It is of this method, or of the one of the package that it names. Raises a `DataError` if it is damaged, of another
    format, changed, or its parts do not belong together.
    """
    try:
        about = _read_card(kept.card)
        kind = _method_of(about, method)
        expected = about.pop("sha256", None)
        model = kind.unpack(about, kept.weights)
        if sha256_of(kind, model) != expected:
            raise DataError("they do not belong together, or one was changed since write_model wrote them.")
    except (ValueError, RecursionError) as error:  # ours among them, which say what is wrong
        raise DataError(f"{where} is no model that can be used: {error}") from error
    return model


def write_model(model: Model, path: str | Path) -> None:
    """See `sslcst.io.write_model`."""
    if model.method not in METHODS:
        raise ParameterError(f"model: method {model.method!r} is none of this package's: keep its models by yourself.")
    kind = method_class(model.method)
    files = new_files(kind, path)
    kept = pack(kind, model)
    with writing(files[0]), ExitStack() as on_error:
        for file in files:
            with file.open("xb") as out:
                on_error.callback(file.unlink)
                out.write(kept.card if file.suffix == ".json" else kept.weights)
        on_error.pop_all()


def new_files(method: type[Method], path: str | Path) -> list[Path]:
    """The files that a model of a method would be written to: new ones, of a name that fits."""
    weights, card = _files(path)
    if not method.has_weights and Path(path).suffix != ".json":
        raise StoreError(f"{path}: a model of method {method.name!r} has no weights, and its name must end in .json.")
    files = [weights, card] if method.has_weights else [card]
    for file in files:
        if file.exists():
            raise StoreError(f"{file} exists: choose another name, or delete it.")
        check_folder(file)
    return files


def read_model(path: str | Path) -> Model:
    """See `sslcst.io.read_model`."""
    weights, card = _files(path)
    by_weights = Path(path) == weights
    where = f"{weights} with its card {card.name}" if by_weights else str(card)
    try:
        kept = Kept(_read(card), _read(weights) if by_weights or weights.exists() else None)
    except OSError as error:
        raise StoreError(f"The model {where} cannot be read: {error}.") from error
    except DataError as error:
        raise DataError(f"{where} is no model that can be used: {error}") from error
    return unpack(kept, where)


def check_names(what: str, values: object, kind: type, *, without: str = "") -> None:
    """Raise DataError unless a mapping has the fields of a dataclass, no more and no less."""
    wanted = {field.name for field in fields(kind)} - {without}
    if not isinstance(values, Mapping):
        raise DataError(f"{what} must map names to values.")
    if set(values) != wanted:
        raise DataError(f"{what} lacks {sorted(wanted - set(values))}, and has unknown {sorted(set(values) - wanted)}.")


def _files(path: str | Path) -> tuple[Path, Path]:
    """Weights and card."""
    path = Path(path)
    if path.suffix not in _MOST:
        hint = "; of a store, read it and give the object" if path.is_dir() else ""
        raise StoreError(f"{path}: the name of a model must end in .json or, with weights, .safetensors{hint}.")
    return path.with_suffix(".safetensors"), path.with_suffix(".json")


def _read(file: Path) -> bytes:
    """What a file holds, unless it is larger than any of its kind."""
    most = _MOST[file.suffix]
    if file.stat().st_size > most:
        raise DataError(f"{file.name} is larger than {most:,} bytes.")
    return file.read_bytes()


def _read_card(card: bytes) -> dict[str, Any]:
    """The fields of a card of our format."""
    about = json.loads(card, object_pairs_hook=_unique)
    if not isinstance(about, dict) or about.pop("format", None) != _FORMAT:
        raise DataError(
            f"this version of sslcst reads format {_FORMAT}: train the model anew, or install the version that wrote "
            "this one."
        )
    return about


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise DataError(f"the card names a field twice: {[name for name, _ in pairs]}.")
    return values


def _method_of(about: dict[str, Any], wanted: type[Method] | None) -> type[Method]:
    """The method that a card names; a card of an earlier version names none, and is of the one that had files."""
    name = about.pop("method", "ssl-cst")
    if wanted is not None and name == wanted.name:
        return wanted
    if name not in list(METHODS):
        raise DataError(f"it is of a method {name!r}, and this version of sslcst knows {', '.join(METHODS)}.")
    return method_class(name)
