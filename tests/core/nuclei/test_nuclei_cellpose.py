"""Nuclei by Cellpose 3 and 4: models that cannot be had or are none are refused, and what it finds on real tissue."""

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
from numpy.typing import NDArray
from skimage.draw import disk

from sslcst.core.nuclei import load_backend, segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import scale_intensity
from sslcst.errors import BackendError
from sslcst.params import NucleiParams

GRID = [(y, x) for y in (25, 60, 95) for x in (25, 60, 95, 120)]
IMAGE = np.random.default_rng(0).normal(0, 0.02, (120, 140))
for centre in GRID:
    IMAGE[disk(centre, 9)] += 1


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


@pytest.mark.parametrize("spoil", ["drop", "reshape", "empty"])
def test_weights_of_another_network(spoil: str, cyto_weights: Path, tmp_path: Path) -> None:
    """Cellpose would run with random numbers for what a file lacks."""
    weights = torch.load(cyto_weights, weights_only=True)
    if spoil == "drop":
        del weights["output.2.bias"]
    elif spoil == "reshape":
        weights["output.2.weight"] = weights["output.2.weight"][:2]
    else:
        weights = {}
    torch.save(weights, tmp_path / "weights.pt")
    assert "does not hold weights of the network" in refuse(tmp_path / "weights.pt")


def test_cellpose_finds_the_nuclei_of_real_tissue(shared: Path, cyto_weights: Path) -> None:
    """The CosMx DAPI, with the original "cyto" weights: nuclei lie in the vendor's cells and cover watershed's."""
    from skimage.io import imread

    folder = shared / "data" / "cosmx_lung12_fov2"
    dapi = imread(folder / "CellComposite_F002.jpg")[250:550, 150:450, 2]
    cells = imread(folder / "CellLabels_F002.tif")[250:550, 150:450]
    params = NucleiParams(method="cellpose", model=str(cyto_weights), diameters=(40,))
    labels = segment_nuclei(dapi, params=params)
    assert labels.dtype == np.uint32
    assert 10 <= labels.max() <= len(np.unique(cells)) - 1  # some cells show no nucleus here
    assert np.mean(cells[labels > 0] > 0) > 0.95
    watershed = segment_nuclei(dapi, params=NucleiParams(method="watershed"))
    assert np.mean(labels[watershed > 0] > 0) > 0.85


def test_cellpose_estimates_the_diameter_and_takes_any_shape(cyto_weights: Path) -> None:
    segment = load_backend(NucleiParams(method="cellpose", model=str(cyto_weights)))
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

    cells = load_backend(NucleiParams(method="cellpose"))(np.stack([IMAGE, 0 * IMAGE]).astype(np.float32), 18.0)
    assert np.array_equal(cells, IMAGE > 0.5), "whole cells: their stain comes first"
    assert (calls[-1]["shape"], calls[-1]["diameter"]) == ((*IMAGE.shape, 2), 18.0)
