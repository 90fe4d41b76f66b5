"""Alignment on arrays: the way back from any shift and turn, whatever nuclei hold, and no false alarm."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.measure import block_reduce

from sslcst import datasets
from sslcst.core.alignment import (
    Alignment,
    coarse_counts,
    coarse_mean,
    coarse_step,
    find_alignment,
    share_without_nuclei,
)
from sslcst.errors import DataError

PIXEL = 0.5


@cache
def tissue(seed: int = 0, depleted: float = 0, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei, and the positions of transcripts in pixels, of which a share is missing from nuclei."""
    sdata = datasets.simulate(seed=seed, pixel_size=PIXEL, **{"n_cells": 150, "n_genes": 50} | kwargs)
    nuclei = sdata["true_nuclei"].to_numpy() > 0
    yx = sdata["transcripts"][["y", "x"]].compute().to_numpy() / PIXEL
    row, column = yx.astype(int).T
    kept = ~nuclei[row, column] | (np.random.default_rng(seed).random(len(yx)) >= depleted)
    return nuclei, yx[kept]


def affine(shape: tuple[int, int], shift: tuple[float, float], angle: float) -> np.ndarray:
    """Matrix on (y, x) of a turn about the middle, by degrees from y to x, and a shift."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    middle = np.array(shape) / 2
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.vstack([np.c_[linear, middle - linear @ middle + shift], [0, 0, 1]])


def find(nuclei: np.ndarray, yx: np.ndarray, **kwargs) -> Alignment:
    diameter = 0.6 * 12 / PIXEL
    step = coarse_step(nuclei.shape, diameter)
    counts = coarse_counts(yx, None, nuclei.shape, step)
    return find_alignment(coarse_mean(nuclei, step), counts, diameter=diameter, bin_size=step, **kwargs)


def error(found: Alignment, truth: np.ndarray, shape: tuple[int, int]) -> float:
    """Root mean square distance, over the image, from where it belongs, in 16ths of a nucleus' diameter (spots)."""
    ends = np.stack(np.meshgrid(*(np.linspace(0, size, 9) for size in shape)), -1).reshape(-1, 2)
    off = (ends @ (found.matrix - truth)[:2, :2].T) + (found.matrix - truth)[:2, 2]
    return float(np.sqrt((off**2).sum(axis=1).mean())) / found.diameter * 16


@pytest.mark.parametrize("depleted", [0, 0.5, 0.9])
@pytest.mark.parametrize(("shift", "angle"), [((9.3, -14.6), 0), ((0, 0), 3), ((-21.2, 8.1), -4.4)])
def test_the_way_back_from_a_known_misplacement(shift: tuple[float, float], angle: float, depleted: float) -> None:
    """Whether nuclei hold more transcripts than their surroundings, as many or hardly any: to within about a spot."""
    nuclei, yx = tissue(n_cells=200, depleted=depleted)
    truth = affine(nuclei.shape, shift, angle)
    found = find(nuclei, yx @ truth[:2, :2].T + truth[:2, 2])
    assert found.misaligned
    assert error(found, truth, nuclei.shape) < 1.4
    assert found.angle == pytest.approx(angle, abs=0.3)
    if depleted == 0:
        assert found.best_share > found.share + 0.02
    assert "do not lie" in str(found)


@given(
    seed=st.integers(0, 2**32),
    n_cells=st.sampled_from([15, 40, 80]),
    coverage=st.floats(0.3, 0.95),
    counts_per_cell=st.sampled_from([5, 30, 300]),
    nuclear_shift=st.floats(0, 0.5),
    diffusion=st.sampled_from([0.2, 1, 4]),
    ambient=st.floats(0, 0.6),
    depleted=st.sampled_from([0, 0.5, 0.9]),
)
@settings(max_examples=10)
def test_no_alarm_where_all_is_in_place(**setting) -> None:
    """Sparse and dense, few counts and many, off-centre nuclei, nuclei full of transcripts or without."""
    found = find(*tissue(**setting), whole=False)
    assert not found.misaligned, found


