"""The tutorials run from top to bottom, each in a kernel and an empty folder of its own."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from patience import PATIENCE

# Of those on real data, the variable that names the folder, which lies where the real data do.
REAL = {
    "7_prostate": ("SSLCST_PROSTATE", "xenium_prime_prostate"),
    "8_cosmx": ("SSLCST_COSMX", "cosmx_lung12_fov2"),
}
TUTORIALS = sorted((Path(__file__).parents[2] / "tutorials").glob("*.ipynb"))
each_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


@each_tutorial
@pytest.mark.filterwarnings("default")  # the kernel has its own; what starts and stops it warns of its own affairs
def test_tutorial_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A reader who presses "run all" gets to the end; on real data, one who has them."""
    if path.stem in REAL:
        variable, folder = REAL[path.stem]
        monkeypatch.setenv(variable, str(request.getfixturevalue("shared") / "data" / folder))
    notebook = nbformat.read(path, as_version=4)
    patience = {"timeout": 2 * PATIENCE, "startup_timeout": PATIENCE}
    NotebookClient(notebook, **patience, resources={"metadata": {"path": str(tmp_path)}}).execute()


@each_tutorial
def test_tutorial_shows_what_it_gave(path: Path) -> None:
    """The pages show stored outputs, which must be there, whole, without errors, and light."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert max(len(base64.b64decode(picture)) for picture in pictures) < 150_000
    assert path.stat().st_size < 500_000
    if path.stem in REAL:  # the reader names the folder, and is told where the data come from
        text = path.read_text(encoding="utf-8")
        assert REAL[path.stem][0] in text and "**Data.**" in text
        assert REAL[path.stem][1] not in text


def test_all_tutorials_are_there() -> None:
    """Numbered without a gap, as the pages list them."""
    assert [path.stem.split("_")[0] for path in TUTORIALS] == [str(number + 1) for number in range(len(TUTORIALS))]
