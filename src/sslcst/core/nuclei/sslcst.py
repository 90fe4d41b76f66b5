"""Nuclei by the network that comes with this package: no download, no size to be told (docs/model_card.md)."""

from __future__ import annotations

from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.flows import decode
from sslcst.core.nuclei.network import MULTIPLE, OUTPUTS, NucleusNetwork, fold
from sslcst.core.precision import inference_dtype
from sslcst.core.threads import all_cores, settle
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

T = TypeVar("T")

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter

DIAMETER = 20.0  # pixels, of nuclei as the network sees them
_GLANCE = 14.0  # pixels, of nuclei in the first look that measures them; at fewer, neighbours run together
_WINDOW = 768  # pixels, side of what is looked at then
_MAX_ZOOM = 2.0  # more adds nothing that the image does not hold, and time
_TILE, _HALO = 2048, 128  # pixels of the network's input, multiples of 16; no output depends on what is beyond the halo
_WEIGHTS = "weights/nuclei.safetensors"


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Load the network that comes with the package, or of weights that were trained with benchmarks/train_nuclei.py.

    Without a diameter it starts from the estimated one (`estimate_diameter`), measures the nuclei that it finds at low
    resolution, and then segments at the scale that fits them.
    """
    if params.model is None:
        with as_file(files(__package__).joinpath(_WEIGHTS)) as path:
            network = read_network(path)
    else:
        network = read_network(Path(params.model).expanduser())
    network = fold(network).to(device, inference_dtype(device), memory_format=torch.channels_last)

    def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
        diameter = diameter or measure_diameter(network, image)
        if diameter is None:
            return np.zeros(image.shape, np.int32)
        return segment_at(network, image, DIAMETER / diameter)

    return segment


def read_network(path: Path) -> NucleusNetwork:
    """Read a network from a safetensors file, which cannot hold code; a `BackendError` if it holds no such weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch.device("meta"):  # nothing is drawn, least of all from torch's own generator
        network = NucleusNetwork().to_empty(device="cpu")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BackendError(
            f"The weights file {path} cannot be read as safetensors ({error}). Leave out the model to take the one "
            "that comes with sslcst."
        ) from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BackendError(
            f"{path} does not hold weights of the nucleus network of this version of sslcst. Leave out the model to "
            "take the one that comes with it, or train one with benchmarks/train_nuclei.py."
        ) from error
    return network


def measure_diameter(network: NucleusNetwork, image: NDArray[np.float32]) -> float | None:
    """Measure the typical diameter in pixels of the nuclei that the network finds at the scale of the estimated one.

    Of a large image some windows are enough: of most contrast, of middling contrast, and between the two, so that one
    that shows something else does not decide. ``None`` where no nucleus is found.
    """
    estimate = estimate_diameter(image)
    if estimate is None:
        return None
    side = round(_WINDOW * estimate / _GLANCE)
    starts = [np.linspace(0, max(n - side, 0), -(-n // side)).astype(int) for n in image.shape]
    windows = [image[top : top + side, left : left + side] for top, left in product(*starts)]
    shown = some_of(windows, [float(np.clip(part, 0, 1).std()) for part in windows])
    return typical_diameter(*(segment_at(network, window, _GLANCE / estimate) for window in shown))


def some_of(windows: list[T], contrasts: list[float]) -> list[T]:
    """Those of greatest and of median contrast, and one between them; fewer where there are fewer."""
    order = np.argsort(contrasts)
    n = len(order)
    return [windows[order[place]] for place in sorted({n - 1, (3 * n) // 4, n // 2})]


def segment_at(network: NucleusNetwork, image: NDArray[np.float32], zoom: float) -> NDArray[np.int32]:
    """Labels of an image as the network sees it when it is magnified, by no more than `_MAX_ZOOM`."""
    outputs = predict(network, resize(image, min(zoom, _MAX_ZOOM)))
    return decode(outputs[0], outputs[1:], image.shape)


def typical_diameter(*parts: NDArray[np.integer]) -> float | None:
    """Diameter in pixels of the disc as large as the median nucleus of all parts; ``None`` where there is none."""
    areas = np.concatenate([np.bincount(labels.ravel())[1:] for labels in parts])
    areas = areas[areas > 0]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else None


def resize(image: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """Resize an image; to a smaller one by means over what becomes one pixel."""
    shape = [max(1, round(side * zoom)) for side in image.shape]
    tensor = torch.tensor(image)[None, None]
    return interpolate(tensor, shape, mode="bilinear", antialias=True)[0, 0].numpy()


@torch.inference_mode()
def predict(network: NucleusNetwork, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the network, tile by tile where the image is large: (3, y, x), logit of the foreground and flow."""
    settle()
    height, width = image.shape
    weights = next(network.parameters())
    whole = torch.from_numpy(image)[None, None]
    whole = pad(whole, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    outputs = np.empty((OUTPUTS, *whole.shape[2:]), np.float32)
    for top, left in product(*(range(0, side, _TILE) for side in whole.shape[2:])):
        # Tiles begin at multiples of 16, so that the network halves them along the same lines as the whole.
        rows, columns = _around(top, whole.shape[2]), _around(left, whole.shape[3])
        tile = whole[:, :, rows, columns].to(weights, memory_format=torch.channels_last)
        with all_cores:
            result = network(tile)[0].float().cpu().numpy()  # also where it computes in half precision
        outputs[:, top : top + _TILE, left : left + _TILE] = result[:, top - rows.start :, left - columns.start :][
            :, :_TILE, :_TILE
        ]
    return outputs[:, :height, :width]


def _around(start: int, side: int) -> slice:
    """A tile and its halo, as far as the image goes."""
    return slice(max(start - _HALO, 0), min(start + _TILE + _HALO, side))
