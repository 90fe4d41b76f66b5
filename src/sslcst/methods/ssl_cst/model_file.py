"""Trained models as plain values and weights in safetensors, and back, when nothing is believed of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch

from sslcst.errors import DataError
from sslcst.methods.model_file import check_names
from sslcst.methods.ssl_cst.encoder import Encoder, make_encoder
from sslcst.methods.ssl_cst.model import Model
from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.methods.ssl_cst.training import Epoch

_MOST_HEADER = 1 << 20  # bytes


def weights_of(model: Model) -> bytes:
    """The weights of a model in safetensors."""
    from safetensors.torch import save

    return save(model.encoder.state_dict())


def model_of(card: Mapping[str, Any], weights: bytes | None) -> Model:
    """The model of a card (`Model.card`) and weights; a `DataError` if they are not sound, or do not fit each other."""
    about = dict(card)
    check_names("the card", about, Model, without="encoder")
    check_names("encoder_params", about["encoder_params"], EncoderParams)
    about["encoder_params"] = EncoderParams(**about["encoder_params"])
    about["history"] = _read_history(about["history"])
    if weights is None:
        raise DataError("its weights are missing, which belong beside the card, in a file that ends in .safetensors.")
    return Model(encoder=_read_encoder(weights, about["genes"], about["encoder_params"]), **about)


def _read_history(epochs: object) -> tuple[Epoch, ...]:
    if not (isinstance(epochs, list) and epochs):
        raise DataError("history must be a list of epochs.")
    for values in epochs:
        check_names("an epoch of history", values, Epoch)
        numbers = list(values.values())
        losses = (values["train_loss"], values["validation_loss"])
        # No accuracy of directions where no validation sample has one.
        if not (all(type(each) in (int, float) for each in numbers) and all(map(isfinite, losses))):
            raise DataError(f"an epoch of history holds other than numbers: {numbers}.")
    return tuple(Epoch(**values) for values in epochs)


def _read_encoder(weights: bytes, genes: object, params: EncoderParams) -> Encoder:
    """The encoder of a card with these weights; nothing of its size is made until they fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not isinstance(genes, list):
        raise DataError("genes must be a list of names.")
    if int.from_bytes(weights[:8], "little") > _MOST_HEADER:
        raise DataError(f"the header of the weights is larger than {_MOST_HEADER:,} bytes.")
    with torch.device("meta"):  # shapes without memory
        shapes = make_encoder(len(genes), params).state_dict()
    try:
        state = load(weights)
    except (SafetensorError, KeyError) as error:  # KeyError: of a type of numbers that torch has not
        raise DataError(f"the weights cannot be read: {error}") from error
    wanted, found = ({name: (each.shape, each.dtype) for name, each in part.items()} for part in (shapes, state))
    if found != wanted:
        raise DataError("the weights are not those of the encoder that the card describes.")
    if not all(value.isfinite().all() for value in state.values()):
        raise DataError("the weights hold NaN or infinity.")
    encoder = make_encoder(len(genes), params)
    encoder.load_state_dict(state)
    return encoder.eval()
