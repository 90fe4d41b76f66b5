"""Algorithm 1 against its formula, pixel by pixel, and what an erosion must never do."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import disk
from skimage.measure import label, regionprops
from skimage.segmentation import expand_labels

from sslcst.errors import DataError, ParameterError
from sslcst.methods.ssl_cst.erosion import (
    _are_solid,
    _solidity_at_least,
    contrasts,
    erode_and_report,
    erode_once,
    shares,
    turned_element,
)
from sslcst.methods.ssl_cst.params import ErosionParams

ALL = {"min_area": 0, "min_solidity": 0.0}  # no core is dropped
SMALL_IMAGES = arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


def erode_nuclei(labels: np.ndarray, **how: Any) -> np.ndarray:
    return erode_and_report(labels, **how)[0]


def by_definition(labels: np.ndarray, element: np.ndarray) -> np.ndarray:
    """E(x, y) = min over (s_x, s_y) in S of I(x + s_x, y + s_y), where I is the mask of the pixel's own nucleus."""
    offsets = np.argwhere(element) - element.shape[0] // 2
    height, width = labels.shape
    out = np.zeros_like(labels)
    for y, x in np.argwhere(labels):
        least = 1
        for sy, sx in offsets:
            on_image = 0 <= y + sy < height and 0 <= x + sx < width
            least = min(least, int(on_image and labels[y + sy, x + sx] == labels[y, x]))
        out[y, x] = least * labels[y, x]
    return out


def discs() -> np.ndarray:
    """Four nuclei with gaps between their ids, the last two touching."""
    labels = np.zeros((40, 44), np.uint32)
    for name, center, radius in ((3, (9, 9), 6), (7, (9, 30), 8), (8, (29, 12), 7), (300, (29, 26), 7.5)):
        labels[disk(center, radius, shape=labels.shape)] = name
    return labels


def areas(labels: np.ndarray) -> dict[int, int]:
    return {int(name): int((labels == name).sum()) for name in np.unique(labels) if name}


def test_element_is_a_bar_along_x_before_it_is_turned() -> None:
    assert np.argwhere(turned_element(0, 3)).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_element_turned_by_a_right_angle_is_a_bar_along_y() -> None:
    assert np.array_equal(turned_element(np.pi / 2, 5), turned_element(0, 5).T)


def test_element_turned_by_half_a_right_angle_lies_on_the_diagonal() -> None:
    rows, columns = np.nonzero(turned_element(np.pi / 4, 7))
    assert len(rows) >= 5
    assert np.array_equal(rows, columns) or np.array_equal(rows, columns[::-1])


@given(angle=st.floats(0, np.pi), length=st.floats(3, 9))
@settings(max_examples=50)
def test_element_is_symmetric_about_its_middle(angle: float, length: float) -> None:
    """An element off its middle would push nuclei aside instead of wearing them down."""
    element = turned_element(angle, length)
    half = element.shape[0] // 2
    assert element[half, half]
    assert np.array_equal(element, element[::-1, ::-1])
    assert np.linalg.norm(np.argwhere(element) - half, axis=1).max() <= length / 2 + 1


@given(labels=SMALL_IMAGES, angle=st.floats(0, np.pi), length=st.sampled_from([3, 4, 5, 7]))
@settings(max_examples=60)
def test_one_erosion_is_the_minimum_over_the_element(labels: np.ndarray, angle: float, length: float) -> None:
    element = turned_element(angle, length)
    assert np.array_equal(erode_once(labels, element), by_definition(labels, element))


def test_touching_nuclei_part() -> None:
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 3, axis=0)
    eroded = erode_once(labels, turned_element(0, 3))
    assert eroded.tolist() == [[0, 1, 0, 0, 2, 0]] * 3  # the image's edge wears nuclei down as any background does


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95, 1.0])
def test_a_core_is_the_last_step_that_keeps_its_share(keep: float) -> None:
    """Step by step on one nucleus, with the same angles: the first step that leaves too little is not taken."""
    labels = np.zeros((19, 21), np.uint32)
    labels[disk((9, 10), 7.5)] = 5
    least = max(1, keep * (labels > 0).sum())
    rng = np.random.default_rng(42)
    expected = labels
    while (smaller := by_definition(expected, turned_element(rng.uniform(0, np.pi), 3))).astype(bool).sum() >= least:
        expected = smaller
    cores = erode_nuclei(labels, params=ErosionParams(keep=keep, **ALL), seed=42)
    assert np.array_equal(cores, expected)
    assert (cores > 0).sum() >= least


