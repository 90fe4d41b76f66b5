"""Algorithm 1 against its formula, pixel by pixel, and what an erosion must never do."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import disk

from sslcst.core.erosion import erode_nuclei, erode_once, turned_element
from sslcst.params import ErosionParams

ALL = {"min_area": 0, "min_solidity": 0.0}  # no core is dropped
SMALL_IMAGES = arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


def by_definition(labels: np.ndarray, element: np.ndarray) -> np.ndarray:
    """E(x, y) = min over (s_x, s_y) in S of I(x + s_x, y + s_y), where I is the mask of the pixel's own nucleus."""
    offsets = np.argwhere(element) - element.shape[0] // 2
    height, width = labels.shape
    out = np.zeros_like(labels)
    for y, x in np.argwhere(labels):
        least = 1
        for sy, sx in offsets:
            on_image = 0 <= y + sy < height and 0 <= x + sx < width
            least = min(least, int(on_image and labels[y + sy, x + sx] == labels[y, x]))
        out[y, x] = least * labels[y, x]
    return out


def discs() -> np.ndarray:
    """Four nuclei with gaps between their ids, the last two touching."""
    labels = np.zeros((40, 44), np.uint32)
    for name, center, radius in ((3, (9, 9), 6), (7, (9, 30), 8), (8, (29, 12), 7), (300, (29, 26), 7.5)):
        labels[disk(center, radius, shape=labels.shape)] = name
    return labels


def areas(labels: np.ndarray) -> dict[int, int]:
    return {int(name): int((labels == name).sum()) for name in np.unique(labels) if name}


def test_element_is_a_bar_along_x_before_it_is_turned() -> None:
    assert np.argwhere(turned_element(0, 3)).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_element_turned_by_a_right_angle_is_a_bar_along_y() -> None:
    assert np.array_equal(turned_element(np.pi / 2, 5), turned_element(0, 5).T)


def test_element_turned_by_half_a_right_angle_lies_on_the_diagonal() -> None:
    rows, columns = np.nonzero(turned_element(np.pi / 4, 7))
    assert len(rows) >= 5
    assert np.array_equal(rows, columns) or np.array_equal(rows, columns[::-1])


@given(angle=st.floats(0, np.pi), length=st.floats(3, 9))
@settings(max_examples=50)
def test_element_is_symmetric_about_its_middle(angle: float, length: float) -> None:
    """An element off its middle would push nuclei aside instead of wearing them down."""
    element = turned_element(angle, length)
    half = element.shape[0] // 2
    assert element[half, half]
    assert np.array_equal(element, element[::-1, ::-1])
    assert np.linalg.norm(np.argwhere(element) - half, axis=1).max() <= length / 2 + 1


@given(labels=SMALL_IMAGES, angle=st.floats(0, np.pi), length=st.sampled_from([3, 4, 5, 7]))
@settings(max_examples=60)
def test_one_erosion_is_the_minimum_over_the_element(labels: np.ndarray, angle: float, length: float) -> None:
    element = turned_element(angle, length)
    assert np.array_equal(erode_once(labels, element), by_definition(labels, element))


def test_touching_nuclei_part() -> None:
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 3, axis=0)
    eroded = erode_once(labels, turned_element(0, 3))
    assert eroded.tolist() == [[0, 1, 0, 0, 2, 0]] * 3  # the image's edge wears nuclei down as any background does


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95, 1.0])
def test_a_core_is_the_last_step_that_keeps_its_share(keep: float) -> None:
    """Step by step on one nucleus, with the same angles: the first step that leaves too little is not taken."""
    labels = np.zeros((19, 21), np.uint32)
    labels[disk((9, 10), 7.5)] = 5
    least = max(1, keep * (labels > 0).sum())
    rng = np.random.default_rng(42)
    expected = labels
    while (smaller := by_definition(expected, turned_element(rng.uniform(0, np.pi), 3))).astype(bool).sum() >= least:
        expected = smaller
    cores = erode_nuclei(labels, params=ErosionParams(keep=keep, **ALL), seed=42)
    assert np.array_equal(cores, expected)
    assert (cores > 0).sum() >= least


