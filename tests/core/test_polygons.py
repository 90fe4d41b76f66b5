"""Outlines of labels: rasterised again, each ring gives back its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from shapely import Polygon, contains_xy

from sslcst.core.polygons import polygons
from sslcst.errors import DataError

LABELS = arrays(np.uint32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))


def rasterised(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose middle lies in the ring."""
    rows, columns = np.indices(shape) + 0.5
    return contains_xy(Polygon(ring), rows, columns)


def largest_piece_filled(mask: np.ndarray) -> np.ndarray:
    """By scipy: the largest piece (4-neighbours; of equal ones the first) with its holes filled."""
    pieces, n = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, pieces, np.arange(1, n + 1))
    return ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(sizes)))


def test_known_by_hand() -> None:
    """Clockwise from the upper left, corners alone; one label lies at the border."""
    labels = np.zeros((5, 6), np.uint8)
    labels[1, 1:3] = labels[2, 1] = 3
    labels[3:, 3:] = 200
    rings = polygons(labels)
    assert list(rings) == [3, 200]
    assert rings[3].tolist() == [[1, 1], [1, 3], [2, 3], [2, 2], [3, 2], [3, 1]]
    assert rings[200].tolist() == [[3, 3], [3, 6], [5, 6], [5, 3]]


def test_pieces_that_touch_at_a_corner_are_two() -> None:
    """Of two equal pieces the first; a loop that closes at a corner encloses what is in it."""
    assert polygons(np.eye(2, dtype=int))[1].tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]
    loop = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    assert polygons(loop)[1].tolist() == [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 0]]


@given(LABELS)
def test_rings_give_the_labels_back(labels: np.ndarray) -> None:
    """Each ring is simple and holds the largest piece of its label, filled, and nothing else; no corner is straight."""
    rings = polygons(labels)
    assert list(rings) == np.unique(labels[labels > 0]).tolist()
    for label, ring in rings.items():
        expected = largest_piece_filled(labels == label)
        assert (rasterised(ring, labels.shape) == expected).all()
        assert Polygon(ring).is_valid
        assert Polygon(ring).area == expected.sum()
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps != 0).sum(axis=1) == 1).all()  # along the edges of pixels
        assert ((steps * np.roll(steps, 1, axis=0)).sum(axis=1) == 0).all()  # turning at each corner
        assert ring.tolist()[0] == np.argwhere(expected)[0].tolist()


@given(LABELS, st.randoms())
def test_asked_for_labels_come_in_their_order(labels: np.ndarray, random: object) -> None:
    everything = polygons(labels)
    ids = random.sample(list(everything), k=random.randint(0, len(everything)))
    some = polygons(labels, ids)
    assert list(some) == ids
    assert all((some[label] == everything[label]).all() for label in ids)


@pytest.mark.parametrize("absent", [0, 4, 9])
def test_label_that_does_not_occur(absent: int) -> None:
    labels = np.array([[3, 5]])
    with pytest.raises(DataError, match=f"1 of the labels to outline do not occur, among them {absent}"):
        polygons(labels, [3, absent])


def test_real_cells(shared: Path) -> None:
    """The vendor's cells of a CosMx field of view come back to the pixel; few of them have more than one piece."""
    labels = skimage.io.imread(shared / "data" / "cosmx_lung12_fov2" / "CellLabels_F002.tif")
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    rings = polygons(labels)
    assert list(rings) == ids.tolist()
    same = np.array([Polygon(ring).area for ring in rings.values()]) == areas
    assert same.mean() > 0.8
    for label in ids[same]:
        assert (rasterised(rings[label], labels.shape) == (labels == label)).all()