@pytest.mark.parametrize("seed", range(5))
def test_every_nucleus_keeps_its_share_and_gains_nothing(seed: int) -> None:
    labels = discs()
    cores = erode_nuclei(labels, params=ErosionParams(keep=0.6), seed=seed)
    before, after = areas(labels), areas(cores)
    assert after.keys() == before.keys()
    assert all(0.6 * before[name] <= after[name] < before[name] for name in before)
    assert np.array_equal(cores[cores > 0], labels[cores > 0])
    assert cores.dtype == labels.dtype


def test_a_nucleus_erodes_alike_alone_and_in_company() -> None:
    """No nucleus' core depends on what else the image holds, or tiles would differ from the whole."""
    labels = discs()
    together = erode_nuclei(labels, seed=1)
    for name in areas(labels):
        alone = erode_nuclei(np.where(labels == name, labels, 0), seed=1)
        assert np.array_equal(alone, np.where(together == name, together, 0))


def test_the_seed_fixes_the_cores() -> None:
    labels = discs()
    assert np.array_equal(erode_nuclei(labels, seed=3), erode_nuclei(labels, seed=3))
    assert not np.array_equal(erode_nuclei(labels, seed=3), erode_nuclei(labels, seed=4))


def test_the_nuclei_themselves_stay_as_they_were() -> None:
    labels = discs()
    before = labels.copy()
    erode_nuclei(labels)
    assert np.array_equal(labels, before)


def test_small_and_irregular_cores_are_dropped() -> None:
    labels = np.zeros((40, 40), np.uint32)
    labels[2:5, 2:4] = 1  # 6 pixels
    labels[10:30, 10:13] = labels[27:30, 10:30] = 2  # an L: 111 pixels of a hull about twice as large
    labels[disk((10, 28), 6)] = 3
    kept = {"keep": 1.0}
    assert areas(erode_nuclei(labels, params=ErosionParams(**kept))).keys() == {3}
    assert areas(erode_nuclei(labels, params=ErosionParams(min_area=0, **kept))).keys() == {1, 3}
    assert areas(erode_nuclei(labels, params=ErosionParams(min_solidity=0.0, **kept))).keys() == {2, 3}
    assert np.array_equal(erode_nuclei(labels, params=ErosionParams(**ALL, **kept)), labels)


@pytest.mark.parametrize("keep", [0.0, 0.6, 1.0])
def test_a_nucleus_that_fills_the_image_ends(keep: float) -> None:
    cores = erode_nuclei(np.ones((20, 23), np.uint32), params=ErosionParams(keep=keep, **ALL))
    assert max(keep * cores.size, 1) <= cores.sum() <= cores.size


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (2, 2)])
def test_thin_nuclei_keep_a_core(shape: tuple[int, int]) -> None:
    """A pixel, a line and a square of four have no inside, and no hull that a library would not warn of."""
    labels = np.zeros((14, 14), np.uint32)
    labels[1 : 1 + shape[0], 1 : 1 + shape[1]] = 9
    cores = erode_nuclei(labels, params=ErosionParams(keep=0.6, min_area=0))
    assert cores.max() == 9
    assert (cores > 0).sum() >= 0.6 * labels.astype(bool).sum()


def test_no_nuclei_have_no_cores() -> None:
    assert not erode_nuclei(np.zeros((5, 6), np.uint32)).any()


def test_ids_beyond_16_bits_are_nuclei_of_their_own() -> None:
    """Cut to 16 bits, 65,541 would be nucleus 5, and 65,536 background."""
    labels = np.zeros((20, 60), np.uint32)
    for name, column in ((5, 9), (65_541, 29), (65_536, 49)):
        labels[disk((9, column), 7)] = name
    assert areas(erode_nuclei(labels)).keys() == {5, 65_536, 65_541}


def test_one_erosion_takes_ids_near_the_top_of_uint32() -> None:
    labels = np.where(discs() > 0, discs() + np.uint32(2**32 - 400), 0).astype(np.uint32)
    element = turned_element(0.5, 5)
    assert np.array_equal(erode_once(labels, element) > 0, erode_once(discs(), element) > 0)
    assert set(np.unique(erode_once(labels, element))) == set(np.unique(labels))


