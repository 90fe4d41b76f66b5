"""`metrics.correlation` against dense numpy straight from the definition, and against answers known by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sslcst.errors import DataError, ParameterError
from sslcst.metrics import correlation, match


@st.composite
def tissues(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Owners in two segmentations, gene and count of some transcripts; one at least lies in a cell of the first."""
    n = draw(st.integers(1, 60))
    owner_a, owner_b, gene, count = (draw(arrays(np.int64, n, elements=st.integers(0, top))) for top in (3, 4, 5, 30))
    owner_a[0] = 2
    return owner_a, owner_b, gene, count


def dense(owner_a, owner_b, gene, count, min_counts) -> list[tuple]:
    """Each pair cell by cell and gene by gene, with numpy's own coefficient."""
    rows = []
    for a, b in match(owner_a, owner_b):
        in_a, in_b = owner_a == a, owner_b == b
        parts = [
            np.array([count[part & (gene == g)].sum() for g in range(gene.max() + 1)])
            for part in (in_a & in_b, in_a & ~in_b, in_b & ~in_a)
        ]
        scores = []
        for alone in parts[1:]:
            enough = min(parts[0].sum(), alone.sum()) >= min_counts
            varies = min(parts[0].std(), alone.std()) > 0
            scores.append(np.corrcoef(parts[0], alone)[0, 1] if enough and varies else 0.0 if enough else np.nan)
        rows.append((a, b, *(part.sum() for part in parts), *scores))
    return rows


@given(tissues(), st.sampled_from([1, 20, 100]))
def test_equals_the_definition_computed_densely(tissue: tuple[np.ndarray, ...], min_counts: int) -> None:
    found = correlation(*tissue, min_counts=min_counts)
    expected = np.array(dense(*tissue, min_counts), float).reshape(-1, 7)
    np.testing.assert_allclose(found.pairs.to_numpy(float), expected, atol=1e-9)
    scored = expected[~np.isnan(expected).any(axis=1)]
    assert found.n_pairs == len(scored)
    means = scored[:, 5:].mean(axis=0) if len(scored) else [np.nan, np.nan]
    np.testing.assert_allclose([found.a, found.b], means, atol=1e-9)


@given(tissues())
def test_exchanging_the_segmentations_exchanges_the_scores(tissue: tuple[np.ndarray, ...]) -> None:
    owner_a, owner_b, gene, count = tissue
    owner_b[0] = 1  # so that each may come first
    pairs = match(owner_a, owner_b)
    one = correlation(owner_a, owner_b, gene, count, pairs=pairs, min_counts=5)
    other = correlation(owner_b, owner_a, gene, count, pairs=pairs[:, ::-1], min_counts=5)
    assert (one.a, one.b, one.n_pairs) == pytest.approx((other.b, other.a, other.n_pairs), nan_ok=True)


def test_the_segmentation_that_adds_what_belongs_scores_higher() -> None:
    """The shared part has two genes; one adds the same two, the other a third gene."""
    gene = np.array([0, 1, 0, 1, 2])
    count = np.array([80, 40, 100, 50, 120])
    owner_a, owner_b = np.array([7, 7, 7, 7, 0]), np.array([3, 3, 0, 0, 3])
    found = correlation(owner_a, owner_b, gene, count)
    assert found.pairs[["shared", "only_a", "only_b"]].to_numpy().tolist() == [[120, 150, 120]]
    assert found.a == pytest.approx(1)
    assert found.b == pytest.approx(np.corrcoef([80, 40, 0], [0, 0, 120])[0, 1])
    assert correlation(owner_a, owner_b, gene, count, n_genes=9).b > found.b  # genes that neither part has


def test_a_nucleus_within_its_cell_has_no_part_alone() -> None:
    """No mean then, but each pair still tells how well the cytoplasm goes with the nucleus."""
    gene, nuclei, cells = np.tile([0, 0, 1], 100), np.repeat([1, 0], 150), np.ones(300, int)
    found = correlation(nuclei, cells, gene)
    assert np.isnan([found.a, found.b]).all()
    assert found.n_pairs == 0
    assert found.pairs["correlation_b"].tolist() == pytest.approx([1])
    assert found.pairs["correlation_a"].isna().all()


def test_fast_enough_for_100_000_cells() -> None:
    """Five million transcripts of 500 genes in seconds."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(100_000), 50)
    gene = rng.integers(0, 500, owner.size)
    start = time.process_time()
    found = correlation(owner, np.roll(owner, 15), gene, min_counts=10)
    assert time.process_time() - start < 60
    assert found.n_pairs == 99_999  # transcripts of owner 0 are in no cell


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"owner_b": np.ones(3, int)}, DataError, "one length"),
        ({"owner_a": np.ones(4)}, DataError, "owner_a is of type float64"),
        ({"owner_a": np.zeros(4, int)}, DataError, "holds no cell"),
        ({"gene": np.array([0, 1, -1, 0])}, DataError, "gene holds the negative"),
        ({"count": np.array([0.5, 1, 1, 1])}, DataError, "count is of type float64"),
        ({"n_genes": 1}, ParameterError, "n_genes=1"),
        ({"min_counts": 0}, ParameterError, "min_counts=0"),
        ({"pairs": [[1, 1], [1, 2]]}, ParameterError, "more than once"),
    ],
)
def test_refuses_what_is_wrong(change: dict, error: type[Exception], message: str) -> None:
    good = {"owner_a": np.ones(4, int), "owner_b": np.ones(4, int), "gene": np.array([0, 1, 1, 0])}
    with pytest.raises(error, match=message):
        correlation(**(good | change))
