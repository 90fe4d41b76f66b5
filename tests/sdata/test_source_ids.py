"""Ids of nuclei and cells that are given: kept by all that is made of them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from shapely import Polygon, box
from spatialdata.models import Labels2DModel, PointsModel
from square_nuclei import MERSCOPE, SIDE, SQUARES, broken, shapes, squares_as_labels, tissue

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst._sdata.source_ids import number, of_cells
from sslcst.errors import DataError
from sslcst.pp import import_cells, import_nuclei, read_owners


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("what", ["text", "19 digits", "labels"])
def test_a_run_keeps_the_ids_of_the_nuclei_it_was_given(what, store, tmp_path):
    """By tiles of the image too, and in the store."""
    ids = ["aaaa-1", "b", "oikd-1"] if what == "text" else MERSCOPE
    sdata = tissue()
    if what == "labels":
        sdata["mine"] = Labels2DModel.parse(squares_as_labels(ids, np.int64), dims=("y", "x"))
    else:
        sdata["mine"] = shapes([*SQUARES, box(-9, -9, -5, -5)], index=[*ids, "off" if what == "text" else 8])
    if store:
        sdata.write(tmp_path / "a.zarr")
    sslcst.tl.segment(sdata, nuclei_key="mine", params={"tiles": {"image_size": 64}})
    for each in [sdata, sd.read_zarr(tmp_path / "a.zarr")] if store else [sdata]:
        obs = each.tables["sslcst_table"].obs
        assert obs["cell_id"].tolist() == [1, 2, 3]
        assert obs["source_id"].tolist() == ids


@pytest.mark.parametrize("column", [{}, {"radius": [np.nan] * 5}], ids=["polygons", "with a radius"])
def test_shapes_changed_in_memory_beside_a_store(column, tmp_path):
    """What the store could not hold, and what a run is of, is told from them all the same."""
    sdata = tissue()
    sdata.write(tmp_path / "a.zarr")
    index = pd.MultiIndex.from_product([["fov"], range(5)])
    sdata.shapes.data["mine"] = broken([None, *SQUARES, Polygon()], index=index, **column)
    sslcst.tl.segment(sdata, nuclei_key="mine")
    assert sdata.tables["sslcst_table"].obs["source_id"].tolist() == ["fov_1", "fov_2", "fov_3"]


def test_ids_that_were_imported_are_kept_by_all_that_follows(tmp_path):
    sdata = tissue(mine=shapes(SQUARES, index=list("cab")))
    import_nuclei(sdata, "mine")
    sdata.write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    sslcst.tl.segment(sdata, nuclei_key="sslcst_nuclei", key_added="whole")
    assert sdata.tables["whole_table"].obs["source_id"].tolist() == list("cab")
    sslcst.pp.erode_nuclei(sdata)
    sslcst.pp.bin_spots(sdata)
    model = sslcst.tl.train(sdata)
    sslcst.tl.predict(sdata, model)
    sslcst.tl.track(sdata, model)
    sslcst.tl.aggregate(sdata)
    assert sdata.tables["sslcst_table"].obs["source_id"].tolist() == list("cab")
    import_cells(sdata, "mine")
    # Cells and nuclei meet by the ids that they had, in whatever order they were numbered.
    sdata["other"] = shapes([square.buffer(-2) for square in SQUARES[::-1]], index=list("bac"))
    import_nuclei(sdata, "other")
    sslcst.tl.aggregate(sdata, cells_key="imported_cells", key_added="others")
    table = sdata.tables["others"]
    assert table.obs["source_id"].tolist() == list("cab")
    assert table.obs["nucleus_area"].tolist() == [36, 36, 36]


def test_steps_take_labels_of_several_scales():
    sdata = tissue()
    labels = squares_as_labels([1, 2, 3], np.int32)
    sdata["nuclei"] = Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=[2])
    sslcst.pp.bin_spots(sdata, nuclei_key="nuclei")
    assert set(sdata.tables["sslcst_spots"].obs["nucleus"]) == {0, 1, 2, 3}
    sslcst.pp.erode_nuclei(sdata, nuclei_key="nuclei")
    assert full_scale(sdata.labels["sslcst_cores"]).shape == (SIDE, SIDE)


def test_19_digits_of_transcripts_name_as_many_cells():
    """MERSCOPE's ids differ in their last digits only."""
    ids = 1203981230981230981 + np.arange(40)
    frame = pd.DataFrame({"x": np.arange(41.0), "y": 0.0, "cell_id": np.append(ids, -1)})
    sdata = sd.SpatialData(points={"transcripts": PointsModel.parse(frame, npartitions=1)})
    assert read_owners(sdata).names.tolist() == ids.tolist()
    import_cells(sdata, "transcripts", reach=1)
    assert sdata.tables["imported_cells_ids"].obs["source_id"].tolist() == ids.tolist()


