"""Adapters to StarDist, InstanSeg and DeepCell: what they are told, what they give, and refusal of what is no model.

Packages that are not installed stand here as modules with the signatures of the real ones, whose version is named.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.draw import disk

from sslcst.core.nuclei import load_backend, segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

NOISE = np.random.default_rng(0).normal(0, 0.02, (120, 140))
GRID = [(y, x) for y in (25, 60, 95) for x in (25, 60, 95, 120)]


def draw_discs() -> NDArray[np.float32]:
    """Twelve discs 18 pixels wide, noise around them."""
    image = NOISE.astype(np.float32)
    for centre in GRID:
        image[disk(centre, 9)] += 1
    return image


IMAGE = draw_discs()


def refuse(model: str | Path | None, method: str) -> str:
    """What is said on the model's refusal."""
    with pytest.raises(BackendError) as error:
        load_backend(NucleiParams(method=method, model=None if model is None else str(model)))
    assert 'method="sslcst"' in str(error.value)
    assert "nuclei_key" in str(error.value)
    return str(error.value)


def put(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    """Put a module with some attributes where `import` finds it, and empty ones for the packages that it is in."""
    module = ModuleType(name)
    module.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    while (name := name.rpartition(".")[0]) not in ("", *sys.modules):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


# --- StarDist


def has_stardist() -> bool:
    return all(importlib.util.find_spec(name) for name in ("stardist", "csbdeep", "tensorflow"))


class StarDist2D:
    """With the signatures of stardist 0.9.2; finds what is brighter than a half."""

    calls: list[dict]

    def __init__(self, config: None, name: str | None = None, basedir: str = ".") -> None:
        folder = Path(basedir) / name
        self.config = SimpleNamespace(**json.loads((folder / "config.json").read_text()))
        self.calls = []

    @classmethod
    def from_pretrained(cls, name_or_alias: str | None = None) -> StarDist2D:
        return cls(None, name=name_or_alias, basedir=str(Path.home() / ".keras" / "models" / "StarDist2D"))

    def predict_instances(
        self, img: NDArray[np.float32], *, axes: str, scale: float, n_tiles: tuple[int, int], show_tile_progress: bool
    ) -> tuple[NDArray[np.int32], dict]:
        self.calls.append({"axes": axes, "scale": scale, "n_tiles": n_tiles, "show_tile_progress": show_tile_progress})
        StarDist2D.last = self
        return (img > 0.5).astype(np.int32), {}


@pytest.fixture
def keras_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and StarDist and csbdeep 0.8.2 as far as they are called."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    models = {"2D_versatile_fluo": {"url": "https://localhost:9/fluo.zip"}, "2D_versatile_he": {}}
    aliases = {"2D_versatile_fluo": ("Versatile (fluorescent nuclei)",), "2D_versatile_he": ()}

    def get_model_details(cls: type, key_or_alias: str) -> tuple[str, str | None, dict]:
        key = next(key for key in models if key_or_alias in (key, *aliases[key]))
        return key, None if key == key_or_alias else key_or_alias, models[key]

    put(monkeypatch, "stardist.models", StarDist2D=StarDist2D)
    put(
        monkeypatch,
        "csbdeep.models.pretrained",
        get_registered_models=lambda cls: (tuple(models), aliases),
        get_model_details=get_model_details,
    )
    return tmp_path / ".keras" / "models" / "StarDist2D"


def place_stardist(folder: Path, *, n_channel_in: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"n_channel_in": n_channel_in}))
    (folder / "weights_best.h5").touch()
    return folder


@pytest.mark.parametrize("model", [None, "2D_versatile_fluo", "Versatile (fluorescent nuclei)"])
def test_stardist_is_told_the_scale(model: str | None, keras_folder: Path) -> None:
    """Nuclei 18 pixels wide are scaled to the 20 that the network learnt, in as many tiles as the image needs."""
    place_stardist(keras_folder / "2D_versatile_fluo")
    segment = load_backend(NucleiParams(method="stardist", model=model))
    assert segment(IMAGE, 18.0).max() == 1
    call = {"axes": "YX", "scale": 20 / 18, "n_tiles": (1, 1), "show_tile_progress": False}
    assert StarDist2D.last.calls == [call]
    segment(np.zeros((100, 3000), np.float32), 20.0)
    assert StarDist2D.last.calls[-1]["n_tiles"] == (1, 3)
    segment(IMAGE, None)
    assert StarDist2D.last.calls[-1]["scale"] == 20 / estimate_diameter(IMAGE)
    assert not segment(np.zeros((30, 30), np.float32), None).any()


