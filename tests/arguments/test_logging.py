"""Progress bars: what they say is so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy.sparse import csr_matrix
from spatialdata.models import TableModel

from sslcst._logging import collect_stages, progress
from sslcst._sdata.store import commit


def run_python(code: str) -> subprocess.CompletedProcess:
    """A script of someone who has set up nothing."""
    start = "import logging; from sslcst._logging import logger, progress\n"
    end = "\nlogger.info('572 nuclei.'); logger.warning('few of them'); logger.debug('details')"
    return subprocess.run([sys.executable, "-c", start + code + end], capture_output=True, text=True, check=True)


def test_the_log_is_seen_in_plain_python() -> None:
    """What was chosen and what was dropped, without setting up logging; stdout is for results."""
    said = run_python("")
    assert said.stderr == "572 nuclei.\nWARNING: few of them\n"
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("setup", "heard"),
    [
        ("logging.basicConfig(level='INFO', format='root %(message)s')", "root 572 nuclei.\nroot few of them\n"),
        ("logging.basicConfig(format='root %(message)s')", "root few of them\n"),
        ("logger.setLevel('WARNING')", "WARNING: few of them\n"),
        ("logger.setLevel('ERROR')", ""),
        ("logger.addHandler(logging.StreamHandler()); logger.setLevel('INFO')", "572 nuclei.\nfew of them\n"),
        ("logger.addHandler(logging.StreamHandler())", "few of them\n"),
        ("logging.basicConfig(format='root %(message)s'); logger.setLevel('DEBUG')", "root 572 nuclei.\nroot few of "),
    ],
)
def test_who_sets_up_logging_decides(setup: str, heard: str) -> None:
    """Each line comes once, and those alone that the levels ask for."""
    said = run_python(setup).stderr
    assert said == heard if heard.endswith("\n") or not heard else said.startswith(heard)


def test_a_line_breaks_no_bar() -> None:
    said = run_python("bar = progress('train', 3); bar.__enter__()").stderr
    assert "\n572 nuclei." in said.replace("\r", "\n")


def test_a_bar_goes_when_its_stage_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """One bar is seen at a time; what took how long stands in the log."""
    with progress("train", 3):
        pass
    assert capsys.readouterr().err.endswith("\r")


def test_a_bar_tells_its_stage_and_no_time_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """The time left to its own steps is tqdm's to tell, from the steps that are done."""
    with collect_stages(), progress("train", 3, unit="epoch") as bar:
        bar.update(3)
    shown = capsys.readouterr().err
    assert shown.startswith("\rtrain: ")
    assert "left" not in shown


@pytest.mark.filterwarnings("error:zarr v3 autosharding")
def test_results_are_written_without_a_warning_for_each_array(tmp_path: Path) -> None:
    """What anndata will do in its next version is nothing that a user of ours could mend."""
    sd.SpatialData().write(tmp_path / "a.zarr")
    table = AnnData(csr_matrix(np.eye(3, dtype=np.float32)), layers={"nuclear": csr_matrix((3, 3))})
    commit(sd.read_zarr(tmp_path / "a.zarr"), {"table": TableModel.parse(table)}, {"table": "tables"})
    assert sd.read_zarr(tmp_path / "a.zarr")["table"].n_obs == 3
