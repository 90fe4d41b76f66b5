"""What the stages keep for one another comes back as it was, in as little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from sslcst._sdata.scratch import Scratch
from sslcst.core.counts import narrow
from sslcst.core.spots import Grid, Spots
from sslcst.methods.base import Part
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace


@pytest.mark.parametrize(("largest", "kind"), [(7, np.int32), (2**31 - 1, np.int32), (2**31, np.int64)])
def test_counts_take_no_more_memory_than_they_need(tmp_path: Path, largest: int, kind: type) -> None:
    """Those of a chip are most of what its workers hold."""
    scratch, grid = Scratch(tmp_path / "run"), Grid((8, 8), (1.0, 1.0), 1.0)
    scratch.open("a run")
    workspace = Workspace(scratch, grid, block=4, n_genes=3, image=None)
    index = np.array([[0, 0], [5, 2], [7, 7]], np.int32)
    counts = sparse.csr_matrix(np.array([[1, 0, 2], [0, largest, 0], [0, 0, 1]], np.int64))
    workspace.save("spots", Tile("000-000", grid.ranges), Part(), Spots(grid, index, narrow(counts)))
    for ranges in (grid.ranges, ((4, 8), (0, 8))):
        seen = workspace.spots(ranges).counts
        assert seen.dtype == kind
        assert seen.toarray().tolist() == counts.toarray()[-seen.shape[0] :].tolist()
    assert workspace.spots(((0, 4), (4, 8))).counts.shape == (0, 3)