def test_19_digits_that_were_rounded_are_told(caplog):
    frame = pd.DataFrame({"x": np.arange(3.0), "y": 0.0, "cell_id": [*map(float, MERSCOPE[:2]), np.nan]})
    read_owners(sd.SpatialData(points={"transcripts": PointsModel.parse(frame, npartitions=1)}))
    assert "ids above 2^53 as float64" in caplog.text


def test_large_labels_are_compared_and_judged():
    sdata = tissue()
    for name, ids in (("a", MERSCOPE), ("b", [1, 2, 3])):
        sdata[name] = Labels2DModel.parse(squares_as_labels(ids, np.int64), dims=("y", "x"))
    assert sslcst.tl.compare(sdata, "a", "b").n_pairs == 3
    assert sslcst.tl.quality(sdata, cells_key="a", nuclei_key="b")["source_id"].tolist() == MERSCOPE


def test_cells_of_transcripts_that_got_no_pixel_are_told(caplog):
    frame = pd.DataFrame({"x": [5.0, 500.0, 6.0], "y": 5.0, "cell": ["a-1", "b-2", "a-1"]})
    sdata = tissue(cells=PointsModel.parse(frame, npartitions=1))
    import_cells(sdata, "cells")
    assert "1 of 2 cells in 'cells' have no pixel ('b-2')" in caplog.text
    assert sdata.tables["imported_cells_ids"].obs["source_id"].tolist() == ["a-1"]


@pytest.mark.parametrize("name", [[1, 2], ["a-1", "b-2"]])
def test_where_no_cell_of_transcripts_got_a_pixel_an_error_says_so(name):
    frame = pd.DataFrame({"x": [500.0, 510.0], "y": 5.0, "cell": name})
    sdata = tissue(cells=PointsModel.parse(frame, npartitions=1))
    with pytest.raises(DataError, match="None of the 2 cells in 'cells' has a pixel: they lie off the image"):
        import_cells(sdata, "cells", reach=4)
    assert not sdata.labels and not sdata.tables


def test_a_cell_without_a_nucleus_has_no_original_id_and_others_keep_theirs_exact(tmp_path):
    """Flows may end where there is no nucleus: such a cell takes the next number, that of a nucleus left out even."""
    source_ids = number(pd.Index(MERSCOPE), "shapes")[1]
    column = of_cells(source_ids, np.array([1, 3, 7]))
    assert column.tolist() == [MERSCOPE[0], MERSCOPE[2], pd.NA]
    ad.AnnData(obs=pd.DataFrame({"source_id": column.array}, index=list("abc"))).write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").obs["source_id"].tolist() == column.tolist()

    sdata = tissue(mine=shapes([*SQUARES, box(-9, -9, -5, -5)], index=[*MERSCOPE, 8]))
    params = {
        "encoder": {"width": 8, "depth": 1, "hidden": (8,)},
        "training": {"max_epochs": 1, "min_steps": 1},
        "sampling": {"max_samples": 100},
        "flow": {"orphans": True},
    }
    sslcst.tl.segment(sdata, nuclei_key="mine", method="ssl-cst", params=params)
    obs = sdata.tables["sslcst_table"].obs.set_index("cell_id")["source_id"]
    assert obs.loc[[1, 2, 3]].tolist() == MERSCOPE
    assert obs.loc[[cell for cell in obs.index if cell > 3]].isna().all()


def test_cells_named_by_text_are_exported(tmp_path):
    sdata = tissue(mine=shapes(SQUARES, index=MERSCOPE))
    sslcst.tl.segment(sdata, nuclei_key="mine")
    sslcst.io.write_geojson(sdata, tmp_path / "a.geojson")
    assert '"name": "1"' in (tmp_path / "a.geojson").read_text()
