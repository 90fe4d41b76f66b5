"""Bins between nuclei go where their transcripts belong, as far as the tissue shows that genes can tell."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from sslcst import tl
from sslcst.core.density import Levels, local_density, measure_levels
from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Ranges, Spots, sum_spots
from sslcst.datasets import simulate
from sslcst.methods.network import expression as module
from sslcst.methods.network.blocks import BLOCK
from sslcst.methods.network.expression import Expression, draw_blocks, tally_ratios, weight_of
from sslcst.methods.network.inputs import REACH
from sslcst.methods.network.load import load_network
from sslcst.methods.network.predict import predict_cells
from sslcst.metrics import mean_best_iou

RADIUS = 10.0
N_GENES = 30


def tissue(*, seed: int, differ: bool, shape: tuple[int, int] = (60, 120)) -> tuple[np.ndarray, np.ndarray, Spots]:
    """Columns of cells of changing width around nuclei in rows; each cell has genes of its own, or all the same."""
    rng = np.random.default_rng(seed)
    row = np.arange(shape[0]) // 20
    cells = np.zeros(shape, np.uint32)
    nuclei = np.zeros(shape, np.uint32)
    n = 0
    for band in np.unique(row):
        widths = [rng.permutation([12, 28, 14, 26, 20, 20]) for _ in range(shape[1] // 120)]
        borders = np.r_[0, np.cumsum(widths)]
        for k in range(len(borders) - 1):
            n += 1
            cells[row == band, borders[k] : borders[k + 1]] = n
            middle = 20 * k + 10  # nuclei lie evenly, wherever the borders are
            middle = int(np.clip(middle, borders[k] + 4, borders[k + 1] - 4))
            nuclei[band * 20 + 7 : band * 20 + 13, middle - 3 : middle + 3] = n
    counts = rng.poisson(1.5, shape)
    y, x = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
    owner = cells[y, x].astype(int)
    gene = (owner * 7 + rng.integers(0, 3, len(owner))) % N_GENES if differ else rng.integers(0, N_GENES, len(owner))
    return (
        cells,
        nuclei,
        sum_spots(np.stack([y, x], axis=1), gene, None, n_genes=N_GENES, grid=Grid(shape, (1, 1), 1.0)),
    )


def seen(nuclei: np.ndarray, spots: Spots) -> tuple[Expression, np.ndarray, np.ndarray, Levels]:
    """What `tally_ratios` and `predict_cells` are told of a tissue."""
    around = local_density(spots.totals(), nuclei, radius=RADIUS, reach=REACH * RADIUS)
    levels = measure_levels(around, radius=RADIUS, reach=REACH * RADIUS)
    total = np.asarray(spots.counts.sum(axis=0)).ravel()
    return Expression(spots, total), spots.totals(), nuclei, levels


def whole(nuclei: np.ndarray) -> dict:
    height, width = nuclei.shape
    return {"radius": RADIUS, "corner": (0, 0), "own": ((0, height), (0, width))}


def tally(nuclei: np.ndarray, spots: Spots, **place: Ranges) -> np.ndarray:
    place = whole(nuclei) | place
    told, blocks = seen(nuclei, spots), draw_blocks(place["own"], nuclei.shape, Regions.of(nuclei).centers, seed=1)
    return sum(tally_ratios(*told, block, **place) for block in blocks)


def owners(nuclei: np.ndarray, spots: Spots, *, weight: float) -> np.ndarray:
    """Whose each bin is, with that weight of what profiles tell."""
    expression, *told = seen(nuclei, spots)
    expression = Expression(expression.spots, expression.gene_total, weight)
    return predict_cells(load_network(), *told, **whole(nuclei), expression=expression)[1]


@pytest.mark.parametrize("molecules", [1, 2**28])
def test_likelihoods_are_those_of_loops_over_windows(molecules: int) -> None:
    """Recomputed bin by bin from dense counts: multinomial, the bin's own transcripts taken out of its cell's mix.

    Each transcript may be of many molecules, more of which are in a cell than 32 bits hold.
    """
    _, nuclei, spots = tissue(seed=1, differ=True)
    spots = replace(spots, counts=spots.counts * molecules)
    around = local_density(spots.totals(), nuclei, radius=RADIUS, reach=14)
    rng = np.random.default_rng(0)
    owner = np.where(rng.random(nuclei.shape) < 0.9, around.nuclei[0], 0)  # some bins lie in no cell
    expression, *_ = seen(nuclei, spots)
    asked = rng.random(nuclei.shape) < 0.5
    found = expression.compare(expression.places, nuclei, owner, around.nuclei, asked=asked, radius=RADIUS)
    dense = np.zeros((*nuclei.shape, N_GENES))
    dense[spots.place] = spots.counts.toarray()
    total = expression.gene_total
    mix = (total + 0.5) / (total + 0.5).sum()
    told = asked & (nuclei == 0) & (owner > 0)
    assert not found[:, ~told].any()
    places = np.argwhere(told)
    for y, x in places[rng.choice(len(places), 20, replace=False)]:
        for k in range(3):
            label, expected = around.nuclei[k, y, x], 0.0
            if label == 0:
                continue
            profile = dense[owner == label].sum(axis=0)
            for v in range(max(0, y - 2), min(nuclei.shape[0], y + 3)):
                for u in range(max(0, x - 2), min(nuclei.shape[1], x + 3)):
                    if nuclei[v, u] == 0 and owner[v, u] > 0:
                        known = profile - (dense[v, u] if owner[v, u] == label else 0)
                        share = (known + 200 * mix) / (known.sum() + 200)
                        expected += (dense[v, u] * np.log(share / mix)).sum()
            assert found[k, y, x] == pytest.approx(expected)


def test_bins_go_to_the_cell_that_shares_their_genes() -> None:
    """Where cells differ, their borders are found, though they do not lie where nuclei say."""
    cells, nuclei, spots = tissue(seed=2, differ=True)
    weight = weight_of(tally(nuclei, spots))
    outside = nuclei == 0
    by_genes, without = ((owners(nuclei, spots, weight=w) == cells)[outside].mean() for w in (weight, 0.0))
    assert weight > 0.1
    assert by_genes > without + 0.03


def test_genes_that_tell_nothing_are_not_believed() -> None:
    """All cells alike: what differs by chance must not move borders."""
    _, nuclei, spots = tissue(seed=3, differ=False)
    weight = weight_of(tally(nuclei, spots))
    moved = owners(nuclei, spots, weight=weight) != owners(nuclei, spots, weight=0.0)
    assert moved.mean() < 0.03


def test_the_weight_is_the_maximum_of_the_likelihood() -> None:
    """Against the logistic likelihood of the ratios themselves."""
    rng = np.random.default_rng(0)
    ratio = np.clip(np.rint(rng.normal(2, 3, 5000) / 0.25), -256, 256).astype(int)
    of = lambda weight: np.logaddexp(0, -weight * 0.25 * ratio).sum()  # noqa: E731
    found = weight_of(np.bincount(ratio + 256, minlength=513))
    assert of(found) <= min(of(found + 0.02), of(found - 0.02))
    assert weight_of(module.NO_RATIOS) == 0


@pytest.mark.parametrize("n_blocks", [1, 64])
def test_histograms_of_parts_add_up(n_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two windows, the border of which lies in a block: clear bins count once, and the same blocks are drawn."""
    monkeypatch.setattr(module, "_N_BLOCKS", n_blocks)
    side = 600  # more than a block
    _, nuclei, spots = tissue(seed=4, differ=True, shape=(20, side))
    every = tally(nuclei, spots)
    parts = [tally(nuclei, spots, own=((0, 20), columns)) for columns in ((0, 301), (301, side))]
    assert every.sum() > 0
    assert np.array_equal(sum(parts), every)


