from __future__ import annotations

import pickle
import ssl
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk

from sslcst.core.nuclei import load_backend, segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.errors import BackendError, DataError, ParameterError
from sslcst.params import NucleiParams

WATERSHED = NucleiParams(method="watershed")


def draw(centres: list[tuple[float, float]], radius: float, shape: tuple[int, int] = (120, 140)) -> NDArray[np.uint32]:
    """Labels of discs, numbered in the order of their centres."""
    labels = np.zeros(shape, np.uint32)
    for number, centre in enumerate(centres, 1):
        labels[disk(centre, radius, shape=shape)] = number
    return labels


def stain(labels: NDArray[np.uint32], *, blur: float = 1.0, noise: float = 0.02, seed: int = 0) -> NDArray[np.float64]:
    """A stain image: 1 in nuclei, 0 outside, blurred, with noise."""
    image = ndimage.gaussian_filter((labels > 0).astype(float), blur)
    return image + noise * np.random.default_rng(seed).standard_normal(labels.shape)


def best_iou(truth: NDArray[np.uint32], labels: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Of each true nucleus, the IoU with the label that fits it best."""
    scores = []
    for number in range(1, truth.max() + 1):
        mask = truth == number
        overlap = np.unique(labels[mask & (labels > 0)])
        scores.append(max((np.sum(mask & (labels == k)) / np.sum(mask | (labels == k)) for k in overlap), default=0.0))
    return np.array(scores)


GRID = [(y, x) for y in (25.0, 60.0, 95.0) for x in (25.0, 60.0, 95.0, 120.0)]
DISCS = draw(GRID, 9)
IMAGE = stain(DISCS)


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
    ],
)
def test_image_that_cannot_be_segmented_is_refused(image: NDArray[np.generic], message: str) -> None:
    with pytest.raises(DataError, match=message):
        segment_nuclei(image, params=WATERSHED)


@pytest.mark.parametrize("shape", [(1, 2), (1, 200), (200, 1), (2, 2), (3, 7), (8, 8), (5, 300)])
def test_tiny_and_narrow_images_run(shape: tuple[int, int]) -> None:
    labels = segment_nuclei(np.random.default_rng(0).random(shape), params=WATERSHED)
    assert labels.shape == shape


def test_nothing_to_find_is_no_error() -> None:
    """A line of pixels holds no nucleus; its labels are 0."""
    assert not segment_nuclei(np.arange(100.0)[None, :], params=WATERSHED).any()


def test_saturated_image() -> None:
    """Clipped nuclei, touching ones among them, are still told apart by their shape."""
    truth = draw([(60.0, 40.0), (60.0, 60.0), (20.0, 100.0), (95.0, 110.0)], 11)
    saturated = np.clip(10 * stain(truth) * 255, 0, 255).astype(np.uint8)
    labels = segment_nuclei(saturated, params=WATERSHED)
    assert labels.max() == 4
    assert best_iou(truth, labels).min() > 0.6


def test_inverted_image_does_not_give_its_dark_discs() -> None:
    """Nuclei are bright; dark ones are not taken for nuclei, whatever else is found between them."""
    labels = segment_nuclei(-IMAGE, params=WATERSHED)
    assert np.mean(labels[ndimage.binary_erosion(DISCS > 0, iterations=3)] > 0) < 0.05


def test_one_nucleus_in_a_large_empty_image() -> None:
    """Where fewer pixels are stained than lie above the upper percentile, the range of all intensities is taken."""
    truth = draw([(200.0, 300.0)], 6, (500, 500))
    labels = segment_nuclei((truth > 0).astype(np.uint8), params=WATERSHED)
    assert labels.max() == 1
    assert best_iou(truth, labels).min() > 0.85


# --- intensities and diameters


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
    in_pixels = segment_nuclei(IMAGE, params=NucleiParams(diameters=(18,)))
    in_micron = segment_nuclei(IMAGE, pixel_size=0.5, params=NucleiParams(diameters=(9,)))
    assert np.array_equal(in_pixels, in_micron)


def test_diameter_that_covers_most_is_kept() -> None:
    """Each is tried; a diameter far too large loses the nuclei, and the right one wins in any order."""
    alone = {d: segment_nuclei(IMAGE, params=NucleiParams(diameters=(d,))) for d in (18, 100)}
    assert np.count_nonzero(alone[18]) > np.count_nonzero(alone[100])
    for diameters in [(18, 100), (100, 18)]:
        assert np.array_equal(segment_nuclei(IMAGE, params=NucleiParams(diameters=diameters)), alone[18])


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
        segment_nuclei(IMAGE, pixel_size=pixel_size, params=NucleiParams(diameters=diameters))


# --- backends


def test_unknown_method_lists_the_methods() -> None:
    with pytest.raises(ParameterError, match="method='magic': must be one of 'cellpose', 'watershed'"):
        segment_nuclei(IMAGE, params=NucleiParams(method="magic"))


def test_missing_package_names_the_extra_and_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cellpose", None)
    with pytest.raises(BackendError) as error:
        load_backend(NucleiParams(method="cellpose"))
    for hint in ('pip install "sslcst[cellpose]"', 'method="watershed"', "nuclei_key"):
        assert hint in str(error.value)


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for Cellpose's models."""
    models = pytest.importorskip("cellpose.models", reason="cellpose is not installed")
    monkeypatch.setattr(models, "MODEL_DIR", tmp_path / "models")
    monkeypatch.setattr(models, "MODEL_LIST_PATH", str(tmp_path / "models" / "gui_models.txt"))
    return tmp_path / "models"


def builtin_model() -> tuple[str, str]:
    """Name and file of a model that the installed Cellpose would download."""
    return ("cyto2", "cyto2torch_0") if int(version("cellpose").split(".")[0]) == 3 else ("cpsam", "cpsam")


def refuse(model: str | Path) -> str:
    """What is said on the model's refusal."""
    with pytest.raises(BackendError) as error:
        load_backend(NucleiParams(method="cellpose", model=str(model)))
    assert 'method="watershed"' in str(error.value)
    assert "nuclei_key" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", ["cyto99", "no/such/file.pt", "."])
def test_unknown_model_is_refused_with_a_list(model: str, model_folder: Path) -> None:
    """Never the silent default that Cellpose takes."""
    message = refuse(model)
    assert f"no Cellpose model or weights file {model!r}" in message
    assert "cellpose<4" in message
    assert "nuclei" in message or "cpsam" in message


def test_model_that_cannot_be_downloaded(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where a copy belongs, nothing is left there, and certificates are checked as before."""
    from cellpose import utils

    def offline(url: str) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(utils, "urlopen", offline)
    context = ssl._create_default_https_context
    message = refuse(builtin_model()[0])
    assert "no route to host" in message
    assert str(model_folder) in message
    assert not list(model_folder.iterdir())
    assert ssl._create_default_https_context is context


def test_download_that_was_cut_short_is_not_kept(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a file, or a login page in its place, would be taken for the model from then on."""
    from cellpose import utils

    monkeypatch.setattr(utils, "download_url_to_file", lambda url, target, **_: Path(target).write_bytes(b"<html>"))
    assert "not a file of network weights" in refuse(builtin_model()[0])
    assert not list(model_folder.iterdir())


def test_damaged_file_in_the_model_folder_is_left_to_its_owner(model_folder: Path) -> None:
    model_folder.mkdir()
    name, file = builtin_model()
    (model_folder / file).write_bytes(b"half of it")
    assert "delete it" in refuse(name)
    assert (model_folder / file).exists()


# torch warns of pickles before it refuses them
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04", pickle.dumps([1, 2]), bytes(range(256))])
def test_file_that_holds_no_weights(content: bytes, tmp_path: Path, model_folder: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert str(path) in refuse(path)


class Code:
    """When unpickled, writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "it ran")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_weights_file_does_not_run(save: object, tmp_path: Path, model_folder: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    save({"output.2.weight": torch.zeros(3), "extra": Code(trace)}, path)
    assert "not a file of network weights" in refuse(path)
    assert not trace.exists()


def cyto_weights(shared: Path) -> Path:
    path = shared / "models" / "cellpose_cyto_0" / "cyto_0_torch_cp3.pt"
    if not path.exists():
        pytest.skip(f"the Cellpose weights are not at {path}")
    pytest.importorskip("cellpose", reason="cellpose is not installed")
    if builtin_model()[0] != "cyto2":
        pytest.skip("the weights are of cellpose 3")
    return path


@pytest.mark.parametrize("spoil", ["drop", "reshape", "empty"])
def test_weights_of_another_network(spoil: str, shared: Path, tmp_path: Path) -> None:
    """Cellpose would run with random numbers for what a file lacks."""
    weights = torch.load(cyto_weights(shared), weights_only=True)
    if spoil == "drop":
        del weights["output.2.bias"]
    elif spoil == "reshape":
        weights["output.2.weight"] = weights["output.2.weight"][:2]
    else:
        weights = {}
    torch.save(weights, tmp_path / "weights.pt")
    assert "does not hold weights of the network" in refuse(tmp_path / "weights.pt")


def test_cellpose_finds_the_nuclei_of_real_tissue(shared: Path) -> None:
    """The CosMx DAPI, with the original "cyto" weights: nuclei lie in the vendor's cells and cover watershed's."""
    from skimage.io import imread

    weights = cyto_weights(shared)
    folder = shared / "data" / "cosmx_lung12_fov2"
    dapi = imread(folder / "CellComposite_F002.jpg")[250:550, 150:450, 2]
    cells = imread(folder / "CellLabels_F002.tif")[250:550, 150:450]
    params = NucleiParams(method="cellpose", model=str(weights), diameters=(40,))
    labels = segment_nuclei(dapi, params=params)
    assert labels.dtype == np.uint32
    assert 10 <= labels.max() <= len(np.unique(cells)) - 1  # some cells show no nucleus here
    assert np.mean(cells[labels > 0] > 0) > 0.95
    watershed = segment_nuclei(dapi, params=WATERSHED)
    assert np.mean(labels[watershed > 0] > 0) > 0.85


def test_cellpose_estimates_the_diameter_and_takes_any_shape(shared: Path) -> None:
    segment = load_backend(NucleiParams(method="cellpose", model=str(cyto_weights(shared))))
    small = scale_intensity(IMAGE, 0, 1)
    assert np.array_equal(segment(small, None), segment(small, estimate_diameter(small)))
    assert len(np.unique(segment(small, 18.0))) == len(GRID) + 1
    for shape in [(1, 30), (30, 2), (5, 40), (5, 5)]:
        assert segment(np.zeros(shape, np.float32), 8.0).shape == shape
        assert segment(np.zeros(shape, np.float32), None).shape == shape


def test_cellpose_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cellpose 4 gets the weights file's path, the thresholds, and no diameter where none is given."""
    calls = []

    class CellposeModel:
        def __init__(self, **options: object) -> None:
            calls.append(options)

        def eval(self, image: NDArray[np.float32], **options: object) -> tuple[NDArray[np.uint16], None, None]:
            calls.append({"shape": image.shape, **options})
            return (image[..., 0] > 0.5).astype(np.uint16).squeeze(), None, None

    folder = tmp_path / "models"
    package, models = ModuleType("cellpose"), ModuleType("cellpose.models")
    package.models = models
    models.__dict__.update(
        CellposeModel=CellposeModel,
        MODEL_NAMES=["cpsam"],
        MODEL_DIR=folder,
        get_user_models=list,
        cache_model_path=lambda name: folder / name,
    )
    monkeypatch.setitem(sys.modules, "cellpose", package)
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    monkeypatch.setattr("sslcst.core.nuclei.cellpose.metadata", SimpleNamespace(version=lambda name: "4.2.1"))
    folder.mkdir()
    torch.save({"W2": torch.zeros(1)}, folder / "cpsam")

    labels = segment_nuclei(IMAGE, params=NucleiParams(method="cellpose", flow_threshold=0.7, cellprob_threshold=-1))
    assert labels.max() == 1
    load, run = calls
    assert load == {"pretrained_model": str(folder / "cpsam"), "device": torch.device("cpu")}
    assert run["shape"] == (*IMAGE.shape, 2)
    assert (run["diameter"], run["normalize"]) == (None, False)
    assert (run["flow_threshold"], run["cellprob_threshold"]) == (0.7, -1)
    assert "Cellpose 4.2.1 has cpsam" in refuse("cyto2")
