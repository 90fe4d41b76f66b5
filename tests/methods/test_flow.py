"""Smoothing and tracking, each against loops that follow the definition."""

from __future__ import annotations

from itertools import product
from math import ceil, dist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.flow import Field, confidence_field, mean_field, track
from sslcst.methods.ssl_cst.sampling import direction_vectors

SEEDS = st.integers(0, 2**32 - 1)


def spots_at(occupied: np.ndarray) -> Spots:
    index = np.argwhere(occupied).astype(np.int32)
    return Spots(Grid(occupied.shape, (1.0, 1.0), 1.0), index, sparse.csr_matrix((len(index), 1)))


def random_predictions(seed: int, shape: tuple[int, int] = (9, 11)) -> tuple[Spots, np.ndarray, np.ndarray]:
    """Spots on about half of the bins, each with any direction posterior and any probability."""
    rng = np.random.default_rng(seed)
    spots = spots_at(rng.random(shape) < 0.5)
    return spots, rng.dirichlet(np.full(16, 0.2), len(spots)), rng.random(len(spots))


# --- Smoothing -------------------------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=20)
def test_the_papers_smoothing_is_the_mean_over_nine_bins(seed: int) -> None:
    """Most probable directions, and probabilities, averaged over the spots among a bin and its eight neighbours."""
    spots, direction, inside = random_predictions(seed)
    field = mean_field(spots, direction, inside)
    at = {tuple(place): i for i, place in enumerate(spots.index.tolist())}
    for y, x in product(*map(range, spots.grid.shape)):
        around = [at[b] for b in product((y - 1, y, y + 1), (x - 1, x, x + 1)) if b in at]
        angles = [(direction[i].argmax() + 0.5) * np.pi / 8 for i in around]
        vector = np.array([sum(np.sin(angles)), sum(np.cos(angles))])
        length = np.linalg.norm(vector)
        expected = vector / length if length > 1e-6 else np.zeros(2)
        assert field.vector[y, x] == pytest.approx(expected, abs=1e-6)
        assert field.inside[y, x] == pytest.approx(np.mean(inside[around]) if around else 0, abs=1e-12)


@given(SEEDS)
@settings(max_examples=20)
def test_confidence_smoothing_leaves_certain_predictions_as_they_are(seed: int) -> None:
    spots, _, _ = random_predictions(seed)
    rng = np.random.default_rng(seed)
    which, inside = rng.integers(0, 16, len(spots)), rng.integers(0, 2, len(spots)).astype(np.float32)
    field = confidence_field(spots, np.eye(16, dtype=np.float32)[which], inside, sigma=2.0)
    assert np.array_equal(field.inside[tuple(spots.index.T)], inside)
    assert field.vector[tuple(spots.index.T)] == pytest.approx(direction_vectors()[which], abs=1e-12)


def test_confidence_smoothing_gives_the_unsure_what_their_neighbours_say() -> None:
    """An unsure spot and an empty bin amid spots that are certain take the direction and the side of these."""
    occupied = np.ones((9, 9), bool)
    occupied[4, 6] = False
    spots = spots_at(occupied)
    direction, inside = np.tile(np.eye(16)[3], (len(spots), 1)), np.ones(len(spots))
    unsure = np.flatnonzero((spots.index == (4, 4)).all(axis=1))
    direction[unsure], inside[unsure] = 1 / 16, 0.5
    field = confidence_field(spots, direction, inside, sigma=1.0)
    for place in ((4, 4), (4, 6)):
        assert field.vector[place] == pytest.approx(direction_vectors()[3], abs=1e-12)
        assert field.inside[place] > 0.9


def test_confidence_smoothing_leaves_the_empty_far_away_empty() -> None:
    """A lone spot does not fill all that the Gaussian's tail reaches."""
    occupied = np.zeros((31, 31), bool)
    occupied[15, 15] = True
    field = confidence_field(spots_at(occupied), np.eye(16)[[0]], np.ones(1), sigma=1.5)
    y, x = np.nonzero(field.inside >= 0.5)
    assert field.inside[15, 15] == 1
    assert np.hypot(y - 15, x - 15).max() < 3 * 1.5
    assert field.inside[0].max() < 1e-3


@given(seed=SEEDS, sigma=st.floats(0.8, 4))
@settings(max_examples=20)
def test_a_field_is_of_unit_vectors_and_probabilities(seed: int, sigma: float) -> None:
    spots, direction, inside = random_predictions(seed)
    for field in (mean_field(spots, direction, inside), confidence_field(spots, direction, inside, sigma=sigma)):
        length = np.linalg.norm(field.vector, axis=-1)
        assert (np.isclose(length, 1) | (length == 0)).all()
        assert field.inside.min() >= 0
        assert field.inside.max() <= 1 + 1e-12


# --- Tracking --------------------------------------------------------------------------------------------------------


