"""Eq. 1-4 and the nearest spots, each against loops that follow the definition."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from math import dist, exp

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from sslcst.core.geometry import (
    Regions,
    nearest_centroid,
    nearest_spots,
    normalize_distance,
    normalize_position,
)
from sslcst.core.spots import Grid, Spots

POINTS = arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-20, 20).map(float))


@given(labels=arrays(np.uint32, (7, 9), elements=st.sampled_from([0, 0, 1, 5, 70_000, 4_000_000_000])))
@settings(max_examples=30)
def test_a_centroid_is_the_mean_of_the_nucleus_pixels(labels: np.ndarray) -> None:
    """Eq. 1, in coordinates where pixel i reaches from i to i + 1."""
    labels[0, 0] = 5
    regions = Regions.of(labels)
    ids, centers, areas = regions.ids, regions.centers, regions.areas
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
    assert Regions.of(labels).centers.tolist() == [[1.5, 3.5]]


def test_more_nuclei_than_16_bits_count() -> None:
    labels = np.arange(70_000, dtype=np.uint32).reshape(200, 350)
    regions = Regions.of(labels)
    assert np.array_equal(regions.ids, np.arange(1, 70_000))
    assert np.array_equal(regions.centers, np.argwhere(labels) + 0.5)
    assert (regions.areas == 1).all()


LABELS = arrays(np.uint32, (9, 11), elements=st.sampled_from([0, 0, 1, 1, 5, 70_000, 4_000_000_000]))


def same(one: Regions, other: Regions) -> bool:
    return all(np.array_equal(getattr(one, each.name), getattr(other, each.name)) for each in fields(Regions))


@given(labels=LABELS, corner=st.tuples(st.integers(0, 50_000), st.integers(0, 50_000)))
@settings(max_examples=60)
def test_regions_are_those_of_a_loop_over_pixels(labels: np.ndarray, corner: tuple[int, int]) -> None:
    """Where the label image begins on the whole counts too."""
    regions = Regions.of(labels, corner)
    assert regions.ids.tolist() == sorted(set(labels.ravel().tolist()) - {0})
    assert len(regions) == len(regions.ids)
    for i, name in enumerate(regions.ids):
        y, x = (axis + start for axis, start in zip(np.nonzero(labels == name), corner, strict=True))
        assert regions.areas[i] == len(y)
        assert regions.sums[i].tolist() == [y.sum(), x.sum()]
        assert regions.low[i].tolist() == [y.min(), x.min()]
        assert regions.high[i].tolist() == [y.max() + 1, x.max() + 1]
        assert regions.centers[i] == pytest.approx([y.mean() + 0.5, x.mean() + 0.5], rel=1e-12)


@given(labels=LABELS, rows=st.sets(st.integers(1, 8)), columns=st.sets(st.integers(1, 10)))
@settings(max_examples=60)
def test_regions_of_parts_join_to_those_of_the_whole(labels: np.ndarray, rows: set, columns: set) -> None:
    """However it is cut, and in whatever order the parts come."""
    rows, columns = ([0, *sorted(cuts), size] for cuts, size in zip((rows, columns), labels.shape, strict=True))
    parts = [
        Regions.of(labels[top:bottom, left:right], (top, left))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    assert same(Regions.join(parts), Regions.of(labels))
    assert same(Regions.join(parts[::-1]), Regions.of(labels))


def test_some_regions_are_taken() -> None:
    regions = Regions.of(np.array([[1, 2, 2, 0, 3]], np.uint32))
    taken = regions.take(np.array([True, False, True]))
    assert taken.ids.tolist() == [1, 3]
    assert taken.centers.tolist() == [[0.5, 0.5], [0.5, 4.5]]


def test_the_regions_of_background_join() -> None:
    empty = Regions.of(np.zeros((3, 4), np.uint32))
    assert len(Regions.join([empty, empty])) == 0


@given(spots=POINTS, centers=POINTS)
@settings(max_examples=50)
def test_the_distance_is_the_least_over_all_centroids(spots: np.ndarray, centers: np.ndarray) -> None:
    """Eq. 2-3."""
    index, distance = nearest_centroid(spots, centers)
    for spot, i, d in zip(spots, index, distance, strict=True):
        assert d == pytest.approx(min(dist(spot, center) for center in centers), abs=1e-12)
        assert dist(spot, centers[i]) == pytest.approx(d, abs=1e-12)


WHOLE = st.integers(-6, 6).map(float)


@given(
    spots=arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=WHOLE),
    centers=st.lists(st.tuples(WHOLE, WHOLE), min_size=1, max_size=60, unique=True).map(np.array),
    far=st.sampled_from([0.0, 40.0, 4000.0]),
)
@settings(max_examples=200)
def test_of_equally_near_centroids_the_first_is_taken(spots: np.ndarray, centers: np.ndarray, far: float) -> None:
    """So that the nucleus of a spot depends on no search tree; on whole places ties are exact (more than four do
    not occur). Nor does it matter how far the centroids lie, of which only those around the spots are looked at.
    """
    centers[len(centers) // 2 :] += far
    squares = ((spots[:, None] - centers) ** 2).sum(axis=-1)
    assume((squares == squares.min(axis=1, keepdims=True)).sum(axis=1).max() <= 4)
    index, distance = nearest_centroid(spots, centers)
    assert index.tolist() == squares.argmin(axis=1).tolist()
    assert distance == pytest.approx(np.sqrt(squares.min(axis=1)), rel=1e-12)


def test_no_spots_have_no_nearest_centroid() -> None:
    """A tile may hold none."""
    index, distance = nearest_centroid(np.zeros((0, 2)), np.ones((3, 2)))
    assert len(index) == len(distance) == 0


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


def spots_at(index: list | np.ndarray, shape: tuple[int, int]) -> Spots:
    index = np.array(index, np.int32)
    return Spots(Grid(shape, (1.0, 1.0), 1.0), index, sparse.csr_matrix((len(index), 1)))


@st.composite
def occupied(draw: st.DrawFn) -> Spots:
    shape = draw(st.tuples(st.integers(1, 11), st.integers(1, 11)))
    bins = draw(arrays(bool, shape))
    bins[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return spots_at(np.argwhere(bins), shape)


@given(spots=occupied(), n_neighbors=st.integers(1, 9), window=st.integers(1, 5))
@settings(max_examples=80)
def test_nearest_spots_are_those_of_a_sort(spots: Spots, n_neighbors: int, window: int) -> None:
    """All spots in the window by (distance, dy, dx), cut after the last that is wanted; -1 where there are no more."""
    index = spots.index
    found = nearest_spots(spots, n_neighbors=n_neighbors, window=window)
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


@given(spots=occupied(), shift=st.tuples(st.integers(0, 30), st.integers(0, 30)))
@settings(max_examples=20)
def test_neighbours_do_not_depend_on_where_the_tissue_lies(spots: Spots, shift: tuple[int, int]) -> None:
    shifted = spots_at(spots.index + np.int32(shift), tuple(np.add(spots.grid.shape, 40)))
    here, there = (nearest_spots(each, n_neighbors=6, window=4) for each in (spots, shifted))
    assert np.array_equal(here, there)


@given(spots=occupied(), data=st.data())
@settings(max_examples=20)
def test_neighbours_of_some_spots_are_those_among_all(spots: Spots, data: st.DataObject) -> None:
    wanted = np.array(data.draw(st.lists(st.integers(0, len(spots) - 1), max_size=5)), int)
    every = nearest_spots(spots, n_neighbors=5, window=3)
    assert np.array_equal(nearest_spots(spots, n_neighbors=5, window=3, wanted=wanted), every[wanted])


def test_equally_near_spots_come_by_row_then_column() -> None:
    spots = spots_at([[0, 1], [1, 0], [1, 1], [1, 2], [2, 1]], (3, 3))
    assert nearest_spots(spots, n_neighbors=4, window=1)[2].tolist() == [2, 0, 1, 3, 4]


def test_a_lone_spot_is_its_own_and_only_neighbour() -> None:
    assert nearest_spots(spots_at([[4, 4]], (9, 9)), n_neighbors=3, window=2).tolist() == [[0, -1, -1, -1]]
