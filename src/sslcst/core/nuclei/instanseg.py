"""Nuclei and whole cells by InstanSeg, a network in TorchScript that embeds pixels and groups those of one.

InstanSeg raises a bare exception for a name that it does not know. Here names and files are checked before it sees
them.
"""

from __future__ import annotations

import json
import os
import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter

_DEFAULT = "fluorescence_nuclei_and_cells"
# Micron; InstanSeg wants the size of a pixel, which follows from a diameter in pixels.
_DIAMETER = {"nuclei": 8.0, "cells": 16.0}
_OTHERWISE = 'Otherwise use the path of an "instanseg.pt", method="sslcst", or nuclei that you have (nuclei_key).'


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Load a network, downloading it first if it is one of InstanSeg's own and not yet on this machine.

    `params.model` is the name of one of InstanSeg's models, by default ``"fluorescence_nuclei_and_cells"``, or the path
    of a TorchScript file of one. Of two channels the cells are taken. InstanSeg is told the pixel size at which nuclei
    are 8 micron wide, and cells 16.
    """
    from instanseg import InstanSeg

    network = InstanSeg(_find_network(params.model or _DEFAULT), device=device, verbosity=0)

    def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
        diameter = diameter or estimate_diameter(image)
        if diameter is None:
            return np.zeros(image.shape, np.int32)
        target, shape = "nuclei" if image.ndim == 2 else "cells", image.shape[-2:]
        pixel_size = _DIAMETER[target] / diameter
        n_pixels = np.prod(shape) * (pixel_size / network.instanseg.pixel_size) ** 2  # at the network's scale
        large = n_pixels > network.small_image_threshold
        evaluate = network.eval_medium_image if large else network.eval_small_image
        with warnings.catch_warnings():
            # It asks for CUDA, whatever is there.
            warnings.filterwarnings("ignore", "CUDA is not available", UserWarning)
            labels = evaluate(
                torch.from_numpy(image).reshape(1, -1, *shape),
                pixel_size=pixel_size,
                target=target,
                return_image_tensor=False,
            )
        return labels.cpu().numpy().astype(np.int32).reshape(shape)

    return segment


def _find_network(model: str) -> torch.jit.ScriptModule:
    """Network, checked, of a model that is given by its name or as its file's path."""
    package = files("instanseg") / "bioimageio_models"
    folder = Path(os.environ.get("INSTANSEG_BIOIMAGEIO_PATH") or str(package))
    index = json.loads((package / "model-index.json").read_text(encoding="utf-8"))
    versions = {entry["name"]: entry["version"] for entry in reversed(index)}  # the newest stands first
    if model in versions:
        path = folder / model / versions[model] / "instanseg.pt"
        if not path.is_file():
            _download(model, path)
        return _read(path)
    for path in (folder / model / "instanseg.pt", Path(model).expanduser()):
        if path.is_file():
            return _read(path)
    raise BackendError(
        f"There is no InstanSeg model or TorchScript file {model!r}. InstanSeg has {', '.join(versions)}. {_OTHERWISE}"
    )


def _download(model: str, path: Path) -> None:
    from instanseg.utils.utils import download_model

    try:
        download_model(model, verbose=False)
    except (OSError, BadZipFile) as error:  # those of requests are OSErrors
        raise BackendError(
            f"The InstanSeg model {model!r} is not on this machine and cannot be downloaded ({error}). On a machine "
            f"that can, run InstanSeg once with it, and copy the file that it gets to {path}. {_OTHERWISE}"
        ) from error


def _read(path: Path) -> torch.jit.ScriptModule:
    """Read a network from a TorchScript file, which holds no Python code, and check that it is one of InstanSeg."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load.* is deprecated")  # its category differs by version
            network = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise BackendError(
            f"{path} is not a TorchScript file: it is damaged, or of another kind. If InstanSeg put it there, delete "
            f"it, and it is fetched anew. {_OTHERWISE}"
        ) from error
    if not (hasattr(network, "pixel_size") and hasattr(network, "cells_and_nuclei")):
        raise BackendError(f"{path} does not hold a network of InstanSeg. {_OTHERWISE}")
    return network
