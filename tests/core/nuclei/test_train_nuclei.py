"""The script that trains the bundled nucleus network."""

from __future__ import annotations

import importlib.util
import sys
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from drawn_nuclei import DISCS, GRID, draw, scatter
from skimage.draw import disk
from skimage.io import imsave

from sslcst.core.nuclei import sslcst as backend
from sslcst.core.nuclei.flows import CORE, decode
from sslcst.metrics import best_iou
from sslcst.params import NucleiParams

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = REPOSITORY / "benchmarks" / "train_nuclei.py"
    if not path.is_file():
        pytest.skip("the benchmarks are not part of this copy")
    spec = importlib.util.spec_from_file_location("train_nuclei", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images of discs, two of each part."""
    folder = tmp_path / "data"
    folder.mkdir()
    parts = {"test": [], "validation": [], "train": []}
    for number in range(1000):
        if len(names := parts[script.part_of(str(number))]) < 2:
            names.append(str(number))
    for name in chain(*parts.values()):
        truth = scatter((90, 100), 25, 8, seed=int(name))
        imsave(folder / f"{name}_img.tif", (200 * (truth > 0) + 20).astype(np.uint8), check_contrast=False)
        imsave(folder / f"{name}_lab.tif", truth.astype(np.uint16), check_contrast=False)
    split = tmp_path / "split.txt"
    split.write_text("\n".join(parts["test"]), encoding="utf-8")
    monkeypatch.setattr(script, "SPLIT", split)
    return folder


def test_split_is_kept(script: ModuleType) -> None:
    """The names set apart are those whose hash says so, and nothing is trained on them."""
    names = script.SPLIT.read_text(encoding="utf-8").split()
    assert names == sorted(set(names))
    assert {script.part_of(name) for name in names} == {"test"}


def test_centre_is_a_pixel_of_its_nucleus(script: ModuleType) -> None:
    """Also of a crescent, whose centroid lies outside it; numbers may be missing."""
    labels = np.zeros((60, 60), np.int32)
    labels[disk((30, 30), 20)] = 4
    labels[disk((30, 40), 18)] = 0
    y, x = script.find_centres(labels)[4].astype(int)
    assert labels[y, x] == 4
    assert tuple(script.find_centres(draw([(20, 30)], 7))[1]) == (20, 30)
    assert not script.find_centres(labels)[:4].any()


def test_flow_points_to_the_centre(script: ModuleType) -> None:
    """With length 1, less within the core, and none outside."""
    flow = script.make_flow(DISCS, script.find_centres(DISCS))
    assert flow.shape == (2, *DISCS.shape)
    assert not flow[:, DISCS == 0].any()
    length = np.hypot(*flow)
    y, x = (int(place) for place in GRID[0])
    assert length[y, x] == 0
    assert length[y, x + 1] == pytest.approx(1 / CORE)
    assert np.allclose(flow[:, y - 7, x], (1, 0))
    assert np.allclose(flow[:, y, x + 7], (0, -1))


def test_patches_fit_their_targets(script: ModuleType, data: Path) -> None:
    """Flows of length 1 at most, only in nuclei, and leading back to the labels that they were made of."""
    examples = [script.read_example(data, name) for name in script.list_names(data, "train")]
    sampler = script.Sampler(examples, np.random.default_rng(0))
    images, labels, flows = (part.numpy() for part in sampler.batch(24))
    assert np.isfinite(images).all()
    assert np.hypot(flows[:, 0], flows[:, 1]).max() < 1.001
    assert not np.moveaxis(flows, 1, -1)[labels <= 0].any()
    scores = [
        best_iou(truth, decode(np.where(truth > 0, 5, -5).astype(np.float32), flow, truth.shape, min_area=1)).mean()
        for truth, flow in zip(np.maximum(labels, 0), flows, strict=True)
        if truth.any()
    ]
    assert np.mean(scores) > 0.8


def test_training_goes_on_from_a_checkpoint(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """And its weights can be evaluated and used."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["train_nuclei.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    weights = tmp_path / "nuclei.safetensors"
    first = run(data, "--out", weights, "--steps", 2, "--batch", 2, "--every", 2)
    assert "from step 0" in first
    second = run(data, "--out", weights, "--steps", 4, "--batch", 2, "--every", 2, "--resume", tmp_path / "nuclei.ckpt")
    assert "from step 2" in second
    assert "step 4" in second
    backend.load(NucleiParams(model=str(weights)), device="cpu")
    assert "test: 2 images  AP@0.5" in run(data, "--out", weights, "--evaluate", "test")
