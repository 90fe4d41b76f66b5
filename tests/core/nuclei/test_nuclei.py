"""Nuclei: exact answers on drawn discs, what must not matter, hard and wrong images."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_nuclei import DISCS, GRID, IMAGE, draw, stain
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk

from sslcst.core.nuclei import segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import intensity_range, merge_channels, scale_intensity
from sslcst.errors import DataError, ParameterError
from sslcst.metrics import best_iou
from sslcst.params import NucleiParams

WATERSHED = NucleiParams(method="watershed")
OWN = [WATERSHED, NucleiParams(method="sslcst")]  # what this package finds nuclei with by itself


# --- watershed: exact answers on discs


@pytest.mark.parametrize("radius", [4, 7, 12, 25, 40])
def test_discs_are_found_whatever_their_size(radius: int) -> None:
    """Count and outline are right without being told the diameter."""
    truth = draw([(y * radius, x * radius) for y in (2, 5.5, 9) for x in (2, 5.5, 9)], radius, (11 * radius,) * 2)
    labels = segment_nuclei(stain(truth), params=WATERSHED)
    assert labels.max() == 9
    assert best_iou(truth, labels).min() > 0.85


def test_labels_are_uint32_without_gaps() -> None:
    labels = segment_nuclei(IMAGE, params=WATERSHED)
    assert labels.dtype == np.uint32
    assert labels.shape == IMAGE.shape
    assert np.array_equal(np.unique(labels), np.arange(len(GRID) + 1))


@pytest.mark.parametrize("overlap", [0.0, 0.15, 0.3])
def test_touching_discs_are_split(overlap: float) -> None:
    """A chain of four touching or overlapping discs gives four nuclei, not one."""
    step = 2 * 12 * (1 - overlap / 2)
    truth = draw([(60.0, 25 + k * step) for k in range(4)], 12)
    labels = segment_nuclei(stain(truth), params=WATERSHED)
    assert labels.max() == 4
    assert best_iou(truth, labels).min() > 0.7


def test_small_and_large_nuclei_side_by_side() -> None:
    """Nuclei three times as wide as the typical one stay whole."""
    truth = draw(GRID, 7, (120, 260))
    truth[disk((60, 200), 21)] = len(GRID) + 1
    labels = segment_nuclei(stain(truth), params=WATERSHED)
    assert labels.max() == len(GRID) + 1
    assert best_iou(truth, labels).min() > 0.8


def test_dim_nuclei_beside_bright_ones() -> None:
    """Each nucleus is outlined by its own brightness: a third of its neighbours' neither hides nor shrinks it."""
    image = stain(DISCS, noise=0) * np.where(DISCS % 2, 1.0, 0.33)
    labels = segment_nuclei(image + 0.01 * np.random.default_rng(0).standard_normal(image.shape), params=WATERSHED)
    assert labels.max() == len(GRID)
    assert best_iou(DISCS, labels).min() > 0.7


def test_uneven_background_is_removed() -> None:
    """A background that rises over the image to the brightness of the nuclei leaves them all, and adds none."""
    slope = np.linspace(0, 1, IMAGE.shape[1])[None, :]
    labels = segment_nuclei(IMAGE + slope, params=WATERSHED)
    assert labels.max() == len(GRID)
    assert best_iou(DISCS, labels).min() > 0.8


def test_holes_of_nuclei_are_filled_and_lumens_are_not() -> None:
    """A nucleolus is part of its nucleus; the space that a ring of nuclei encloses is not."""
    ring = [(60 + 30 * np.sin(a), 70 + 30 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 11)[:-1]]
    truth = draw(ring, 10)
    image = stain(truth)
    for y, x in ring:
        image[disk((y, x), 2)] = 0
    labels = segment_nuclei(image, params=WATERSHED)
    assert all(labels[round(y), round(x)] for y, x in ring)
    assert not labels[disk((60, 70), 15)].any()


# --- invariances


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i8", "u8", "f2", "f4", "f8"])
def test_any_type_gives_the_same_labels(dtype: str) -> None:
    counts = np.clip(np.round(IMAGE * 100 + 20), 0, 127)
    expected = segment_nuclei(counts, params=WATERSHED)
    assert np.array_equal(segment_nuclei(counts.astype(dtype), params=WATERSHED), expected)


def test_boolean_image() -> None:
    labels = segment_nuclei(DISCS > 0, params=WATERSHED)
    assert labels.max() == len(GRID)
    assert best_iou(DISCS, labels).min() > 0.85


@given(gain=st.floats(1e-6, 1e6), offset=st.floats(-1e6, 1e6))
def test_gain_and_offset_of_the_camera_do_not_matter(gain: float, offset: float) -> None:
    expected = segment_nuclei(IMAGE, params=WATERSHED)
    assert np.array_equal(segment_nuclei(gain * (IMAGE + offset / 1e3), params=WATERSHED) > 0, expected > 0)