def rightward(width: int, *, angle: float = 0.0, height: int = 1) -> tuple[Field, np.ndarray]:
    """All bins inside and pointing one way; the nucleus is the last bin of the middle row."""
    nuclei = np.zeros((height, width), np.uint32)
    nuclei[height // 2, -1] = 7
    vector = np.tile([np.sin(angle), np.cos(angle)], (height, width, 1))
    return Field(vector, np.ones(nuclei.shape)), nuclei


def random_field(seed: int, shape: tuple[int, int] = (16, 19)) -> tuple[Field, np.ndarray]:
    """A field that swirls but mostly leads to one of three nuclei."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centers = rng.uniform(0, shape, (3, 2))
    distance = np.hypot(y[..., None] - centers[:, 0], x[..., None] - centers[:, 1])
    nearest = distance.argmin(axis=-1)
    angle = np.arctan2(centers[nearest][..., 0] - y, centers[nearest][..., 1] - x) + rng.normal(0, 0.7, shape)
    nuclei = np.where(distance.min(axis=-1) < 1.5, nearest + 1, 0).astype(np.uint32)
    return Field(np.stack([np.sin(angle), np.cos(angle)], axis=-1), rng.random(shape)), nuclei


def followed(field: Field, nuclei: np.ndarray, *, threshold: float, step: float, reach: float) -> tuple:
    """Each bin's path, walked in plain Python."""
    cells, sinks = np.zeros(nuclei.shape, np.uint32), np.full(nuclei.shape, -1)
    inside = (field.inside >= threshold) | (nuclei > 0)
    n_parts = ceil(step)
    for start in map(tuple, np.argwhere(inside).tolist()):
        at, moved = start, 0
        while not cells[start]:
            if nuclei[at]:
                cells[start] = nuclei[at]
                break
            target = at
            for part in range(n_parts):
                offset = field.vector[at] * step * (part + 1) / n_parts
                there = tuple(a + round(o) for a, o in zip(at, offset, strict=True))
                on_grid = all(0 <= t < size for t, size in zip(there, nuclei.shape, strict=True))
                if not on_grid or not inside[there] or dist(there, start) > reach:
                    break
                target = there
                if nuclei[there]:
                    break
            if target == at or moved == ceil(2 * reach):
                sinks[start] = at[0] * nuclei.shape[1] + at[1]
                break
            at, moved = target, moved + 1
    return cells, sinks


REACHES = st.integers(1, 32).map(lambda halves: halves / 2)


@given(seed=SEEDS, step=st.sampled_from([1.0, 2.0, 2.5, 3.0]), reach=REACHES)
@settings(max_examples=25)
def test_tracking_is_that_of_a_walk_from_each_bin(seed: int, step: float, reach: float) -> None:
    field, nuclei = random_field(seed)
    found = track(field, nuclei, threshold=0.4, step=step, reach=reach)
    for a, b in zip(found, followed(field, nuclei, threshold=0.4, step=step, reach=reach), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("step", "reach", "far"), [(1.0, 4, 4), (1.0, 7.0, 7), (2.0, 4, 4), (3.0, 6, 6), (2.0, 5, 5), (3.0, 4.9, 4)]
)
def test_paths_are_as_long_as_the_reach(step: float, reach: float, far: int) -> None:
    field, nuclei = rightward(15)
    cells, sinks = track(field, nuclei, threshold=0.5, step=step, reach=reach)
    assert np.flatnonzero(cells[0]).tolist() == list(range(14 - far, 15))
    assert (sinks[0] >= 0).tolist() == [True] * (14 - far) + [False] * (far + 1)


@pytest.mark.parametrize(("step", "reach", "angle"), [(2.0, 5, 0.0), (3.0, 4, 0.0), (2.0, 10, np.deg2rad(33.75))])
def test_paths_are_never_longer_than_the_reach(step: float, reach: float, angle: float) -> None:
    """Neither a last step nor the rounding of steps to bins leads beyond it."""
    field, nuclei = rightward(20, angle=angle, height=31)
    cells, _ = track(field, nuclei, threshold=0.5, step=step, reach=reach)
    assert np.linalg.norm(np.argwhere(cells) - (15, 19), axis=1).max() <= reach


@given(
    seed=SEEDS, row=st.integers(0, 15), column=st.integers(0, 18), step=st.sampled_from([1.0, 2.0, 2.5]), reach=REACHES
)
@settings(max_examples=25)
def test_what_lies_beyond_the_reach_does_not_matter(
    seed: int, row: int, column: int, step: float, reach: float
) -> None:
    """So a tile with a halo of the reach is tracked as the whole tissue is."""
    (field, nuclei), (other, other_nuclei) = random_field(seed), random_field(seed + 1)
    y, x = np.mgrid[: nuclei.shape[0], : nuclei.shape[1]]
    near = np.hypot(y - row, x - column) <= reach
    mixed = Field(np.where(near[..., None], field.vector, other.vector), np.where(near, field.inside, other.inside))
    settings_ = {"threshold": 0.4, "step": step, "reach": reach}
    found = track(field, nuclei, **settings_), track(mixed, np.where(near, nuclei, other_nuclei), **settings_)
    for a, b in zip(*found, strict=True):
        assert a[row, column] == b[row, column]


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0])
def test_a_bin_outside_gets_nothing_and_stops_what_would_pass_it(step: float) -> None:
    """A step that would lead over it ends at the last bin before it."""
    field, nuclei = rightward(8)
    field.inside[0, 4] = 0.49
    cells, sinks = track(field, nuclei, threshold=0.5, step=step, reach=20)
    assert cells.tolist() == [[0, 0, 0, 0, 0, 7, 7, 7]]
    assert sinks.tolist() == [[3, 3, 3, 3, -1, -1, -1, -1]]


