"""The bundled nucleus network: flows, the network, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_nuclei import DISCS, GRID, draw, scatter
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, ellipse
from skimage.io import imread

from sslcst.core.nuclei import sslcst as backend
from sslcst.core.nuclei.flows import CORE, decode
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.core.nuclei.network import OUTPUTS, NucleusNetwork, fold
from sslcst.metrics import average_precision, best_iou
from sslcst.params import NucleiParams

REPOSITORY = Path(__file__).parents[3]


def stain(labels: NDArray[np.integer], *, blur: float = 1.0, noise: float = 0.03, seed: int = 0) -> NDArray[np.float32]:
    """A stain image, scaled as `segment_nuclei` scales it."""
    image = ndimage.gaussian_filter((labels > 0).astype(float), blur)
    return scaled(image + noise * np.random.default_rng(seed).standard_normal(labels.shape))


def scaled(image: NDArray[np.generic]) -> NDArray[np.float32]:
    return scale_intensity(image, *intensity_range(image, NucleiParams().percentiles))


def count(labels: NDArray[np.integer]) -> int:
    return len(np.unique(labels[labels > 0]))


# --- flows


def perfect(labels: NDArray[np.int32], grid: tuple[int, int] | None = None) -> tuple[NDArray, NDArray]:
    """Outputs of a network that makes no mistake, on a grid that covers the same ground."""
    shape = labels.shape
    rows, columns = (
        ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(grid or shape, shape, strict=True)
    )
    sampled = labels[np.ix_(rows, columns)]
    flow = np.zeros((2, *sampled.shape), np.float32)
    for number in np.unique(sampled[sampled > 0]):
        places = np.argwhere(sampled == number)
        centre = places[np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
        length = np.maximum(np.linalg.norm(centre - places, axis=1), CORE)
        flow[:, sampled == number] = ((centre - places) / length[:, None]).T
    return np.where(sampled > 0, 5.0, -5.0).astype(np.float32), flow


@pytest.mark.parametrize("radius", [3, 5, 9, 25])
def test_labels_survive_the_way_to_flows_and_back(radius: int) -> None:
    """Touching discs of any size, cut by the border too."""
    step = 2 * radius + 0.5
    truth = draw([(y * step, x * step) for y in range(4) for x in range(5)], radius, (int(4 * step), int(5 * step)))
    labels = decode(*perfect(truth), truth.shape, min_area=5)
    assert best_iou(truth, labels).min() > 0.95
    assert count(labels) == count(truth)


@pytest.mark.parametrize("zoom", [0.4, 0.5, 0.73, 1.6, 2.0])
def test_outlines_are_as_fine_as_the_image(zoom: float) -> None:
    """The network may see the image at another scale."""
    truth = draw([(40.0, 40.0), (40.0, 81.0), (85.0, 60.0)], 20, (120, 125))
    grid = tuple(round(side * zoom) for side in truth.shape)
    labels = decode(*perfect(truth, grid), truth.shape)
    assert count(labels) == 3
    assert best_iou(truth, labels).min() > 0.9


def test_long_nuclei_stay_whole() -> None:
    truth = np.zeros((60, 140), np.int32)
    truth[ellipse(30, 70, 6, 60)] = 1
    assert count(decode(*perfect(truth), truth.shape)) == 1


def test_a_nucleus_is_one_piece_without_holes() -> None:
    truth = draw([(40, 40)], 15, (80, 80))
    logit, flow = perfect(truth)
    logit[disk((40, 46), 3)] = -5  # a nucleolus
    logit[:, 30] = -5  # a scratch cuts a piece off
    labels = decode(logit, flow, truth.shape)
    assert labels[40, 46] == labels[40, 40] > 0
    assert ndimage.label(labels)[1] == 1


def test_flows_that_lead_nowhere_make_no_nucleus() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, (60, 60))
    logit = np.full((60, 60), 5, np.float32)
    noise = np.stack([np.sin(angle), np.cos(angle)]).astype(np.float32)
    assert not decode(logit, noise, (60, 60)).any()


def test_specks_are_dropped() -> None:
    truth = draw([(20, 20)], 9, (60, 60))
    truth[50:52, 50:52] = 2
    assert count(decode(*perfect(truth), truth.shape)) == 1
    assert count(decode(*perfect(truth), truth.shape, min_area=2)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (7, 5)])
@pytest.mark.parametrize("logit", [-1.0, 1.0])
def test_outputs_of_any_shape(shape: tuple[int, int], logit: float) -> None:
    labels = decode(np.full(shape, logit, np.float32), np.zeros((2, *shape), np.float32), shape)
    assert labels.shape == shape
    assert logit > 0 or not labels.any()


# --- network


def test_network_halves_and_doubles() -> None:
    network = NucleusNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 32, 48)).shape == (2, OUTPUTS, 32, 48)
    assert sum(p.numel() for p in network.parameters()) < 1.5e6


def test_folding_changes_nothing() -> None:
    """The network without batch normalisation computes what it did with it."""
    torch.manual_seed(0)
    network = NucleusNetwork()
    image = torch.rand(2, 1, 64, 64)
    network(image)  # gives the normalisation something to remember
    network.eval()
    with torch.inference_mode():
        before = network(image)
    fold(network)
    assert not [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        assert torch.allclose(network(image), before, atol=1e-4)


# --- what it finds


@pytest.fixture(scope="module")
def segment() -> Callable[..., NDArray[np.integer]]:
    return backend.load(NucleiParams(), device="cpu")


@pytest.mark.parametrize("radius", [4, 7, 12, 25, 40])
def test_discs_are_found_whatever_their_size(radius: int, segment: Callable) -> None:
    """Count and outline are right without being told the diameter."""
    truth = draw([(y * radius, x * radius) for y in (2, 5.5, 9) for x in (2, 5.5, 9)], radius, (11 * radius,) * 2)
    labels = segment(stain(truth))
    assert labels.shape == truth.shape
    assert count(labels) == 9
    assert best_iou(truth, labels).min() > 0.65  # blur widens the smallest


@pytest.mark.parametrize("factor", [0.7, 1, 1.4])
def test_the_diameter_may_be_told(factor: float, segment: Callable) -> None:
    """And be wrong by two fifths."""
    labels = segment(stain(DISCS), 18.0 * factor)
    assert count(labels) == len(GRID)
    assert best_iou(DISCS, labels).min() > 0.7


@pytest.mark.parametrize("overlap", [0.0, 0.15, 0.3])
def test_touching_discs_are_split(overlap: float, segment: Callable) -> None:
    step = 2 * 12 * (1 - overlap / 2)
    truth = draw([(60.0, 25 + k * step) for k in range(4)], 12)
    labels = segment(stain(truth))
    assert count(labels) == 4
    assert best_iou(truth, labels).min() > 0.6


def test_dim_nuclei_beside_bright_ones(segment: Callable) -> None:
    image = ndimage.gaussian_filter(np.where(DISCS % 2, 1.0, 0.25) * (DISCS > 0), 1)
    labels = segment(scaled(image + 0.01 * np.random.default_rng(0).standard_normal(image.shape)))
    assert count(labels) == len(GRID)


def test_uneven_background(segment: Callable) -> None:
    labels = segment(scaled(stain(DISCS) + np.linspace(0, 1, DISCS.shape[1])))
    assert count(labels) == len(GRID)


def test_size_is_measured_in_a_part_of_a_large_image(segment: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are nuclei."""
    truth = np.zeros((500, 600), np.int32)
    truth[350:470, 430:570] = DISCS
    image = stain(truth)
    monkeypatch.setattr(backend, "_WINDOW", 150)
    labels = segment(image)
    assert count(labels) == len(GRID)
    assert best_iou(DISCS, labels[350:470, 430:570]).min() > 0.8


