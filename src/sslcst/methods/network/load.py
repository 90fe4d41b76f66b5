"""The weights of the cell network: those that come with the package, or a file of one's own."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import torch

from sslcst.core.precision import inference_dtype
from sslcst.errors import BackendError
from sslcst.methods.network.network import CellNetwork

FORMAT = 1  # of inputs and network: weights of another one mean something else
_BUNDLED = Path(str(files(__package__))) / "weights" / "cells.safetensors"


def load_network(device: str = "cpu", path: Path | None = None) -> CellNetwork:
    """Load a network for inference: weights that benchmarks/train_cells.py wrote, or those of sslcst.

    The card lies beside the weights. Raises a `BackendError` where they are not there, are damaged, or are others.
    """
    from safetensors import SafetensorError

    path = path or _BUNDLED
    hint = "Leave out the model to take the one that comes with sslcst, or train one with benchmarks/train_cells.py."
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendError(f"The weights of the cell network cannot be read: {error}. {hint}") from error
    if card.get("format") != FORMAT:
        raise BackendError(f"{path} is of another version of the cell network than this sslcst's. {hint}")
    if sha256(content).hexdigest() != card.get("sha256"):
        raise BackendError(f"{path} is damaged, or not the file that the card beside it tells of. {hint}")
    try:
        return _network_of(content, device)
    except (RuntimeError, SafetensorError) as error:
        raise BackendError(f"{path} does not hold weights of the cell network. {hint}") from error
    except ValueError as error:
        raise BackendError(f"{path} holds weights that are not finite. {hint}") from error


@lru_cache(4)
def _network_of(weights: bytes, device: str) -> CellNetwork:
    """The network of these weights, once a device; of the weights, not of their file, which may be written anew."""
    from safetensors.torch import load

    with torch.device("meta"):  # nothing is drawn, least of all from torch's own generator
        network = CellNetwork().to_empty(device="cpu")
    network.load_state_dict(load(weights))
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise ValueError("not finite")
    return network.fold().to(device, inference_dtype(device), memory_format=torch.channels_last)


def read_card(path: Path | None = None) -> dict:
    """The card of a network: what it was trained on, how, and the hash of its weights."""
    path = path or _BUNDLED
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if not isinstance(card, dict):
            raise ValueError("it holds no fields")
    except (OSError, ValueError) as error:  # a ValueError too where there is no such name, no text, or no JSON
        raise BackendError(
            f"The card of the cell network cannot be read: {error}. It is a file in .json beside the weights, {path}."
        ) from error
    return card