# Bug reported: a step cut short counts as a whole one of those that bound paths in circles.
def test_a_path_of_steps_cut_short_goes_on_to_the_nucleus() -> None:
    """Down a staircase of single bins, each step ends after one."""
    nuclei = np.zeros((6, 6), np.uint32)
    nuclei[5, 5] = 7
    stairs = np.eye(6, dtype=bool) | np.eye(6, k=1, dtype=bool)
    vector = np.zeros((6, 6, 2))
    vector[np.eye(6, dtype=bool)] = 0, 1
    vector[np.eye(6, k=1, dtype=bool)] = 1, 0
    cells, _ = track(Field(vector, stairs.astype(float)), nuclei, threshold=0.5, step=4.0, reach=8)
    assert np.array_equal(cells, np.where(stairs, 7, 0))


def test_a_nucleus_keeps_its_bins_however_improbable() -> None:
    field, nuclei = rightward(5)
    cells, _ = track(Field(field.vector, np.zeros(nuclei.shape)), nuclei, threshold=0.5, step=2.0, reach=9)
    assert np.array_equal(cells, nuclei)


def test_a_nucleus_that_a_long_step_passes_is_met() -> None:
    field, nuclei = rightward(9)
    nuclei[0, 5] = 3
    cells, _ = track(field, nuclei, threshold=0.5, step=4.0, reach=20)
    assert cells.tolist() == [[3, 3, 3, 3, 3, 3, 7, 7, 7]]


def test_a_path_in_a_circle_ends() -> None:
    vector = np.zeros((1, 4, 2))
    vector[0, :, 1] = [1, 1, -1, -1]
    cells, sinks = track(Field(vector, np.ones((1, 4))), np.zeros((1, 4), np.uint32), threshold=0.5, step=1.0, reach=9)
    assert not cells.any()
    assert set(sinks[0].tolist()) <= {1, 2}


@given(SEEDS)
@settings(max_examples=20)
def test_tracking_knows_no_order(seed: int) -> None:
    """Mirrored or turned, a tissue has its cells mirrored or turned: no direction is walked first."""
    field, nuclei = random_field(seed)
    settings_ = {"threshold": 0.4, "step": 2.0, "reach": 12}
    cells, _ = track(field, nuclei, **settings_)

    def tracked(vector: np.ndarray, turn) -> np.ndarray:
        arguments = (np.ascontiguousarray(x) for x in (turn(vector), turn(field.inside), turn(nuclei)))
        vector, inside, turned = arguments
        return turn(track(Field(vector, inside), turned, **settings_)[0])

    assert np.array_equal(tracked(field.vector * (-1, 1), lambda a: a[::-1]), cells)
    assert np.array_equal(tracked(field.vector * (1, -1), lambda a: a[:, ::-1]), cells)
    assert np.array_equal(tracked(field.vector[..., ::-1], lambda a: a.swapaxes(0, 1)), cells)


@pytest.mark.parametrize("across", [0.3, 0.5])
def test_tracking_does_not_depend_on_where_the_tissue_lies(across: float) -> None:
    """A tile is tracked as the whole tissue is, whatever row and column it begins with; steps of a half bin too."""
    nuclei = np.zeros((12, 12), np.uint32)
    nuclei[:2] = 1 + np.arange(12) // 2
    vector = np.tile([-((1 - across**2) ** 0.5), across], (12, 12, 1))
    field = Field(vector, np.ones(nuclei.shape))
    whole, _ = track(field, nuclei, threshold=0.5, step=1.0, reach=30)
    tile, _ = track(Field(vector[:, 1:], field.inside[:, 1:]), nuclei[:, 1:], threshold=0.5, step=1.0, reach=30)
    assert np.array_equal(whole[:, 1:], tile)


def test_ids_beyond_16_and_31_bits_are_kept() -> None:
    field, nuclei = rightward(4)
    nuclei[0, -1] = 4_000_000_000
    cells, _ = track(field, nuclei, threshold=0.5, step=1.0, reach=9)
    assert cells.dtype == np.uint32
    assert (cells == 4_000_000_000).all()