def test_memory_does_not_depend_on_how_large_ids_are() -> None:
    labels = np.where(discs() == 300, np.uint32(4_000_000_000), discs())
    tracemalloc.start()
    cores = erode_nuclei(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert areas(cores).keys() == areas(labels).keys()
    assert peak < 2_000_000


# --- the share that is kept: size and contrast


def one_disc(radius: float) -> np.ndarray:
    side = 2 * int(radius) + 9
    nuclei = np.zeros((side, side), np.int32)
    nuclei[disk((side // 2, side // 2), radius)] = 1
    return nuclei


@pytest.mark.parametrize("radius", [3, 8, 11.5])
def test_nuclei_up_to_the_size_keep_the_base_share(radius: float) -> None:
    assert shares(one_disc(radius), params=ErosionParams(keep=0.6, size=24))[1] == pytest.approx(0.6)


def test_wider_nuclei_lose_the_same_rim() -> None:
    """Twice and four times the size: the width of what is eroded stays, and so the share that is kept grows."""
    params = ErosionParams(keep=0.5, size=24, **ALL)
    rims = []
    for radius in (12, 24, 48):
        nuclei = one_disc(radius)
        diameter = 2 * np.sqrt(nuclei.sum() / np.pi)
        share = shares(nuclei, params=params)[1]
        assert share == pytest.approx(0.5 ** min(1, 24 / diameter))
        kept = (erode_nuclei(nuclei, params=params) > 0).sum() / nuclei.sum()
        assert share <= kept < share + 0.12
        rims.append(radius * (1 - np.sqrt(kept)))
    assert np.ptp(rims) < 1.5


@given(keep=st.floats(0, 1), size=st.floats(1, 100), contrast=st.floats(0, 4))
@settings(max_examples=30)
def test_shares_are_shares(keep: float, size: float, contrast: float) -> None:
    """Between 0 and 1 whatever the parameters; all of a nucleus where keep is 1."""
    image = np.random.default_rng(0).random(discs().shape)
    params = ErosionParams(keep=keep, size=size, contrast=contrast)
    got = shares(label(discs()), image=image, params=params)
    assert ((got >= 0) & (got <= 1)).all()
    assert keep < 1 or (got == 1).all()


def noisy(nuclei: np.ndarray, seed: int = 0) -> np.ndarray:
    return (nuclei > 0) + 0.3 * np.random.default_rng(seed).standard_normal(nuclei.shape)


def test_contrast_is_a_correlation() -> None:
    """Computed nucleus by nucleus: brightness against being inside, over the nucleus and what is within 3 pixels."""
    nuclei = label(discs())
    image = noisy(nuclei)
    expected = []
    for number in range(1, nuclei.max() + 1):
        around = (expand_labels(nuclei, 3) == number) & (nuclei == 0)
        values = np.concatenate([image[nuclei == number], image[around]])
        inside = np.arange(len(values)) < (nuclei == number).sum()
        expected.append(np.corrcoef(values, inside)[0, 1])
    assert contrasts(nuclei, image)[1:] == pytest.approx(expected)


def test_contrast_known_by_hand() -> None:
    """Two clean levels, the same inverted, nothing to see, and nothing around."""
    nuclei = one_disc(6)
    assert contrasts(nuclei, 5 + 3.0 * nuclei)[1] == pytest.approx(1)
    assert contrasts(nuclei, 5 - 3.0 * nuclei)[1] == 0
    assert contrasts(nuclei, np.full(nuclei.shape, 7.0))[1] == 0
    assert contrasts(np.ones((5, 6), np.int32), np.zeros((5, 6)))[1] == 1
    assert contrasts(np.zeros((5, 6), np.int32), np.zeros((5, 6))).shape == (1,)  # of the background


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
@settings(max_examples=20)
def test_gain_and_offset_do_not_matter_to_the_contrast(gain: float, offset: float) -> None:
    nuclei = label(discs())
    assert contrasts(nuclei, gain * noisy(nuclei) + offset) == pytest.approx(contrasts(nuclei, noisy(nuclei)), abs=1e-6)


def test_contrast_of_integers() -> None:
    """Sums and squares of 8-bit counts do not run over."""
    nuclei = label(discs())
    counts = np.clip(200 * noisy(nuclei), 0, 255).astype(np.uint8)
    assert contrasts(nuclei, counts) == pytest.approx(contrasts(nuclei, counts.astype(float)))


def test_what_does_not_stand_out_is_eroded_more() -> None:
    """Two equal discs, one of them hardly brighter than the noise; without the image both keep the same."""
    nuclei = np.zeros((40, 80), np.uint32)
    nuclei[disk((20, 20), 11)] = 1
    nuclei[disk((20, 60), 11)] = 2
    image = (nuclei == 1) + 0.1 * (nuclei == 2) + 0.3 * np.random.default_rng(0).standard_normal(nuclei.shape)
    params = ErosionParams(keep=0.7, contrast=2)
    clear, faint = areas(erode_nuclei(nuclei, image=image, params=params)).values()
    assert faint < 0.75 * clear
    for same in ({"params": params}, {"params": ErosionParams(keep=0.7, contrast=0), "image": image}):
        one, other = areas(erode_nuclei(nuclei, **same)).values()
        assert one == other >= clear


def test_image_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(5, 6\), the nuclei \(40, 44\)"):
        erode_nuclei(discs(), image=np.zeros((5, 6)))


@pytest.mark.parametrize("values", [{"size": 0}, {"contrast": -0.1}, {"contrast": 4.1}, {"size": float("nan")}])
def test_parameters_out_of_bounds(values: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        ErosionParams(**values)


# --- what is dropped, and the report


def test_report_says_what_was_dropped_and_why() -> None:
    labels = np.zeros((40, 40), np.uint32)
    labels[2:5, 2:4] = 7  # 6 pixels
    labels[10:30, 10:13] = labels[27:30, 10:30] = 300  # an L
    labels[disk((10, 28), 6)] = 4_000_000_000
    cores, report = erode_and_report(labels, params=ErosionParams(keep=1.0))
    assert np.array_equal(np.unique(cores), [0, 4_000_000_000])
    assert (report.n_nuclei, report.n_cores, report.too_small, report.irregular) == (3, 1, (7,), (300,))
    assert report.share == 1
    assert str(report) == (
        "1 of 3 nuclei have a core to learn from, of 100% of their area; dropped: 1 too small, 1 too irregular."
    )


def test_report_of_the_share() -> None:
    labels = discs()
    cores, report = erode_and_report(labels)
    kept = [areas(cores)[name] / area for name, area in areas(labels).items()]
    assert report.share == pytest.approx(np.median(kept))
    assert report.n_cores == 4


def test_report_of_nothing() -> None:
    _, report = erode_and_report(np.zeros((5, 6), np.uint32))
    assert (report.n_nuclei, report.n_cores, report.too_small, report.irregular) == (0, 0, (), ())
    assert np.isnan(report.share)


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.floats(0, 1))
@settings(max_examples=80)
@pytest.mark.filterwarnings("ignore:Failed to get convex hull image:UserWarning")  # of a line of pixels
def test_the_octagon_decides_nothing_that_the_hull_would_not(mask: np.ndarray, min_solidity: float) -> None:
    """Its bound lies below the true solidity of any shape, and so what is kept is what regionprops would keep."""
    shapes = label(mask)
    solidity = {region.label: region.solidity for region in regionprops(shapes)}
    bound = _solidity_at_least(shapes)
    assert all(bound[number] <= value + 1e-12 for number, value in solidity.items())
    solid = _are_solid(shapes, min_solidity)
    assert all(solid[number] == (value >= min_solidity) for number, value in solidity.items())


def test_the_octagon_spares_round_nuclei_the_hull() -> None:
    """Discs and turned ellipses, as nearly all nuclei are, are known to be solid at once."""
    shapes = np.zeros((60, 200), np.int32)
    y, x = np.indices(shapes.shape)
    for number, angle in enumerate(np.linspace(0, np.pi, 4, endpoint=False), 1):
        v, u = y - 30, x - 50 * number + 25
        a, b = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        shapes[(a / 20) ** 2 + (b / 11) ** 2 < 1] = number
    assert _solidity_at_least(shapes)[1:].min() > 0.9
    assert _solidity_at_least(label(discs()))[1:].min() > 0.9
