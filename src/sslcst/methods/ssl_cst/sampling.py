"""Training samples that need no labels: spots in nucleus cores, and spots far from every nucleus (paper: eq. 12).

A chip is sampled in two passes over its parts: a survey, which adds up, tells what "little expression" and "far" mean
there; then each part offers its candidates, of which those of the lowest hash are drawn. So parts give what the whole
gives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import ndimage

from sslcst.core.geometry import Regions, nearest_centroid
from sslcst.core.spots import Spots
from sslcst.errors import DataError
from sslcst.methods.ssl_cst.params import SamplingParams

logger = logging.getLogger("sslcst")

N_DIRECTIONS = 16
DENSITY_BINS = 7  # side of the square over which counts are summed to tell "little or no expression"
_MOST_DENSE = 1 << 20  # where histograms of the counts end
_FINE = 256  # parts of an expected cell radius to which distances are told apart when the farthest spots are sought


def direction_class(offset: np.ndarray) -> np.ndarray:
    """Eq. 12: the one of 16 equal sectors in which the vector to the centroid points, int64 (n,).

    Of centroid minus spot (n, 2) as (dy, dx). Class 0 starts at the x axis and classes go towards +y. A spot that lies
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
class Relations:
    """What the nuclei say of n spots: the one each lies in, the nearest, and the way there (eq. 1-3); in bins."""

    nucleus: np.ndarray  #: Label of the nucleus at each spot, 0 outside, (n,)
    core: np.ndarray  #: Label of the eroded nucleus, likewise
    nearest: np.ndarray  #: Id of the nucleus with the nearest centroid, (n,)
    distance: np.ndarray  #: Distance to that centroid, (n,)
    #: Vector (dy, dx) from the spot to the centroid of its own nucleus, or else of the nearest, (n, 2)
    offset: np.ndarray


def relate(spots: Spots, nuclei: np.ndarray, cores: np.ndarray, regions: Regions) -> Relations:
    """Relate spots to nuclei: labels of nuclei and cores on the grid (rows, columns), and all regions, in pixels."""
    middle, centers = spots.index + 0.5, regions.centers / spots.grid.step
    nearest, distance = nearest_centroid(middle, centers)
    nucleus = nuclei[spots.place]
    own = np.where(nucleus > 0, np.searchsorted(regions.ids, nucleus), nearest)
    return Relations(nucleus, cores[spots.place], regions.ids[nearest], distance, centers[own] - middle)


@dataclass(frozen=True)
class Samples:
    """Spots to learn from."""

    key: np.ndarray  #: Key of each sample's spot (`Spots.keys`), int64 (m,)
    inside: np.ndarray  #: Whether it lies in a cell (positive, 1) or not (negative, 0), (m,)
    direction: np.ndarray  #: Class of the direction to its nucleus' centroid, int64 (m,); -1 where there is none
    square: np.ndarray  #: Number of the square of tissue that it was drawn in, int64 (m,)
    nearest: np.ndarray  #: Id of the nucleus with the nearest centroid, int64 (m,)
    validation: np.ndarray  #: Whether it is set apart for validation, bool (m,)

    def __len__(self) -> int:
        return len(self.key)

    @property
    def positive(self) -> np.ndarray:
        """Which more likely lie in a cell than not, bool (m,)."""
        return self.inside >= 0.5

    def take(self, chosen: np.ndarray) -> Samples:
        """Some of the samples."""
        return Samples(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})


@dataclass(frozen=True)
class Survey:
    """What must be known of a whole chip to choose samples: histograms, which of parts add up."""

    positive: np.ndarray  #: Of spots in cores: how many have each density of counts, int64
    far: np.ndarray  #: Of spots outside nuclei and far from every centroid: how many have each density, int64
    #: Of spots outside nuclei: how many lie at each distance, in 1/256 of the expected cell radius, int64
    outside: np.ndarray

    def __add__(self, other: Survey) -> Survey:
        return Survey(*(_add(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)))


def survey(
    spots: Spots, relations: Relations, *, radius: float, params: SamplingParams, owned: np.ndarray | slice = np.s_[:]
) -> Survey:
    """Survey spots before samples are chosen among them.

    Those that are owned are counted; those around them count for their density. r is `radius` bins.
    """
    density = densities(spots)[owned]
    in_core, outside = relations.core[owned] > 0, relations.nucleus[owned] == 0
    distance = relations.distance[owned]
    far = outside & (distance > params.negative_distance * radius)
    return Survey(*map(np.bincount, (density[in_core], density[far], _fine(distance[outside], radius))))


