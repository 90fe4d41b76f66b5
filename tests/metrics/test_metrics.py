"""`sslcst.metrics` against answers known by hand, brute force, and the figures known for the real prostate."""

from __future__ import annotations

import time
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import linear_sum_assignment

from sslcst.errors import DataError, ParameterError
from sslcst.metrics import (
    average_precision,
    best_iou,
    f1,
    fraction_right,
    match,
    mean_best_iou,
    overlap,
    splits_merges,
)

ID = np.array([0, 1, 2, 7, 300, 2**31 + 5])  # not consecutive, and beyond int32


@st.composite
def segmentations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two label arrays of one shape, of ids with gaps; the reference has a cell."""
    shape = draw(array_shapes(max_dims=2, max_side=8))
    places = arrays(np.int8, shape, elements=st.integers(0, len(ID) - 1))
    reference = ID[draw(places)]
    reference.flat[0] = 7
    return reference.astype(draw(st.sampled_from(["uint32", "int64", "uint64"]))), ID[draw(places)]


def ious(reference: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """IoU of each reference cell with each segmented cell, mask by mask."""
    rows, columns = (np.setdiff1d(array, [0]) for array in (reference, labels))
    table = np.zeros((len(rows), len(columns)))
    for (i, a), (j, b) in product(enumerate(rows), enumerate(columns)):
        table[i, j] = ((reference == a) & (labels == b)).sum() / ((reference == a) | (labels == b)).sum()
    return table


def test_known_by_hand() -> None:
    """Two reference cells of 4 and 2 pixels; one half found, the other found with two pixels too many."""
    reference = np.array([[5, 5, 5, 5, 0, 9, 9, 0]], np.uint16)
    labels = np.array([[3, 3, 0, 0, 0, 8, 8, 8]])
    table = overlap(reference, labels)
    assert table.reference_ids.tolist() == [0, 5, 9]
    assert table.label_ids.tolist() == [0, 3, 8]
    assert table.pixels.toarray().tolist() == [[1, 0, 1], [2, 2, 0], [0, 0, 2]]
    assert best_iou(reference, labels).tolist() == [2 / 4, 2 / 3]
    assert mean_best_iou(reference, labels) == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert f1(reference, labels) == 2 * 1 / 4  # an IoU of 0.5 does not exceed 0.5
    assert f1(reference, labels, threshold=0.7) == 0
    assert average_precision(reference, labels, thresholds=[0.5, 0.66, 0.67]).tolist() == [1 / 3, 1 / 3, 0]
    assert splits_merges(reference, labels) == (0, 0)
    assert match(reference, labels).tolist() == [[5, 3], [9, 8]]
    assert fraction_right(reference, labels) == 5 / 8


@given(segmentations())
def test_overlap_counts_every_pair(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """The table holds the same counts as counting element by element, 0 first, and nothing else."""
    reference, labels = pair
    table = overlap(reference, labels)
    shared = table.pixels.tocoo()
    ids = zip(table.reference_ids[shared.row].tolist(), table.label_ids[shared.col].tolist(), strict=True)
    assert dict(zip(ids, shared.data.tolist(), strict=True)) == Counter(
        zip(reference.ravel().tolist(), labels.ravel().tolist(), strict=True)
    )
    assert table.reference_ids.tolist() == sorted({0, *reference.ravel().tolist()})
    assert table.label_ids.tolist() == sorted({0, *labels.ravel().tolist()})


@given(segmentations())
def test_ious_equal_mask_by_mask(pair: tuple[np.ndarray, np.ndarray]) -> None:
    reference, labels = pair
    table = ious(reference, labels)
    best = table.max(axis=1, initial=0)
    assert best_iou(reference, labels) == pytest.approx(best)
    assert mean_best_iou(reference, labels) == pytest.approx(best.mean())
    assert f1(reference, labels) == pytest.approx(2 * (table > 0.5).sum() / sum(table.shape))


@given(segmentations(), st.floats(0.5, 0.99))
def test_average_precision_by_assignment(pair: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    """True positives from the assignment of masks that makes most pairs above the threshold."""
    table = ious(*pair) > threshold
    hits = table[linear_sum_assignment(table, maximize=True)].sum()
    false, missed = table.shape[1] - hits, table.shape[0] - hits
    assert average_precision(*pair, thresholds=[threshold, 0.99]).tolist()[0] == hits / (hits + false + missed)


def test_average_precision_by_default() -> None:
    """Five thresholds from 0.5 to 0.9: nine tenths of a cell are found up to 0.8."""
    reference = np.ones(10, int)
    labels = np.array([4] * 9 + [0])
    assert average_precision(reference, labels).tolist() == [1, 1, 1, 1, 0]


@given(segmentations(), st.floats(0.5, 0.99))
def test_splits_and_merges_mask_by_mask(pair: tuple[np.ndarray, np.ndarray], share: float) -> None:
    reference, labels = pair

    def count(wholes: np.ndarray, parts: np.ndarray) -> int:
        """Cells of which more than one part has more than its share within."""
        ids = [np.setdiff1d(array, [0]) for array in (wholes, parts)]
        return sum(sum(np.mean(wholes[parts == b] == a) > share for b in ids[1]) > 1 for a in ids[0])

    assert splits_merges(reference, labels, share=share) == (count(reference, labels), count(labels, reference))


def test_splits_and_merges_known_by_hand() -> None:
    """Cell 1 in two pieces and a sliver that lies half outside; cells 2 and 3 in one; cell 4 in one of equal size."""
    reference = np.array([1, 1, 1, 1, 1, 0, 2, 2, 2, 3, 3, 4, 4])
    labels = np.array([7, 7, 8, 8, 9, 9, 5, 5, 5, 5, 5, 6, 6])
    assert splits_merges(reference, labels) == (1, 1)
    assert splits_merges(labels, reference) == (1, 1)
    assert splits_merges(reference, np.where(labels == 8, 7, labels)) == (0, 1)


@given(segmentations())
def test_match_shares_most(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """One to one, only cells that touch, and as many shared elements as the dense optimum."""
    reference, labels = pair
    shared = overlap(reference, labels).pixels[1:, 1:].toarray()
    pairs = match(reference, labels)
    got = [((reference == a) & (labels == b)).sum() for a, b in pairs]
    assert all(np.unique(side).size == side.size for side in pairs.T)
    assert all(count > 0 for count in got)
    assert sum(got) == shared[linear_sum_assignment(shared, maximize=True)].sum()


@pytest.mark.parametrize("n_cells", [30, 200])
def test_match_shares_most_where_cells_are_tangled(n_cells: int) -> None:
    """Random ids, so that nearly every cell touches many and none is an easy pair."""
    rng = np.random.default_rng(n_cells)
    reference, labels = rng.integers(1, n_cells + 1, (2, 10 * n_cells))
    shared = overlap(reference, labels).pixels[1:, 1:].toarray()
    pairs = match(reference, labels)
    got = sum(((reference == a) & (labels == b)).sum() for a, b in pairs)
    assert got == shared[linear_sum_assignment(shared, maximize=True)].sum()


def test_match_is_not_greedy() -> None:
    """The largest overlap (1 with 1, 5) is given up where that saves two others (4 + 4)."""
    pairs = [(1, 1)] * 5 + [(1, 2)] * 4 + [(2, 1)] * 4
    assert match(*np.transpose(pairs)).tolist() == [[1, 2], [2, 1]]


@given(segmentations(), st.permutations(range(1, len(ID))))
def test_names_do_not_matter(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    """Renaming the segmented cells changes no figure; a perfect segmentation scores 1 whatever its names."""
    reference, labels = pair
    renamed = ID[np.array([0, *order])[np.searchsorted(ID, labels)]]
    for metric in (mean_best_iou, f1, fraction_right, average_precision, splits_merges):
        assert metric(reference, renamed) == pytest.approx(metric(reference, labels))
    perfect = ID[np.array([0, *order])[np.searchsorted(ID, reference)]]
    for metric in (mean_best_iou, f1, fraction_right):
        assert metric(reference, perfect) == 1
    assert average_precision(reference, perfect).tolist() == [1] * 5
    assert splits_merges(reference, perfect) == (0, 0)


def test_no_segmented_cell() -> None:
    """Nothing found scores 0, but transcripts of no cell are rightly given to none."""
    reference, labels = np.array([4, 4, 0, 0]), np.zeros(4, int)
    assert best_iou(reference, labels).tolist() == [0]
    assert f1(reference, labels) == 0
    assert average_precision(reference, labels).tolist() == [0] * 5
    assert splits_merges(reference, labels) == (0, 0)
    assert match(reference, labels).shape == (0, 2)
    assert fraction_right(reference, labels) == 0.5


def test_fraction_right_follows_pairs() -> None:
    """Given pairs decide, not the best ones; pairs of cells that hold no transcript, or one alone, change nothing."""
    reference, labels = np.array([1, 1, 2, 2, 0, 0]), np.array([2, 2, 1, 0, 0, 1])
    assert fraction_right(reference, labels) == 4 / 6
    assert fraction_right(reference, labels, pairs=[[1, 1], [2, 2]]) == 1 / 6
    assert fraction_right(reference, labels, pairs=[[1, 2], [2, 50], [60, 1], [70, 80]]) == 3 / 6
    assert fraction_right(reference, labels, pairs=np.empty((0, 2), int)) == 1 / 6


def test_known_figures_of_the_prostate(shared: Path) -> None:
    """Growing the reference's own nuclei gives what was measured before this package: pairs are equal ids."""
    from skimage.draw import polygon
    from skimage.segmentation import expand_labels

    folder, pixel = shared / "data" / "xenium_prime_prostate", 0.5
    points = pd.read_parquet(folder / "transcripts.parquet").query("qv >= 20")[["y_location", "x_location"]].to_numpy()
    origin = np.floor(points.min(axis=0))
    place = tuple(np.floor((points - origin) / pixel).astype(int).T)

    def rasterised(name: str) -> np.ndarray:
        labels = np.zeros([int(side.max()) + 2 for side in place], np.int64)
        outlines = pd.read_parquet(folder / f"{name}_boundaries.parquet").groupby("label_id")
        for number, (_, part) in enumerate(outlines, 1):
            corners = (part[["vertex_y", "vertex_x"]].to_numpy() - origin) / pixel
            labels[polygon(*corners.T, labels.shape)] = number
        return labels

    cells, nuclei = rasterised("cell"), rasterised("nucleus")
    # A nucleus takes the id of the cell that holds most of it.
    table = overlap(nuclei, cells)
    votes = table.pixels[1:, 1:].toarray()
    owner = np.zeros(nuclei.max() + 1, np.int64)
    owner[table.reference_ids[1:]] = np.where(votes.any(axis=1), table.label_ids[1:][votes.argmax(axis=1)], 0)
    nuclei = owner[nuclei]

    ids = np.unique(cells)[1:]
    right, iou = {}, {}
    for micron in (0, 2, 3, 4):
        grown = expand_labels(nuclei, micron / pixel)
        right[micron] = fraction_right(cells[place], grown[place], pairs=np.stack([ids, ids], axis=1))
        iou[micron] = mean_best_iou(cells, grown)
    assert right == pytest.approx({0: 0.613, 2: 0.761, 3: 0.766, 4: 0.761}, abs=0.002)
    assert iou[2] == pytest.approx(0.55, abs=0.01)
    assert iou[2] > iou[3] > iou[4] > iou[0]


