"""Windows of a grid side by side give what the whole gives: pixels and bins, moments of genes, occupancy."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise, product
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sslcst.core.cells import Occupancy
from sslcst.core.spots import GENE_BLOCK, GeneMoments, Grid, Spots

Ranges = tuple[tuple[int, int], tuple[int, int]]
STEPS = [1.0, 1.3, 2.0, 2.5, 3.2, 10 / 3, 0.4, 0.7]


@st.composite
def cut_grids(draw: st.DrawFn) -> tuple[Grid, list[Ranges]]:
    """A grid, and windows that cut it into rows and columns of any height and width."""
    raster = draw(st.tuples(st.integers(1, 25), st.integers(1, 25)))
    grid = Grid(raster, (draw(st.sampled_from(STEPS)), draw(st.sampled_from(STEPS))), 1.0)
    edges = ([0, *sorted(draw(st.sets(st.integers(0, n))) - {0, n}), n] for n in grid.whole_shape)
    return grid, list(product(*map(pairwise, edges)))


def bins_of(window: Ranges) -> tuple[slice, slice]:
    rows, columns = (slice(*ranges) for ranges in window)
    return rows, columns


@given(cut_grids())
@settings(max_examples=100)
def test_windows_take_from_the_raster_and_paint_on_it_what_the_whole_does(data: tuple[Grid, list[Ranges]]) -> None:
    """Each from its own pixels alone, and on the pixels that it owns."""
    grid, windows = data
    rng = np.random.default_rng(0)
    raster, values = rng.random(grid.raster_shape), rng.random(grid.shape)
    sampled, painted = grid.from_raster(raster), grid.to_raster(values)
    for window in windows:
        view, pixels, owned = grid.view(window), grid.view(window).pixels(), grid.view(window).owned_pixels()
        assert np.array_equal(view.from_raster(raster[pixels]), sampled[bins_of(window)])
        part = view.to_raster(values[bins_of(window)])
        assert part.shape == raster[pixels].shape
        own = tuple(slice(o.start - p.start, o.stop - p.start) for o, p in zip(owned, pixels, strict=True))
        assert np.array_equal(part[own], painted[owned])


@given(cut_grids())
@settings(max_examples=100)
def test_owned_pixels_partition_the_raster(data: tuple[Grid, list[Ranges]]) -> None:
    """No pixel of the results is written by two tiles or by none."""
    grid, windows = data
    owners = np.zeros(grid.raster_shape, int)
    for window in windows:
        owners[grid.view(window).owned_pixels()] += 1
    assert (owners == 1).all()


@given(cut_grids())
@settings(max_examples=60)
def test_pixels_in_view_are_those_that_the_bins_touch(data: tuple[Grid, list[Ranges]]) -> None:
    grid, windows = data
    for window in windows:
        for pixels, (start, stop), step, size in zip(
            grid.pixels(window), window, grid.step, grid.raster_shape, strict=True
        ):
            touched = [i for i in range(size) if i < stop * step and i + 1 > start * step]
            assert range(pixels.start, pixels.stop) == range(touched[0], touched[-1] + 1)
        assert grid.pixels(window) == grid.view(window).pixels()


@pytest.mark.parametrize(("size", "step", "n"), [(21, 0.7, 30), (2688, 0.7, 3840), (336, 2.8, 120), (2550, 5.1, 500)])
def test_rounding_adds_no_bin_behind_the_raster(size: int, step: float, n: int) -> None:
    """Where the quotient of size and step is rounded up: the last bin ends with the last pixel, and owns it."""
    assert size / step > n
    grid = Grid((size, 4), (step, 1.0), step)
    assert grid.whole_shape == (n, 4)
    last = grid.view(((n - 1, n), (0, 4)))
    raster = np.arange(size * 4).reshape(size, 4)
    assert np.array_equal(last.from_raster(raster[last.pixels()]), grid.from_raster(raster)[-1:])
    assert last.to_raster(np.ones((1, 4))).shape == raster[last.pixels()].shape
    assert raster[last.owned_pixels()][-1].tolist() == raster[-1].tolist()


def test_a_window_sees_its_own_bins() -> None:
    whole = Grid((8, 9), (1.0, 1.0), 1.0)
    view = whole.view(((2, 5), (4, 9)))
    assert (whole.shape, whole.ranges, whole.corner.tolist()) == ((8, 9), ((0, 8), (0, 9)), [0, 0])
    assert (view.shape, view.ranges, view.corner.tolist()) == ((3, 5), ((2, 5), (4, 9)), [2, 4])
    assert view.whole_shape == whole.whole_shape


def strewn(shape: tuple[int, int], seed: int, n_genes: int = 5) -> Spots:
    """Spots on about half of the bins."""
    rng = np.random.default_rng(seed)
    index = np.argwhere(rng.random(shape) < 0.5).astype(np.int32)
    counts = sparse.csr_matrix(rng.poisson(0.7, (len(index), n_genes)).astype(np.int64))
    return Spots(Grid(shape, (1.0, 1.0), 1.0), index, counts)


def seen(spots: Spots, window: Ranges) -> Spots:
    inside = spots.within(window)
    return Spots(spots.grid.view(window), spots.index[inside], spots.counts[inside])


@given(seed=st.integers(0, 99), window=st.tuples(st.integers(0, 9), st.integers(1, 9)))
@settings(max_examples=30)
def test_spots_keep_their_keys_and_find_their_place_in_a_window(seed: int, window: tuple[int, int]) -> None:
    (top, height), spots = window, strewn((19, 12), seed)
    ranges = (top, top + height), (3, 11)
    part = seen(spots, ranges)
    assert spots.within(ranges).tolist() == [top <= y < top + height and 3 <= x < 11 for y, x in spots.index.tolist()]
    assert part.keys.tolist() == spots.keys[spots.within(ranges)].tolist()
    assert (np.diff(spots.keys) > 0).all()
    values = np.random.default_rng(0).random(len(spots))
    on_part = part.on_grid(values[spots.within(ranges)], -1.0)
    assert np.array_equal(on_part, spots.on_grid(values, -1.0)[bins_of(ranges)])


@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    cuts=st.tuples(st.sets(st.integers(1, 3)), st.sets(st.integers(1, 3))),
)
@settings(max_examples=40)
def test_gene_moments_add_up_over_any_cut_into_blocks(seed: int, shape: tuple[int, int], cuts: tuple[set, set]) -> None:
    """So do the genes that vary, which are chosen by them."""
    spots = strewn(shape, seed)
    edges = (
        [0, *(GENE_BLOCK * c for c in sorted(cut) if GENE_BLOCK * c < size), size]
        for cut, size in zip(cuts, shape, strict=True)
    )
    parts = [GeneMoments.of(seen(spots, window)) for window in product(*map(pairwise, edges))]
    total, whole = reduce(add, parts), GeneMoments.of(spots)
    assert total.n_blocks == whole.n_blocks
    assert total.total.tolist() == whole.total.tolist() == spots.counts.toarray().sum(axis=0).tolist()
    assert total.squares.tolist() == whole.squares.tolist()
    assert total.variable(2).tolist() == whole.variable(2).tolist()


@given(seed=st.integers(0, 99), top=st.integers(1, 19), left=st.integers(1, 11))
@settings(max_examples=30)
def test_occupancy_adds_up_over_any_cut(seed: int, top: int, left: int) -> None:
    spots = strewn((20, 12), seed)
    nuclei = np.random.default_rng(seed + 1).integers(0, 3, (20, 12)).astype(np.uint32)
    whole = Occupancy.of(nuclei, nuclei[spots.place])
    windows = list(product(((0, top), (top, 20)), ((0, left), (left, 12))))
    parts = [Occupancy.of(nuclei[bins_of(w)], nuclei[spots.place][spots.within(w)]) for w in windows]
    assert reduce(add, parts) == whole
    assert whole == Occupancy(int((nuclei > 0).sum()), sum(nuclei[y, x] > 0 for y, x in spots.index))
