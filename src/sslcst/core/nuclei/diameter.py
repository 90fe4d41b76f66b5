"""The typical diameter of bright blobs, from the scale at which each stands out most (Lindeberg 1998)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_STEPS = 4  # scales in an octave
_SIGMAS = 1.5 * 2 ** (np.arange(-1, _STEPS + 2) / _STEPS)
_MIN_SIDE = 8  # pixels; blobs cannot be told from edges in less


def estimate_diameter(image: NDArray[np.float32]) -> float | None:
    """Estimate the diameter of nuclei in pixels, from a scale-space of differences of Gaussians; None without a blob.

    A disc answers most strongly to the Laplacian of a Gaussian whose sigma is the disc's radius / sqrt(2), whatever the
    background and the neighbours. Each maximum in scale-space is thus a blob of known diameter; of these the median is
    taken, weighted by diameter (nuclei outweigh their texture) and squared response (and noise). The image is halved
    after each octave of scales. Of discs it is right to within a sixth, of longish nuclei nearer to the short axis.

    Nuclei are bright in the image (y, x), and scaled to 0..1; intensities beyond are clipped.
    """
    image = np.clip(image, 0, 1)
    pixel = 1  # side of this octave's pixels
    diameters, weights = [np.empty(0)], [np.empty(0)]
    while min(image.shape) >= _MIN_SIDE:
        blurred = [ndimage.gaussian_filter(image, sigma) for sigma in _SIGMAS]
        response = np.stack([fine - coarse for fine, coarse in pairwise(blurred)])
        peaks = (response == ndimage.maximum_filter(response, 3)) & (response > 0)
        peaks[[0, -1]] = False  # the outer scales only serve to compare with
        # Between sigma and its successor, the difference of Gaussians stands for the Laplacian at their geometric mean.
        diameter = 2 * np.sqrt(2 * _SIGMAS[:-1] * _SIGMAS[1:]) * pixel
        diameters.append(diameter[np.nonzero(peaks)[0]])
        weights.append(diameters[-1] * response[peaks] ** 2)
        image, pixel = _halve(image), pixel * 2
    diameter, weight = np.concatenate(diameters), np.concatenate(weights)
    if not diameter.size:
        return None
    order = np.argsort(diameter)
    heaped = np.cumsum(weight[order])
    return float(diameter[order][np.searchsorted(heaped, heaped[-1] / 2)])


def _halve(image: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (side // 2 for side in image.shape)
    return image[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