@pytest.mark.parametrize("seed", range(5))
def test_every_nucleus_keeps_its_share_and_gains_nothing(seed: int) -> None:
    labels = discs()
    cores = erode_nuclei(labels, params=ErosionParams(keep=0.6), seed=seed)
    before, after = areas(labels), areas(cores)
    assert after.keys() == before.keys()
    assert all(0.6 * before[name] <= after[name] < before[name] for name in before)
    assert np.array_equal(cores[cores > 0], labels[cores > 0])
    assert cores.dtype == labels.dtype


def test_a_nucleus_erodes_alike_alone_and_in_company() -> None:
    """No nucleus' core depends on what else the image holds, or tiles would differ from the whole."""
    labels = discs()
    together = erode_nuclei(labels, seed=1)
    for name in areas(labels):
        alone = erode_nuclei(np.where(labels == name, labels, 0), seed=1)
        assert np.array_equal(alone, np.where(together == name, together, 0))


def test_the_seed_fixes_the_cores() -> None:
    labels = discs()
    assert np.array_equal(erode_nuclei(labels, seed=3), erode_nuclei(labels, seed=3))
    assert not np.array_equal(erode_nuclei(labels, seed=3), erode_nuclei(labels, seed=4))


def test_the_nuclei_themselves_stay_as_they_were() -> None:
    labels = discs()
    before = labels.copy()
    erode_nuclei(labels)
    assert np.array_equal(labels, before)


def test_small_and_irregular_cores_are_dropped() -> None:
    labels = np.zeros((40, 40), np.uint32)
    labels[2:5, 2:4] = 1  # 6 pixels
    labels[10:30, 10:13] = labels[27:30, 10:30] = 2  # an L: 111 pixels of a hull about twice as large
    labels[disk((10, 28), 6)] = 3
    kept = {"keep": 1.0}
    assert areas(erode_nuclei(labels, params=ErosionParams(**kept))).keys() == {3}
    assert areas(erode_nuclei(labels, params=ErosionParams(min_area=0, **kept))).keys() == {1, 3}
    assert areas(erode_nuclei(labels, params=ErosionParams(min_solidity=0.0, **kept))).keys() == {2, 3}
    assert np.array_equal(erode_nuclei(labels, params=ErosionParams(**ALL, **kept)), labels)


@pytest.mark.parametrize("keep", [0.0, 0.6, 1.0])
def test_a_nucleus_that_fills_the_image_ends(keep: float) -> None:
    cores = erode_nuclei(np.ones((20, 23), np.uint32), params=ErosionParams(keep=keep, **ALL))
    assert max(keep * cores.size, 1) <= cores.sum() <= cores.size


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (2, 2)])
def test_thin_nuclei_keep_a_core(shape: tuple[int, int]) -> None:
    """A pixel, a line and a square of four have no inside, and no hull that a library would not warn of."""
    labels = np.zeros((14, 14), np.uint32)
    labels[1 : 1 + shape[0], 1 : 1 + shape[1]] = 9
    cores = erode_nuclei(labels, params=ErosionParams(keep=0.6, min_area=0))
    assert cores.max() == 9
    assert (cores > 0).sum() >= 0.6 * labels.astype(bool).sum()


def test_no_nuclei_have_no_cores() -> None:
    assert not erode_nuclei(np.zeros((5, 6), np.uint32)).any()


def test_ids_beyond_16_bits_are_nuclei_of_their_own() -> None:
    """Cut to 16 bits, 65,541 would be nucleus 5, and 65,536 background."""
    labels = np.zeros((20, 60), np.uint32)
    for name, column in ((5, 9), (65_541, 29), (65_536, 49)):
        labels[disk((9, column), 7)] = name
    assert areas(erode_nuclei(labels)).keys() == {5, 65_536, 65_541}


def test_one_erosion_takes_ids_near_the_top_of_uint32() -> None:
    labels = np.where(discs() > 0, discs() + np.uint32(2**32 - 400), 0).astype(np.uint32)
    element = turned_element(0.5, 5)
    assert np.array_equal(erode_once(labels, element) > 0, erode_once(discs(), element) > 0)
    assert set(np.unique(erode_once(labels, element))) == set(np.unique(labels))


def test_memory_does_not_depend_on_how_large_ids_are() -> None:
    labels = np.where(discs() == 300, np.uint32(4_000_000_000), discs())
    tracemalloc.start()
    cores = erode_nuclei(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert areas(cores).keys() == areas(labels).keys()
    assert peak < 2_000_000