@example(seed=323441)  # whose best placement scores some 16 times the mean
@given(seed=st.integers(0, 2**32))
@settings(max_examples=4)
def test_no_alarm_where_transcripts_know_nothing_of_nuclei(seed: int) -> None:
    nuclei, _ = tissue()
    yx = np.random.default_rng(seed).uniform(0, nuclei.shape, (20_000, 2))
    found = find(nuclei, yx)
    assert not found.found
    assert not found.misaligned
    assert "Nothing tells" in str(found)


@pytest.mark.parametrize("n_cells", [100, 200])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda yx, side: np.c_[side - yx[:, 0], yx[:, 1]], id="upside down"),
        pytest.param(lambda yx, side: np.c_[yx[:, 0], side - yx[:, 1]], id="mirrored"),
        pytest.param(lambda yx, side: np.c_[yx[:, 1], side - yx[:, 0]], id="turned"),
        pytest.param(lambda yx, side: yx[:, ::-1], id="axes swapped"),
        pytest.param(lambda yx, side: yx * PIXEL, id="pixels for microns"),
        pytest.param(lambda yx, side: yx + np.array([0.45 * side, 0]), id="shifted beyond the search"),
        pytest.param(lambda yx, side: tissue(7, n_cells=200)[1], id="another section"),
    ],
)
def test_a_wrong_place_is_doubtful(n_cells: int, change: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Of few nuclei nothing is said, since well placed ones need not tell."""
    nuclei, yx = tissue(n_cells=n_cells)
    found = find(nuclei, change(yx, len(nuclei)), whole=False)
    assert found.is_doubtful(n_cells)
    assert not found.is_doubtful(40)


@pytest.mark.parametrize(
    "kind",
    [
        {"coverage": 0.2, "ambient": 0.6},
        {"coverage": 0.95, "n_cells": 200},
        {"counts_per_cell": 20},
        {"diffusion": 4},
        {"nuclear_shift": 0.5},
        {"depleted": 0.9},
    ],
    ids=str,
)
def test_a_right_place_is_not_doubtful(kind: dict[str, float]) -> None:
    """Nor are nuclei missed, however far apart the cells are."""
    nuclei, yx = tissue(**({"n_cells": 110} | kind))
    assert not find(nuclei, yx, whole=False).is_doubtful(110)
    counts = coarse_counts(yx, None, nuclei.shape, 1)
    assert share_without_nuclei(coarse_mean(nuclei, 1), counts, 14) < 0.5


def test_missed_nuclei_leave_transcripts_far_from_all() -> None:
    """Of one corner of a tissue alone are there nuclei; transcripts there that are few are not of cells."""
    nuclei, yx = tissue(n_cells=200)
    few = nuclei.copy()
    few[:, len(nuclei) // 5 :] = False
    counts = coarse_counts(yx, None, nuclei.shape, 1)
    assert share_without_nuclei(few, counts, 14) > 0.6
    counts[:, len(nuclei) // 5 :] *= 0.1
    assert share_without_nuclei(few, counts, 14) == 0
    assert share_without_nuclei(np.ones((9, 9)), np.ones((9, 9)), 5) == 0


def test_a_large_chip_is_searched_in_a_window_and_refined_as_a_whole() -> None:
    """Far from the window a small error of the angle would be a large one of the place."""
    parts = [tissue(seed, n_cells=100) for seed in range(2)]
    side = parts[0][0].shape[0]
    rng = np.random.default_rng(0)
    rows, everywhere = [], []
    for row in range(3):
        flipped = []
        for column in range(3):
            nuclei, yx = parts[rng.integers(2)]
            if rng.integers(2):
                nuclei, yx = nuclei[:, ::-1], np.c_[yx[:, 0], side - yx[:, 1]]
            flipped.append(nuclei)
            everywhere.append(yx + np.array([row, column]) * side)
        rows.append(np.hstack(flipped))
    nuclei, yx = np.vstack(rows), np.concatenate(everywhere)
    truth = affine(nuclei.shape, (-13.4, 25.1), 1.7)
    moved = yx @ truth[:2, :2].T + truth[:2, 2]
    assert max(nuclei.shape) > 512
    assert error(find(nuclei, moved), truth, nuclei.shape) < 1.2
    quick = find(nuclei, moved, whole=False)
    assert quick.misaligned
    assert error(quick, truth, nuclei.shape) < 4
    assert not find(nuclei, yx, whole=False).misaligned


def test_limits_of_the_search_hold() -> None:
    nuclei, yx = tissue()
    truth = affine(nuclei.shape, (40, 0), 0)
    moved = yx @ truth[:2, :2].T + truth[:2, 2]
    assert abs(find(nuclei, moved, max_shift=20).shift[0]) < 22
    assert find(nuclei, moved, max_angle=0).angle == 0
    assert error(find(nuclei, moved, max_shift=60), truth, nuclei.shape) < 2.5


def test_shares_are_those_of_a_count_pixel_by_pixel() -> None:
    nuclei, yx = tissue()
    found = find(nuclei, yx)  # of 14 pixels are the nuclei, so that a bin is a pixel
    row, column = yx.astype(int).T
    assert found.share == pytest.approx(nuclei[row, column].mean())
    assert found.best_share == pytest.approx(found.share, abs=0.02)


def test_lengths_are_in_units() -> None:
    nuclei, yx = tissue()
    counts = coarse_counts(yx + 5, None, nuclei.shape, 1)
    pixels = find_alignment(coarse_mean(nuclei, 1), counts, diameter=14)
    units = find_alignment(coarse_mean(nuclei, 1), counts, diameter=14 * 0.2, bin_size=0.2)
    assert np.allclose(units.shift, np.multiply(pixels.shift, 0.2))
    assert units.displacement == pytest.approx(0.2 * pixels.displacement)
    assert np.allclose(units.matrix[:2, :2], pixels.matrix[:2, :2])
    assert np.allclose(units.matrix[:2, 2], 0.2 * pixels.matrix[:2, 2])


def test_nothing_to_compare_is_an_error() -> None:
    nuclei, yx = tissue()
    counts = coarse_counts(yx, None, nuclei.shape, 1)
    for pair in ((np.zeros(nuclei.shape), counts), (nuclei.astype(float), 0 * counts)):
        with pytest.raises(DataError, match="no nuclei, or no transcripts"):
            find_alignment(*pair, diameter=14)


def test_small_maps_are_no_alarm() -> None:
    """A single nucleus, and a map smaller than one."""
    for side in (3, 20):
        nuclei = np.zeros((side, side))
        nuclei[: side // 2, : side // 2] = 1
        found = find_alignment(nuclei, np.ones((side, side)) + nuclei, diameter=10)
        assert not found.misaligned


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    step=st.integers(1, 7),
    ratio=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_maps_are_those_of_a_loop_over_pixels(shape: tuple[int, int], step: int, ratio: int, seed: int) -> None:
    """Bins of the last row and column may be cut; counts of parts, and of finer bins, add up."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.4
    yx, count = rng.uniform(-2, np.add(shape, 2), (40, 2)), rng.integers(1, 9, 40)
    whole = coarse_counts(yx, count, shape, step)
    expected = np.zeros(whole.shape)
    for (y, x), n in zip(yx, count, strict=True):
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            expected[int(y // step), int(x // step)] += n
    assert np.array_equal(whole, expected)
    parts = coarse_counts(yx[:20], count[:20], shape, step) + coarse_counts(yx[20:], count[20:], shape, step)
    assert np.array_equal(parts, whole)
    assert np.array_equal(block_reduce(whole, ratio, np.sum), coarse_counts(yx, count, shape, step * ratio))
    share = coarse_mean(mask, step)
    full = tuple(size // step for size in shape)
    for row, column in np.ndindex(full):
        block = mask[row * step : (row + 1) * step, column * step : (column + 1) * step]
        assert share[row, column] == pytest.approx(block.mean())
    assert share.shape == whole.shape


def test_maps_of_a_chip_are_bounded() -> None:
    assert max(-(-np.array((20_000, 30_001)) // coarse_step((20_000, 30_001), 14))) <= 2048
    assert coarse_step((100, 100), 7) == 1
    assert coarse_step((100, 100), 33) == 4
    assert coarse_step((5000, 100), 60) % coarse_step((5000, 100)) == 0
