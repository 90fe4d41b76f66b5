"""Nuclei by StarDist, which proposes a star-convex shape at each pixel and keeps the most probable.

StarDist returns nothing for a name that it does not know, and keeps random weights where a folder has none. Here names
and folders are checked before StarDist sees them.
"""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from http.client import HTTPException
from io import StringIO
from itertools import chain
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter

_DEFAULT = "2D_versatile_fluo"
_DIAMETER = 20.0  # pixels; about what nuclei measured where that network learnt them (images of DSB2018)
_TILE = 1024  # pixels of a side at the network's scale; StarDist overlaps tiles as far as the network sees
_OTHERWISE = 'Otherwise use the path of a model\'s folder, method="sslcst", or nuclei that you have (nuclei_key).'


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Load a network, downloading it first if it is one of StarDist's own and not yet on this machine.

    `params.model` is the name of one of StarDist's models, by default ``"2D_versatile_fluo"``, or the path of a folder
    with a ``config.json`` and weights. The image is scaled so that nuclei are as wide as in the network's training. The
    device is not heeded: TensorFlow itself takes the GPU that it sees.
    """
    try:
        from stardist.models import StarDist2D
    except RuntimeError as error:  # so csbdeep says that there is no Keras
        raise ImportError(error) from error

    with redirect_stdout(StringIO()):  # it prints what it does
        network = _read_network(StarDist2D, params.model or _DEFAULT)
    if network.config.n_channel_in != 1:
        raise BackendError(
            f"The StarDist model {params.model!r} wants images of {network.config.n_channel_in} channels, and a stain "
            f"has one. {_OTHERWISE}"
        )

    def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
        diameter = diameter or estimate_diameter(image)
        if diameter is None:
            return np.zeros(image.shape, np.int32)
        scale = _DIAMETER / diameter
        labels, _ = network.predict_instances(
            image,
            axes="YX",
            scale=scale,
            n_tiles=tuple(ceil(side * scale / _TILE) for side in image.shape),
            show_tile_progress=False,
        )
        return labels

    return segment


def _read_network(network_class: Any, model: str) -> Any:
    """Read a network that is given by name or as its folder's path."""
    from csbdeep.models.pretrained import get_model_details, get_registered_models

    names, aliases = get_registered_models(network_class)
    if model in chain(names, *aliases.values()):
        name, _, details = get_model_details(network_class, model)
        _check_reachable(name, details["url"])
        return network_class.from_pretrained(name)
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"There is no StarDist model {model!r}, nor a folder of that path with its config.json. StarDist has "
            f"{', '.join(names)}. {_OTHERWISE}"
        )
    if not any(file.suffix in (".h5", ".hdf5") for file in folder.iterdir()):
        raise BackendError(f"The StarDist model in {folder} has no weights (*.h5). {_OTHERWISE}")
    try:
        return network_class(None, name=folder.name, basedir=str(folder.parent))
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise BackendError(
            f"{folder} does not hold a StarDist model that can be read ({error}). {_OTHERWISE}"
        ) from error


def _check_reachable(name: str, url: str) -> None:
    """Make sure that a model is on this machine or can be fetched: Keras' own error is of no class that can be told."""
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / "StarDist2D" / name
    if folder.is_dir() and any(folder.iterdir()):
        return
    try:
        urlopen(url, timeout=30).close()
    except (OSError, HTTPException) as error:
        raise BackendError(
            f"The StarDist model {name!r} is not on this machine and cannot be downloaded ({error}). On a machine that "
            f"can, run StarDist once with it, and copy the folder that it gets to {folder}. {_OTHERWISE}"
        ) from error
