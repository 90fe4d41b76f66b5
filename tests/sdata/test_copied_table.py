"""A table whose groups have colours, as every plot of scanpy gives them, is written, read and copied.

Up to 2.2, numpy ends Python in that copy; `constraints.txt` takes a later one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
import spatialdata as sd

table = sd.read_zarr(sys.argv[1])["table"]
copied = table.copy().copy()
print(*copied.uns["kind_colors"], *copied[:2].copy().uns["kind_colors"])
"""


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.3.0", reason="numpy below 2.3, as Cellpose 3 wants it, crashes here"
)
def test_a_table_with_colours_is_copied_after_it_was_read(tmp_path: Path) -> None:
    """In a process of its own, so that a crash is a failure and not the end of the tests."""
    import pandas as pd
    import spatialdata as sd
    from anndata import AnnData
    from spatialdata.models import TableModel

    colours = ["#1f77b4", "#ff7f0e", "#a colour of more letters than are kept in place"]
    table = AnnData(np.ones((6, 2)), obs=pd.DataFrame({"kind": pd.Categorical([*"abcabc"])}, index=[*"uvwxyz"]))
    table.uns["kind_colors"] = np.array(colours, dtype=object)
    sd.SpatialData(tables={"table": TableModel.parse(table)}).write(tmp_path / "colours.zarr")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "colours.zarr")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n")[0] == " ".join([*colours, *colours[:2]])
