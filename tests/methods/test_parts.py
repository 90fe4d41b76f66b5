"""Parts of a chip give what the whole gives: survey, samples, what is gathered around them, and predictions."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce
from itertools import pairwise, product
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from skimage.draw import disk

from sslcst.core.geometry import Regions, nearest_spots
from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.features import Features, Gathering, gather, join
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.inputs import make_inputs
from sslcst.methods.ssl_cst.params import (
    EncoderParams,
    InputParams,
    SamplingParams,
    SslCstParams,
    TrainingParams,
)
from sslcst.methods.ssl_cst.sampling import (
    DENSITY_BINS,
    Relations,
    Samples,
    Survey,
    choose_samples,
    draw,
    relate,
    survey,
)
from sslcst.methods.ssl_cst.training import square_side

SIDE, RADIUS, N_GENES = 64, 6.0, 7
KINDS = ["spot", "field"]
Ranges = tuple[tuple[int, int], tuple[int, int]]
WHOLE = ((0, SIDE), (0, SIDE))


def params_of(kind: str, **sampling) -> SslCstParams:
    return SslCstParams(
        encoder=EncoderParams(kind=kind, width=8, depth=2, heads=2, hidden=(8,)),
        inputs=InputParams(n_neighbors=5, window=3),
        training=TrainingParams(crop=1.0),
        sampling=SamplingParams(**sampling),
    )


class Chip:
    """Nuclei and spots of a chip, and how parts of it are seen."""

    def __init__(self, share: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.nuclei = np.zeros((SIDE, SIDE), np.uint32)
        for number, center in enumerate(rng.uniform(4, SIDE - 4, (12, 2))):
            self.nuclei[disk(center, 3.5, shape=self.nuclei.shape)] = 1 + number
        self.regions = Regions.of(self.nuclei)
        index = np.argwhere(rng.random((SIDE, SIDE)) < share).astype(np.int32)
        counts = sparse.csr_matrix(rng.poisson(0.6, (len(index), N_GENES)).astype(np.int64))
        self.spots = Spots(Grid((SIDE, SIDE), (1.0, 1.0), 1.0), index, counts)

    def part(self, window: Ranges, margin: int) -> tuple[Spots, Relations, np.ndarray]:
        """Spots in a window and around it, what the nuclei say of them, and which the window owns."""
        ranges = tuple((max(start - margin, 0), min(stop + margin, SIDE)) for start, stop in window)
        mine = self.spots.within(ranges)
        spots = Spots(self.spots.grid.view(ranges), self.spots.index[mine], self.spots.counts[mine])
        nuclei = self.nuclei[tuple(slice(*part) for part in ranges)]
        return spots, relate(spots, nuclei, nuclei, self.regions), spots.within(window)


CHIPS = [Chip(0.3), Chip(0.6), Chip(1.0)]
CUTS = st.tuples(st.sets(st.integers(1, SIDE - 1), max_size=3), st.sets(st.integers(1, SIDE - 1), max_size=3)).map(
    lambda cuts: list(product(*(pairwise([0, *sorted(cut), SIDE]) for cut in cuts)))
)


def same(one: object, other: object) -> bool:
    return all(np.array_equal(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))


def surveyed(chip: Chip, windows: list[Ranges], params: SamplingParams) -> Survey:
    parts = []
    for window in windows:
        spots, relations, owned = chip.part(window, DENSITY_BINS // 2)
        parts.append(survey(spots, relations, radius=RADIUS, params=params, owned=owned))
    return reduce(add, parts)


def sampled(chip: Chip, windows: list[Ranges], params: SslCstParams, of_chip: Survey) -> Samples:
    parts = []
    settings_ = {"radius": RADIUS, "params": params.sampling, "square": square_side(params, RADIUS), "seed": 3}
    for window in windows:
        spots, relations, owned = chip.part(window, DENSITY_BINS // 2)
        parts.append(choose_samples(spots, relations, of_chip, owned=owned, **settings_))
    return draw(parts, params=params.sampling, whole_squares=settings_["square"] > 1, seed=3)


@given(windows=CUTS, chip=st.sampled_from(CHIPS))
@settings(max_examples=30)
def test_surveys_of_parts_add_up_to_that_of_the_whole(windows: list[Ranges], chip: Chip) -> None:
    assert same(surveyed(chip, windows, SamplingParams()), surveyed(chip, [WHOLE], SamplingParams()))


def test_a_survey_counts_the_spots_of_each_kind() -> None:
    spots, relations, _ = CHIPS[1].part(WHOLE, 0)
    params = SamplingParams(negative_distance=1.2)
    found = survey(spots, relations, radius=RADIUS, params=params)
    counts = np.pad(spots.on_grid(spots.counts.toarray().sum(axis=1), 0), 3, mode="edge")
    density = np.array([counts[y : y + 7, x : x + 7].sum() for y, x in spots.index])
    outside = relations.nucleus == 0
    far = outside & (relations.distance > 1.2 * RADIUS)
    assert found.positive.tolist() == np.bincount(density[relations.core > 0]).tolist()
    assert found.far.tolist() == np.bincount(density[far]).tolist()
    part = (relations.distance[outside] / RADIUS * 256).astype(int)
    assert found.outside.tolist() == np.bincount(part).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [1.0, 99.0], ids=["far with little", "the farthest"])
@given(
    windows=CUTS,
    chip=st.sampled_from(CHIPS),
    most=st.sampled_from([(20, 64), (100_000, 64), (100_000, 3), (20, 3), (4, 8)]),
)
@settings(max_examples=15)
def test_samples_of_parts_are_those_of_the_whole(
    kind: str, far: float, windows: list[Ranges], chip: Chip, most: tuple[int, int]
) -> None:
    """However the chip is cut, in the same order; whichever way negative samples are found."""
    max_samples, max_squares = most
    params = params_of(
        kind, negative_distance=far, negative_density=0.9, max_samples=max_samples, max_squares=max_squares
    )
    of_chip = surveyed(chip, [WHOLE], params.sampling)
    whole = sampled(chip, [WHOLE], params, of_chip)
    if kind == "field":
        assert len(np.unique(whole.square)) <= max_squares
    assert set(whole.inside) == {True, False} or max_squares < 64  # few squares may hold one kind alone
    assert same(sampled(chip, windows, params, of_chip), whole)


def gathered(chip: Chip, windows: list[Ranges], params: SslCstParams, samples: Samples) -> tuple[np.ndarray, Features]:
    parts: list[Gathering] = []
    for window in windows:
        spots, relations, owned = chip.part(window, params.inputs.window)
        parts.append(
            gather(spots, samples, spots.counts, relations.distance, radius=RADIUS, params=params, owned=owned)
        )
    return join(parts)


@pytest.mark.parametrize("kind", KINDS)
@given(windows=CUTS, chip=st.sampled_from(CHIPS))
@settings(max_examples=15)
def test_what_parts_gather_is_what_the_whole_gathers(kind: str, windows: list[Ranges], chip: Chip) -> None:
    params = params_of(kind, max_samples=25)
    samples = sampled(chip, [WHOLE], params, surveyed(chip, [WHOLE], params.sampling))
    (key, found), (whole_key, whole) = (gathered(chip, cut, params, samples) for cut in (windows, [WHOLE]))
    assert key.tolist() == whole_key.tolist()
    for name in ("index", "neighbors", "distance"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    assert np.array_equal(found.counts.toarray(), whole.counts.toarray())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_has_all_its_neighbours_among_what_is_gathered(kind: str) -> None:
    """As among all spots; and their counts and distances with them. Much less than the whole is gathered."""
    chip, params = CHIPS[1], params_of(kind, max_samples=10)
    samples = sampled(chip, [WHOLE], params, surveyed(chip, [WHOLE], params.sampling))
    key, features = gathered(chip, [WHOLE], params, samples)
    spots, relations, _ = chip.part(WHOLE, 0)
    every = nearest_spots(spots, n_neighbors=5, window=3)
    place, own = np.searchsorted(key, samples.key), np.searchsorted(spots.keys, samples.key)
    assert np.array_equal(key[place], samples.key)
    neighbors = features.neighbors[place]
    assert np.array_equal(
        np.where(neighbors < 0, -1, key[neighbors]), np.where(every[own] < 0, -1, spots.keys[every[own]])
    )
    among_all = np.searchsorted(spots.keys, key)
    assert np.array_equal(features.index, spots.index[among_all])
    assert np.array_equal(features.distance, relations.distance[among_all])
    assert np.array_equal(features.counts.toarray(), spots.counts[among_all].toarray())
    assert len(features.index) < 0.8 * len(spots)


def test_a_field_is_gathered_by_squares() -> None:
    """All spots of the squares that hold samples, and of the eight around each: crops are moved by up to a square."""
    chip, params = CHIPS[1], params_of("field", max_samples=5)
    samples = sampled(chip, [WHOLE], params, surveyed(chip, [WHOLE], params.sampling))
    key, _ = gathered(chip, [WHOLE], params, samples)
    side = square_side(params, RADIUS)
    squares = {(k // SIDE // side, k % SIDE // side) for k in samples.key.tolist()}
    expected = [
        k
        for k, (y, x) in zip(chip.spots.keys.tolist(), chip.spots.index.tolist(), strict=True)
        if any(max(abs(y // side - row), abs(x // side - column)) <= 1 for row, column in squares)
    ]
    assert key.tolist() == expected


def test_features_of_all_spots_have_the_nearest_of_each() -> None:
    spots, relations, _ = CHIPS[0].part(((10, 40), (5, 50)), 0)
    found = Features.of(spots, counts=spots.counts, distance=relations.distance, n_neighbors=4, window=2)
    assert len(found.index) == len(spots)
    assert found.index is spots.index
    assert np.array_equal(found.neighbors, nearest_spots(spots, n_neighbors=4, window=2))


def predicted(chip: Chip, window: Ranges, params: SslCstParams, *, block: int) -> tuple[np.ndarray, tuple]:
    """Keys and predictions of the spots in a window, with as much around as bears on them."""
    margin = params.inputs.window * (params.encoder.depth if params.encoder.kind == "field" else 1)
    spots, relations, owned = chip.part(window, margin)
    features = Features.of(spots, counts=spots.counts, distance=relations.distance, n_neighbors=5, window=3)
    encoder = make_encoder(N_GENES, params.encoder)
    inputs = make_inputs(params.encoder, features, radius=RADIUS)
    return spots.keys[owned], predict_spots(encoder, inputs, block=block, wanted=owned)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chip", range(len(CHIPS)))
def test_predictions_in_a_window_are_those_of_the_whole(kind: str, chip: int) -> None:
    """Bit by bit, in windows of whole blocks: in those without a missing neighbour too, though the chip has some."""
    params = params_of(kind)
    keys, whole = predicted(CHIPS[chip], WHOLE, params, block=16)
    assert keys.tolist() == CHIPS[chip].spots.keys.tolist()
    for window in [((0, 32), (16, 48)), ((16, 32), (16, 32)), ((32, 64), (0, 64))]:
        own, part = predicted(CHIPS[chip], window, params, block=16)
        place = np.searchsorted(keys, own)
        assert np.array_equal(keys[place], own)
        for one, other in zip(part, whole, strict=True):
            assert np.array_equal(one, other[place])


def test_a_window_whose_spots_lack_no_neighbour_is_predicted_as_one_of_many() -> None:
    """Where every bin is a spot but for a lone one, a chip lacks neighbours that a window of it has."""
    chip = Chip(1.0)
    lone = (chip.spots.index[:, 0] < 50) | (chip.spots.index == (60, 60)).all(axis=1)
    chip.spots = replace(chip.spots, index=chip.spots.index[lone], counts=chip.spots.counts[lone])
    for kind in KINDS:
        keys, whole = predicted(chip, WHOLE, params_of(kind), block=16)
        own, part = predicted(chip, ((0, 16), (16, 48)), params_of(kind), block=16)
        for one, other in zip(part, whole, strict=True):
            assert np.array_equal(one, other[np.searchsorted(keys, own)])
