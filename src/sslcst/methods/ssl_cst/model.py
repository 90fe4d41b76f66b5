"""A trained model: the encoder, and what it must know of its spots; as plain values and safetensors, and back."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import torch

from sslcst._section import Section, bounded, check
from sslcst.errors import DataError
from sslcst.methods.model_file import check_names
from sslcst.methods.ssl_cst.encoder import Encoder, make_encoder
from sslcst.methods.ssl_cst.params import EncoderParams

logger = logging.getLogger("sslcst")

_MOST_HEADER = 1 << 20  # bytes


@dataclass(frozen=True)
class Epoch:
    """How training stood after an epoch; accuracies are of the validation samples."""

    epoch: int
    train_loss: float
    validation_loss: float
    inside_accuracy: float
    direction_accuracy: float


@dataclass(frozen=True)
class Model(Section):
    """A trained encoder, and how to read spots for it."""

    method: ClassVar[str] = "ssl-cst"

    encoder: Encoder  #: The network
    encoder_params: EncoderParams  #: Its shape
    genes: tuple[str, ...]  #: Names of the genes it reads, in its order
    bin_size: float = bounded(above=0, most=10**6)  #: Side of its bins, in units of the coordinate system
    radius: float = bounded(above=0, most=10**6)  #: Expected cell radius r it was trained with, in bins
    n_neighbors: int = bounded(above=0, most=1024)  #: Nearest spots that are read with each
    window: int = bounded(above=0, most=512)  #: Bins along each axis within which they are sought
    seed: int = bounded(least=0, most=2**63 - 1)  #: Of the training
    n_samples: int = bounded(least=0, most=10**12)  #: Samples it was trained on in each epoch
    history: tuple[Epoch, ...]  #: The epochs of the training

    def _check_bounds(self) -> None:
        check(0 < len(self.genes) == len(set(self.genes)), "genes", self.genes, "must be names, none of them twice")
        check("" not in self.genes, "genes", self.genes, "must not be empty names")

    def card(self) -> dict[str, Any]:
        """All but the weights, in plain values."""
        about = {name: value for name, value in vars(self).items() if name != "encoder"}
        history = [asdict(epoch) for epoch in self.history]
        return about | {"encoder_params": asdict(self.encoder_params), "history": history}

    def sha256(self) -> str:
        """Hash of the weights and of all else."""
        digest = hashlib.sha256(json.dumps(self.card(), sort_keys=True).encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()


def weights_of(model: Model) -> bytes:
    """The weights of a model in safetensors."""
    from safetensors.torch import save

    return save(model.encoder.state_dict())


def model_of(card: Mapping[str, Any], weights: bytes | None) -> Model:
    """The model of a card (`Model.card`) and weights, of which nothing is believed.

    A `DataError` if they are not sound, or do not fit each other.
    """
    about = dict(card)
    check_names("the card", about, Model, without="encoder")
    check_names("encoder_params", about["encoder_params"], EncoderParams)
    about["encoder_params"] = EncoderParams(**about["encoder_params"])
    about["history"] = _read_history(about["history"])
    if weights is None:
        raise DataError("its weights are missing, which belong beside the card, in a file that ends in .safetensors.")
    return Model(encoder=_read_encoder(weights, about["genes"], about["encoder_params"]), **about)


def places_of(wanted: Sequence[str], genes: Sequence[str]) -> np.ndarray:
    """Where each of a model's genes is among those of a tissue, int64; -1 for one that is not there.

    Says how many are not there, and raises a `DataError` where most are not.
    """
    place = {gene: i for i, gene in enumerate(genes)}
    found = np.array([place.get(gene, -1) for gene in wanted], np.int64)
    n_found = int((found >= 0).sum())
    if 2 * n_found < len(wanted):
        raise DataError(f"Only {n_found} of the {len(wanted)} genes of the model are in these data: train one on them.")
    if n_found < len(wanted):
        logger.warning("%d of the model's %d genes are not in these data.", len(found) - n_found, len(found))
    return found


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
