"""Smoothing of the predictions and gradient flow tracking (paper: end of "Cell correction"; Li et al. 2007)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from scipy import ndimage

from sslcst.core.spots import Spots
from sslcst.core.threads import parallel
from sslcst.methods.ssl_cst.sampling import direction_vectors

_FAINT = 0.05  # of a spot's weight at its own place: with less than that around, a bin counts as empty surroundings


@dataclass(frozen=True)
class Field:
    """A direction and a probability for every bin of the grid."""

    #: Directions (dy, dx) towards the nucleus, of length 1 or, where nothing is known, 0: (rows, columns, 2)
    vector: np.ndarray
    inside: np.ndarray  #: Probability of lying in a cell (rows, columns)


def mean_field(spots: Spots, direction: np.ndarray, inside: np.ndarray) -> Field:
    """The paper's smoothing: mean of direction vectors and probabilities over the 3 x 3 bins around each bin.

    Of the posterior of the 16 directions (n, 16) of each spot the most probable one is taken; `inside` is the
    probability of lying in a cell (n,).
    """
    vector = spots.on_grid(direction_vectors()[direction.argmax(axis=1)], 0.0)
    occupied = spots.on_grid(np.ones(len(spots)), 0.0)
    around = _mean_of_nine(occupied)
    known = around > 1 / 18  # at least one of nine
    share = np.where(known, around, 1)
    probability = _mean_of_nine(spots.on_grid(inside.astype(np.float64), 0.0))
    return Field(_unit(_each(vector, _mean_of_nine)), np.where(known, probability / share, 0))


def confidence_field(spots: Spots, direction: np.ndarray, inside: np.ndarray, *, sigma: float) -> Field:
    """Predictions, as of `mean_field`, that give way to their neighbours' only as far as they are unsure.

    The expected direction vector of a spot has a length between 0 (all directions alike) and 1 (one direction certain),
    and a probability is unsure near a half; both are topped up by the Gaussian mean around, of standard deviation
    `sigma` bins. A certain prediction stays as it is, so that nothing is lost at boundaries, and an empty bin takes
    what its neighbours say.
    """
    # A matrix product would round a row by its place among the others, and so by where a window begins.
    vector = spots.on_grid(np.einsum("nd,dc->nc", direction.astype(np.float64), direction_vectors()), 0.0)
    occupied = spots.on_grid(np.ones(len(spots)), 0.0)
    probability = spots.on_grid(inside.astype(np.float64), 0.0)
    sure = np.abs(2 * probability - 1) * occupied

    def smooth(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, sigma, mode="constant")

    # The least weight keeps a lone spot from filling all that the Gaussian's tail reaches.
    faint = _FAINT / (2 * np.pi * sigma**2)
    around = smooth(occupied)[..., None] + faint
    vector += (1 - np.linalg.norm(vector, axis=-1, keepdims=True)) * _each(vector, smooth) / around
    around = smooth(sure) + faint
    mean = smooth(sure * probability) / around
    return Field(_unit(vector), sure * probability + (1 - sure) * mean)


def _each(vector: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([smooth(vector[..., axis]) for axis in range(2)], axis=-1)


def _mean_of_nine(values: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 bins; `ndimage.uniform_filter` keeps running sums, which round by where a window begins."""
    for axis in (0, 1):
        values = ndimage.correlate1d(values, np.full(3, 1 / 3), axis, mode="constant")
    return values


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.divide(vector, length, out=np.zeros_like(vector), where=length > 1e-9)


def track(
    field: Field, nuclei: np.ndarray, *, threshold: float, step: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the directions from every bin in a cell until a nucleus is met: cells and sinks (rows, columns).

    Bins of a probability below the threshold are outside every cell, unless they lie in a nucleus. A path goes `step`
    bins at a time, meets a nucleus that it passes on the way, and is not followed farther than `reach` bins from its
    start. Cells are labels like `nuclei`, 0 where the bin's path meets none; sinks are the flat index of the bin where
    a path from inside ended without a nucleus, -1 for all other bins.

    Each bin follows its own path, so that the result depends on no order, and on nothing beyond `reach`.
    """
    inside = (field.inside >= threshold) | (nuclei > 0)
    return _follow(field.vector, inside, nuclei, step, reach)


@parallel()
def _follow(vector, inside, nuclei, step, reach):  # pragma: no cover (compiled)
    height, width = nuclei.shape
    cells = np.zeros((height, width), nuclei.dtype)
    sinks = np.full((height, width), -1, np.int64)
    n_parts = int(np.ceil(step))
    for start in numba.prange(height):
        for column in range(width):
            if not inside[start, column]:
                continue
            first_y, first_x = np.int64(start), np.int64(column)  # numba's loop counters are unsigned
            y, x = first_y, first_x
            cells[start, column] = nuclei[y, x]
            n_steps = int(np.ceil(2 * reach))  # bounds paths that go round in circles
            while cells[start, column] == 0 and n_steps > 0:
                next_y, next_x = y, x
                for part in range(1, n_parts + 1):
                    along = step * part / n_parts
                    # Rounding the offset, not the place, makes the path the same wherever the grid begins.
                    to_y = y + int(np.rint(vector[y, x, 0] * along))
                    to_x = x + int(np.rint(vector[y, x, 1] * along))
                    on = 0 <= to_y < height and 0 <= to_x < width and inside[to_y, to_x]
                    if not on or (to_y - first_y) ** 2 + (to_x - first_x) ** 2 > reach**2:
                        break
                    next_y, next_x = to_y, to_x
                    if nuclei[to_y, to_x] > 0:
                        cells[start, column] = nuclei[to_y, to_x]
                        break
                if next_y == y and next_x == x:
                    break
                y, x = next_y, next_x
                n_steps -= 1
            if cells[start, column] == 0:
                sinks[start, column] = y * width + x
    return cells, sinks
