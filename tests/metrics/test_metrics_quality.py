"""Sizes and the quality that needs no reference: known by hand, brute force, and what they say of known tissues."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from skimage.segmentation import expand_labels

from sslcst.datasets import simulate
from sslcst.errors import DataError, ParameterError
from sslcst.metrics import contamination, diameters, exclusive_pairs, n_cells, quality


def test_sizes_known_by_hand() -> None:
    labels = np.array([[0, 9, 9], [2, 9, 9]], np.uint16)
    assert n_cells(labels) == 2
    assert diameters(labels, pixel_size=0.5) == pytest.approx([np.sqrt(1 / np.pi), np.sqrt(4 / np.pi)])
    assert n_cells(np.zeros((2, 2), int)) == 0
    assert diameters(np.zeros((2, 2), int)).shape == (0,)


def test_a_diameter_is_of_one_plane() -> None:
    with pytest.raises(DataError, match=r"labels have shape \(2, 3, 3\)"):
        diameters(np.ones((2, 3, 3), int))


@pytest.mark.parametrize("pixel_size", [0, -1, float("nan"), float("inf")])
def test_a_pixel_has_a_size(pixel_size: float) -> None:
    with pytest.raises(ParameterError, match="pixel_size="):
        diameters(np.ones((2, 2), int), pixel_size=pixel_size)


COUNTS = st.integers(2, 7).flatmap(lambda n: arrays(np.int64, (12, n), elements=st.integers(0, 2)))


@given(COUNTS, st.sampled_from([0.5, 2.0, 5.0]), st.sampled_from([0.0, 0.3]))
def test_exclusive_pairs_pair_by_pair(counts: np.ndarray, min_expected: float, max_ratio: float) -> None:
    expected = []
    for g, h in combinations(range(counts.shape[1]), 2):
        by_chance = (counts[:, g] > 0).sum() * (counts[:, h] > 0).sum() / len(counts)
        together = ((counts[:, g] > 0) & (counts[:, h] > 0)).sum()
        if by_chance >= min_expected and together <= max_ratio * by_chance:
            expected.append([g, h])
    found = exclusive_pairs(sparse.csr_matrix(counts), min_expected=min_expected, max_ratio=max_ratio)
    assert found.tolist() == expected


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 5)])
def test_too_few_nuclei_or_genes_tell_no_exclusive_pairs(shape: tuple[int, int]) -> None:
    assert exclusive_pairs(sparse.csr_array(np.ones(shape))).shape == (0, 2)


def test_exclusive_pairs_of_many_genes_in_blocks() -> None:
    """Every gene of one kind of nucleus with every one of the other, across blocks; of too many, the surest."""
    kind = np.arange(40) % 2
    counts = (kind[:, None] == np.arange(1200) % 2).astype(int)
    counts[:20, 2:] = 0  # all but genes 0 and 1 are in half of the nuclei of their kind
    found = exclusive_pairs(sparse.csr_array(counts), min_expected=2, max_pairs=10**6)
    assert len(found) == 600**2
    assert ((found[:, 0] < found[:, 1]) & (found.sum(axis=1) % 2 == 1)).all()
    assert exclusive_pairs(sparse.csr_array(counts), min_expected=2, max_pairs=1).tolist() == [[0, 1]]


@given(COUNTS, st.data())
def test_contamination_cell_by_cell(counts: np.ndarray, data: st.DataObject) -> None:
    pairs = data.draw(st.sets(st.sampled_from(list(combinations(range(counts.shape[1]), 2)))))
    found = contamination(sparse.csr_array(counts), np.array(sorted(pairs), int))
    for cell, share in zip(counts, found, strict=True):
        either = [(g, h) for g, h in pairs if cell[g] or cell[h]]
        both = [(g, h) for g, h in either if cell[g] and cell[h]]
        assert share == pytest.approx(len(both) / len(either) if either else np.nan, nan_ok=True)


def test_independent_genes_do_not_exclude_each_other() -> None:
    """Of 4,950 pairs that chance alone keeps apart, none is rare enough."""
    counts = np.random.default_rng(0).poisson(0.4, (400, 100))
    assert len(exclusive_pairs(sparse.csr_array(counts))) == 0


def test_quality_known_by_hand() -> None:
    """A cell of 12 pixels, 4 of them nucleus: 6 counts in the other 8; 2 counts in the ring of 14 around it."""
    cells, nuclei = np.zeros((2, 6, 8), int)
    cells[1:4, 1:5], nuclei[1:3, 1:3], cells[5, 7] = 4, 1, 9
    yx = [(1.5, 1.5), (3.5, 1.5), (3.5, 4.9), (0.5, 1.5), (5.5, 7.5), (-0.1, 3)]
    count = [5, 2, 4, 2, 3, 4]
    frame = quality(cells, nuclei, yx, np.array([0, 0, 1, 1, 2, 0]), np.array(count), pixel_size=0.5, ring=0.5)
    assert frame.index.tolist() == [4, 9]
    assert frame["n_counts"].tolist() == [11, 3]
    assert frame["n_genes"].tolist() == [2, 1]
    assert frame["share"].tolist() == [11 / 20, 3 / 20]
    assert frame["diameter"].tolist() == pytest.approx([np.sqrt(12 / np.pi), np.sqrt(1 / np.pi)])
    assert frame["density_ratio"].tolist() == [(6 / 8) / (2 / 14), np.inf]
    assert frame["contamination"].isna().all()  # one nucleus tells no exclusive genes
    given = quality(cells, nuclei, yx, np.array([0, 0, 1, 1, 2, 0]), np.array(count), pairs=[[0, 1], [1, 2]])
    assert given["contamination"].tolist() == [1 / 2, 0]


def test_a_cell_between_others_has_no_outside() -> None:
    cells = np.repeat([[1, 2, 3]], 3, axis=0)
    frame = quality(cells, np.eye(3, dtype=int), [(0.5, 1.5)], np.array([0]), ring=2)
    assert frame["density_ratio"].isna().all()


def test_the_signal_falls_at_the_border_of_true_cells() -> None:
    """And goes on beyond the border of cells that stop too early."""
    tissue = simulate(n_cells=100, coverage=0.4, diffusion=0.1, seed=1)
    frame = tissue.points["transcripts"].compute()
    yx, gene = frame[["y", "x"]].to_numpy() / 0.5, frame["gene"].cat.codes.to_numpy()
    cells, nuclei = (tissue.labels[f"true_{name}"].to_numpy() for name in ("cells", "nuclei"))
    ways = {"true": cells, "early": expand_labels(nuclei, 2), "far": expand_labels(cells, 6)}
    frames = {way: quality(labels, nuclei, yx, gene, pixel_size=0.5) for way, labels in ways.items()}
    ratio = {way: frame["density_ratio"].median() for way, frame in frames.items()}
    share = {way: frame["share"].sum() for way, frame in frames.items()}
    assert ratio["true"] > 8 * ratio["early"] > 8
    assert share["early"] < share["true"] < share["far"] <= 1


def test_real_cells_grown_too_far_hold_what_nuclei_keep_apart(prostate) -> None:
    """The prostate's nuclei hold next to no exclusive pair, the vendor's cells few, and the more, the wider grown."""
    frame = prostate.points["transcripts"].compute()
    yx, gene = frame[["y", "x"]].to_numpy() / 0.5, frame["gene"].cat.codes.to_numpy().astype(int)
    cells, nuclei = (prostate.labels[f"reference_{name}"].to_numpy() for name in ("cells", "nuclei"))
    ways = [nuclei, cells, expand_labels(nuclei, 8), expand_labels(nuclei, 16)]
    means = [quality(labels, nuclei, yx, gene)["contamination"].mean() for labels in ways]
    assert means == sorted(means)
    assert 0 < means[0] < 0.01
    assert means[2] > 1.5 * means[1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"nuclei": np.ones((2, 3), int)}, DataError, "one raster"),
        ({"cells": np.zeros((3, 3), int)}, DataError, "There is no cell"),
        ({"nuclei": np.zeros((3, 3), int)}, DataError, "There is no nucleus"),
        ({"count": np.zeros(2, int)}, DataError, "There is no count"),
        ({"yx": np.ones((3, 2))}, DataError, r"\(3, 2\)"),
        ({"ring": 0}, ParameterError, "ring=0"),
        ({"pixel_size": -1}, ParameterError, "pixel_size=-1"),
        ({"pairs": [[0, 5]]}, DataError, "pairs name gene 5"),
    ],
)
def test_refuses_what_is_wrong(change: dict, error: type[Exception], message: str) -> None:
    good = {
        "cells": np.eye(3, dtype=int),
        "nuclei": np.eye(3, dtype=int),
        "yx": np.ones((2, 2)),
        "gene": np.array([0, 1]),
    }
    with pytest.raises(error, match=message):
        quality(**(good | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"min_expected": 0}, "min_expected=0"), ({"max_ratio": 1}, "max_ratio"), ({"max_pairs": 0}, "max_pairs=0")],
)
def test_exclusive_pairs_refuses_bounds(change: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        exclusive_pairs(sparse.csr_array(np.eye(3)), **change)
