"""Nuclei by DeepCell's nuclear network (paper: "Nuclei segmentation", one of the four methods compared).

Its weights are handed out for academic work alone, to those who have an access token in DEEPCELL_ACCESS_TOKEN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter

_DIAMETER = 20.0  # pixels of the network, of a nucleus 13 micron wide at its 0.65 micron
_OTHERWISE = 'Otherwise use method="sslcst", or nuclei that you have (nuclei_key).'


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Load a network, downloading it first if it is not yet on this machine.

    `params.model` is the version of DeepCell's nuclear network, ``"1.0"`` or ``"1.1"``; by default DeepCell's choice.
    DeepCell is told the pixel size at which nuclei are as wide as in the network's training. The device is not heeded:
    TensorFlow itself takes the GPU that it sees.
    """
    try:
        from deepcell.applications import NuclearSegmentation
    except ImportError as error:
        raise ImportError(
            f"{error}; DeepCell up to 0.12.10 wants Python 3.10 or older: run it in an environment of its own, and "
            "bring its labels with nuclei_key"
        ) from error

    version = () if params.model is None else (params.model,)
    try:
        network = NuclearSegmentation.from_version(*version)
    except ValueError as error:  # no such version; no access token, or one that is not taken
        reason = " ".join(str(error).split())
        raise BackendError(f"DeepCell does not give its nuclear network: {reason} {_OTHERWISE}") from error
    except OSError as error:  # those of requests are OSErrors
        raise BackendError(
            f"DeepCell's nuclear network is not on this machine and cannot be downloaded ({error}). On a machine that "
            f'can, run NuclearSegmentation.from_version() once, and copy ".deepcell" of its home to yours. {_OTHERWISE}'
        ) from error

    def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
        diameter = diameter or estimate_diameter(image)
        if diameter is None:
            return np.zeros(image.shape, np.int32)
        labels = network.predict(image[None, :, :, None], image_mpp=network.model_mpp * _DIAMETER / diameter)
        return np.asarray(labels).reshape(image.shape).astype(np.int32)

    return segment
