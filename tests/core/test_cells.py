"""What makes cells of the flow: each step against loops, and on perfect predictions against the truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from skimage.measure import label

from sslcst.core.cells import Occupancy, fill_holes, keep_attached, to_pixels
from sslcst.core.spots import Grid, Spots
from sslcst.errors import DataError
from sslcst.methods.ssl_cst.flow import Field, track
from sslcst.methods.ssl_cst.params import SslCstParams
from sslcst.methods.ssl_cst.sampling import direction_class, direction_vectors
from sslcst.methods.ssl_cst.tracking import find_cells, orphan_cells
from sslcst.metrics import mean_best_iou

SEEDS = st.integers(0, 2**32 - 1)
FIRST_ORPHAN = 1000


def spots_at(occupied: np.ndarray) -> Spots:
    index = np.argwhere(occupied).astype(np.int32)
    return Spots(Grid(occupied.shape, (1.0, 1.0), 1.0), index, sparse.csr_matrix((len(index), 1)))


def connected(mask: np.ndarray, start: tuple[int, int]) -> set[tuple[int, int]]:
    """Bins that hang together with one by edges."""
    seen, todo = {start}, [start]
    while todo:
        y, x = todo.pop()
        for there in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if there not in seen and all(0 <= t < n for t, n in zip(there, mask.shape, strict=True)) and mask[there]:
                seen.add(there)
                todo.append(there)
    return seen


LABELS = arrays(np.uint32, (7, 8), elements=st.sampled_from([0, 1, 1, 2, 300]))


@given(cells=LABELS, in_nucleus=arrays(bool, (7, 8)))
@settings(max_examples=40)
def test_only_what_hangs_together_with_its_nucleus_is_kept(cells: np.ndarray, in_nucleus: np.ndarray) -> None:
    nuclei = np.where(in_nucleus, cells, 0)
    expected = np.zeros_like(cells)
    for place in map(tuple, np.argwhere(cells)):
        piece = connected(cells == cells[place], place)
        expected[place] = cells[place] * any(nuclei[p] for p in piece)
    assert np.array_equal(keep_attached(cells, nuclei), expected)


@given(cells=LABELS)
@settings(max_examples=60)
def test_holes_are_filled_by_the_one_cell_around(cells: np.ndarray) -> None:
    expected = cells.copy()
    for place in map(tuple, np.argwhere(cells == 0)):
        region = connected(cells == 0, place)
        if any(y in (0, 6) or x in (0, 7) for y, x in region):
            continue  # open at the border
        around = {int(cells[y + dy, x + dx]) for y, x in region for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))} - {0}
        if len(around) == 1:
            expected[place] = around.pop()
    assert np.array_equal(fill_holes(cells), expected)


def test_a_hole_between_two_cells_stays() -> None:
    cells = np.array([[1, 1, 2, 2], [1, 0, 0, 2], [1, 1, 2, 2], [1, 0, 1, 1], [1, 1, 1, 1]], np.uint32)
    filled = fill_holes(cells)
    assert filled[1].tolist() == [1, 0, 0, 2]
    assert filled[3].tolist() == [1, 1, 1, 1]


def test_ids_beyond_16_and_31_bits_are_kept() -> None:
    cells = np.full((1, 4), 4_000_000_000, np.uint32)
    nuclei = cells * np.array([0, 0, 0, 1], np.uint32)
    for cleaned in (keep_attached(cells, nuclei), fill_holes(cells)):
        assert cleaned.dtype == np.uint32
        assert np.array_equal(cleaned, cells)


def grid_of(shape: tuple[int, int]) -> Grid:
    return Grid(shape, (1.0, 1.0), 1.0)


def test_paths_whose_ends_lie_together_are_one_orphan() -> None:
    """Ends within the radius, across a corner too, are one; those apart are others; the small are dropped; the id is
    that of the place where most paths end.
    """
    sinks = np.full((4, 10), -1)
    sinks[0, :3], sinks[1, :2] = 0, 11  # end in (0, 0) and (1, 1), which touch by a corner
    sinks[3, 0:4] = 38  # ends in (3, 8)
    sinks[3, 9] = 5  # one bin
    orphans = orphan_cells(sinks, grid_of((4, 10)), radius=1, first_id=50, min_area=4)
    assert set(np.unique(orphans)) == {0, 50, 88}
    assert np.argwhere(orphans == 50).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert np.argwhere(orphans == 88).tolist() == [[3, 0], [3, 1], [3, 2], [3, 3]]


def orphans_by_climbing(sinks: np.ndarray, *, radius: int, first_id: int, min_area: int) -> np.ndarray:
    """Each path's end climbs at most four times to where most paths end; that must be a summit."""
    width = sinks.shape[1]
    ends = Counter(divmod(end, width) for end in sinks[sinks >= 0].tolist())

    def up(place: tuple[int, int]) -> tuple[int, int]:
        near = (other for other in ends if max(abs(a - b) for a, b in zip(place, other, strict=True)) <= radius)
        return min(near, key=lambda other: (-ends[other], other))

    summits = {}
    for start in map(tuple, np.argwhere(sinks >= 0).tolist()):
        place = divmod(int(sinks[start]), width)
        for _ in range(4):
            place = up(place)
        summits[start] = place
    area = Counter(summits.values())
    out = np.zeros(sinks.shape, np.uint32)
    for start, (row, column) in summits.items():
        if up((row, column)) == (row, column) and area[row, column] >= min_area:
            out[start] = first_id + row * width + column
    return out


