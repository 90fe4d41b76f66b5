"""Spots: no molecule lost or moved, bins where they belong, and the genes that vary."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sslcst.core.spots import GeneMoments, Grid, Spots, bin_transcripts, in_ranges, inside_raster
from sslcst.errors import DataError

STEPS = [1.0, 1.3, 2.0, 2.5, 3.2, 0.4]


@st.composite
def grids(draw: st.DrawFn, steps: list[float] = STEPS) -> Grid:
    raster = draw(st.tuples(st.integers(1, 25), st.integers(1, 25)))
    return Grid(raster, (draw(st.sampled_from(steps)), draw(st.sampled_from(steps))), 1.0)


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[Grid, np.ndarray, np.ndarray, np.ndarray]:
    """A grid; positions on and off its raster, genes of 4 and molecules of transcripts."""
    grid = draw(grids())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 60))
    yx = rng.uniform(-3, np.add(grid.raster_shape, 3), (n, 2))
    yx[0] = rng.uniform(0, grid.raster_shape)
    return grid, yx, rng.integers(0, 4, n), rng.integers(1, 100_000, n)


@given(transcripts())
@settings(max_examples=60)
def test_counts_are_those_of_a_loop_over_transcripts(data: tuple) -> None:
    grid, yx, gene, count = data
    expected: Counter = Counter()
    for (y, x), g, c in zip(yx, gene, count, strict=True):
        if 0 <= y < grid.raster_shape[0] and 0 <= x < grid.raster_shape[1]:
            expected[int(y // grid.step[0]), int(x // grid.step[1]), int(g)] += int(c)
    spots = bin_transcripts(yx, gene, count, n_genes=4, grid=grid)
    entries = spots.counts.tocoo()
    found = {
        (*spots.index[spot].tolist(), int(g)): int(c)
        for spot, g, c in zip(entries.row, entries.col, entries.data, strict=True)
    }
    assert found == expected
    assert spots.counts.sum() == sum(expected.values())


@given(transcripts())
@settings(max_examples=30)
def test_spots_are_the_occupied_bins_in_row_major_order(data: tuple) -> None:
    grid, yx, gene, _ = data
    spots = bin_transcripts(yx, gene, n_genes=4, grid=grid)
    places = [tuple(place) for place in spots.index.tolist()]
    assert places == sorted(set(places))
    assert (spots.index < grid.shape).all()
    assert (spots.counts.sum(axis=1) > 0).all()
    assert spots.counts.sum() == inside_raster(yx, grid.raster_shape).sum()
    assert len(spots) == spots.counts.shape[0]


@pytest.mark.parametrize("n", [256, 70_000])
def test_a_gene_may_be_counted_more_often_than_8_and_16_bits_hold(n: int) -> None:
    grid = Grid((4, 4), (2.0, 2.0), 2.0)
    spots = bin_transcripts(np.full((n, 2), 2.5), np.zeros(n, np.int32), n_genes=1, grid=grid)
    assert spots.index.tolist() == [[1, 1]]
    assert spots.counts.toarray().tolist() == [[n]]


def test_molecules_beyond_32_bits_are_summed() -> None:
    grid = Grid((2, 2), (1.0, 1.0), 1.0)
    count = np.full(3, 2**31 - 1, np.int32)
    spots = bin_transcripts(np.zeros((3, 2)), np.zeros(3, int), count, n_genes=1, grid=grid)
    assert spots.counts[0, 0] == 3 * (2**31 - 1)


def test_positions_off_the_raster_are_left_out() -> None:
    """The raster reaches from 0 to its size; its far edge is already off, and so is what is not a number."""
    below = np.nextafter(5, 0)
    yx = np.array([[0, 0], [below, below], [5, 1], [1, 5], [-1e-9, 1], [np.nan, 1], [np.inf, 1]])
    assert inside_raster(yx, (5, 5)).tolist() == [True, True, *[False] * 5]
    spots = bin_transcripts(yx, np.arange(7), n_genes=7, grid=Grid((5, 5), (1.0, 1.0), 1.0))
    assert spots.index.tolist() == [[0, 0], [4, 4]]
    assert spots.counts.sum() == 2


@pytest.mark.parametrize("kind", [np.int32, float])
def test_positions_lie_from_the_start_up_to_the_stop(kind: type) -> None:
    yx = np.array(list(product(range(-1, 6), repeat=2)), kind)
    expected = [2 <= y < 5 and 0 <= x < 3 for y, x in yx]
    assert in_ranges(yx, ((2, 5), (0, 3))).tolist() == expected


def test_no_transcript_on_the_raster_is_an_error() -> None:
    with pytest.raises(DataError, match="None of the 2 transcripts lies on the image"):
        bin_transcripts(np.full((2, 2), -1.0), np.zeros(2, int), n_genes=1, grid=Grid((3, 3), (1.0, 1.0), 1.0))


@pytest.mark.parametrize(("size", "step"), [(7, 0.7), (51, 5.1)])
def test_every_position_on_the_raster_has_a_bin_on_the_grid(size: int, step: float) -> None:
    """Divided by the step, the last position below the far edge may round up to it."""
    grid = Grid((size, size), (step, step), step)
    edge = np.full((1, 2), np.nextafter(size, 0))
    assert inside_raster(edge, grid.raster_shape).all()
    assert (grid.bins(edge) < grid.shape).all()


@given(grid=grids())
@settings(max_examples=40)
def test_a_bin_takes_the_pixel_under_its_middle_and_a_pixel_the_bin_over_its_own(grid: Grid) -> None:
    rng = np.random.default_rng(0)
    raster, values = rng.random(grid.raster_shape), rng.random(grid.shape)
    (height, width), (dy, dx) = grid.raster_shape, grid.step
    assert grid.shape == (np.ceil(height / dy), np.ceil(width / dx))
    sampled, painted = grid.from_raster(raster), grid.to_raster(values)
    for row, column in product(*map(range, grid.shape)):
        # The middle of a last, cut bin may lie beyond the raster.
        y, x = min(int((row + 0.5) * dy), height - 1), min(int((column + 0.5) * dx), width - 1)
        assert sampled[row, column] == raster[y, x]
    for y, x in product(range(height), range(width)):
        assert painted[y, x] == values[int((y + 0.5) / dy), int((x + 0.5) / dx)]


@given(grid=grids([1.0, 1.3, 2.0, 2.5, 3.2]))
@settings(max_examples=30)
def test_bins_come_back_from_the_raster(grid: Grid) -> None:
    """A bin of a pixel or more that lies on the raster as a whole keeps its value on the way there and back."""
    values = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    whole = tuple(slice(int(size // step)) for size, step in zip(grid.raster_shape, grid.step, strict=True))
    assert np.array_equal(grid.from_raster(grid.to_raster(values))[whole], values[whole])


@given(grid=grids([0.4, 0.6, 1.0]))
@settings(max_examples=20)
def test_pixels_come_back_from_finer_bins(grid: Grid) -> None:
    raster = np.arange(np.prod(grid.raster_shape)).reshape(grid.raster_shape)
    assert np.array_equal(grid.to_raster(grid.from_raster(raster)), raster)


@given(transcripts())
@settings(max_examples=20)
def test_a_position_lies_within_half_a_step_of_its_bins_center(data: tuple) -> None:
    grid, yx, *_ = data
    yx = yx[inside_raster(yx, grid.raster_shape)]
    assert (np.abs(grid.centers(grid.bins(yx)) - yx) <= np.divide(grid.step, 2) + 1e-9).all()


def test_values_are_laid_out_on_the_grid() -> None:
    spots = Spots(Grid((2, 3), (1.0, 1.0), 1.0), np.array([[0, 2], [1, 0]], np.int32), sparse.csr_matrix((2, 1)))
    assert spots.on_grid(np.array([5, 6]), -1).tolist() == [[-1, -1, 5], [6, -1, -1]]
    assert spots.on_grid(np.array([[1.0, 2.0], [3.0, 4.0]]), 0.0)[1, 0].tolist() == [3.0, 4.0]


def strewn(n_genes: int, seed: int = 0) -> Spots:
    """Counts of genes on a part of the bins of a 40 x 50 grid; even genes lie anywhere, odd ones mostly in a corner."""
    rng = np.random.default_rng(seed)
    index = np.argwhere(rng.random((40, 50)) < 0.6)
    mean = np.full((len(index), n_genes), 0.3)
    corner = (index < 16).all(axis=1)
    mean[:, 1::2] = np.where(corner[:, None], 2.0, 0.05)
    counts = sparse.csr_matrix(rng.poisson(mean))
    return Spots(Grid((40, 50), (1.0, 1.0), 1.0), index.astype(np.int32), counts)


def variable_genes(spots: Spots, n_genes: int) -> list[int]:
    return GeneMoments.of(spots).variable(n_genes).tolist()


def test_genes_that_depend_on_the_place_vary() -> None:
    assert variable_genes(strewn(12), 6) == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("block", [7, 16])
def test_variable_genes_are_those_of_a_dense_computation(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslcst.core.spots.GENE_BLOCK", block)
    spots = strewn(20, seed=1)
    sums: dict[tuple[int, int], np.ndarray] = {}
    for (row, column), counts in zip(spots.index.tolist(), spots.counts.toarray(), strict=True):
        place = row // block, column // block
        sums[place] = sums.get(place, 0) + counts
    per_block = np.array(list(sums.values()))
    dispersion = per_block.var(axis=0) / per_block.mean(axis=0)
    assert variable_genes(spots, 5) == sorted(np.argsort(dispersion)[-5:])


def test_all_present_genes_are_taken_where_there_are_not_more() -> None:
    spots = strewn(4)
    counts = sparse.csr_matrix(spots.counts.toarray() * [1, 0, 1, 1])
    spots = Spots(spots.grid, spots.index, counts)
    assert variable_genes(spots, 10) == [0, 2, 3]
    assert 1 not in variable_genes(spots, 2)


def test_equal_genes_are_taken_in_order() -> None:
    spots = strewn(2)
    twins = sparse.hstack([spots.counts[:, [1]]] * 4).tocsr()
    assert variable_genes(Spots(spots.grid, spots.index, twins), 2) == [0, 1]
