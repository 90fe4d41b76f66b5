"""benchmarks/gpu.py goes its whole way on a CPU, in half precision too; how fast it is there means nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of this copy")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def test_all_parts_are_measured_at_a_tiny_size(gpu, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The CPU against itself is equal; each part has its rows, and none says that it could not be measured."""
    gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path / "gpu.md")])
    written = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out
    assert "not measured" not in written
    parts = dict(part.split(" ###\n" if " ###" in part else "\n", 1) for part in written.split("\n### ")[1:])
    assert list(parts) == ["card", "equal", "networks", "encoders", "chip"]
    assert parts["equal"].count("| float32 | 0 | 0 |") == 3
    assert "NOT EQUAL" not in parts["equal"]
    for part, names in (
        ("equal", ["nuclei", "cells", "spots, field encoder"]),
        ("networks", ["nuclei, pixels", "cells, bins with margins"]),
        ("encoders", ["spot, float32", "spot, bfloat16", "field, float32", "field, bfloat16"]),
        ("chip", ["nuclei: network", "cells: inputs and network", "counting transcripts"]),
    ):
        for name in names:
            assert f"| {name} |" in parts[part]
    assert "4 of 4 tiles" in parts["chip"]


def test_half_precision_stays_near_float32(gpu) -> None:
    """Outputs come back as float32, a few hundredths away; of the labels few differ, but some would be suspicious."""
    tissue = gpu.Patch.make(250).window(0, 0, 128)
    ours = gpu.found_nuclei(tissue, "cpu")
    assert len(set(ours[1].ravel())) > 80
    with gpu.precision("cpu", "bfloat16"):
        outputs, labels = gpu.found_nuclei(tissue, "cpu")
    assert outputs.dtype == "float32"
    assert 0 < abs(outputs - ours[0]).max() < 0.5
    assert (labels != ours[1]).mean() < 0.01


def test_a_chip_stops_when_time_is_up(gpu) -> None:
    """After one tile, with a word on the others."""
    card = gpu.Card("cpu", "a CPU", {"float32": 1.0})
    lines = "\n".join(gpu.chip_table(card, gpu.TINY, 512, deadline=0.0))
    assert "1 of 4 tiles" in lines
    assert "The other tiles were not run" in lines


def test_what_fails_says_why(gpu) -> None:
    def fails() -> str:
        raise RuntimeError("CUDA out of memory.\nMore about it")

    assert gpu.attempt("nuclei | float32", fails) == "| nuclei | float32 | not measured: CUDA out of memory. |"


def test_windows_of_the_repeated_tissue_agree(gpu) -> None:
    """Nuclei that repeat have numbers of their own, and none is cut where the tissue repeats."""
    patch = gpu.Patch.make(250)
    window = patch.window(0, 0, 500)
    n_nuclei = len(np.unique(patch.nuclei)) - 1
    assert len(np.unique(window.nuclei)) - 1 == 4 * n_nuclei == label(window.nuclei > 0, connectivity=1).max()
    assert (window.counts[:250, :250] == window.counts[250:, 250:]).all()
    assert (window.nuclei > 0).sum() == 4 * (patch.nuclei > 0).sum()