@given(
    sinks=arrays(np.int64, (6, 9), elements=st.sampled_from([-1, *range(0, 54, 3)])),
    radius=st.integers(1, 3),
    min_area=st.integers(1, 12),
)
@settings(max_examples=80)
def test_orphans_are_those_of_climbing_from_each_end(sinks: np.ndarray, radius: int, min_area: int) -> None:
    settings_ = {"radius": radius, "first_id": 7, "min_area": min_area}
    assert np.array_equal(orphan_cells(sinks, grid_of((6, 9)), **settings_), orphans_by_climbing(sinks, **settings_))


def test_what_does_not_come_to_a_summit_is_no_orphan() -> None:
    """Six ends in a row, each a little higher than the last: from the first four, four steps lead to the summit."""
    sinks = np.full((8, 12), -1)
    for number in range(6):
        sinks[: 2 + number, 2 * number] = 2 * number  # ends in (0, 2 x number)
    orphans = orphan_cells(sinks, grid_of((8, 12)), radius=2, first_id=1, min_area=1)
    assert np.unique(orphans[0, ::2]).tolist() == [0, 11]
    assert orphans[0, ::2].tolist() == [0, 11, 11, 11, 11, 11]


@given(sinks=arrays(np.int64, (6, 9), elements=st.sampled_from([-1, *range(0, 54, 4)])))
@settings(max_examples=30)
def test_an_orphans_id_does_not_depend_on_the_window(sinks: np.ndarray) -> None:
    """The same paths, seen as a window that begins elsewhere, or as all there is of a grid."""
    grid = Grid((40, 30), (1.0, 1.0), 1.0)
    whole = np.full(grid.shape, -1, np.int64)
    rows, columns = np.divmod(sinks, 9)
    settings_ = {"radius": 2, "first_id": 100, "min_area": 3}
    found = []
    for top, left in ((0, 0), (5, 4), (12, 11)):
        view = grid.view(((12 - top, 12 - top + 6 + 2 * top), (11 - left, 11 - left + 9 + 2 * left)))
        seen = np.full(view.shape, -1, np.int64)
        place = np.s_[top : top + 6, left : left + 9]
        seen[place] = np.where(sinks < 0, -1, (rows + top) * view.shape[1] + columns + left)
        found.append(orphan_cells(seen, view, **settings_)[place])
    whole[12:18, 11:20] = np.where(sinks < 0, -1, (rows + 12) * 30 + columns + 11)
    found.append(orphan_cells(whole, grid, **settings_)[12:18, 11:20])
    for other in found[1:]:
        assert np.array_equal(found[0], other)


def test_without_sinks_there_are_no_orphans() -> None:
    assert not orphan_cells(np.full((3, 4), -1), grid_of((3, 4)), radius=3, first_id=1, min_area=1).any()