def test_stardist_from_a_folder(keras_folder: Path, tmp_path: Path) -> None:
    folder = place_stardist(tmp_path / "mine")
    labels = segment_nuclei(IMAGE, params=NucleiParams(method="stardist", model=str(folder)))
    assert labels.dtype == np.uint32
    assert labels.max() == 1


def test_stardist_model_that_is_not_here(keras_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for over the network, and where that fails the error says where a copy belongs."""

    def offline(url: str, timeout: float) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("sslcst.core.nuclei.stardist.urlopen", offline)
    message = refuse(None, "stardist")
    assert "no route to host" in message
    assert str(keras_folder / "2D_versatile_fluo") in message


def test_stardist_models_that_are_none(keras_folder: Path, tmp_path: Path) -> None:
    """StarDist would return nothing, or keep random weights."""
    assert "There is no StarDist model '2D_nuclei'" in refuse("2D_nuclei", "stardist")
    assert "2D_versatile_fluo, 2D_versatile_he" in refuse(tmp_path, "stardist")
    folder = place_stardist(tmp_path / "mine")
    (folder / "weights_best.h5").unlink()
    assert "has no weights" in refuse(folder, "stardist")
    (folder / "weights_last.h5").touch()
    (folder / "config.json").write_text("{")
    assert "does not hold a StarDist model that can be read" in refuse(folder, "stardist")
    assert "wants images of 3 channels" in refuse(place_stardist(tmp_path / "he", n_channel_in=3), "stardist")


def test_stardist_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """csbdeep, on which it rests, then raises a RuntimeError."""

    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "stardist":
                raise RuntimeError("Package 'keras' is not installed.")

    for name in [name for name in sys.modules if name.split(".")[0] == "stardist"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert "Package 'keras' is not installed.). Install it with `pip install \"sslcst[stardist]\"`" in refuse(
        None, "stardist"
    )


@pytest.mark.skipif(not has_stardist(), reason="stardist with tensorflow is not installed")
@pytest.mark.filterwarnings("ignore")  # TensorFlow and what comes with it warn of each other
def test_stardist_itself(tmp_path: Path) -> None:
    """A small untrained network of the installed StarDist, written and read as its models are."""
    from stardist.models import Config2D
    from stardist.models import StarDist2D as Real

    config = Config2D(n_rays=8, grid=(2, 2), unet_n_depth=1, unet_n_filter_base=4, net_conv_after_unet=4)
    Real(config, name="small", basedir=str(tmp_path)).keras_model.save_weights(str(tmp_path / "small" / "weights.h5"))
    segment = load_backend(NucleiParams(method="stardist", model=str(tmp_path / "small")))
    for shape, diameter in [((60, 80), None), ((60, 80), 18.0), ((1100, 30), 20.0), ((5, 5), 4.0), ((1, 30), None)]:
        labels = segment(np.random.default_rng(0).random(shape, np.float32), diameter)
        assert labels.shape == shape
        assert np.issubdtype(labels.dtype, np.integer)
    (tmp_path / "small" / "weights.h5").write_bytes(b"no weights")
    assert "does not hold a StarDist model that can be read" in refuse(tmp_path / "small", "stardist")
    assert "There is no StarDist model 'cyto2'" in refuse("cyto2", "stardist")


# --- InstanSeg

# In TorchScript, as InstanSeg's networks are: of two outputs, the one asked for, in which bright squares are numbered.
TOY_NETWORK = """
import torch
class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pixel_size = 0.5
        self.cells_and_nuclei = True
    def forward(self, x, target_segmentation: torch.Tensor = torch.tensor([1, 1])):
        found = (x[:, :1] > 0.5).float()
        return found if target_segmentation[0] == 1 and target_segmentation[1] == 0 else torch.cat([found, found], 1)
"""


JIT_IS_DEPRECATED = (DeprecationWarning, FutureWarning)  # until torch 2.13 or so, and after


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TorchScript file of a network with the attributes and arguments of InstanSeg's."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_network.py").write_text(TOY_NETWORK)  # TorchScript reads the source
    sys.path.insert(0, str(folder))
    toy = importlib.import_module("toy_network").Toy()
    sys.path.remove(str(folder))
    with pytest.warns(JIT_IS_DEPRECATED, match="torch.jit.script"):
        script = torch.jit.script(toy)
    with pytest.warns(JIT_IS_DEPRECATED, match="torch.jit"):
        script.save(folder / "instanseg.pt")
        torch.jit.load(folder / "instanseg.pt")
    return folder / "instanseg.pt"


class InstanSeg:
    """With the signatures of instanseg-torch 0.1.2, and its answers as to shape and type."""

    small_image_threshold = 3 * 1500 * 1500

    def __init__(self, model_type: torch.nn.Module, device: str | None = None, verbosity: int = 1) -> None:
        self.instanseg, self.device, self.calls = model_type.to(device), device, []
        assert verbosity == 0
        InstanSeg.last = self

    def eval_small_image(
        self, image: torch.Tensor, pixel_size: float | None = None, *, target: str, return_image_tensor: bool
    ) -> torch.Tensor:
        self.calls.append(("small", pixel_size, target, return_image_tensor))
        return self.instanseg(image, torch.tensor([1, 0] if target == "nuclei" else [0, 1]))[:, :1]

    def eval_medium_image(self, image: torch.Tensor, **options: object) -> torch.Tensor:
        self.calls.append(("medium", *options.values()))
        return self.instanseg(image, torch.tensor([1, 0]))


@pytest.fixture
def instanseg_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as far as it is called, with its index of models, and an empty folder for them."""
    package = tmp_path / "site" / "instanseg"
    (package / "bioimageio_models").mkdir(parents=True)
    (package / "__init__.py").touch()
    index = [{"name": "fluorescence_nuclei_and_cells", "url": "https://localhost:9/a.zip", "version": "0.1.1"}]
    (package / "bioimageio_models" / "model-index.json").write_text(json.dumps(index))
    for name in [name for name in sys.modules if name.split(".")[0] == "instanseg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(importlib.import_module("instanseg"), "InstanSeg", InstanSeg, raising=False)
    monkeypatch.setenv("INSTANSEG_BIOIMAGEIO_PATH", str(tmp_path / "models"))
    yield tmp_path / "models"
    for name in [name for name in sys.modules if name.split(".")[0] == "instanseg"]:
        del sys.modules[name]


def test_instanseg_is_told_the_pixel_size(instanseg_folder: Path, toy: Path) -> None:
    """That at which a nucleus is 8 micron wide; of what it finds, the nuclei are taken."""
    segment = load_backend(NucleiParams(method="instanseg", model=str(toy)))
    labels = segment(IMAGE, 18.0)
    assert np.array_equal(labels, IMAGE > 0.5)
    assert InstanSeg.last.calls == [("small", 8 / 18, "nuclei", False)]
    assert InstanSeg.last.device == "cpu"
    segment(IMAGE, None)
    assert InstanSeg.last.calls[-1][1] == 8 / estimate_diameter(IMAGE)
    assert not segment(np.zeros((30, 30), np.float32), None).any()


def test_instanseg_finds_whole_cells_in_two_channels(instanseg_folder: Path, toy: Path) -> None:
    """Cells are taken to be 16 micron wide; the network sees both channels."""
    segment = load_backend(NucleiParams(method="instanseg", model=str(toy)))
    assert np.array_equal(segment(np.stack([IMAGE, 0 * IMAGE]), 18.0), IMAGE > 0.5)
    assert InstanSeg.last.calls == [("small", 16 / 18, "cells", False)]


def test_instanseg_takes_large_images_in_tiles(instanseg_folder: Path, toy: Path) -> None:
    """Large as the network sees it: nuclei 4 pixels wide are magnified four times."""
    segment = load_backend(NucleiParams(method="instanseg", model=str(toy)))
    image = np.zeros((600, 800), np.float32)
    segment(image, 16.0)
    segment(image, 4.0)
    assert [call[0] for call in InstanSeg.last.calls] == ["small", "medium"]


def test_instanseg_models_by_name(instanseg_folder: Path, toy: Path) -> None:
    """Those in its folder are read, its own under their version; one that is there needs no network."""
    for place in ("fluorescence_nuclei_and_cells/0.1.1", "mine"):
        (instanseg_folder / place).mkdir(parents=True)
        (instanseg_folder / place / "instanseg.pt").write_bytes(toy.read_bytes())
    for model in (None, "mine"):
        assert load_backend(NucleiParams(method="instanseg", model=model))(IMAGE, 18.0).any()


def test_instanseg_model_that_cannot_be_downloaded(instanseg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download_model(model_str: str, version: str | None = None, verbose: bool = True) -> None:
        raise ConnectionError("no route to host")

    put(monkeypatch, "instanseg.utils.utils", download_model=download_model)
    message = refuse(None, "instanseg")
    assert "no route to host" in message
    assert str(instanseg_folder / "fluorescence_nuclei_and_cells" / "0.1.1" / "instanseg.pt") in message


def test_instanseg_models_that_are_none(instanseg_folder: Path, toy: Path, tmp_path: Path) -> None:
    assert "InstanSeg has fluorescence_nuclei_and_cells" in refuse("cyto2", "instanseg")
    for content in (b"", b"no network", b"PK\x03\x04", pickle.dumps([1, 2])):
        (tmp_path / "a.pt").write_bytes(content)
        assert "is not a TorchScript file" in refuse(tmp_path / "a.pt", "instanseg")
    torch.save({"W2": torch.zeros(2)}, tmp_path / "a.pt")
    assert "is not a TorchScript file" in refuse(tmp_path / "a.pt", "instanseg")
    with pytest.warns(JIT_IS_DEPRECATED, match="torch.jit"):
        torch.jit.script(torch.nn.ReLU()).save(tmp_path / "a.pt")
    assert "does not hold a network of InstanSeg" in refuse(tmp_path / "a.pt", "instanseg")


def test_instanseg_itself(toy: Path) -> None:
    """The installed InstanSeg around a network that marks what is bright: its labels come back on the image's grid."""
    pytest.importorskip("instanseg", reason="instanseg-torch is not installed")
    segment = load_backend(NucleiParams(method="instanseg", model=str(toy)))
    for diameter in (8.0, 16.0, 30.0):
        labels = segment(IMAGE, diameter)
        assert labels.shape == IMAGE.shape
        assert np.mean((labels > 0) == (IMAGE > 0.5)) > 0.95  # outlines are those of the network's pixels
    for shape in [(3, 30), (30, 5), (8, 8)]:
        assert segment(np.random.default_rng(0).random(shape, np.float32), 3.0).shape == shape
    assert segment(np.zeros((2700, 2700), np.float32) + np.eye(2700, dtype=np.float32), 16.0).shape == (2700, 2700)
    assert "InstanSeg has" in refuse("cyto2", "instanseg")


# --- DeepCell


class NuclearSegmentation:
    """With the signatures of deepcell 0.12.10, which cannot be installed on Python 3.11."""

    model_mpp = 0.65

    @classmethod
    def from_version(cls, version: str = "1.1") -> NuclearSegmentation:
        if version not in ("1.0", "1.1"):
            raise ValueError(f"Selected version {version} is not available.")
        cls.asked_for = version
        return cls()

    def predict(self, image: NDArray[np.float32], batch_size: int = 4, image_mpp: float | None = None) -> NDArray:
        NuclearSegmentation.told = image.shape, image_mpp
        return (image > 0.5).astype(np.float32)


def test_deepcell_is_told_the_pixel_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """That at which nuclei are 20 of its pixels wide; images have a batch and a channel axis."""
    put(monkeypatch, "deepcell.applications", NuclearSegmentation=NuclearSegmentation)
    segment = load_backend(NucleiParams(method="deepcell"))
    assert NuclearSegmentation.asked_for == "1.1"
    labels = segment(IMAGE, 10.0)
    assert np.array_equal(labels, IMAGE > 0.5)
    assert np.issubdtype(labels.dtype, np.integer)
    assert NuclearSegmentation.told == ((1, *IMAGE.shape, 1), 1.3)
    assert not segment(np.zeros((30, 30), np.float32), None).any()
    load_backend(NucleiParams(method="deepcell", model="1.0"))
    assert NuclearSegmentation.asked_for == "1.0"


def test_deepcell_models_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such version; no access token, which is a ValueError too; no connection."""
    put(monkeypatch, "deepcell.applications", NuclearSegmentation=NuclearSegmentation)
    assert "Selected version 9.9 is not available" in refuse("9.9", "deepcell")

    def offline(version: str = "1.1") -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(NuclearSegmentation, "from_version", offline)
    message = refuse(None, "deepcell")
    assert "no route to host" in message
    assert ".deepcell" in message


def test_deepcell_that_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepcell", None)
    assert "Python 3.10 or older" in refuse(None, "deepcell")
