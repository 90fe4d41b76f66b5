"""Nuclei and whole cells by Cellpose 3 or 4 (paper: "Nuclei segmentation", with Cellpose 3's ``cyto2``).

Cellpose puts its default model in the place of one that it does not find, and keeps random weights where a file has
none. Here names and files are checked before Cellpose sees them.
"""

from __future__ import annotations

import logging
import pickle
import ssl
import struct
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter

_OTHERWISE = 'Otherwise use a weights file\'s path, method="watershed", or nuclei that you have (nuclei_key).'

# What torch.load raises, according to where it stumbles, for a file that is damaged, no weights, or holds code.
_UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, EOFError, LookupError),
    *(RuntimeError, TypeError, ValueError, AssertionError),
)


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Load a network, downloading it first if it is one of Cellpose's own and not yet on this machine.

    Without a diameter, Cellpose 3 takes the estimated one, and Cellpose 4, which works at any scale, none.
    """
    logging.getLogger("cellpose").setLevel(logging.ERROR)  # it reports each step, and warns where it finds no nucleus
    from cellpose import models

    version = metadata.version("cellpose")
    path = _find_weights(models, params.model or ("cyto2" if _is_v3(version) else "cpsam"), version)
    network = models.CellposeModel(pretrained_model=str(path), device=torch.device(device))

    def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
        if _is_v3(version) and diameter is None:
            diameter = estimate_diameter(image)
            if diameter is None:
                return np.zeros(image.shape, np.uint16)
        # An empty second channel: Cellpose 3 wants two, and would take a narrow image without any for channels.
        channels = np.stack([image, np.zeros_like(image)] if image.ndim == 2 else image, axis=-1)
        with torch.sparse.check_sparse_tensor_invariants(False):  # not said either way, torch warns
            masks, *_ = network.eval(
                channels,
                channel_axis=-1,
                diameter=diameter,
                normalize=False,
                flow_threshold=params.flow_threshold,
                cellprob_threshold=params.cellprob_threshold,
            )
        return masks.reshape(image.shape[-2:])  # Cellpose drops axes of length 1

    return segment


def _find_weights(models: ModuleType, model: str, version: str) -> Path:
    """Weights file, checked, of a model that is given by its name or as that file's path."""
    builtin = [name for name in dict.fromkeys(models.MODEL_NAMES) if "transformer" not in name]
    own = models.get_user_models()
    if model in builtin:
        return _download(models, model, version)
    path = models.MODEL_DIR / model if model in own else Path(model).expanduser()
    if not path.is_file():
        raise BackendError(
            f"There is no Cellpose model or weights file {model!r}. Cellpose {version} has "
            f'{", ".join([*builtin, *own])}. ("cyto2", "cyto3" and "nuclei" come with `pip install "cellpose<4"`, '
            f'"cpsam" with Cellpose 4.) {_OTHERWISE}'
        )
    _check_weights(path, version)
    return path


def _download(models: ModuleType, name: str, version: str) -> Path:
    """Weights file of one of Cellpose's own models, which Cellpose fetches unless it is in its folder already."""
    fetch = models.model_path if hasattr(models, "model_path") else models.cache_model_path  # up to 4.1, from 4.2
    cached = set(models.MODEL_DIR.glob("*"))
    verified = ssl._create_default_https_context
    try:
        path = Path(fetch(name))
    except (OSError, HTTPException) as error:
        raise BackendError(
            f"The Cellpose model {name!r} is not on this machine and cannot be downloaded ({error}). On a machine that "
            f"can, run Cellpose once with it, and copy the file that it gets to {models.MODEL_DIR}. {_OTHERWISE}"
        ) from error
    finally:
        ssl._create_default_https_context = verified  # Cellpose ends certificate checks for the whole process
    try:
        _check_weights(path, version)
    except BackendError:
        if path not in cached:
            path.unlink()  # cut short, or a web page in its place
        raise
    return path


def _check_weights(path: Path, version: str) -> None:
    """Make sure that a file holds weights of the installed Cellpose's network, without running what may hide in it."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BackendError(f"The weights file {path} cannot be read ({error}). {_OTHERWISE}") from error
    except _UNREADABLE as error:
        raise BackendError(
            f"{path} is not a file of network weights: it is damaged, of another kind, or holds code (not run). "
            f"If Cellpose put it there, delete it, and it is fetched anew. {_OTHERWISE}"
        ) from error
    if not (isinstance(weights, dict) and _fit(weights, version)):
        raise BackendError(
            f"{path} does not hold weights of the network of the installed Cellpose {version}. "
            f"Cellpose 3 and 4 cannot read each other's. {_OTHERWISE}"
        )


def _fit(weights: dict[str, torch.Tensor], version: str) -> bool:
    if not _is_v3(version):
        return "W2" in weights  # as Cellpose 4 tells its weights from those of 3
    from cellpose.resnet_torch import CPnet

    with torch.device("meta"):  # shapes only
        network = CPnet([2, 32, 64, 128, 256], 3, sz=3).state_dict()
    optional = ("diam_mean", "diam_labels", "num_batches_tracked")  # not in old files, which Cellpose knows
    return all(
        getattr(weights.get(name), "shape", None) == value.shape
        for name, value in network.items()
        if not name.endswith(optional)
    )


def _is_v3(version: str) -> bool:
    return int(version.split(".")[0]) == 3