def test_orphans_that_cannot_be_numbered_are_an_error() -> None:
    """An id is that of a bin behind those of the nuclei, in 32 bits."""
    sinks = np.zeros((2, 2), np.int64)
    view = Grid((60_000, 60_000), (1.0, 1.0), 1.0).view(((0, 2), (0, 2)))
    assert orphan_cells(sinks, view, radius=1, first_id=600_000_000, min_area=1)[0, 0] == 600_000_000
    with pytest.raises(DataError, match=r"numbered on a grid of 3600000000 bins.*flow.orphans=False"):
        orphan_cells(sinks, view, radius=1, first_id=700_000_000, min_area=1)


def test_pixels_take_their_bins_cell_and_nuclei_stay_as_they_are() -> None:
    grid = Grid((4, 5), (2.0, 2.0), 2.0)
    nuclei = np.zeros((4, 5), np.uint32)
    nuclei[1, 1:3] = 9
    cells = np.array([[3, 0, 4], [0, 9, 0]], np.uint32)
    assert grid.to_raster(cells).tolist() == [[3, 3, 0, 0, 4]] * 2 + [[0, 0, 9, 9, 0]] * 2
    assert to_pixels(cells, grid, nuclei)[nuclei > 0].tolist() == [9, 9]
    assert to_pixels(cells, grid, nuclei).dtype == np.uint32


