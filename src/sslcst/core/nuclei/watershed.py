"""Nuclei by seeded watershed: no weights, no GPU, one length (the diameter) from which every other follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes
from skimage.segmentation import watershed

from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.params import NucleiParams

if TYPE_CHECKING:
    from sslcst.core.nuclei import Segmenter


def load(params: NucleiParams, *, device: str) -> Segmenter:
    """Return `segment`; watershed has nothing to load, and runs on the CPU whatever the device."""
    return segment


def segment(image: NDArray[np.float32], diameter: float | None = None) -> NDArray[np.integer]:
    """Label bright nuclei on a darker, possibly uneven background, of an image scaled to 0..1 and clipped."""
    diameter = diameter or estimate_diameter(image)
    if diameter is None:
        return np.zeros(image.shape, np.int32)
    foreground, brightness = _foreground(np.clip(image, 0, 1), diameter)
    # The centre of a nucleus is deep within the foreground and bright. The square root lets brightness decide where
    # nuclei run together into a mass that is deeper than any nucleus.
    depth = np.sqrt(ndimage.distance_transform_edt(foreground) / (diameter / 2))
    relief = ndimage.gaussian_filter(0.8 * depth + 0.2 * brightness, 0.14 * diameter)
    summits = foreground & (relief == ndimage.maximum_filter(relief, _window(0.6 * diameter)))
    seeds, _ = ndimage.label(summits, structure=np.ones((3, 3)))
    labels = watershed(-relief, seeds, mask=foreground)
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] < 0.1 * _area(diameter), 0, labels)


def _foreground(image: NDArray[np.float32], diameter: float) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Mask of what is stained, and each pixel's brightness relative to the brightest around it."""
    stain = ndimage.gaussian_filter(image, max(0.06 * diameter, 0.5))
    stain -= ndimage.grey_opening(stain, _window(3 * diameter))  # what is wider than nuclei is background
    brightest = ndimage.maximum_filter(stain, _window(0.8 * diameter))
    brightest = ndimage.gaussian_filter(brightest, 0.2 * diameter)
    brightness = stain / np.maximum(brightest, np.finfo(np.float32).eps)
    # Near half the height of its own nucleus, so that dim ones keep their size; Otsu's threshold, lowered for the dim
    # ones, keeps noise out of empty areas.
    foreground = (brightness > 0.4) & (stain > 0.6 * threshold_otsu(stain))
    foreground = ndimage.binary_opening(foreground)
    return remove_small_holes(foreground, max_size=0.5 * _area(diameter)), brightness


def _window(length: float) -> int:
    """Odd number of pixels nearest to a length, so that the window is centred on its pixel."""
    return 2 * round((length - 1) / 2) + 1


def _area(diameter: float) -> float:
    return np.pi * diameter**2 / 4
