"""Direction classes by eq. 12 as it is written, draws that depend on the spot alone, samples by their definition."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import atan, floor, inf, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import chisquare
from skimage.draw import disk

from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Spots
from sslcst.errors import DataError
from sslcst.methods.ssl_cst.params import SamplingParams
from sslcst.methods.ssl_cst.sampling import (
    Samples,
    choose_samples,
    direction_class,
    direction_vectors,
    draw,
    hash_uniform,
    relate,
    set_apart,
    survey,
)

RADIUS = 6.0


def eq_12(dy: float, dx: float) -> int:
    """The paper's three cases; y_c - y is dy, x_c - x is dx."""
    slope = dy / dx if dx else (inf if dy > 0 else -inf)
    if dx < 0:
        angle = atan(slope) + pi
    elif dy >= 0:
        angle = atan(slope)
    else:
        angle = atan(slope) + 2 * pi
    return floor(angle / (2 * pi) * 16)


def test_direction_classes_are_those_of_eq_12() -> None:
    """All whole offsets around a centroid: the four quadrants, the axes and the diagonals."""
    offsets = [(dy, dx) for dy in range(-30, 31) for dx in range(-30, 31) if dy or dx]
    classes = direction_class(np.array(offsets, float))
    assert classes.tolist() == [eq_12(*offset) for offset in offsets]
    assert set(classes) == set(range(16))


@given(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)).filter(lambda o: abs(o[0]) > 1e-9 and abs(o[1]) > 1e-9))
def test_direction_class_of_any_offset(offset: tuple[float, float]) -> None:
    """Rounding may tell apart the two forms of one angle only on a border between two sectors."""
    angle = np.arctan2(*offset) / (2 * pi) * 16
    if abs(angle - round(angle)) > 1e-9:
        assert direction_class(np.array([offset])).tolist() == [eq_12(*offset)]


@pytest.mark.parametrize(
    ("offset", "sector"),
    [
        ((0.0, 1.0), 0),
        ((1.0, 1.0), 2),
        ((1.0, 0.0), 4),
        ((1.0, -1.0), 6),
        ((0.0, -1.0), 8),
        ((-0.0, -1.0), 8),
        ((-1.0, -1.0), 10),
        ((-1.0, 0.0), 12),
        ((-1.0, 1.0), 14),
        ((-0.0, 1.0), 0),
        ((-1e-3, 1.0), 15),
        ((-1e-300, 1.0), 0),  # rounded, its angle is a full turn, for which eq. 12 has no class
        ((0.0, 0.0), -1),
    ],
)
def test_sectors_start_on_the_axes(offset: tuple[float, float], sector: int) -> None:
    assert direction_class(np.array([offset])).tolist() == [sector]


def test_vectors_lie_in_the_middle_of_their_sectors() -> None:
    vectors = direction_vectors()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert direction_class(vectors).tolist() == list(range(16))
    for turn in (-1, 1):  # as far from either border
        angle = np.arctan2(*vectors.T) + turn * 0.999 * pi / 16
        assert direction_class(np.stack([np.sin(angle), np.cos(angle)], axis=1)).tolist() == list(range(16))


def test_hash_is_splitmix64() -> None:
    """The published first numbers of the generator, and its definition in whole numbers for others."""

    def splitmix64(key: int, seed: int) -> float:
        z = (key + 0x9E3779B97F4A7C15 * (2 * seed + 1)) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return ((z ^ z >> 31) >> 11) / 2**53

    assert splitmix64(1234567, 0) == (6457827717110365317 >> 11) / 2**53
    keys = [0, 1, 1234567, 2**40, 2**63 - 1]
    for seed in (0, 1, 12345, 2**63, 2**64 - 1, -1):
        assert hash_uniform(np.array(keys), seed).tolist() == [splitmix64(key, seed) for key in keys]


@pytest.mark.parametrize("stride", [1, 2, 1000, 2**20])
def test_hash_is_uniform_over_regular_keys(stride: int) -> None:
    """Neither the numbers nor pairs of neighbouring ones show the regularity of a grid."""
    numbers = hash_uniform(np.arange(20_000) * stride, 3)
    assert 0 <= numbers.min() < numbers.max() < 1
    assert chisquare(np.histogram(numbers, 20, (0, 1))[0]).pvalue > 1e-3
    pairs = np.histogram2d(numbers[:-1], numbers[1:], 8, [(0, 1)] * 2)[0]
    assert chisquare(pairs.ravel()).pvalue > 1e-3


def test_hash_depends_on_the_key_and_the_seed_alone() -> None:
    keys = np.random.default_rng(0).permutation(5_000)
    assert np.array_equal(hash_uniform(keys, 7), hash_uniform(np.arange(5_000), 7)[keys])
    assert np.array_equal(hash_uniform(keys.astype(np.uint32), 7), hash_uniform(keys, 7))
    assert abs(np.corrcoef(hash_uniform(keys, 7), hash_uniform(keys, 8))[0, 1]) < 0.05


