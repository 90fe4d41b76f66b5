"""What the density of transcripts tells: on tissues whose cells and densities are known, whole and in parts."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sslcst.core.density import (
    Levels,
    Rings,
    _densest,
    cell_densities,
    cell_share,
    density_shares,
    halo,
    levels_of,
    local_density,
    margin,
    measure_levels,
    tally_rings,
    tally_spread,
    with_spread,
)
from sslcst.core.geometry import nearest_nuclei

RADIUS, REACH = 12.0, 15.0
CELL, BACKGROUND = 3.0, 0.3


def discs(*, spacing: int = 40, radius: float = 12, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Round cells of a radius around nuclei of half the expected one, some places apart: labels of both."""
    centers = np.stack(np.meshgrid(*[np.arange(spacing / 2, size, spacing)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    y, x = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(y[..., None] - centers[:, 0], x[..., None] - centers[:, 1])
    nearest = (distance.argmin(axis=-1) + 1).astype(np.uint32)
    cells, nuclei = (np.where(distance.min(axis=-1) <= r, nearest, 0) for r in (radius, RADIUS / 2))
    return cells, nuclei


def strewn(cells: np.ndarray, *, cell: float = CELL, background: float = BACKGROUND, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(np.where(cells > 0, cell, background))


def shares_of(counts: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    around = local_density(counts, nuclei, radius=RADIUS, reach=REACH)
    return cell_share(around, measure_levels(around, radius=RADIUS, reach=REACH), radius=RADIUS)


# --- Nearest nuclei --------------------------------------------------------------------------------------------------


@given(
    nuclei=arrays(np.uint32, (9, 11), elements=st.sampled_from([0, 0, 0, 0, 1, 2, 7, 70000])),
    reach=st.floats(1, 8),
)
@settings(max_examples=60)
def test_nearest_nuclei_are_those_of_a_search_through_all_bins(nuclei: np.ndarray, reach: float) -> None:
    labels, distance = nearest_nuclei(nuclei, reach)
    ids = np.unique(nuclei[nuclei > 0])
    places = {number: np.argwhere(nuclei == number) for number in ids}
    for y, x in np.ndindex(nuclei.shape):
        if nuclei[y, x]:
            expected = [(0.0, nuclei[y, x])]
        else:
            all_ids = sorted((np.hypot(*(places[number] - (y, x)).T).min(), number) for number in ids)
            expected = [(d, number) for d, number in all_ids if d <= reach][:3]
        expected += [(np.inf, 0)] * (3 - len(expected))
        assert list(zip(distance[:, y, x], labels[:, y, x], strict=True)) == expected


# --- Known tissues ---------------------------------------------------------------------------------------------------


def test_levels_are_those_the_tissue_was_made_with() -> None:
    """Density in cells and outside to a few percent, and a share that is 1 within the cells and 0 beyond them."""
    cells, nuclei = discs()
    levels = measure_levels(
        local_density(strewn(cells), nuclei, radius=RADIUS, reach=REACH), radius=RADIUS, reach=REACH
    )
    assert levels.nucleus == pytest.approx(CELL, rel=0.05)
    assert levels.cell == pytest.approx(CELL, rel=0.05)
    assert levels.background == pytest.approx(BACKGROUND, rel=0.1)
    share = np.array(levels.share)
    assert (share[:5] > 0.9).all()  # the cells end 6 bins from the nuclei
    assert (share[8:] < 0.05).all()


@pytest.mark.parametrize("background", [0.0, 0.3, 1.0])
def test_cells_are_found_where_transcripts_lie_densely(background: float) -> None:
    """Nine of ten bins between nucleus and twice the cell's radius are told rightly, whatever the background."""
    cells, nuclei = discs()
    inside = shares_of(strewn(cells, background=background), nuclei) >= 0.5
    near = local_density(cells, nuclei, radius=RADIUS, reach=REACH).nuclei[0] > 0
    assert (inside == (cells > 0))[near & (nuclei == 0)].mean() > 0.9


@pytest.mark.parametrize("in_nucleus", [0.0, 0.3, 1.5])
def test_cells_whose_nuclei_are_poor_in_transcripts_are_found_whole(in_nucleus: float) -> None:
    """Density that rises from the nucleus outwards, as in real tissue, caps no farther ring: cells keep their rim."""
    cells, nuclei = discs()
    around = local_density(np.zeros(cells.shape, np.int64), nuclei, radius=RADIUS, reach=REACH)
    rise = np.clip(around.distance[0] / 4, 0, 1)
    density = np.where(cells > 0, in_nucleus + (CELL - in_nucleus) * rise, BACKGROUND)
    around = local_density(np.random.default_rng(0).poisson(density), nuclei, radius=RADIUS, reach=REACH)
    levels = measure_levels(around, radius=RADIUS, reach=REACH)
    assert levels.cell == pytest.approx(CELL, rel=0.15)
    inside = cell_share(around, levels, radius=RADIUS) >= 0.5
    near = (around.nuclei[0] > 0) & (nuclei == 0)
    assert (inside == (cells > 0))[near].mean() > 0.88


def test_share_falls_with_distance_and_few_far_bins_raise_no_nearer_ring() -> None:
    rings = Rings(
        np.array([100, 100, 100, 100, 100, 100, 100, 1, 0, 100]),
        np.array([50, 150, 200, 290, 300, 310, 200, 50, 0, 10]),
        np.tile([0, 90, 10], (10, 1)),
    )
    levels = levels_of(rings, radius=9.0)
    share = np.array(levels.share)
    assert (np.diff(share) <= 0).all()
    assert levels.cell == pytest.approx(3.0)
    assert share[6] < 0.8
    assert share[9] < 0.1


def test_each_cell_is_measured_by_its_own_density() -> None:
    """A cell four times as dense as another is no larger for it: the threshold of each lies between its own levels."""
    cells, nuclei = discs()
    dense = cells % 2 == 1
    counts = strewn(cells, cell=2.0) + np.where(dense, np.random.default_rng(1).poisson(6.0, cells.shape), 0) * (
        cells > 0
    )
    found = shares_of(counts, nuclei) >= 0.5
    area = np.bincount(cells[found & (cells > 0)], minlength=26)[1:]
    assert area[::2].mean() == pytest.approx(area[1::2].mean(), rel=0.1)


def test_density_of_a_cell_with_few_counts_is_that_of_all() -> None:
    """A nucleus without a transcript is not taken for a cell without density."""
    _, nuclei = discs(size=80)
    counts = np.where((nuclei == 1) | (nuclei == 2), 0, 1)
    around = local_density(counts, nuclei, radius=RADIUS, reach=REACH)
    levels = Levels(1.0, 1.0, 1.0, 0.1, (1.0,) * 16, 2, 12)
    density = cell_densities(around, levels)
    of_first = density[around.nuclei[0] == 1]
    assert 0.3 < of_first.min() == of_first.max() < 0.7
    assert density[around.nuclei[0] == 4] == pytest.approx(1.0)


def test_without_contrast_distance_alone_decides() -> None:
    """Where transcripts lie evenly, densities say nothing and no bin far from a nucleus is in a cell by mistake."""
    _, nuclei = discs()
    share = shares_of(strewn(np.zeros_like(nuclei), background=1.0), nuclei)
    assert ((share >= 0) & (share <= 1)).all()
    assert (share[nuclei > 0] == 1).all()


def test_no_transcripts_at_all_are_no_error() -> None:
    _, nuclei = discs(size=80)
    share = shares_of(np.zeros(nuclei.shape, np.int64), nuclei)
    assert np.isfinite(share).all()


def test_where_all_is_cell_the_farthest_bins_tell_the_background() -> None:
    """In dense tissue next to nothing is far from a nucleus: `far` comes nearer, and stays outside the nuclei."""
    cells, nuclei = discs(spacing=16, radius=20)
    around = local_density(strewn(cells), nuclei, radius=RADIUS, reach=REACH)
    levels = measure_levels(around, radius=RADIUS, reach=REACH)
    assert 1 <= levels.far < RADIUS
    assert levels.background <= levels.cell / 2


# --- Parts and the whole ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(20, 100), st.integers(20, 100))
@settings(max_examples=8)
def test_parts_add_up_to_the_whole_and_tell_the_same(seed: int, row: int, column: int) -> None:
    """Sums of parts, each seen with its halo, give the levels of the whole bit by bit, and so do the shares."""
    cells, nuclei = discs(size=120)
    nuclei = np.where(np.random.default_rng(seed).random(26)[nuclei] < 0.7, nuclei, 0)
    counts = strewn(cells, seed=seed)
    whole = local_density(counts, nuclei, radius=RADIUS, reach=REACH)
    around_ = halo(13, radius=RADIUS, max_distance=REACH) + margin(radius=RADIUS, reach=REACH)
    parts = []
    for rows in (slice(0, row), slice(row, 120)):
        for columns in (slice(0, column), slice(column, 120)):
            wide = tuple(slice(max(0, s.start - around_), min(120, s.stop + around_)) for s in (rows, columns))
            own = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip((rows, columns), wide, strict=True))
            parts.append((local_density(counts[wide], nuclei[wide], radius=RADIUS, reach=REACH), own, (rows, columns)))
    rings = reduce(add, (tally_rings(around, reach=REACH, owned=own) for around, own, _ in parts))
    levels = levels_of(rings, radius=RADIUS)
    spread = sum(tally_spread(around, levels, radius=RADIUS, owned=own) for around, own, _ in parts)
    levels = with_spread(levels, spread)
    assert levels == measure_levels(whole, radius=RADIUS, reach=REACH)
    share = cell_share(whole, levels, radius=RADIUS)
    for around, own, place in parts:
        assert np.array_equal(cell_share(around, levels, radius=RADIUS)[own], share[place])


def test_density_shares_are_right_on_average() -> None:
    """Deep in cells they are 1 and outside them 0 in the mean, with the variance that counting lets expect."""
    cells, nuclei = discs(radius=14)
    around = local_density(strewn(cells), nuclei, radius=RADIUS, reach=REACH)
    levels = Levels(CELL, CELL, CELL, BACKGROUND, (1.0,) * 16, 2, 12)
    told, variance = density_shares(around, levels, radius=RADIUS)
    near = np.rint(around.distance[0])
    assert told[near == 2].mean() == pytest.approx(1, abs=0.03)
    assert told[near == 2].var() == pytest.approx(variance[near == 2].mean(), rel=0.3)
    assert told[near == 13].mean() == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("n_rings", [0, 1, 2, 3, 5])
def test_the_densest_ring_of_few(n_rings: int) -> None:
    """With a radius of a bin or two there are fewer rings than are looked at together."""
    n_bins = np.arange(9, 10 + n_rings)  # of the nuclei too
    assert _densest(n_bins, 2 * n_bins)[1] == (2 if n_rings else 0)