def test_nuclei_move_with_the_image() -> None:
    """Away from the borders, shifted input gives shifted labels."""
    padded = np.pad(stain(draw(GRID[:3], 9), noise=0), 60)
    expected = segment_nuclei(padded, params=WATERSHED)
    shifted = segment_nuclei(np.roll(padded, (16, -32), axis=(0, 1)), params=WATERSHED)
    assert expected.max() == 3
    assert np.array_equal(shifted, np.roll(expected, (16, -32), axis=(0, 1)))


def test_result_does_not_depend_on_state() -> None:
    """Two runs give the same labels, and the caller's image is left as it was."""
    image = IMAGE.copy()
    assert np.array_equal(segment_nuclei(image, params=WATERSHED), segment_nuclei(image, params=WATERSHED))
    assert np.array_equal(image, IMAGE)


# --- images that are hard or wrong


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 40)), "no contrast"),
        (np.full((40, 40), 7, np.uint16), "no contrast: every pixel is 7"),
        (np.ones((1, 1)), "no contrast"),
        (np.where(np.eye(40) > 0, np.nan, 1.0), "40 of 1600 pixels that are NaN or infinite"),
        (np.where(np.eye(40) > 0, np.inf, 1.0), "NaN or infinite"),
        (np.empty((0, 40)), "empty"),
        (np.zeros((3, 40, 40)), r"shape \(3, 40, 40\): give one channel"),
        (np.zeros(40), "give one channel"),
        (np.ones((40, 40), complex), "type complex128"),
        (np.full((40, 40), "a"), "give integers, floats or booleans"),
        (np.where(np.eye(40) > 0, -3.4e38, 1.0), r"reaches from -3.4e\+38 to 1. Does that mark missing pixels"),
        (np.where(np.eye(40) > 0, 1.7e308, -1.7e308), "missing pixels"),
    ],
)
def test_image_that_cannot_be_segmented_is_refused(image: NDArray[np.generic], message: str) -> None:
    with pytest.raises(DataError, match=message):
        segment_nuclei(image, params=WATERSHED)


@pytest.mark.parametrize("shape", [(1, 2), (1, 200), (200, 1), (2, 2), (3, 7), (8, 8), (5, 300)])
@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_tiny_and_narrow_images_run(shape: tuple[int, int], params: NucleiParams) -> None:
    labels = segment_nuclei(np.random.default_rng(0).random(shape), params=params)
    assert labels.shape == shape


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_nothing_to_find_is_no_error(params: NucleiParams) -> None:
    """A line of pixels holds no nucleus; its labels are 0."""
    assert not segment_nuclei(np.arange(100.0)[None, :], params=params).any()
    assert not segment_nuclei(np.arange(100.0)[:, None], params=params).any()


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_stray_pixels_of_huge_value(params: NucleiParams) -> None:
    """A few pixels a billion times too bright hide no nucleus, and no warning of overflow comes up."""
    image = IMAGE.copy()
    image[[3, 50, 100], [5, 130, 40]] = 1e9, -1e9, 1e29
    labels = segment_nuclei(image, params=params)
    assert best_iou(DISCS, labels).min() > 0.7


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_saturated_image(params: NucleiParams) -> None:
    labels = segment_nuclei(np.clip(10 * IMAGE * 255, 0, 255).astype(np.uint8), params=params)
    assert labels.max() == len(GRID)
    assert best_iou(DISCS, labels).min() > 0.6


def test_touching_nuclei_in_a_saturated_image() -> None:
    """Clipped nuclei, touching ones among them, are still told apart by their shape."""
    truth = draw([(60.0, 40.0), (60.0, 60.0), (20.0, 100.0), (95.0, 110.0)], 11)
    saturated = np.clip(10 * stain(truth) * 255, 0, 255).astype(np.uint8)
    labels = segment_nuclei(saturated, params=WATERSHED)
    assert labels.max() == 4
    assert best_iou(truth, labels).min() > 0.6


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_inverted_image_does_not_give_its_dark_discs(params: NucleiParams) -> None:
    """Nuclei are bright; dark ones are not taken for nuclei, whatever else is found between them."""
    labels = segment_nuclei(-IMAGE, params=params)
    assert np.mean(labels[ndimage.binary_erosion(DISCS > 0, iterations=3)] > 0) < 0.05


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_one_nucleus_in_a_large_empty_image(params: NucleiParams) -> None:
    """Where fewer pixels are stained than lie above the upper percentile, the range of all intensities is taken."""
    truth = draw([(200.0, 300.0)], 6, (500, 500))
    labels = segment_nuclei((truth > 0).astype(np.uint8), params=params)
    assert labels.max() == 1
    assert best_iou(truth, labels).min() > 0.7


@pytest.mark.parametrize("params", OWN, ids=lambda params: params.method)
def test_one_nucleus_between_the_rows_that_tell_the_noise(params: NucleiParams) -> None:
    """Of a long image on an even ground some rows are looked at, and all may be the same."""
    image = np.zeros((2600, 60), np.uint8)
    image[13:17, 30:34] = 200
    assert segment_nuclei(image, params=params).shape == image.shape