def test_fast_enough_for_a_chip() -> None:
    """25 million pixels and 40,000 cells in seconds, not minutes: a sort of all pixels or a dense table would show."""
    row, column = np.ogrid[:5000, :5000]
    reference = (row // 25 * 200 + column // 25 + 1).astype(np.uint32)
    labels = np.roll(reference, (4, 7), axis=(0, 1))
    start = time.process_time()
    pairs = match(reference, labels)
    mean_best_iou(reference, labels)
    assert time.process_time() - start < 60
    assert len(pairs) == 40_000


@pytest.mark.parametrize(
    "metric",
    [overlap, best_iou, mean_best_iou, f1, average_precision, splits_merges, match, fraction_right],
)
@pytest.mark.parametrize(
    ("reference", "labels", "message"),
    [
        pytest.param(np.ones((2, 3), int), np.ones((3, 2), int), r"\(2, 3\).*\(3, 2\)", id="shapes"),
        pytest.param(np.ones(3), np.ones(3, int), "reference is of type float64", id="float"),
        pytest.param(np.ones(3, int), np.ones(3, bool), "labels is of type bool", id="bool"),
        pytest.param(np.ones(3, int), np.array([0, 1, -1]), "labels holds the negative number -1", id="negative"),
        pytest.param(np.zeros(3, int), np.ones(3, int), "reference holds no cell", id="no reference cell"),
        pytest.param(np.zeros(0, int), np.zeros(0, int), "reference holds no cell", id="empty"),
    ],
)
def test_refuses_what_cannot_be_compared(metric, reference, labels, message) -> None:
    with pytest.raises(DataError, match=message):
        metric(reference, labels)


@pytest.mark.parametrize(
    "metric",
    [best_iou, mean_best_iou, f1, average_precision, splits_merges, match, fraction_right],
)
@pytest.mark.parametrize("dtype", [">u2", ">i8", "<u4"])
def test_labels_may_be_of_any_byte_order(metric, dtype: str) -> None:
    """Those of TIFF files often have the other one."""
    reference, labels = np.array([[0, 1, 1], [2, 2, 2]]), np.array([[0, 3, 3], [3, 2, 2]])
    np.testing.assert_array_equal(metric(reference.astype(dtype), labels.astype(dtype)), metric(reference, labels))


@pytest.mark.parametrize("threshold", [0.49, 1, float("nan")])
def test_thresholds_without_a_unique_partner_are_refused(threshold: float) -> None:
    same = np.ones(3, int), np.ones(3, int)
    with pytest.raises(ParameterError, match="threshold="):
        f1(*same, threshold=threshold)
    with pytest.raises(ParameterError, match="thresholds="):
        average_precision(*same, thresholds=(0.5, threshold))
    with pytest.raises(ParameterError, match="share="):
        splits_merges(*same, share=threshold)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        pytest.param([[1, 1], [1, 2]], "reference id 1 occurs more than once", id="reference twice"),
        pytest.param([[1, 2], [3, 2]], "segmented id 2 occurs more than once", id="segmented twice"),
        pytest.param([[1, 0]], "above 0", id="background"),
        pytest.param([[1.0, 2.0]], "float64", id="float"),
        pytest.param([1, 2], r"shape \(2,\)", id="flat"),
    ],
)
def test_fraction_right_refuses_pairs_that_are_none(pairs: list, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        fraction_right(np.ones(3, int), np.ones(3, int), pairs=pairs)
