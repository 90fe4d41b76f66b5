"""Bins between nuclei go where their transcripts belong, as far as the tissue shows that genes can tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from skimage.segmentation import expand_labels

from sslcst import tl
from sslcst.core.cells import fill_holes, keep_attached
from sslcst.core.density import local_density
from sslcst.core.spots import Grid, Spots, sum_spots
from sslcst.datasets import simulate
from sslcst.methods.density import composition
from sslcst.methods.density.composition import assign_bins, compare_profiles, halo, tally_ratios, trust_of
from sslcst.metrics import mean_best_iou

RADIUS, REACH = 10.0, 14.0
N_GENES = 30


def tissue(*, seed: int, differ: bool, shape: tuple[int, int] = (60, 120)) -> tuple[np.ndarray, np.ndarray, Spots]:
    """Columns of cells of changing width around nuclei in rows; each cell has genes of its own, or all the same."""
    rng = np.random.default_rng(seed)
    row = np.arange(shape[0]) // 20
    cells = np.zeros(shape, np.uint32)
    nuclei = np.zeros(shape, np.uint32)
    n = 0
    for band in np.unique(row):
        borders = np.r_[0, np.cumsum(rng.permutation([12, 28, 14, 26, 20, 20]))]
        for k in range(6):
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


def compared(nuclei: np.ndarray, spots: Spots) -> tuple:
    around = local_density(spots.totals(), nuclei, radius=RADIUS, reach=REACH)
    inside = around.nuclei[0] > 0
    total = np.asarray(spots.counts.sum(axis=0)).ravel()
    return around, inside, compare_profiles(around, spots, inside, gene_total=total, radius=RADIUS), total


def test_likelihoods_are_those_of_loops_over_windows() -> None:
    """Recomputed bin by bin from dense counts: multinomial, the bin's own transcripts taken out of its cell's mix."""
    _, nuclei, spots = tissue(seed=1, differ=True)
    around, _, likelihood, total = compared(nuclei, spots)
    dense = np.zeros((*nuclei.shape, N_GENES))
    dense[spots.place] = spots.counts.toarray()
    mix = (total + 0.5) / (total + 0.5).sum()
    owner = around.nuclei[0]
    rng = np.random.default_rng(0)
    places = np.argwhere((around.nuclei[1] > 0) & (nuclei == 0))
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
            assert likelihood[k, y, x] == pytest.approx(expected)


def test_bins_go_to_the_cell_that_shares_their_genes() -> None:
    """Where cells differ, their borders are found, though they do not lie midway between the nuclei."""
    cells, nuclei, spots = tissue(seed=2, differ=True)
    around, inside, likelihood, _ = compared(nuclei, spots)
    trust = trust_of(tally_ratios(around, likelihood, inside, radius=RADIUS))
    between = inside & (nuclei == 0) & (around.nuclei[1] > 0)
    by_genes, by_distance = (
        (assign_bins(around, likelihood, t, radius=RADIUS) == cells)[between].mean() for t in (trust, 0.0)
    )
    assert trust > 0.1
    assert by_genes > by_distance + 0.05


def test_genes_that_tell_nothing_are_not_trusted() -> None:
    """All cells alike: what differs by chance must not move borders."""
    _, nuclei, spots = tissue(seed=3, differ=False)
    around, inside, likelihood, _ = compared(nuclei, spots)
    trust = trust_of(tally_ratios(around, likelihood, inside, radius=RADIUS))
    moved = assign_bins(around, likelihood, trust, radius=RADIUS) != around.nuclei[0]
    assert moved[inside].mean() < 0.03


def test_trust_is_the_maximum_of_the_likelihood() -> None:
    """Against the logistic likelihood of the ratios themselves."""
    rng = np.random.default_rng(0)
    ratio = np.clip(np.rint(rng.normal(2, 3, 5000) / 0.25), -256, 256).astype(int)
    of = lambda trust: np.logaddexp(0, -trust * 0.25 * ratio).sum()  # noqa: E731
    found = trust_of(np.bincount(ratio + 256, minlength=513))
    assert of(found) <= min(of(found + 0.02), of(found - 0.02))


def test_parts_with_their_halo_are_as_the_whole() -> None:
    """Likelihoods bit by bit, and the histogram adds up."""
    _, nuclei, spots = tissue(seed=4, differ=True, shape=(60, 240))
    nuclei = nuclei.copy()
    around, inside, likelihood, total = compared(nuclei, spots)
    margin = halo(6, radius=RADIUS, reach=REACH)
    cut, width = 120, nuclei.shape[1]
    histogram = np.zeros(513, np.int64)
    for own in (slice(0, cut), slice(cut, width)):
        wide = slice(max(0, own.start - margin), min(width, own.stop + margin))
        part = spots.within(((0, 60), (wide.start, wide.stop)))
        view = spots.grid.view(((0, 60), (wide.start, wide.stop)))
        seen = Spots(view, spots.index[part], sparse.csr_matrix(spots.counts[part]))
        there = local_density(seen.totals(), nuclei[:, wide], radius=RADIUS, reach=REACH)
        within = there.nuclei[0] > 0
        found = compare_profiles(there, seen, within, gene_total=total, radius=RADIUS)
        mine = (slice(None), slice(own.start - wide.start, own.stop - wide.start))
        assert np.array_equal(found[:, *mine], likelihood[:, :, own])
        histogram += tally_ratios(there, found, within, radius=RADIUS, owned=mine)
    assert np.array_equal(histogram, tally_ratios(around, likelihood, inside, radius=RADIUS))


def test_what_is_known_for_certain_is_lossless() -> None:
    """The oracle: told which bins lie in cells and whose they are, at least 0.98 of the cells' overlap comes out."""
    sdata = simulate(n_cells=60, coverage=0.85, seed=3)
    cells, nuclei = (np.asarray(sdata[f"true_{name}"]) for name in ("cells", "nuclei"))
    around = local_density(np.zeros(cells.shape, np.int64), nuclei, radius=14.0, reach=17.5)
    certain = np.where(around.nuclei == cells, 0.0, -1e3)
    owner = assign_bins(around, certain, 1.0, radius=14.0)
    found = fill_holes(keep_attached(np.where(cells > 0, owner, 0), nuclei))
    assert mean_best_iou(cells, found) > 0.98


def test_cells_are_closer_than_grown_nuclei() -> None:
    """From stain-free nuclei and transcripts to labels, where neighbours differ: above any distance of growth."""
    sdata = simulate(n_cells=50, coverage=0.6, counts_per_cell=200, seed=11)
    tl.segment(sdata, nuclei_key="true_nuclei", method="density", params={"density": {"expression": True}})
    cells, nuclei, found = (np.asarray(sdata[name]) for name in ("true_cells", "true_nuclei", "sslcst_cells"))
    grown = max(mean_best_iou(cells, expand_labels(nuclei, distance)) for distance in (2, 3, 4, 5, 6, 8, 10))
    assert mean_best_iou(cells, found) > grown + 0.03


def test_the_prior_holds_where_a_cell_has_no_transcripts() -> None:
    """Without a spot nothing is compared, and bins go to the nearest nucleus."""
    _, nuclei, spots = tissue(seed=6, differ=True)
    none = Spots(spots.grid, spots.index[:0], spots.counts[:0])
    around, _, likelihood, _ = compared(nuclei, none)
    assert not likelihood.any()
    assert np.array_equal(assign_bins(around, likelihood, 1.0, radius=RADIUS), around.nuclei[0])
    assert trust_of(np.zeros(2 * composition._LEVELS + 1, np.int64)) == 0
