"""Trained models as files: weights in safetensors, and beside them a card in JSON that a person can read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sslcst.errors import DataError, StoreError

if TYPE_CHECKING:
    from sslcst.methods.ssl_cst.model import Model

_FORMAT = 2


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
    StoreError
        A file of that name exists, or cannot be written.
    """
    from safetensors.torch import save_file

    weights, card = _files(path)
    for file in (weights, card):
        if file.exists():
            raise StoreError(f"{file} exists: choose another name, or delete it.")
    about = {name: value for name, value in vars(model).items() if name != "encoder"}
    about |= {
        "format": _FORMAT,
        "sha256": model.sha256(),
        "encoder_params": asdict(model.encoder_params),
        "history": [asdict(epoch) for epoch in model.history],
    }
    try:
        save_file(model.encoder.state_dict(), weights)
        card.write_text(json.dumps(about, indent=1), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{weights} could not be written: {error}.") from error


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
        The files are damaged, of a later format, or do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from sslcst.methods.ssl_cst.encoder import make_encoder
    from sslcst.methods.ssl_cst.model import Model
    from sslcst.methods.ssl_cst.params import EncoderParams
    from sslcst.methods.ssl_cst.training import Epoch

    weights, card = _files(path)
    try:
        about = json.loads(card.read_text(encoding="utf-8"))
        state = load_file(weights)
        if about.pop("format") != _FORMAT:
            raise DataError(
                f"{card} is of a format that this version of sslcst does not read: train the model anew, or install "
                "the version that wrote it."
            )
        expected = about.pop("sha256")
        encoder_params = EncoderParams(**about.pop("encoder_params"))
        encoder = make_encoder(len(about["genes"]), encoder_params)
        encoder.load_state_dict(state)
        about["genes"] = tuple(about["genes"])
        about["history"] = tuple(Epoch(**epoch) for epoch in about["history"])
        model = Model(encoder=encoder.eval(), encoder_params=encoder_params, **about)
    except OSError as error:
        raise StoreError(f"The model {weights} with its card {card.name} cannot be read: {error}.") from error
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{weights} and {card.name} are not a model of sslcst, or damaged: {error}.") from error
    if model.sha256() != expected:
        raise DataError(f"{weights} does not hold the weights that {card.name} describes.")
    return model


def _files(path: str | Path) -> tuple[Path, Path]:
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise StoreError(f"{weights}: the name of a model must end in .safetensors.")
    return weights, weights.with_suffix(".json")