# --- intensities and diameters


def test_the_range_of_a_line_of_pixels() -> None:
    low, high = intensity_range(np.arange(1001)[:, None], (10, 90))
    assert (low, high) == (100, 900)


def test_percentiles_become_0_and_1() -> None:
    image = np.arange(1001).reshape(7, 143)
    low, high = intensity_range(image, (10, 90))
    scaled = scale_intensity(image, low, high)
    assert (low, high) == (100, 900)
    assert scaled.dtype == np.float32
    assert scaled.flat[100] == 0
    assert scaled.flat[900] == 1
    assert scaled.flat[1000] == pytest.approx(1.125)  # not clipped


def test_range_of_the_whole_scales_a_tile_as_the_whole() -> None:
    limits = intensity_range(IMAGE, (1, 99.8))
    assert np.array_equal(scale_intensity(IMAGE[20:50, 30:90], *limits), scale_intensity(IMAGE, *limits)[20:50, 30:90])


def test_large_offset_keeps_precision() -> None:
    """Small differences on a large offset survive the conversion to single precision."""
    image = IMAGE + 1e9
    assert np.allclose(
        scale_intensity(image, *intensity_range(image, (1, 99.8))).std(),
        scale_intensity(IMAGE, *intensity_range(IMAGE, (1, 99.8))).std(),
        rtol=1e-4,
    )


@pytest.mark.parametrize("radius", [3, 5, 8, 13, 20, 35])
@pytest.mark.parametrize("seed", range(3))
def test_diameter_of_discs(radius: int, seed: int) -> None:
    """Within a sixth for discs apart at random, with noise on a slope of the background."""
    rng = np.random.default_rng(seed)
    size = 14 * radius
    centres: list[tuple[float, float]] = []
    for centre in rng.uniform(radius, size - radius, (200, 2)):
        if all(np.hypot(*(centre - other)) > 2.2 * radius for other in centres):
            centres.append(tuple(centre))
    image = stain(draw(centres, radius, (size, size)), noise=0.05, seed=seed)
    image += np.linspace(0, 1, size)
    scaled = scale_intensity(image, *intensity_range(image, (1, 99.8)))
    assert estimate_diameter(scaled) == pytest.approx(2 * radius, rel=1 / 6)


def test_diameter_of_nothing() -> None:
    assert estimate_diameter(np.zeros((50, 50), np.float32)) is None
    assert estimate_diameter(np.zeros((4, 50), np.float32)) is None


def test_diameters_are_in_coordinate_units() -> None:
    """18 pixels are 9 micron at half a micron a pixel."""
    in_pixels = segment_nuclei(IMAGE, params=NucleiParams(method="watershed", diameters=(18,)))
    in_micron = segment_nuclei(IMAGE, pixel_size=0.5, params=NucleiParams(method="watershed", diameters=(9,)))
    assert np.array_equal(in_pixels, in_micron)


def test_diameter_that_covers_most_is_kept() -> None:
    """Each is tried; a diameter far too large loses the nuclei, and the right one wins in any order."""
    alone = {d: segment_nuclei(IMAGE, params=NucleiParams(method="watershed", diameters=(d,))) for d in (18, 100)}
    assert np.count_nonzero(alone[18]) > np.count_nonzero(alone[100])
    for diameters in [(18, 100), (100, 18)]:
        assert np.array_equal(
            segment_nuclei(IMAGE, params=NucleiParams(method="watershed", diameters=diameters)), alone[18]
        )


@pytest.mark.parametrize(
    ("pixel_size", "diameters", "message"),
    [
        (10.0, (9.0,), "9 is 0.9 pixels"),
        (0.01, (9.0,), "9 is 900 pixels.*shorter side of 120.*same unit"),
        (0.0, (), "pixel_size=0.0: must be above 0"),
        (-1.0, (9.0,), "pixel_size=-1.0"),
        (np.nan, (), "pixel_size=nan"),
    ],
)
def test_diameter_that_the_image_cannot_show_is_refused(
    pixel_size: float, diameters: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        segment_nuclei(IMAGE, pixel_size=pixel_size, params=NucleiParams(method="watershed", diameters=diameters))


# --- several channels, scales of an image


def test_channels_are_merged_at_their_own_scales() -> None:
    """Half of the nuclei in a channel a thousand times as bright as the other: all are found."""
    left = np.where(DISCS % 2, IMAGE, 0)
    right = np.where(DISCS % 2, 0, 1000 * IMAGE)
    merged = merge_channels([left, right], (1, 99.8))
    assert merged.dtype == np.float32
    assert best_iou(DISCS, segment_nuclei(merged, params=WATERSHED)).min() > 0.8


def test_channels_that_are_wrong_are_refused() -> None:
    with pytest.raises(ParameterError, match="name at least one"):
        merge_channels([], (1, 99.8))
    with pytest.raises(DataError, match="no contrast"):
        merge_channels([IMAGE, np.zeros(IMAGE.shape)], (1, 99.8))