def test_blocks_are_drawn_where_nuclei_are() -> None:
    """A large chip with little tissue: what holds none is not drawn, and windows share what is."""
    n = 40
    whole, centers = (n * BLOCK, n * BLOCK), (np.array([[7, 9], [7, 10], [30, 2]]) + 0.5) * BLOCK
    every = draw_blocks(((0, n * BLOCK), (0, n * BLOCK)), whole, centers, seed=0)
    assert every == [tuple((i * BLOCK, (i + 1) * BLOCK) for i in at) for at in ((7, 9), (7, 10), (30, 2))]
    assert draw_blocks(((7 * BLOCK, 8 * BLOCK), (0, 10 * BLOCK)), whole, centers, seed=0) == every[:1]
    assert draw_blocks(((0, BLOCK), (0, BLOCK)), whole, centers, seed=0) == []
    many = np.random.default_rng(0).uniform(0, n * BLOCK, (5000, 2))
    assert len(draw_blocks(((0, n * BLOCK), (0, n * BLOCK)), whole, many, seed=0)) == module._N_BLOCKS


def test_simulated_cells_are_closer_by_genes_too() -> None:
    """From nuclei and transcripts to labels, where neighbours differ."""
    sdata = simulate(n_cells=60, coverage=0.9, counts_per_cell=300, seed=11)
    score = {}
    for genes in (True, False):
        tl.segment(sdata, nuclei_key="true_nuclei", params={"network": {"expression": genes}}, overwrite=True)
        score[genes] = mean_best_iou(np.asarray(sdata["true_cells"]), np.asarray(sdata["sslcst_cells"]))
    assert score[True] > score[False] + 0.005


def test_without_a_transcript_nothing_is_compared() -> None:
    _, nuclei, spots = tissue(seed=6, differ=True)
    none = Spots(spots.grid, spots.index[:0], spots.counts[:0])
    assert np.array_equal(owners(nuclei, none, weight=1.0), owners(nuclei, none, weight=0.0))
    assert weight_of(tally(nuclei, none)) == 0


def test_nuclei_may_be_numbered_as_high_as_labels_go() -> None:
    """What is learnt and whose bins are is the same, in no more memory: a table by number would take 16 GiB."""
    _, nuclei, spots = tissue(seed=1, differ=True)
    numbers = np.linspace(0, np.iinfo(np.uint32).max, int(nuclei.max()) + 1).astype(np.uint32)
    tracemalloc.start()
    np.testing.assert_array_equal(tally(numbers[nuclei], spots), tally(nuclei, spots))
    np.testing.assert_array_equal(
        owners(numbers[nuclei], spots, weight=1.0), numbers[owners(nuclei, spots, weight=1.0)]
    )
    assert tracemalloc.get_traced_memory()[1] < 2**30
    tracemalloc.stop()
