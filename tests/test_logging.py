"""Progress bars: what they say is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy.sparse import csr_matrix
from spatialdata.models import TableModel

from sslcst._logging import collect_stages, progress
from sslcst._sdata.store import commit


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
