"""Training samples that need no labels: spots in nucleus cores, and spots far from every nucleus (paper: eq. 12)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sslcst.core.spots import Spots
from sslcst.errors import DataError
from sslcst.params import SamplingParams

logger = logging.getLogger("sslcst")

N_DIRECTIONS = 16
_DENSITY_BINS = 7  # side of the square over which counts are summed to tell "little or no expression"


def direction_class(offset: np.ndarray) -> np.ndarray:
    """Eq. 12: the one of 16 equal sectors in which the vector to the centroid points, int64 (n,).

    Parameters
    ----------
    offset
        Centroid minus spot (n, 2) as (dy, dx). Class 0 starts at the x axis and classes go towards +y. A spot that lies
        on the centroid has no direction: -1.
    """
    angle = np.arctan2(offset[:, 0], offset[:, 1]) % (2 * np.pi)
    sector = np.floor(angle / (2 * np.pi) * N_DIRECTIONS).astype(np.int64) % N_DIRECTIONS
    return np.where(offset.any(axis=1), sector, -1)


def direction_vectors() -> np.ndarray:
    """Unit vectors (dy, dx) along the middle of each class, (16, 2)."""
    angle = (np.arange(N_DIRECTIONS) + 0.5) * 2 * np.pi / N_DIRECTIONS
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def hash_uniform(keys: np.ndarray, seed: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on each integer key and the seed alone (SplitMix64).

    Samples chosen by them are the same however the tissue is cut into tiles.
    """
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64((2 * seed + 1) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) / np.float64(2**53)


@dataclass(frozen=True)
class Samples:
    """Spots to learn from.

    Parameters
    ----------
    spot
        Index of each sample's spot, (m,).
    inside
        Whether it lies in a cell (positive) or not (negative), bool (m,).
    direction
        Class of the direction to its nucleus' centroid, int64 (m,); -1 where there is none.
    validation
        Whether it is set apart for validation, bool (m,).
    """

    spot: np.ndarray
    inside: np.ndarray
    direction: np.ndarray
    validation: np.ndarray

    def __len__(self) -> int:
        return len(self.spot)


def choose_samples(
    spots: Spots,
    *,
    nucleus: np.ndarray,
    core: np.ndarray,
    nearest: np.ndarray,
    distance: np.ndarray,
    offset: np.ndarray,
    radius: float,
    params: SamplingParams = SamplingParams(),
    square: int = 1,
    seed: int = 0,
) -> Samples:
    """Positive and negative samples among the spots.

    Parameters
    ----------
    spots
        The occupied spots.
    nucleus, core
        Label of the nucleus and of the eroded nucleus at each spot, 0 outside, (n,).
    nearest
        Id of the nucleus with the nearest centroid, (n,).
    distance
        Distance to that centroid (n,), in units of `radius`'s unit.
    offset
        Vector (dy, dx) from each spot to the centroid of the nucleus it lies in; only read in cores, (n, 2).
    radius
        Expected cell radius r.
    params, seed
        Thresholds, numbers of samples and their draw.
    square
        Side in bins of the squares of tissue in which samples are drawn and set apart together; 1 draws each spot by
        itself and sets apart whole nuclei.

    Raises
    ------
    DataError
        No spot lies in a nucleus core, or none outside the nuclei.
    """
    positive = np.flatnonzero(core)
    if not len(positive):
        raise DataError(
            "No transcript lies in the core of a nucleus, so there is nothing to learn from: "
            "do image and transcripts match, and are the nuclei larger than a spot?"
        )
    negative = _negatives(spots, positive, nucleus, distance, radius, params)
    keys, squares = ((spots.index // side).astype(np.int64) @ (spots.grid.shape[1], 1) for side in (1, square))
    chosen = [_draw(candidates, squares, keys, params.max_samples, seed) for candidates in (positive, negative)]
    spot = np.concatenate(chosen)
    inside = np.arange(len(spot)) < len(chosen[0])
    direction = np.where(inside, direction_class(offset[spot]), -1)
    together = [squares, nearest.astype(np.int64), keys] if square > 1 else [nearest.astype(np.int64), keys]
    validation = _set_apart([group[spot] for group in together], inside, params.validation, seed)
    return Samples(spot, inside, direction, validation)


def _negatives(spots, positive, nucleus, distance, radius, params) -> np.ndarray:
    """Spots outside every nucleus, far from every centroid, in a place of little expression; else the farthest ones."""
    outside = np.flatnonzero(nucleus == 0)
    if not len(outside):
        raise DataError("Every transcript lies in a nucleus, so there is no negative sample and no cytoplasm to find.")
    total = np.asarray(spots.counts.sum(axis=1), dtype=np.float64).ravel()
    # Sums of whole numbers are exact, so that no rounding decides a tie at the threshold.
    density = spots.on_grid(total, 0.0)
    for axis in (0, 1):
        density = ndimage.correlate1d(density, np.ones(_DENSITY_BINS), axis, mode="nearest")
    density = density[tuple(spots.index.T)]
    little = params.negative_density * np.median(density[positive])
    far = outside[(distance[outside] > params.negative_distance * radius) & (density[outside] <= little)]
    enough = int(np.ceil(params.farthest * len(outside)))
    if len(far) >= min(enough, params.max_samples):
        return far
    logger.info(
        "Only %d spots lie far from all nuclei with little expression: the farthest %.0f%% of the spots outside nuclei "
        "(%d) are the negative samples instead.",
        len(far),
        100 * params.farthest,
        enough,
    )
    return outside[np.argsort(-distance[outside], kind="stable")[:enough]]


def _draw(candidates: np.ndarray, squares: np.ndarray, keys: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Some of the candidates at random, square by square."""
    by_square, by_spot = (hash_uniform(of[candidates], seed) for of in (squares, keys))
    return candidates[np.lexsort((by_spot, by_square))[:most]]


def _set_apart(together: list[np.ndarray], inside: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Samples that lie together are set apart together, since neighbours are too alike to test one another.

    Of the ways to tell what lies together, the first is taken that leaves both kinds of samples on both sides.
    """
    for group in together:
        validation = hash_uniform(group, seed + 1) < share
        if all(_both(validation[kind]) for kind in (inside, ~inside)):
            break
    for kind in (inside, ~inside, np.ones_like(inside)):
        if not _both(validation[kind]):  # a lone sample is for training
            validation[kind] = np.arange(kind.sum()) % max(2, round(1 / share)) == 1
    return validation


def _both(flags: np.ndarray) -> bool:
    return bool(flags.any() and not flags.all())
