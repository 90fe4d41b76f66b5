"""From flows to labels: each pixel of a nucleus points to its centre, and pixels that meet are one nucleus.

A flow is of length 1 but within `CORE` pixels of the centre, where it shrinks to 0, so that paths settle there. The
centre is the pixel of the nucleus nearest to its centroid; the shape of a nucleus plays no part, so that flows cost
next to nothing to make, at any scale.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from sslcst.core.cells import fill_holes, largest_pieces
from sslcst.core.threads import compiled, njit, parallel

CORE = 3.0  # pixels
_STEPS = 80  # of one pixel; nuclei longer than twice that come apart
_SETTLED = 0.05  # pixels; a path that goes no farther in one step has arrived
_MIN_CONFIDENCE = 2.0  # mean logit of a nucleus that is kept: a probability of 0.88
_MAX_ERROR = 0.7  # root mean square by which its flow may differ from one that leads straight to where paths meet
_SPREAD = 1.5  # pixels by which the ends of paths in one nucleus lie apart


def decode(
    logit: NDArray[np.float32], flow: NDArray[np.float32], shape: tuple[int, int], *, min_area: float = 20.0
) -> NDArray[np.int32]:
    """Labels (y, x) of the nuclei, each in one piece without holes: pixels whose paths along the flow meet.

    The logit (h, w) is of the foreground, the flow (2, h, w) dy and dx in pixels of this grid, which may be coarser or
    finer than that of the image, of `shape` (y, x), and covers the same ground: paths begin at the image's pixels and
    run between the points of the grid, so that outlines are as fine as the image.

    Pixels where the interpolated logit is above 0 are foreground. Nuclei of which the network is unsure, whose paths
    met by chance, or which cover less than `min_area` pixels of the grid are dropped.
    """
    ends = _follow(logit, flow, *shape)
    inside = ends >= 0
    if not inside.any():
        return np.zeros(shape, np.int32)
    heap = np.bincount(ends[inside], minlength=logit.size).reshape(logit.shape)
    sinks = _find_sinks(heap)
    labels = np.where(inside, sinks.ravel()[ends], 0)
    areas, confidence, errors = _measure(labels, logit, flow, _middles(heap, sinks))
    ground = logit.size / labels.size  # pixels of the flow's grid in one of the image
    dropped = (areas * ground < min_area) | (confidence < _MIN_CONFIDENCE) | (errors > _MAX_ERROR)
    dropped[0] = False
    return fill_holes(largest_pieces(np.where(dropped[labels], 0, labels)))


@parallel()
def _follow(logit, flow, height, width):  # pragma: no cover (compiled)
    """Where the path from each pixel of the image ends: flat index on the flow's grid, -1 for background."""
    h, w = logit.shape
    ends = np.full((height, width), np.int32(-1))
    for row in numba.prange(height):
        for column in range(width):
            y, x = _place(row, height, h), _place(column, width, w)
            if _between(logit, y, x) <= 0:
                continue
            for _ in range(_STEPS):
                dy, dx = _between(flow[0], y, x), _between(flow[1], y, x)
                y = min(max(y + dy, 0.0), h - 1.0)
                x = min(max(x + dx, 0.0), w - 1.0)
                if dy * dy + dx * dx < _SETTLED**2:
                    break
            ends[row, column] = int(np.rint(y)) * w + int(np.rint(x))
    return ends


@njit(inline="always")
def _place(pixel, n_pixels, n_points):  # pragma: no cover (compiled)
    """Place of an image's pixel on the flow's grid, along one axis."""
    return min(max((pixel + 0.5) * n_points / n_pixels - 0.5, 0.0), n_points - 1.0)


@njit(inline="always")
def _between(values, y, x):  # pragma: no cover (compiled)
    """Bilinear interpolation."""
    row, column = int(y), int(x)
    below, right = min(row + 1, values.shape[0] - 1), min(column + 1, values.shape[1] - 1)
    v, u = y - row, x - column
    return (1 - v) * ((1 - u) * values[row, column] + u * values[row, right]) + v * (
        (1 - u) * values[below, column] + u * values[below, right]
    )


def _find_sinks(heap: NDArray[np.integer]) -> NDArray[np.int32]:
    """Number the places where most paths end, each with the places around it where some do."""
    density = ndimage.gaussian_filter(heap.astype(np.float32), _SPREAD, mode="constant")
    summits = (density == ndimage.maximum_filter(density, 5)) & (density > 1e-3)
    return watershed(-density, ndimage.label(summits, np.ones((3, 3)))[0], mask=(heap > 0) | summits)


def _middles(heap: NDArray[np.integer], sinks: NDArray[np.int32]) -> NDArray[np.float32]:
    """Mean place (y, x) of the ends in each sink: (sinks + 1, 2)."""
    places = np.nonzero(heap)
    numbers, weights = sinks[places], heap[places]
    total = np.maximum(np.bincount(numbers, weights, sinks.max() + 1), 1)
    sums = [np.bincount(numbers, weights * axis, sinks.max() + 1) for axis in places]
    return (np.stack(sums, axis=-1) / total[:, None]).astype(np.float32)


@compiled(nogil=True)
def _measure(labels, logit, flow, sinks):  # pragma: no cover (compiled)
    """Of each label the area, the mean logit, and the root mean square by which its flow misses its sink."""
    areas, logits, errors = np.zeros(len(sinks), np.int64), np.zeros(len(sinks)), np.zeros(len(sinks))
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            number = labels[row, column]
            if number > 0:
                y = _place(row, labels.shape[0], flow.shape[1])
                x = _place(column, labels.shape[1], flow.shape[2])
                to_y, to_x = sinks[number, 0] - y, sinks[number, 1] - x
                length = max(np.hypot(to_y, to_x), CORE)
                areas[number] += 1
                logits[number] += _between(logit, y, x)
                errors[number] += (to_y / length - _between(flow[0], y, x)) ** 2
                errors[number] += (to_x / length - _between(flow[1], y, x)) ** 2
    n_pixels = np.maximum(areas, 1)
    return areas, logits / n_pixels, np.sqrt(errors / n_pixels)