def choose_samples(
    spots: Spots,
    relations: Relations,
    surveyed: Survey,
    *,
    radius: float,
    params: SamplingParams = SamplingParams(),
    square: int = 1,
    seed: int = 0,
    owned: np.ndarray | slice = np.s_[:],
) -> Samples:
    """Positive and negative samples among the spots that are owned; those around them count for their density.

    What is little and far, `surveyed` says of the whole chip. Samples are drawn together in squares of tissue of a side
    of `square` bins; 1 draws each spot by itself. They are the first of either kind, as many as `params` say, and of
    each square at least one, for `draw` to choose among; none of them is set apart yet (`set_apart`). A `DataError`
    says that no spot of the chip lies in a nucleus core, or none outside the nuclei.
    """
    if not surveyed.positive.any():
        raise DataError(
            "No transcript lies in the core of a nucleus, so there is nothing to learn from: "
            "do image and transcripts match, and are the nuclei larger than a spot?"
        )
    if not surveyed.outside.any():
        raise DataError("Every transcript lies in a nucleus, so there is no negative sample and no cytoplasm to find.")
    index, nucleus, core, nearest, distance = (
        values[owned]
        for values in (spots.index, relations.nucleus, relations.core, relations.nearest, relations.distance)
    )
    squares = (index // square).astype(np.int64) @ (spots.grid.whole_shape[1], 1)
    direction = direction_class(relations.offset[owned])
    outside = nucleus == 0
    if (nearest_negative := _farthest(surveyed, params)) is None:
        little = params.negative_density * _median(surveyed.positive)
        negative = outside & (distance > params.negative_distance * radius) & (densities(spots)[owned] <= little)
    else:
        negative = outside & (_fine(distance, radius) >= nearest_negative)
    kinds = [np.flatnonzero(core), np.flatnonzero(negative)]
    spot = np.concatenate(kinds)
    inside = np.arange(len(spot)) < len(kinds[0])
    found = Samples(
        spots.grid.keys(index[spot]),
        inside.astype(np.float64),
        np.where(inside, direction[spot], -1),
        squares[spot],
        nearest[spot].astype(np.int64),
        np.zeros_like(inside),
    )
    if square == 1:
        return draw([found], params=params, whole_squares=False, seed=seed)
    found = _of_squares(found, params, seed)
    # A square counts among the first of the chip, even where there are samples enough before it.
    _, one_each = np.unique(found.square, return_index=True)
    return found.take(np.union1d(_wanted(found, params, seed), one_each))


def draw(parts: Sequence[Samples], *, params: SamplingParams, whole_squares: bool, seed: int) -> Samples:
    """As many samples of either kind as are wanted, square by square, from those that the parts of a chip offer.

    With whole squares they come from a bounded number of them, since what is read with a square is all around it.
    """
    found = Samples(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Samples)))
    found = _of_squares(found, params, seed) if whole_squares else found
    return found.take(_wanted(found, params, seed))


def _of_squares(found: Samples, params: SamplingParams, seed: int) -> Samples:
    """Those of the first squares."""
    squares = np.unique(found.square)
    first = squares[np.argsort(hash_uniform(squares, seed), kind="stable")][: params.max_squares]
    return found.take(np.isin(found.square, first))


def _wanted(found: Samples, params: SamplingParams, seed: int) -> np.ndarray:
    """Indices of the first samples of either kind, square by square."""
    order = np.lexsort((hash_uniform(found.key, seed), hash_uniform(found.square, seed)))
    return np.concatenate([order[found.positive[order] == kind][: params.max_samples] for kind in (True, False)])


def set_apart(samples: Samples, *, params: SamplingParams, whole_squares: bool, seed: int) -> Samples:
    """The samples with a share of them set apart for validation.

    Samples that lie together are set apart together, since neighbours are too alike to test one another: those of one
    square of tissue, or of one nucleus. Of these ways, the first is taken that leaves both kinds on both sides.
    """
    together = [samples.square, samples.nearest, samples.key] if whole_squares else [samples.nearest, samples.key]
    inside = samples.positive
    for group in together:
        validation = hash_uniform(group, seed + 1) < params.validation
        if all(_both(validation[kind]) for kind in (inside, ~inside)):
            break
    for kind in (inside, ~inside, np.ones_like(inside)):
        if not _both(validation[kind]):  # a lone sample is for training
            validation[kind] = np.arange(kind.sum()) % max(2, round(1 / params.validation)) == 1
    return replace(samples, validation=validation)


def densities(spots: Spots) -> np.ndarray:
    """Counts within the square of `DENSITY_BINS` bins around each spot, at most `_MOST_DENSE`, int64 (n,)."""
    density = spots.totals().astype(np.float64)  # of whole numbers, so that no rounding decides a tie at the threshold
    for axis in (0, 1):
        density = ndimage.correlate1d(density, np.ones(DENSITY_BINS), axis, mode="nearest")
    return np.rint(np.minimum(density[spots.place], _MOST_DENSE)).astype(np.int64)


def _farthest(surveyed: Survey, params: SamplingParams) -> int | None:
    """Distance in 1/256 r from which spots outside nuclei are negative samples; None if enough are far with little."""
    little = params.negative_density * _median(surveyed.positive)
    n_far = int(surveyed.far[: int(little) + 1].sum())
    n_outside = int(surveyed.outside.sum())
    enough = int(np.ceil(params.farthest * n_outside))
    if n_far >= min(enough, params.max_samples):
        return None
    logger.info(
        "Only %d spots lie far from all nuclei with little expression: the farthest %.0f%% of the spots outside nuclei "
        "(%d) are the negative samples instead.",
        n_far,
        100 * params.farthest,
        enough,
    )
    at_least = np.cumsum(surveyed.outside[::-1])[::-1]
    return int(np.flatnonzero(at_least >= enough)[-1])


def _fine(distance: np.ndarray, radius: float) -> np.ndarray:
    return np.floor(distance * (_FINE / radius)).astype(np.int64)


def _median(histogram: np.ndarray) -> float:
    """Median of the values, from 0, that a histogram counts."""
    heaped = np.cumsum(histogram)
    middle = (heaped[-1] - 1) // 2, heaped[-1] // 2
    return float(np.mean(np.searchsorted(heaped, middle, side="right")))


def _add(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    n = max(len(one), len(other))
    return sum(np.pad(part, (0, n - len(part))) for part in (one, other))


def _both(flags: np.ndarray) -> bool:
    return bool(flags.any() and not flags.all())
