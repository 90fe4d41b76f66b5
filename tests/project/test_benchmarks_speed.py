"""benchmarks/speed.py: one row a method, also for those that are not here, with what their processes took."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """All rows run a quick stand-in: it gives back what it is given, nuclei or what is bright in the stain."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of this copy")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("speed")
    nuclei = np.repeat(np.arange(4, dtype=np.uint32), 100).reshape(20, 20)
    yx = np.random.default_rng(0).uniform(0, 20, (500, 2))
    tissue = module.Tissue("a crop", nuclei, yx, np.zeros(500, int), 0.5, None, None, image=(nuclei > 2).astype("u2"))
    monkeypatch.setattr(module, "crop_of", lambda data, name: tissue)
    for name in ("sslcst", "proseg", "comseg", "cellpose"):
        found = "tissue.image.astype(int)" if name == "cellpose" else "tissue.nuclei"
        body = f"from adapter import main\n\ndef segment(tissue, **settings):\n    return {found}\n\nmain(segment)\n"
        (tmp_path / f"run_{name}.py").write_text(body)
    monkeypatch.setattr(module, "ADAPTERS", tmp_path)
    return module


def test_a_row_for_each_method(speed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The stain reaches Cellpose's adapter; ComSeg was not named, and says how it can be."""
    options = ["--proseg", sys.executable, "--cellpose", f"{sys.executable},model=x"]
    monkeypatch.setattr(sys, "argv", ["speed.py", *options])
    speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a crop: 10 x 10 micron, 3 nuclei, 500 transcripts")
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines if line.startswith("|") and "---" not in line)
    assert list(rows) == [
        "method",
        "sslcst, density",
        "sslcst, network",
        "sslcst, network, nuclei found in the stain too",
        "proseg",
        "ComSeg",
        "Cellpose on the stain, no transcripts",
    ]
    assert re.fullmatch(r"3 \| \d+\.\d \| \d+\.\d \| 0\.\d\d", rows["proseg"])
    assert rows["Cellpose on the stain, no transcripts"].startswith("1 | ")
    assert "not run: give --comseg PYTHON" in rows["ComSeg"]
