"""Nuclei that are drawn, so that what is found can be compared with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk


def draw(centres: list[tuple[float, float]], radius: float, shape: tuple[int, int] = (120, 140)) -> NDArray[np.int32]:
    """Labels of discs, numbered in the order of their centres."""
    labels = np.zeros(shape, np.int32)
    for number, centre in enumerate(centres, 1):
        labels[disk(centre, radius, shape=shape)] = number
    return labels


def stain(labels: NDArray[np.int32], *, blur: float = 1.0, noise: float = 0.02, seed: int = 0) -> NDArray[np.float64]:
    """A stain image: 1 in nuclei, 0 outside, blurred, with noise."""
    image = ndimage.gaussian_filter((labels > 0).astype(float), blur)
    return image + noise * np.random.default_rng(seed).standard_normal(labels.shape)


def scatter(shape: tuple[int, int], step: float, radius: float, seed: int = 0) -> NDArray[np.int32]:
    """Discs on a jittered grid."""
    rng = np.random.default_rng(seed)
    grid = [(y, x) for y in np.arange(step / 2, shape[0], step) for x in np.arange(step / 2, shape[1], step)]
    return draw([tuple(place + rng.uniform(-0.15, 0.15, 2) * step) for place in np.array(grid)], radius, shape)


GRID = [(y, x) for y in (25.0, 60.0, 95.0) for x in (25.0, 60.0, 95.0, 120.0)]
DISCS = draw(GRID, 9)
IMAGE = stain(DISCS)