class Tissue:
    """Spots of a 60 x 60 grid with nuclei of radius 4, cores of radius 3, and what `choose_samples` asks of them."""

    def __init__(self, centers: list[tuple[int, int]], *, size: int = 60, share: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.nuclei, self.cores = (np.zeros((size, size), np.uint32) for _ in range(2))
        for number, center in enumerate(centers):
            self.nuclei[disk(center, 4.5, shape=self.nuclei.shape)] = 10 + 3 * number
            self.cores[disk(center, 3.5, shape=self.cores.shape)] = 10 + 3 * number
        index = np.argwhere((rng.random((size, size)) < share) | (self.cores > 0)).astype(np.int32)
        spots = Spots(Grid((size, size), (1.0, 1.0), 1.0), index, sparse.csr_matrix((len(index), 1)))
        self.relations = relate(spots, self.nuclei, self.cores, Regions.of(self.nuclei))
        total = rng.poisson(np.where(self.relations.distance < RADIUS, 5, 1)) + 1
        self.spots = replace(spots, counts=sparse.csr_matrix(total[:, None]))

    def sample(self, *, seed: int = 0, square: int = 1, **params) -> Samples:
        settings = {"radius": RADIUS, "params": SamplingParams(**params)}
        surveyed = survey(self.spots, self.relations, **settings)
        offered = choose_samples(self.spots, self.relations, surveyed, square=square, seed=seed, **settings)
        how = {"params": settings["params"], "whole_squares": square > 1, "seed": seed}
        return set_apart(draw([offered], **how), **how)

    def spot_of(self, samples: Samples) -> np.ndarray:
        """Index of each sample's spot."""
        assert np.isin(samples.key, self.spots.keys).all()
        return np.searchsorted(self.spots.keys, samples.key)


NINE = [(y, x) for y in (10, 30, 50) for x in (10, 30, 50)]
CROWDED = [(y, x) for y in range(4, 56, 8) for x in range(4, 56, 8)]  # no spot farther than 1.25 radii


def test_positives_are_the_spots_in_cores_with_their_direction() -> None:
    tissue = Tissue(NINE)
    samples = tissue.sample()
    positive = tissue.spot_of(samples)[samples.positive]
    assert sorted(positive) == np.flatnonzero(tissue.relations.core).tolist()
    for spot, direction in zip(positive, samples.direction[samples.positive], strict=True):
        dy, dx = tissue.relations.offset[spot]
        assert direction == (eq_12(dy, dx) if dy or dx else -1)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_negatives_are_far_from_all_nuclei_where_little_is_expressed(share: float) -> None:
    """Where every bin is a spot, some have exactly the density of the threshold: no rounding may decide on these."""
    tissue = Tissue(NINE, share=share)
    samples = tissue.sample(negative_distance=1.25, negative_density=0.5)
    counts = np.pad(tissue.spots.on_grid(tissue.spots.counts.toarray()[:, 0], 0), 3, mode="edge")
    density = np.array([counts[y : y + 7, x : x + 7].sum() for y, x in tissue.spots.index])  # in whole numbers
    little = 0.5 * np.median(density[tissue.relations.core > 0])
    expected = [
        spot
        for spot in range(len(tissue.spots))
        if not tissue.relations.nucleus[spot]
        and tissue.relations.distance[spot] > 1.25 * RADIUS
        and density[spot] <= little
    ]
    assert 0 < len(expected) < (tissue.relations.nucleus == 0).sum()
    assert sorted(tissue.spot_of(samples)[~samples.positive]) == expected
    assert (samples.direction[~samples.positive] == -1).all()


def test_a_crowded_tissue_gives_its_farthest_spots(caplog: pytest.LogCaptureFixture) -> None:
    tissue = Tissue(CROWDED, size=56)
    with caplog.at_level(logging.INFO, "sslcst"):
        samples = tissue.sample(farthest=0.05)
    negative = tissue.spot_of(samples)[~samples.positive]
    outside = np.flatnonzero(tissue.relations.nucleus == 0)
    rest = np.setdiff1d(outside, negative)
    distance = tissue.relations.distance
    assert distance[negative].min() > distance[rest].max()
    assert not tissue.relations.nucleus[negative].any()
    # Distances are told apart to 1/256 of the radius; of the spots at the last distance all are taken or none.
    part = np.floor(distance * 256 / RADIUS)
    assert (part[negative] > part[negative].min()).sum() < np.ceil(0.05 * len(outside)) <= len(negative)
    assert "farthest 5%" in caplog.text


def crowded_with_a_farthest_spot() -> Tissue:
    tissue = Tissue(CROWDED, size=56)
    outside = tissue.relations.nucleus == 0
    tissue.relations.distance[np.argmax(tissue.relations.distance * outside)] += 0.01 * RADIUS
    return tissue


def test_there_are_always_negatives() -> None:
    """However small the share of the farthest, a crowded tissue has one."""
    tissue = crowded_with_a_farthest_spot()
    samples = tissue.sample(farthest=1e-9)
    (negative,) = tissue.spot_of(samples)[~samples.positive]
    assert tissue.relations.distance[negative] == tissue.relations.distance[tissue.relations.nucleus == 0].max()


def test_at_most_so_many_of_each_kind_are_drawn_by_their_hash() -> None:
    """The draw depends on each spot's place alone, so that it is the same for any order of the spots."""
    tissue = Tissue(NINE, share=0.6)
    every, few = tissue.sample(seed=5), tissue.sample(seed=5, max_samples=30)
    place = tissue.spots.index[:, 0].astype(int) * 60 + tissue.spots.index[:, 1]
    for inside in (True, False):
        candidates, drawn = (set(tissue.spot_of(s)[s.inside == inside].tolist()) for s in (every, few))
        rank = sorted(candidates, key=lambda spot: hash_uniform(place[[spot]], 5)[0])
        assert drawn == set(rank[:30])


def test_the_seed_fixes_the_samples() -> None:
    tissue = Tissue(NINE)
    a, b, c = (tissue.sample(seed=seed, max_samples=50) for seed in (1, 1, 2))
    for field in ("key", "inside", "direction", "validation"):
        assert np.array_equal(getattr(a, field), getattr(b, field))
    assert set(a.key) != set(c.key)


def test_whole_nuclei_are_set_apart() -> None:
    """A nucleus, with the negatives around it, is either learned from or tested on."""
    tissue = Tissue(NINE)
    samples = tissue.sample(validation=0.3, seed=1)
    assert np.array_equal(samples.nearest, tissue.relations.nearest[tissue.spot_of(samples)])
    held = {name: set(samples.validation[samples.nearest == name]) for name in set(tissue.relations.nearest)}
    assert all(len(sides) == 1 for sides in held.values())
    for kind in (samples.positive, ~samples.positive):
        assert set(samples.validation[kind]) == {True, False}


def test_whole_squares_are_drawn_and_set_apart() -> None:
    """For a network that reads fields: a square of tissue is drawn as a whole, and learned from or tested on."""
    tissue = Tissue(NINE)
    samples = tissue.sample(validation=0.3, seed=1, square=15, max_samples=300)
    row, column = tissue.spots.index[tissue.spot_of(samples)].T
    squares = list(zip(row // 15, column // 15, strict=True))
    held: dict[tuple, set] = {}
    for square, validation in zip(squares, samples.validation, strict=True):
        held.setdefault(square, set()).add(bool(validation))
    assert all(len(sides) == 1 for sides in held.values())
    assert len(set(zip(squares, samples.square, strict=True))) == len(set(samples.square)) == len(held)
    for kind in (samples.positive, ~samples.positive):
        assert set(samples.validation[kind]) == {True, False}
    every = tissue.sample(seed=1, square=15)
    for kind in (True, False):  # all of the drawn squares but the last, which is cut off
        of_kind, drawn = (s.square[s.inside == kind] for s in (every, samples))
        whole = [square for square in set(drawn) if (drawn == square).sum() == (of_kind == square).sum()]
        assert len(whole) >= len(set(drawn)) - 1


@given(
    n_nuclei=st.integers(1, 4), share=st.floats(0.01, 0.99), seed=st.integers(0, 100), max_samples=st.integers(2, 400)
)
@settings(max_examples=60)
def test_validation_is_never_empty_nor_everything(n_nuclei: int, share: float, seed: int, max_samples: int) -> None:
    """Of either kind."""
    samples = TISSUES[n_nuclei].sample(validation=share, seed=seed, max_samples=max_samples)
    for kind in (samples.positive, ~samples.positive):
        assert 0 < samples.validation[kind].sum() < kind.sum()


# Bug reported: a kind of one sample is set apart as a whole, so that the encoder learns from the other kind alone.
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_lone_sample_of_its_kind_is_learnt_from(share: float) -> None:
    samples = crowded_with_a_farthest_spot().sample(farthest=1e-9, validation=share)
    assert (~samples.positive).sum() == 1
    assert not samples.validation[~samples.positive].any()


# Bug reported: with one sample of each kind both are set apart, and nothing is left to learn from.
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_one_of_two_samples_is_learnt_from(share: float) -> None:
    samples = TISSUES[1].sample(validation=share, max_samples=1)
    assert len(samples) == 2
    assert samples.validation.sum() == 1


TISSUES = {n: Tissue(NINE[:n], size=32) for n in range(1, 5)}


def test_no_spot_in_a_core_is_an_error() -> None:
    tissue = Tissue(NINE)
    tissue.relations.core[:] = 0
    with pytest.raises(DataError, match="core of a nucleus"):
        tissue.sample()


def test_no_spot_outside_the_nuclei_is_an_error() -> None:
    tissue = Tissue(NINE)
    tissue.relations.nucleus[:] = 1
    with pytest.raises(DataError, match="no negative sample"):
        tissue.sample()
