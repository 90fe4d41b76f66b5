"""Eq. 1-4 and the nearest spots, each against loops that follow the definition."""

from __future__ import annotations

from math import dist, exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sslcst.core.geometry import centroids, nearest_centroid, nearest_spots, normalize_distance, normalize_position
from sslcst.errors import DataError

POINTS = arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-20, 20).map(float))


@given(labels=arrays(np.uint32, (7, 9), elements=st.sampled_from([0, 0, 1, 5, 70_000, 4_000_000_000])))
@settings(max_examples=30)
def test_a_centroid_is_the_mean_of_the_nucleus_pixels(labels: np.ndarray) -> None:
    """Eq. 1, in coordinates where pixel i reaches from i to i + 1."""
    labels[0, 0] = 5
    ids, centers, areas = centroids(labels)
    assert ids.tolist() == sorted(set(labels.ravel().tolist()) - {0})
    for name, center, area in zip(ids, centers, areas, strict=True):
        pixels = [(y, x) for y in range(7) for x in range(9) if labels[y, x] == name]
        assert area == len(pixels)
        mean_y = sum(y + 0.5 for y, _ in pixels) / len(pixels)
        mean_x = sum(x + 0.5 for _, x in pixels) / len(pixels)
        assert center == pytest.approx([mean_y, mean_x], abs=1e-12)


def test_a_lone_pixel_has_its_centroid_in_its_middle() -> None:
    labels = np.zeros((3, 5), np.uint32)
    labels[1, 3] = 2
    assert centroids(labels)[1].tolist() == [[1.5, 3.5]]


def test_more_nuclei_than_16_bits_count() -> None:
    labels = np.arange(70_000, dtype=np.uint32).reshape(200, 350)
    ids, centers, areas = centroids(labels)
    assert np.array_equal(ids, np.arange(1, 70_000))
    assert np.array_equal(centers, np.argwhere(labels) + 0.5)
    assert (areas == 1).all()


def test_no_nuclei_is_an_error() -> None:
    with pytest.raises(DataError, match="no nuclei"):
        centroids(np.zeros((3, 3), np.uint32))


@given(spots=POINTS, centers=POINTS)
@settings(max_examples=50)
def test_the_distance_is_the_least_over_all_centroids(spots: np.ndarray, centers: np.ndarray) -> None:
    """Eq. 2-3."""
    index, distance = nearest_centroid(spots, centers)
    for spot, i, d in zip(spots, index, distance, strict=True):
        assert d == pytest.approx(min(dist(spot, center) for center in centers), abs=1e-12)
        assert dist(spot, centers[i]) == pytest.approx(d, abs=1e-12)


def test_distance_falls_exponentially_from_one() -> None:
    normal = normalize_distance(np.array([0.0, 5.0, 10.0, 1e9]), 5.0)
    assert normal.tolist() == pytest.approx([1, exp(-1), exp(-2), 0])
    assert normal.dtype == np.float32


@given(radius=st.floats(0.5, 40), offsets=arrays(float, (6, 2), elements=st.floats(-1, 1)))
@settings(max_examples=20)
def test_position_is_scaled_by_the_range_of_the_expected_cell(radius: float, offsets: np.ndarray) -> None:
    """Eq. 4: (x - min) / (max - min), where min and max are the cell's borders, stretched from [0, 1] to [-1, 1]."""
    offsets *= radius
    for (y, x), (normal_y, normal_x) in zip(offsets, normalize_position(offsets, radius), strict=True):
        assert normal_y == pytest.approx(2 * (y - -radius) / (radius - -radius) - 1, abs=1e-12)
        assert normal_x == pytest.approx(2 * (x - -radius) / (radius - -radius) - 1, abs=1e-12)
        assert -1 <= normal_y <= 1
        assert -1 <= normal_x <= 1


@st.composite
def occupied(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    shape = draw(st.tuples(st.integers(1, 11), st.integers(1, 11)))
    bins = draw(arrays(bool, shape))
    bins[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return np.argwhere(bins).astype(np.int32), shape


@given(data=occupied(), n_neighbors=st.integers(1, 9), window=st.integers(1, 5))
@settings(max_examples=80)
def test_nearest_spots_are_those_of_a_sort(data: tuple, n_neighbors: int, window: int) -> None:
    """All spots in the window by (distance, dy, dx), cut after the last that is wanted; -1 where there are no more."""
    index, shape = data
    found = nearest_spots(index, shape, n_neighbors=n_neighbors, window=window)
    assert found.shape == (len(index), 1 + n_neighbors)
    for spot, row in enumerate(found.tolist()):
        y, x = index[spot].tolist()
        near = sorted(
            ((oy - y) ** 2 + (ox - x) ** 2, oy - y, ox - x, other)
            for other, (oy, ox) in enumerate(index.tolist())
            if abs(oy - y) <= window and abs(ox - x) <= window
        )
        expected = [other for *_, other in near][: 1 + n_neighbors]
        assert row == expected + [-1] * (1 + n_neighbors - len(expected))


@given(data=occupied(), shift=st.tuples(st.integers(0, 30), st.integers(0, 30)))
@settings(max_examples=20)
def test_neighbours_do_not_depend_on_where_the_tissue_lies(data: tuple, shift: tuple[int, int]) -> None:
    index, shape = data
    here = nearest_spots(index, shape, n_neighbors=6, window=4)
    there = nearest_spots(index + np.int32(shift), tuple(np.add(shape, 40)), n_neighbors=6, window=4)
    assert np.array_equal(here, there)


def test_equally_near_spots_come_by_row_then_column() -> None:
    index = np.array([[0, 1], [1, 0], [1, 1], [1, 2], [2, 1]], np.int32)
    assert nearest_spots(index, (3, 3), n_neighbors=4, window=1)[2].tolist() == [2, 0, 1, 3, 4]


def test_a_lone_spot_is_its_own_and_only_neighbour() -> None:
    assert nearest_spots(np.array([[4, 4]], np.int32), (9, 9), n_neighbors=3, window=2).tolist() == [[0, -1, -1, -1]]
