"""Nuclei segmentation (paper: "Nuclei segmentation"): a stain image in, labels out, by a backend chosen by name.

A backend is a module of this package, named as `NucleiParams.method`, with one function
``load(params, *, device) -> Segmenter``. It imports its package and reads its weights there, so that whatever is
missing is known before any work; an `ImportError` from it becomes the `BackendError` that says what to install. It
raises a `BackendError` itself where there is no such model, it cannot be downloaded, or a file does not hold one.
Without a diameter, all but Cellpose 4 start from the estimated one (`sslcst.core.nuclei.diameter`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from sslcst._logging import logger
from sslcst.core.nuclei.intensity import check_image, intensity_range, scale_intensity
from sslcst.core.threads import one_at_a_time
from sslcst.errors import BackendError, DataError, ParameterError
from sslcst.params import NucleiParams

BACKENDS = ("cellpose", "deepcell", "instanseg", "sslcst", "stardist", "watershed")
CELL_BACKENDS = ("cellpose", "instanseg")  # those that find whole cells too
_OWN = ("sslcst", "watershed")  # which threads may call at once
MIN_DIAMETER = 3.0  # pixels; nuclei smaller than that have no shape, and images narrower than that no nuclei


class Segmenter(Protocol):
    """A loaded backend."""

    def __call__(self, image: NDArray[np.float32], diameter: float | None) -> NDArray[np.integer]:
        """Label the nuclei of an image, or the whole cells: (y, x), 0 where there is none, numbers in any order.

        The image is (y, x), of bright nuclei, scaled so that its low and high percentiles are 0 and 1. Or, for whole
        cells by one of `CELL_BACKENDS`, (2, y, x), each channel so scaled: the stain of cells, and that of their
        nuclei. The diameter is what one of them is expected to measure in pixels; ``None``, of nuclei only, leaves it
        to the backend.
        """
        ...


def choose_method(params: NucleiParams) -> NucleiParams:
    """Name the method where the parameters leave it open: Cellpose if it is ready, else the network of this package.

    The choice is logged, with how to get what may serve better. Nothing is downloaded for a method not asked for. A
    model without a method is a `ParameterError`.
    """
    if params.method is not None:
        return params
    if params.model is not None:
        raise ParameterError(f"model={params.model!r}: say whose it is with method, one of {_listed(BACKENDS)}.")
    if _cellpose_is_ready():
        logger.info("Nuclei by method 'cellpose', whose weights are on this machine.")
        return replace(params, method="cellpose")
    logger.info(
        "Nuclei by method 'sslcst', the network that comes with this package. Larger ones may find more: 'cellpose' "
        "(the paper's), 'stardist' and 'instanseg'. Each is an extra, as in `pip install \"sslcst[cellpose]\"`, and "
        "downloads its weights when it is asked for by nuclei.method."
    )
    return replace(params, method="sslcst")


def choose_cell_method(params: NucleiParams) -> NucleiParams:
    """Name the method that finds whole cells where the parameters leave it open: the first that is installed."""
    if params.method is not None:
        return params
    installed = [method for method in CELL_BACKENDS if find_spec(method) is not None]
    if not installed:
        raise BackendError(
            "Whole cells are found in a stain by Cellpose or InstanSeg, of which none is installed: "
            '`pip install "sslcst[cellpose]"` or `pip install "sslcst[instanseg]"`, or bring cells with cells_key=.'
        )
    return replace(params, method=installed[0])


def _cellpose_is_ready() -> bool:
    """Whether Cellpose and the weights of its default model are on this machine, without importing it."""
    if find_spec("cellpose") is None:
        return False
    folder = os.environ.get("CELLPOSE_LOCAL_MODELS_PATH") or Path.home() / ".cellpose" / "models"
    weights = "cyto2torch_0" if version("cellpose").startswith("3.") else "cpsam"
    return Path(folder, weights).is_file()


def load_backend(params: NucleiParams, *, device: str = "cpu") -> Segmenter:
    """Load the backend that `params.method` names (`choose_method` where it is ``None``), for any number of images.

    Raises a `ParameterError` for a method that is not known, or a model without one, and a `BackendError` where its
    package is not installed, or its model cannot be had.
    """
    params = choose_method(params)
    if params.method not in BACKENDS:
        raise ParameterError(f"method={params.method!r}: must be one of {_listed(BACKENDS)}.")
    try:
        load = import_module(f"{__name__}.{params.method}").load
        if params.method in _OWN:
            return load(params, device=device)
        return one_at_a_time(one_at_a_time(load)(params, device=device))
    except ImportError as error:
        raise BackendError(
            f"method={params.method!r} needs a package that cannot be imported here ({error}). Install it with "
            f'`pip install "sslcst[{params.method}]"`, or use, for nuclei, method="sslcst" or method="watershed", '
            "which need none, or bring nuclei (nuclei_key) or cells (cells_key) that you have."
        ) from error


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def segment_nuclei(
    image: NDArray[np.generic],
    *,
    pixel_size: float = 1.0,
    params: NucleiParams | None = None,
    device: str = "cpu",
    name: str = "the stain image",
) -> NDArray[np.uint32]:
    """Segment the nuclei of a stain image (y, x) of one channel: labels from 1 without gaps, 0 where there is none.

    Intensities are normalised with percentiles of the whole image. Each of `params.diameters`, in the units of
    `pixel_size`, is tried, and the one whose nuclei cover most is kept; with none, the backend takes its own. Networks
    run on the device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

    Raises a `DataError`, which calls the image by its name, where it cannot be segmented (`check_image`), a
    `ParameterError` where there is no such method, or a diameter is below three pixels or wider than the image, and
    what `load_backend` raises.
    """
    params = params or NucleiParams()
    image = check_image(image, name)
    diameters = _diameters_in_pixels(params, pixel_size, min(image.shape)) or [None]
    segment = load_backend(params, device=device)
    if min(image.shape) < MIN_DIAMETER:
        return np.zeros(image.shape, np.uint32)
    scaled = scale_intensity(image, *intensity_range(image, params.percentiles))
    labels = max((segment(scaled, diameter) for diameter in diameters), key=np.count_nonzero)
    return relabel_sequential(labels)[0].astype(np.uint32)


def none_found(name: str, method: str | None) -> DataError:
    """The error to raise where a method finds no nuclei in what is called so."""
    return DataError(
        f"No nuclei were found in {name} with method {method!r}: see whether it is the right channel (channel=), try "
        "another nuclei.method, give nuclei.diameters, or bring nuclei of your own with nuclei_key=."
    )


def _diameters_in_pixels(params: NucleiParams, pixel_size: float, shorter_side: int) -> list[float]:
    if not 0 < pixel_size < np.inf:
        raise ParameterError(f"pixel_size={pixel_size!r}: must be above 0 and finite.")
    pixels = [diameter / pixel_size for diameter in params.diameters]
    for diameter, width in zip(params.diameters, pixels, strict=True):
        if not MIN_DIAMETER <= width <= shorter_side:
            raise ParameterError(
                f"diameters: {diameter:g} is {width:.3g} pixels at pixel_size={pixel_size:g}, and must lie between "
                f"{MIN_DIAMETER:g} and the image's shorter side of {shorter_side}. Are both in the same unit?"
            )
    return pixels
