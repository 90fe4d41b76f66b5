"""Trained models as files: weights in safetensors, and beside them a card in JSON that a person can read.

Files come from anywhere: nothing is believed of them. The card is checked field by field, the header of the weights
against the card before anything of that size is made, and a hash covers both.
"""

from __future__ import annotations

import json
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcst._arguments import checked
from sslcst.errors import DataError, ParameterError, StoreError

if TYPE_CHECKING:
    from sslcst.methods.ssl_cst.encoder import Encoder
    from sslcst.methods.ssl_cst.model import Model
    from sslcst.methods.ssl_cst.params import EncoderParams
    from sslcst.methods.ssl_cst.training import Epoch

_FORMAT = 3
_MOST = {"card": 1 << 26, "header": 1 << 20}  # bytes: a million genes, and far more weights than any encoder has


@checked
def write_model(model: Model, path: str | Path) -> None:
    """Write a model, to be used on other chips.

    Parameters
    ----------
    model
        From `sslcst.tl.train`.
    path
        File of the weights, ending in ``.safetensors``; the card stands beside it, ending in ``.json``.

    Raises
    ------
    ParameterError
        It is of a method that trains no network.
    StoreError
        A file of that name exists, or cannot be written.
    """
    from safetensors.torch import save

    from sslcst.methods.ssl_cst.model import Model

    if not isinstance(model, Model):
        raise ParameterError(f"model: that of method {model.method!r} is learnt in seconds, and not kept in files.")
    weights, card = _files(path)
    for file in (weights, card):
        if file.exists():
            raise StoreError(f"{file} exists: choose another name, or delete it.")
    about = {"format": _FORMAT, "sha256": model.sha256()} | model.card()
    content = {weights: save(model.encoder.state_dict()), card: json.dumps(about, indent=1).encode()}
    made = []
    try:
        for file, data in content.items():
            with file.open("xb") as out:
                made.append(file)
                out.write(data)
    except OSError as error:
        for file in made:
            file.unlink()
        raise StoreError(f"{weights} could not be written: {error}.") from error


@checked
def read_model(path: str | Path) -> Model:
    """Read a model that `write_model` wrote.

    Parameters
    ----------
    path
        File of the weights, ending in ``.safetensors``.

    Raises
    ------
    StoreError
        There is no such file, or none of its card.
    DataError
        The files are damaged, of another format, changed, or do not belong together.
    """
    from safetensors import SafetensorError

    from sslcst.methods.ssl_cst.model import Model
    from sslcst.methods.ssl_cst.params import EncoderParams

    weights, card = _files(path)
    try:
        about = _read_card(card)
        expected = about.pop("sha256", None)
        _check_names("the card", about, Model, without="encoder")
        _check_names("encoder_params", about["encoder_params"], EncoderParams)
        about["encoder_params"] = EncoderParams(**about["encoder_params"])
        about["history"] = _read_history(about["history"])
        encoder = _read_encoder(weights, about["genes"], about["encoder_params"])
        model = Model(encoder=encoder, **about)
        if model.sha256() != expected:
            raise DataError("they do not belong together, or one was changed since write_model wrote them.")
    except OSError as error:
        raise StoreError(f"The model {weights} with its card {card.name} cannot be read: {error}.") from error
    except (SafetensorError, ValueError, RecursionError) as error:  # ours among them, which say what is wrong
        raise DataError(f"{weights} with its card {card.name} is no model that can be used: {error}") from error
    return model


def _files(path: str | Path) -> tuple[Path, Path]:
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise StoreError(f"{weights}: the name of a model must end in .safetensors.")
    return weights, weights.with_suffix(".json")


def _read_card(card: Path) -> dict[str, Any]:
    """The fields of a card of our format."""
    if card.stat().st_size > _MOST["card"]:
        raise DataError(f"the card is larger than {_MOST['card']:,} bytes.")
    about = json.loads(card.read_text(encoding="utf-8"), object_pairs_hook=_unique)
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


def _check_names(what: str, values: object, kind: type, *, without: str = "") -> None:
    """Raise DataError unless a mapping has the fields of a dataclass, no more and no less."""
    wanted = {field.name for field in fields(kind)} - {without}
    if not isinstance(values, dict):
        raise DataError(f"{what} must map names to values.")
    if set(values) != wanted:
        raise DataError(f"{what} lacks {sorted(wanted - set(values))}, and has unknown {sorted(set(values) - wanted)}.")


def _read_history(epochs: object) -> tuple[Epoch, ...]:
    from sslcst.methods.ssl_cst.training import Epoch

    if not (isinstance(epochs, list) and epochs):
        raise DataError("history must be a list of epochs.")
    for values in epochs:
        _check_names("an epoch of history", values, Epoch)
        numbers = list(values.values())
        losses = (values["train_loss"], values["validation_loss"])
        # No accuracy of directions where no validation sample has one.
        if not (all(type(each) in (int, float) for each in numbers) and all(map(isfinite, losses))):
            raise DataError(f"an epoch of history holds other than numbers: {numbers}.")
    return tuple(Epoch(**values) for values in epochs)


def _read_encoder(weights: Path, genes: object, params: EncoderParams) -> Encoder:
    """The encoder of a card with the weights of a file, of which only the header is read until it fits."""
    import torch
    from safetensors import safe_open

    from sslcst.methods.ssl_cst.encoder import make_encoder

    if not isinstance(genes, list):
        raise DataError("genes must be a list of names.")
    with weights.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > _MOST["header"]:
        raise DataError(f"the header of the weights is larger than {_MOST['header']:,} bytes.")
    with torch.device("meta"):  # shapes without memory
        shapes = make_encoder(len(genes), params).state_dict()
    wanted = {name: (list(value.shape), "F32") for name, value in shapes.items()}
    with safe_open(weights, framework="pt") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if {name: (part.get_shape(), part.get_dtype()) for name, part in found.items()} != wanted:
            raise DataError("the weights are not those of the encoder that the card describes.")
        state = {name: file.get_tensor(name) for name in found}
    if not all(value.isfinite().all() for value in state.values()):
        raise DataError("the weights hold NaN or infinity.")
    encoder = make_encoder(len(genes), params)
    encoder.load_state_dict(state)
    return encoder.eval()