def test_blank_images_have_no_nuclei(segment: Callable) -> None:
    for image in (np.zeros((90, 80), np.float32), np.ones((90, 80), np.float32)):
        assert not segment(image).any()
        assert not segment(image, 15.0).any()


@pytest.mark.parametrize("sigma", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_noise_has_next_to_no_nuclei(seed: int, sigma: float, segment: Callable) -> None:
    """Scaled up to full contrast, as an empty image would be: a real one of the size holds a hundred."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((200, 200)), sigma)
    assert count(segment(scaled(noise), 18.0)) <= 5


def test_ramp_has_no_nuclei(segment: Callable) -> None:
    assert not segment(scaled(np.add.outer(np.arange(100.0), np.arange(120.0))), 20.0).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (2, 3), (15, 17), (33, 500)])
@pytest.mark.parametrize("diameter", [None, 3.0, 12.0])
def test_images_of_any_shape(shape: tuple[int, int], diameter: float | None, segment: Callable) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    assert segment(image, diameter).shape == shape


def test_inverted_and_saturated_images_do_no_harm(segment: Callable) -> None:
    assert segment(1 - stain(DISCS)).shape == DISCS.shape
    saturated = segment(np.minimum(stain(DISCS) * 5, 1))
    assert count(saturated) == len(GRID)
    assert count(segment(np.where(DISCS > 0, 1e6, 0).astype(np.float32))) == len(GRID)


def test_input_is_left_as_it_is(segment: Callable) -> None:
    """And may be any view of memory."""
    image = stain(DISCS)
    copy = image.copy()
    labels = segment(image)
    assert np.array_equal(image, copy)
    image.flags.writeable = False
    assert np.array_equal(segment(image), labels)
    assert np.array_equal(segment(np.asfortranarray(image)), labels)


def test_same_image_same_labels(segment: Callable) -> None:
    assert np.array_equal(segment(stain(DISCS)), segment(stain(DISCS)))


@given(turns=st.integers(1, 3), mirrored=st.booleans())
def test_turned_and_mirrored_images(turns: int, mirrored: bool, segment: Callable) -> None:
    truth = np.rot90(DISCS[:, ::-1] if mirrored else DISCS, turns)
    labels = segment(stain(np.ascontiguousarray(truth)))
    assert count(labels) == len(GRID)
    assert best_iou(truth, labels).min() > 0.8


@pytest.mark.parametrize("shift", [(1, 0), (3, 5), (7, 8), (13, 2)])
def test_nothing_depends_on_where_the_image_begins(shift: tuple[int, int], segment: Callable) -> None:
    truth = scatter((220, 240), 30, 9)
    image = stain(truth)
    labels = segment(image, 18.0)[shift[0] :, shift[1] :][20:-20, 20:-20]
    moved = segment(image[shift[0] :, shift[1] :], 18.0)[20:-20, 20:-20]
    assert abs(count(labels) - count(moved)) <= 1
    assert np.mean((labels > 0) == (moved > 0)) > 0.99


# --- tiles


def test_tiles_agree_with_the_whole(segment: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """No nucleus is cut along the lines between tiles."""
    truth = scatter((520, 600), 28, 10, seed=1)
    image = stain(truth, noise=0.1)
    whole = segment(image, 20.0)
    monkeypatch.setattr(backend, "_TILE", 160)
    tiled = segment(image, 20.0)
    assert count(tiled) == count(whole)
    assert best_iou(whole, tiled).min() > 0.97


def test_tiled_outputs_are_the_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, as the halo holds all that a pixel depends on; sides need not be multiples of a tile."""
    torch.manual_seed(0)
    network = fold(NucleusNetwork())
    image = np.random.default_rng(0).random((413, 390), np.float32)
    whole = backend.predict(network, image)
    monkeypatch.setattr(backend, "_TILE", 64)
    assert np.allclose(backend.predict(network, image), whole, atol=1e-5)


# --- real images


def test_half_precision_finds_the_same_nuclei(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which processors take it must not matter to anyone but their owners."""
    image = stain(scatter((300, 300), step=30, radius=9))
    found = {}
    for kind in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(backend, "inference_dtype", lambda _, kind=kind: kind)
        found[kind] = backend.load(NucleiParams(), device="cpu")(image)
    one, other = found.values()
    assert count(one) == count(other) > 50
    assert best_iou(one, other).min() > 0.9


def held_out(shared: Path, n: int) -> list[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    folder = shared / "data" / "dsb2018_fluo"
    if not folder.is_dir():
        pytest.skip(f"the DSB2018 images are not at {folder}")
    names = (REPOSITORY / "benchmarks" / "dsb2018_split.txt").read_text(encoding="utf-8").split()
    step = len(names) // n
    return [
        (scaled(imread(folder / f"{name}_img.tif")), imread(folder / f"{name}_lab.tif").astype(np.int32))
        for name in names[::step][:n]
    ]


def test_held_out_images(shared: Path, segment: Callable) -> None:
    """On a part of the images set apart; the model card has the scores on all."""
    scores = [average_precision(truth, segment(image), thresholds=(0.5, 0.7)) for image, truth in held_out(shared, 12)]
    at_half, at_seven_tenths = np.mean(scores, axis=0)
    assert at_half > 0.8
    assert at_seven_tenths > 0.6


def test_nuclei_of_real_tissue(shared: Path, segment: Callable) -> None:
    """The CosMx DAPI, of another instrument: nuclei lie in the vendor's cells, and most cells have one."""
    folder = shared / "data" / "cosmx_lung12_fov2"
    if not folder.is_dir():
        pytest.skip(f"the CosMx images are not at {folder}")
    dapi = imread(folder / "CellComposite_F002.jpg")[..., 2]
    cells = imread(folder / "CellLabels_F002.tif")
    labels = segment(scaled(dapi))
    assert 0.6 * count(cells) < count(labels) < 1.2 * count(cells)
    assert np.mean(cells[labels > 0] > 0) > 0.8