@given(seed=SEEDS, step=st.sampled_from([1.0, 1.6, 2.5]))
@settings(max_examples=15)
def test_every_nucleus_lies_in_its_cell(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid((12, 13), (step, step), step)
    nuclei = rng.integers(0, 4, (12, 13)).astype(np.uint32)
    pixels = to_pixels(rng.integers(0, 4, grid.shape).astype(np.uint32), grid, nuclei)
    assert np.array_equal(pixels[nuclei > 0], nuclei[nuclei > 0])


def test_boundaries_are_no_stairs_of_bins() -> None:
    """A disc of wide bins is closer to the disc on the pixels than its bins are, and of much the same size."""
    y, x = np.indices((120, 120)) + 0.5
    disc = (np.hypot(y - 60.3, x - 58.9) < 41).astype(np.uint32)
    grid = Grid(disc.shape, (6.0, 6.0), 6.0)
    nuclei = np.zeros_like(disc)
    bins = grid.from_raster(disc)
    smooth = to_pixels(bins, grid, nuclei)
    stairs = grid.to_raster(bins)
    assert (smooth != disc).sum() < 0.8 * (stairs != disc).sum()
    assert int(smooth.sum()) == pytest.approx(int(disc.sum()), rel=0.02)


@given(seed=SEEDS, step=st.sampled_from([2.0, 3.0, 4.5]))
@example(134, 2.0)
@example(935, 4.0)
@settings(max_examples=20)
def test_cells_stay_in_one_piece_when_they_are_smoothed(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid((60, 66), (step, step), step)
    nuclei = np.zeros(grid.shape, np.uint32)
    for number in range(1, 4):
        nuclei[tuple(rng.integers(0, grid.shape))] = number
    cells = keep_attached(np.where(nuclei > 0, nuclei, rng.integers(0, 4, grid.shape)), nuclei)
    pixels = to_pixels(cells, grid, np.zeros((60, 66), np.uint32))
    for number in np.unique(pixels[pixels > 0]):
        assert label(pixels == number, connectivity=1).max() == 1


def test_a_cell_that_another_nucleus_cuts_in_two_keeps_the_piece_of_its_own() -> None:
    """The other nucleus is so thin that no bin is its, but its pixels are."""
    nuclei = np.zeros((9, 18), np.uint32)
    nuclei[3:6, 3:6] = 1
    nuclei[:, 11] = 2
    grid = Grid(nuclei.shape, (3.0, 3.0), 3.0)
    cells = np.ones(grid.shape, np.uint32)
    pixels = to_pixels(cells, grid, nuclei)
    assert (pixels[3:6, :11] == 1).all() and not (pixels[:, 12:] > 0).any()
    assert np.array_equal(pixels == 2, nuclei == 2)


def test_spacing_is_that_of_the_spots_in_nuclei() -> None:
    nuclei = np.zeros((20, 20), np.uint32)
    nuclei[:10] = 1
    occupied = np.zeros((20, 20), bool)
    occupied[::5, ::5] = True  # 8 spots on the 200 bins of nuclei
    assert Occupancy.of(nuclei, nuclei[occupied]).spacing == pytest.approx(0.5 * (200 / 8) ** 0.5)
    assert Occupancy.of(nuclei, nuclei.ravel()).spacing == 1
    assert Occupancy(200, 0).spacing == pytest.approx(0.5 * 200**0.5)


# --- Perfect predictions ---------------------------------------------------------------------------------------------


def discs(*, spacing: float, radius: float, shape: tuple[int, int] = (112, 112)) -> tuple[np.ndarray, ...]:
    """Round cells around nuclei of radius 3 and the middles of these; where cells would overlap, a line parts them."""
    steps = (np.arange(spacing / 2, size, spacing) for size in shape)
    centers = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
    centers = centers + np.random.default_rng(0).uniform(-2, 2, centers.shape)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    distance = np.hypot(y[..., None] - centers[:, 0], x[..., None] - centers[:, 1])
    nearest = (distance.argmin(axis=-1) + 1).astype(np.uint32)
    cells, nuclei = (np.where(distance.min(axis=-1) <= r, nearest, 0) for r in (radius, 3))
    return cells, nuclei, centers


def perfect(cells: np.ndarray, centers: np.ndarray, share: float) -> tuple[Spots, np.ndarray, np.ndarray]:
    """What a faultless network would predict, at spots on a share of the bins."""
    spots = spots_at(np.random.default_rng(1).random(cells.shape) < share)
    own = cells[tuple(spots.index.T)].astype(int)
    classes = direction_class(centers[own - 1] - spots.index - 0.5)
    direction = np.where((own > 0)[:, None], np.eye(16)[classes], 1 / 16)
    return spots, direction, (own > 0).astype(float)


def found_from(spots: Spots, direction: np.ndarray, inside: np.ndarray, nuclei: np.ndarray, **params) -> np.ndarray:
    return find_cells(
        spots,
        direction=direction,
        inside=inside,
        nuclei=nuclei,
        reach=14,
        spacing=Occupancy.of(nuclei, nuclei[spots.place]).spacing,
        first_orphan=FIRST_ORPHAN,
        params=SslCstParams.of({"flow": params}).flow,
    )


def cells_of(truth: tuple[np.ndarray, ...], share: float, **params) -> np.ndarray:
    cells, nuclei, centers = truth
    spots, direction, inside = perfect(cells, centers, share)
    return found_from(spots, direction, inside, nuclei, **params)


APART = {"spacing": 22, "radius": 8}
TOUCHING = {"spacing": 14, "radius": 9}


LAYOUTS = pytest.mark.parametrize("layout", [APART, TOUCHING], ids=["apart", "touching"])


def share_right(truth: tuple[np.ndarray, ...], cells: np.ndarray, share: float) -> float:
    """Of the spots, those given to the right cell or rightly to none."""
    places = tuple(perfect(truth[0], truth[2], share)[0].index.T)
    return (cells[places] == truth[0][places]).mean()


@LAYOUTS
def test_perfect_predictions_in_all_bins_give_back_the_cells(layout: dict[str, float]) -> None:
    """Nothing at all is lost: each bin is certain, so that smoothing must not touch it, and points to its nucleus."""
    truth = discs(**layout)
    assert np.array_equal(cells_of(truth, 1.0), truth[0])


@LAYOUTS
@pytest.mark.parametrize(("share", "right", "iou"), [(0.5, 1.0, 0.93), (0.3, 1.0, 0.88), (0.1, 0.995, 0.76)])
def test_perfect_predictions_at_some_bins_give_back_their_spots(
    layout: dict[str, float], share: float, right: float, iou: float
) -> None:
    """No spot is lost while they lie close enough to hang together. No prediction says whose the empty bins along the
    border are, which costs the areas some overlap (measured: 0.946 and 0.953, 0.902 and 0.901, 0.793 and 0.784).
    """
    truth = discs(**layout)
    cells = cells_of(truth, share)
    assert share_right(truth, cells, share) >= right
    assert mean_best_iou(truth[0], cells) >= iou


@LAYOUTS
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_papers_smoothing_loses_more(layout: dict[str, float], share: float) -> None:
    """It averages over boundaries, and takes empty bins for none (measured: 0.997 and 0.986, then 0.809 and 0.822)."""
    truth = discs(**layout)
    of_mean = mean_best_iou(truth[0], cells_of(truth, share, smoothing="mean"))
    assert 0.8 < of_mean < mean_best_iou(truth[0], cells_of(truth, share))


@LAYOUTS
def test_smoothing_mends_what_the_network_is_unsure_of(layout: dict[str, float]) -> None:
    """Two spots of five tell next to nothing: as they are, paths break off (measured: 0.81 and 0.52 of the spots are
    right, overlap 0.52 and 0.51); smoothed, they go on (0.98 of the spots, overlap 0.96).
    """
    truth = cells, nuclei, centers = discs(**layout)
    spots, direction, inside = perfect(cells, centers, 1.0)
    rng = np.random.default_rng(5)
    unsure = rng.random(len(spots)) < 0.4
    direction[unsure] = 0.9 / 16 + 0.1 * np.eye(16)[rng.integers(0, 16, unsure.sum())]
    inside[unsure] = rng.uniform(0.3, 0.7, unsure.sum())
    smoothed = found_from(spots, direction, inside, nuclei)
    vector = spots.on_grid(direction_vectors()[direction.argmax(axis=1)], 0.0)
    raw, _ = track(Field(vector, spots.on_grid(inside, 0.0)), nuclei, threshold=0.5, step=2.0, reach=14)
    assert mean_best_iou(cells, fill_holes(keep_attached(raw, nuclei))) < 0.6
    assert mean_best_iou(cells, smoothed) > 0.95
    assert share_right(truth, smoothed, 1.0) > 0.97


@LAYOUTS
def test_a_cell_without_a_nucleus_is_kept_on_request(layout: dict[str, float]) -> None:
    """Under an id of its own; by default it is dropped. Its neighbours stay as they are."""
    cells, nuclei, centers = discs(**layout)
    truth = cells, np.where(nuclei == 13, 0, nuclei), centers
    without = np.where(cells == 13, 0, cells)
    assert np.array_equal(cells_of(truth, 1.0), without)
    kept = cells_of(truth, 1.0, orphans=True)
    (number,) = np.unique(kept[cells == 13])
    assert number >= FIRST_ORPHAN
    assert cells.ravel()[number - FIRST_ORPHAN] == 13  # named after one of its own bins
    assert np.array_equal(kept, np.where(cells == 13, number, cells))
    assert np.array_equal(cells_of(truth, 1.0, orphans=True, min_orphan_area=1000), without)


@given(SEEDS)
@settings(max_examples=10)
def test_every_cell_is_one_piece_around_its_nucleus_however_wild_the_predictions(seed: int) -> None:
    cells, nuclei, _ = discs(**TOUCHING, shape=(42, 42))
    rng = np.random.default_rng(seed)
    spots = spots_at(rng.random(cells.shape) < 0.5)
    found = found_from(spots, rng.dirichlet(np.full(16, 0.2), len(spots)), rng.random(len(spots)), nuclei)
    assert np.array_equal(found[nuclei > 0], nuclei[nuclei > 0])
    for number in np.unique(nuclei[nuclei > 0]):
        mask = found == number
        assert len(connected(mask, tuple(np.argwhere(nuclei == number)[0]))) == mask.sum()


def test_an_orphan_never_takes_a_nucleus_id() -> None:
    """The caller says where ids are free, because a nucleus between the bins' middles is not on the grid."""
    grid = Grid((24, 24), (2.0, 2.0), 2.0)
    nuclei = np.zeros((24, 24), np.uint32)
    nuclei[20:, 20:] = 1
    nuclei[0, 0] = 2  # bins are read at pixels 1, 3, ...
    index = np.argwhere(np.ones(grid.shape)).astype(np.int32)
    spots = Spots(grid, index, sparse.csr_matrix((len(index), 1)))
    cells = find_cells(
        spots,
        direction=np.eye(16)[direction_class([5, 5] - index)],
        inside=(index < 9).all(axis=1).astype(float),
        nuclei=grid.from_raster(nuclei),
        reach=14,
        spacing=1.0,
        first_orphan=int(nuclei.max()) + 1,
        params=SslCstParams.of({"flow": {"orphans": True, "min_orphan_area": 20}}).flow,
    )
    assert cells[5, 5] >= 3
    assert cells[5, 5] not in nuclei
