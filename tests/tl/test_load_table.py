"""A table that the store gets alone is that of any other run, to the last byte, and no counts are in memory for it."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import zarr
from store_files import files_of
from tiny_chips import assert_same_cells, chip

import sslcst
from sslcst.core.measure import Cells
from sslcst.errors import ParameterError
from sslcst.run import results

SMALL = {"tiles": {"size": 64, "block": 32}}


def segmented(folder: Path, **kwargs: object) -> sd.SpatialData:
    chip().write(folder / "a.zarr")
    sdata = sd.read_zarr(folder / "a.zarr")
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", method="density", params=SMALL, **kwargs)
    return sdata


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[sd.SpatialData, sd.SpatialData]:
    """The same chip with its table in the store alone, and with it in the object too."""
    return tuple(
        segmented(tmp_path_factory.mktemp("chip"), load_table=load, shapes=True, assign_points=True)
        for load in (False, True)
    )


def test_the_object_gets_all_but_the_table(both) -> None:
    alone, other = both
    assert "sslcst_table" not in alone
    assert {name for _, name, _ in alone.gen_elements()} == {name for _, name, _ in other.gen_elements()} - {
        "sslcst_table"
    }


def test_the_counts_in_the_store_are_the_same_to_the_last_byte(both) -> None:
    stores = [Path(sdata.path) for sdata in both]
    assert_same_cells(*map(sd.read_zarr, stores))
    for name in ("X", "layers/nuclear"):
        one, other = (files_of(store / "tables" / "sslcst_table" / name) for store in stores)
        assert one == other
    assert {path.name for path in stores[0].parent.iterdir()} == {"a.zarr"}  # nothing is left beside it


def test_the_same_call_reads_the_table_and_makes_nothing_anew(both, tmp_path: Path, monkeypatch) -> None:
    sdata = segmented(tmp_path, load_table=False)
    monkeypatch.setattr("sslcst.tl._segment.run", None)
    kwargs = {"nuclei_key": "true_nuclei", "method": "density", "params": SMALL}
    sslcst.tl.segment(sdata, **kwargs, load_table=False)
    assert "sslcst_table" not in sdata
    sslcst.tl.segment(sdata, **kwargs)
    assert_same_cells(sdata, both[1])


def test_the_table_of_the_run_that_is_replaced_leaves_the_object(tmp_path: Path) -> None:
    """Else it would stand beside labels that it is not of."""
    sdata = segmented(tmp_path)
    params = SMALL | {"cells": {"min_counts": 40}}
    sslcst.tl.segment(
        sdata, nuclei_key="true_nuclei", method="density", params=params, load_table=False, overwrite=True
    )
    assert "sslcst_table" not in sdata
    cells = sdata["sslcst_cells"].to_numpy()
    assert sd.read_zarr(sdata.path)["sslcst_table"].obs["cell_id"].tolist() == np.unique(cells[cells > 0]).tolist()


def test_anndata_reads_the_counts_of_some_cells_alone(both) -> None:
    """As the docs have it, of a table that does not fit into memory."""
    lazy = ad.experimental.read_lazy(zarr.open_group(both[0].path, mode="r")["tables/sslcst_table"])
    table = both[1]["sslcst_table"]
    right = table.obsm["spatial"][:, 0] > np.median(table.obsm["spatial"][:, 0])
    part = lazy[right].to_memory()
    assert (part.X != table[right].X).nnz == 0
    assert part.obs["cell_id"].tolist() == table.obs["cell_id"][right].tolist()


def test_the_counts_are_mapped_from_files_unless_the_table_is_loaded(tmp_path: Path, monkeypatch) -> None:
    """So that memory does not grow with the number of cells."""
    found, join = {}, results.join_cells

    def seen(scratch, tiles, *, in_memory: bool) -> Cells:
        cells = join(scratch, tiles, in_memory=in_memory)
        matrices = (cells.counts, cells.nuclear)
        found[in_memory] = [is_mapped(array) for counts in matrices for array in (counts.data, counts.indices)]
        return cells

    monkeypatch.setattr(results, "join_cells", seen)
    for load in (False, True):
        (folder := tmp_path / str(load)).mkdir()
        segmented(folder, load_table=load)
    assert found == {False: [True] * 4, True: [False] * 4}


def is_mapped(array: np.ndarray | None) -> bool:
    return isinstance(array, np.memmap) or (array is not None and is_mapped(array.base))


def test_without_a_store_there_is_nowhere_to_leave_the_table() -> None:
    with pytest.raises(ParameterError, match=r"load_table=False: the object has no store to leave the table in: write"):
        sslcst.tl.segment(chip(), nuclei_key="true_nuclei", load_table=False)
