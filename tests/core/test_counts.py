"""Transcripts counted in cells: the same as a group-by, and none lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sslcst.core.counts import count_matrix, owners

CELLS = [3, 7, 70_000, 4_000_000_000]


def test_owner_is_the_label_of_the_pixel_that_holds_the_position() -> None:
    labels = np.array([[0, 1, 2], [3, 4, 4_000_000_000]], np.uint32)
    yx = np.array([[0, 0], [0.99, 1.5], [1, 2], [1.999, 2.999], [2, 0], [0, 3], [-0.01, 1], [np.nan, 1]])
    owner = owners(yx, labels)
    assert owner.tolist() == [0, 1, 4_000_000_000, 4_000_000_000, 0, 0, 0, 0]
    assert owner.dtype == labels.dtype


def test_no_position_on_the_raster_has_no_owner() -> None:
    assert owners(np.full((3, 2), -1.0), np.ones((2, 2), np.uint32)).tolist() == [0, 0, 0]
    assert len(owners(np.empty((0, 2)), np.ones((2, 2), np.uint32))) == 0


@given(
    owner=arrays(np.uint32, 40, elements=st.sampled_from([0, 5, *CELLS])),
    gene=arrays(np.int32, 40, elements=st.integers(0, 5)),
    count=st.none() | arrays(np.int64, 40, elements=st.integers(1, 100_000)),
)
@settings(max_examples=60)
def test_counts_are_those_of_a_group_by(owner: np.ndarray, gene: np.ndarray, count: np.ndarray | None) -> None:
    """Cell 5 and background 0 are not among the ids, so that theirs are not counted."""
    counts = count_matrix(owner, gene, count, ids=np.array(CELLS, np.uint32), n_genes=6)
    frame = pd.DataFrame({"owner": owner, "gene": gene, "count": 1 if count is None else count})
    expected = frame.pivot_table(index="owner", columns="gene", values="count", aggfunc="sum", fill_value=0)
    expected = expected.reindex(index=CELLS, columns=range(6), fill_value=0)
    assert np.array_equal(counts.toarray(), expected.to_numpy())
    assert counts.sum() == frame["count"][frame["owner"].isin(CELLS)].sum()
    assert counts.shape == (4, 6)


@pytest.mark.parametrize(
    ("count", "dtype"),
    [([255, 1], np.int32), ([65_535, 1], np.int32), ([2**31 - 2, 1], np.int32), ([2**31 - 1, 1], np.int64)],
)
def test_sums_are_exact_however_large(count: list[int], dtype: type) -> None:
    counts = count_matrix(np.array([1, 1]), np.array([0, 0]), np.array(count, np.int32), ids=np.array([1]), n_genes=1)
    assert counts[0, 0] == sum(count)
    assert counts.dtype == dtype


def test_more_cells_than_16_bits_count() -> None:
    ids = np.arange(1, 70_001, dtype=np.uint32)
    counts = count_matrix(ids, np.zeros(70_000, int), None, ids=ids, n_genes=1)
    assert (counts.toarray() == 1).all()


def test_cells_without_transcripts_have_empty_rows() -> None:
    none = np.array([], int)
    assert count_matrix(none, none, None, ids=np.array([4, 9]), n_genes=3).toarray().tolist() == [[0] * 3] * 2


def test_where_no_cell_is_wanted_nothing_is_counted() -> None:
    """A tile may hold transcripts and no cell of its own."""
    no_ids = np.array([], np.uint32)
    assert count_matrix(np.array([0, 4]), np.array([1, 1]), None, ids=no_ids, n_genes=3).shape == (0, 3)
