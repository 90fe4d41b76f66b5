"""Labels to flows and back: each pixel of a nucleus points to its centre, and pixels that meet are one nucleus.

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
from sslcst.core.threads import parallel

CORE = 3.0  # pixels
_STEPS = 80  # of one pixel; nuclei longer than twice that come apart
_SETTLED = 0.05  # pixels; a path that goes no farther in one step has arrived
_SPREAD = 1.5  # pixels by which the ends of paths in one nucleus lie apart


def find_centres(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Find the centre of each nucleus of labels (y, x): of its pixels, the one nearest to its centroid.

    Positions (y, x) are by number, (largest label + 1, 2), 0 for those that are not among the labels.
    """
    centres = np.zeros((int(labels.max()) + 1, 2), np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            places = np.argwhere(labels[box] == number)
            nearest = np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))
            centres[number] = places[nearest] + [side.start for side in box]
    return centres


def make_flow(labels: NDArray[np.integer], centres: NDArray[np.floating]) -> NDArray[np.float32]:
    """Make the flow (dy, dx) of labels (y, x), (2, y, x); 0 where there is no nucleus.

    Centres, by number, may lie beyond the image.
    """
    rows, columns = np.indices(labels.shape, np.float32)
    to_centre = np.moveaxis(centres[labels], -1, 0) - np.stack([rows, columns])
    distance = np.hypot(*to_centre)
    return np.where(labels > 0, to_centre / np.maximum(distance, CORE), 0).astype(np.float32)


def decode(
    logit: NDArray[np.float32],
    flow: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    threshold: float = 0.0,
    min_confidence: float = 2.0,
    max_error: float = 0.7,
    min_area: float = 20.0,
) -> NDArray[np.int32]:
    """Join the pixels whose paths along the flow meet.

    The flow may lie on a grid coarser or finer than the image's: paths begin at the image's pixels and run between the
    points of that grid, so that outlines are as fine as the image.

    Parameters
    ----------
    logit
        (h, w) of the foreground.
    flow
        (2, h, w): dy and dx, in pixels of its own grid.
    shape
        (y, x) of the image, which covers the same ground.
    threshold
        Pixels of the image where the interpolated logit is above it are foreground.
    min_confidence
        A nucleus is dropped where the mean of its logit is lower: 2 is a probability of 0.88.
    max_error
        A nucleus is dropped where the flow differs more, in the root of the mean square, from one that leads straight
        to where its paths meet: then they met by chance.
    min_area
        Nuclei that cover fewer pixels of the flow's grid are dropped.

    Returns
    -------
    (y, x) labels, 0 where there is no nucleus. Each nucleus is in one piece without holes.
    """
    ends = _follow(logit, flow, shape[0], shape[1], threshold)
    inside = ends >= 0
    if not inside.any():
        return np.zeros(shape, np.int32)
    heap = np.bincount(ends[inside], minlength=logit.size).reshape(logit.shape)
    sinks = _find_sinks(heap)
    labels = np.where(inside, sinks.ravel()[ends], 0)
    areas, confidence, errors = _measure(labels, logit, flow, _middles(heap, sinks))
    ground = logit.size / labels.size  # pixels of the flow's grid in one of the image
    dropped = (areas * ground < min_area) | (confidence < min_confidence) | (errors > max_error)
    dropped[0] = False
    return fill_holes(largest_pieces(np.where(dropped[labels], 0, labels)))


@parallel()
def _follow(logit, flow, height, width, threshold):  # pragma: no cover (compiled)
    """Where the path from each pixel of the image ends: flat index on the flow's grid, -1 for background."""
    h, w = logit.shape
    ends = np.full((height, width), np.int32(-1))
    for row in numba.prange(height):
        for column in range(width):
            y, x = _place(row, height, h), _place(column, width, w)
            if _between(logit, y, x) <= threshold:
                continue
            for _ in range(_STEPS):
                dy, dx = _between(flow[0], y, x), _between(flow[1], y, x)
                y = min(max(y + dy, 0.0), h - 1.0)
                x = min(max(x + dx, 0.0), w - 1.0)
                if dy * dy + dx * dx < _SETTLED**2:
                    break
            ends[row, column] = int(np.rint(y)) * w + int(np.rint(x))
    return ends


@numba.njit(cache=True, inline="always")
def _place(pixel, n_pixels, n_points):  # pragma: no cover (compiled)
    """Place of an image's pixel on the flow's grid, along one axis."""
    return min(max((pixel + 0.5) * n_points / n_pixels - 0.5, 0.0), n_points - 1.0)


@numba.njit(cache=True, inline="always")
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


@numba.njit(cache=True)
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
