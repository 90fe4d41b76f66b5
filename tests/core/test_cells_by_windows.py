"""Cells of a window, seen with the halo around it, are those of the whole: tiles change nothing of the result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.flow import confidence_field, mean_field
from sslcst.methods.ssl_cst.params import SslCstParams
from sslcst.methods.ssl_cst.tracking import find_cells, halo

SIDE, REACH, SPACING = 150, 4.0, 1.0
SEEDS = st.integers(0, 2**32 - 1)

Ranges = tuple[tuple[int, int], tuple[int, int]]


def tissue(seed: int) -> tuple[Spots, np.ndarray, np.ndarray, np.ndarray]:
    """Spots, directions that mostly lead to the nearest of many attractors, probabilities, and nuclei on some of these.

    Where attractors have no nucleus, or predictions swirl, there are orphans.
    """
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, SIDE, (SIDE * SIDE // 60, 2))
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    squares = (y[..., None] - centers[:, 0]) ** 2 + (x[..., None] - centers[:, 1]) ** 2
    nearest, distance = squares.argmin(axis=-1), np.sqrt(squares.min(axis=-1))
    has_nucleus = rng.random(len(centers)) < 0.5
    nuclei = np.where((distance < 1.6) & has_nucleus[nearest], nearest + 1, 0).astype(np.uint32)
    index = np.argwhere(rng.random((SIDE, SIDE)) < rng.choice([0.3, 0.7, 1.0])).astype(np.int32)
    place = tuple(index.T)
    angle = np.arctan2(*(centers[nearest[place]] - index - 0.5).T) + rng.normal(0, rng.choice([0.0, 0.6]), len(index))
    certain = np.eye(16)[np.floor(angle / (2 * np.pi) * 16).astype(int) % 16]
    share = rng.uniform(0.3, 1, (len(index), 1))
    direction = (share * certain + (1 - share) * rng.dirichlet(np.full(16, 0.3), len(index))).astype(np.float32)
    inside = np.clip(1.3 - distance[place] / 5 + rng.normal(0, 0.2, len(index)), 0, 1).astype(np.float32)
    grid = Grid((SIDE, SIDE), (1.0, 1.0), 1.0)
    return Spots(grid, index, sparse.csr_matrix((len(index), 1))), direction, inside, nuclei


def around(window: Ranges, margin: int) -> Ranges:
    rows, columns = ((max(start - margin, 0), min(stop + margin, SIDE)) for start, stop in window)
    return rows, columns


def cells_in(data: tuple, ranges: Ranges, **params) -> np.ndarray:
    """Cells of what is seen through a window."""
    spots, direction, inside, nuclei = data
    mine = spots.within(ranges)
    return find_cells(
        Spots(spots.grid.view(ranges), spots.index[mine], spots.counts[mine]),
        direction=direction[mine],
        inside=inside[mine],
        nuclei=nuclei[tuple(slice(*part) for part in ranges)],
        reach=REACH,
        spacing=SPACING,
        first_orphan=10_000,
        params=SslCstParams.of({"flow": params}).flow,
    )


def seen(cells: np.ndarray, ranges: Ranges, window: Ranges) -> np.ndarray:
    return cells[tuple(slice(a - o, b - o) for (a, b), (o, _) in zip(window, ranges, strict=True))]


WHOLE = ((0, SIDE), (0, SIDE))


@pytest.mark.parametrize("orphans", [False, True])
@pytest.mark.parametrize("smoothing", ["confidence", "mean"])
@given(seed=SEEDS, data=st.data())
@settings(max_examples=25)
def test_cells_of_a_window_are_those_of_the_whole(orphans: bool, smoothing: str, seed: int, data) -> None:
    """Bit by bit, wherever the window lies, at the tissue's edge too. Orphans have their ids of the whole."""
    tissue_ = tissue(seed)
    params = {"orphans": orphans, "smoothing": smoothing, "min_orphan_area": 8}
    whole = cells_in(tissue_, WHOLE, **params)
    nuclei = Regions.of(tissue_[3])
    margin = halo(int((nuclei.high - nuclei.low).max()), reach=REACH, spacing=SPACING, orphans=orphans)
    for _ in range(3):
        corner = [data.draw(st.integers(0, SIDE - 5)) for _ in range(2)]
        window = tuple((low, min(low + 30, SIDE)) for low in corner)
        ranges = around(window, margin)
        part = cells_in(tissue_, ranges, **params)
        assert np.array_equal(seen(part, ranges, window), seen(whole, WHOLE, window))


def test_such_tissues_have_cells_orphans_and_holes_and_are_larger_than_a_halo() -> None:
    """Otherwise the test above would say nothing."""
    data = tissue(0)
    cells, with_orphans = (cells_in(data, WHOLE, orphans=o, min_orphan_area=8) for o in (False, True))
    assert len(np.unique(cells)) > 100
    assert len(np.unique(with_orphans[with_orphans >= 10_000])) > 20
    assert 2 * halo(4, reach=REACH, spacing=SPACING, orphans=False) + 30 < SIDE


@pytest.mark.parametrize("orphans", [False, True])
def test_without_the_halo_cells_would_be_cut(orphans: bool) -> None:
    window = ((60, 90), (60, 90))
    data = tissue(1)
    whole, part = (cells_in(data, ranges, orphans=orphans, min_orphan_area=8) for ranges in (WHOLE, window))
    assert not np.array_equal(part, seen(whole, WHOLE, window))


@pytest.mark.parametrize("smooth", [mean_field, lambda *x: confidence_field(*x, sigma=1.3)], ids=["mean", "confidence"])
@given(seed=SEEDS, top=st.integers(0, 40), left=st.integers(0, 40))
@settings(max_examples=15)
def test_smoothing_rounds_alike_wherever_a_window_begins(smooth, seed: int, top: int, left: int) -> None:
    """Sums that run along a row, and products of matrices, would round by where they begin."""
    spots, direction, inside, _ = tissue(seed)
    ranges = ((top, top + 61), (left, left + 57))
    mine = spots.within(ranges)
    part = smooth(Spots(spots.grid.view(ranges), spots.index[mine], None), direction[mine], inside[mine])
    whole = smooth(spots, direction, inside)
    inner = tuple((start + 7 * (start > 0), stop - 7) for start, stop in ranges)
    for one, other in ((part.vector, whole.vector), (part.inside, whole.inside)):
        assert np.array_equal(seen(one, ranges, inner), seen(other, WHOLE, inner))
