"""Whole cells that are given: their counts, and the nuclei that are matched to them."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from geopandas import GeoDataFrame, points_from_xy, sjoin
from scipy import ndimage
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, set_transformation
from tiny_chips import assert_same_cells, chip
from whole_cells import BOXES, CELLS, NUCLEI, drawn, polygons, stain, tissue

import sslcst
from sslcst.core.matching import Shared, as_cells
from sslcst.errors import DataError, KeyMissingError, ParameterError


def test_given_cells_are_taken_as_they_are_and_counted_anew():
    """Their ids and pixels, and the transcripts that lie in them, counted by hand."""
    sdata = tissue()
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei", shapes=True, assign_points=True)
    np.testing.assert_array_equal(sdata["sslcst_cells"], CELLS)
    table, points = sdata["sslcst_table"], sdata["transcripts"].compute()
    owner = CELLS[tuple(np.floor(points[["y", "x"]].to_numpy()).astype(int).T)]
    expected = pd.crosstab(owner, points["gene"].to_numpy()).drop(index=0)
    np.testing.assert_array_equal(table.to_df().reindex(columns=expected.columns), expected)
    assert table.obs["cell_id"].tolist() == expected.index.tolist() == [1, 2, 3, 7]
    assert table.obs["area"].tolist() == [(number == CELLS).sum() for number in (1, 2, 3, 7)]
    np.testing.assert_array_equal(sdata["sslcst_transcripts"].compute()["cell_id"], owner)
    assert sdata["sslcst_boundaries"].index.tolist() == [1, 2, 3, 7]
    assert set(table.obs["mean_prob"]) == {1.0}
    assert table.uns["sslcst"]["method"] == "given"
    assert table.uns["sslcst"]["cells_key"] == "cells"


def test_nuclei_take_the_ids_of_their_cells(caplog):
    """Two of one cell, one that reaches into another, one in none; a cell has none."""
    sdata = tissue()
    with caplog.at_level(logging.INFO, "sslcst"):
        sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei")
    expected = drawn({})
    for number, (_, nuclei) in BOXES.items():
        for top, bottom, left, right in nuclei:
            inside = np.s_[top:bottom, left:right]
            expected[inside] = np.where(CELLS[inside] == number, number, 0)
    np.testing.assert_array_equal(sdata["sslcst_nuclei"], expected)
    table = sdata["sslcst_table"]
    assert table.obs["n_nuclei"].tolist() == [1, 2, 0, 1]
    assert table.obs["nucleus_area"].tolist() == [(expected == number).sum() for number in (1, 2, 3, 7)]
    assert table.uns["sslcst"]["n_nuclei"] == 4
    assert table.layers["nuclear"][2].sum() == 0 < table.layers["nuclear"][1].sum()
    assert "4 cells: 2 with one nucleus, 1 with several, 1 with none; 1 of 5 nuclei are in no cell" in caplog.text


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_a_nucleus_is_where_most_of_it_lies(shared):
    """In a cell or in none; of cells with as much of it, that of the least id."""
    nuclei, cells = np.ones((1, 5), np.uint32), np.zeros((1, 5), np.uint32)
    cells[0, :shared] = 9
    parts = [Shared.of(nuclei[:, part], cells[:, part]) for part in (slice(3), slice(3, 5))]
    ids, owner = Shared.join(parts).match()
    assert (ids.tolist(), owner.tolist()) == ([1], [9 if shared == 3 else 0])
    assert as_cells(nuclei, cells, ids, owner).tolist() == (cells if shared == 3 else 0 * cells).tolist()
    cells[0] = [2, 2, 5, 5, 0]
    assert Shared.of(nuclei, cells).match()[1] == 2


def test_ids_up_to_the_largest_are_told_apart():
    largest = 2**32 - 1
    nuclei, cells = np.array([[largest, 1]], np.uint32), np.array([[1, largest]], np.uint32)
    ids, owner = Shared.of(nuclei, cells).match()
    assert (ids.tolist(), owner.tolist()) == ([1, largest], [largest, 1])


@pytest.mark.parametrize("size", [32, 64])
def test_tiles_change_nothing(size, tmp_path):
    """Of cells as large as a tile too, in a store as in memory, and of nuclei that borders of tiles cut."""
    one, other = chip(), chip()
    grown = sslcst.core.cells.fill_holes(_grown(one["true_nuclei"].to_numpy()))
    grown[20:90, 30:75] = grown.max() + 1
    for sdata in (one, other):
        sdata["cells"] = Labels2DModel.parse(
            grown, dims=("y", "x"), transformations={"global": Scale([0.5] * 2, ("x", "y"))}
        )
    one.write(tmp_path / "a.zarr")
    one = sd.read_zarr(tmp_path / "a.zarr")
    how = {"cells_key": "cells", "nuclei_key": "true_nuclei", "shapes": True, "assign_points": True}
    sslcst.tl.segment(one, **how, params={"tiles": {"size": size, "block": 32, "image_size": 64}})
    sslcst.tl.segment(other, **how)
    assert_same_cells(one, other)
    assert one["sslcst_boundaries"].geom_equals_exact(other["sslcst_boundaries"], 0).all()
    pd.testing.assert_frame_equal(one["sslcst_transcripts"].compute(), other["sslcst_transcripts"].compute())


def _grown(nuclei: np.ndarray) -> np.ndarray:
    place = ndimage.distance_transform_edt(nuclei == 0, return_distances=False, return_indices=True)
    return np.where(ndimage.distance_transform_edt(nuclei == 0) < 4, nuclei[tuple(place)], 0)


def test_cells_as_shapes_are_counted_as_geopandas_counts_them():
    """Drawn on a grid over the points, since there is no image; their ids, which are text, are kept."""
    shapes = polygons(CELLS, index=["aa-1", "bb-1", "cc-1", "dd-1"])
    sdata = tissue(cells=shapes, nuclei=None)
    sslcst.tl.segment(sdata, cells_key="cells")
    points = sdata["transcripts"].compute()
    inside = sjoin(GeoDataFrame(points[["gene"]], geometry=points_from_xy(points["x"], points["y"])), shapes)
    of_cell = sdata["sslcst_table"].obs.set_index("source_id")
    expected = inside.groupby(inside.columns[-1]).size().reindex(of_cell.index)
    assert of_cell["n_counts"].to_numpy() == pytest.approx(expected.to_numpy(), rel=0.06)
    assert set(of_cell.index) == {"aa-1", "bb-1", "cc-1", "dd-1"}
    assert set(of_cell["n_nuclei"]) == set(of_cell["nucleus_area"]) == {0}
    assert not sdata["sslcst_nuclei"].to_numpy().any()


def test_shapes_are_drawn_on_the_pixels_of_labels_or_image():
    one, other = tissue(cells=polygons(CELLS)), tissue(cells=polygons(CELLS), nuclei=None)
    other["stain"] = stain(np.where(NUCLEI > 0, 200, 10).astype(np.uint8), names=["DAPI"])
    sslcst.tl.segment(one, cells_key="cells", nuclei_key="nuclei")
    sslcst.tl.segment(other, cells_key="cells", params={"nuclei": {"method": "watershed"}})
    for sdata in (one, other):
        np.testing.assert_array_equal(sdata["sslcst_cells"].to_numpy() > 0, CELLS > 0)
        assert sdata["sslcst_table"].obs["n_nuclei"].tolist() == [1, 2, 0, 1]


def test_given_cells_in_a_region_and_without_the_small():
    sdata = tissue()
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei", region=(0, 0, 64, 22), key_added="top")
    assert sdata["top_table"].obs["cell_id"].tolist() == [1, 2]
    params = {"cells": {"min_area": 399.0}}
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei", params=params, key_added="large")
    assert sdata["large_table"].obs["cell_id"].tolist() == [7]
    assert set(np.unique(sdata["large_nuclei"])) == {0, 7}


def test_a_result_is_drawn_reported_and_compared_without_keys(tmp_path):
    """By all that follows a run of any method."""
    sdata = tissue(stain=stain(np.where(NUCLEI > 0, 200, 10).astype(np.uint8), names=["DAPI"]))
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei", shapes=True)
    sslcst.pl.segmentation(sdata)
    sslcst.report.write_report(sdata, tmp_path / "a.html")
    assert len(sslcst.tl.quality(sdata)) == 4
    sslcst.tl.compare(sdata, "sslcst_cells", "cells")
    sslcst.io.write_geojson(sdata, tmp_path / "a.geojson")


def test_a_run_that_replaces_its_cells_is_not_done_twice(tmp_path):
    """Results may be given as cells, and take their own place."""
    tissue().write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei")
    again = sd.read_zarr(tmp_path / "a.zarr")
    sslcst.tl.segment(again, cells_key="sslcst_cells", nuclei_key="sslcst_nuclei", overwrite=True)
    np.testing.assert_array_equal(again["sslcst_cells"], CELLS)
    assert again["sslcst_table"].obs["n_nuclei"].tolist() == [1, 1, 0, 1], "two nuclei of one id are one"


def test_cells_and_nuclei_of_other_pixels_are_refused():
    sdata = tissue(nuclei=np.repeat(np.repeat(NUCLEI, 2, 0), 2, 1))
    set_transformation(sdata["nuclei"], Scale([0.5, 0.5], ("x", "y")))
    with pytest.raises(DataError, match="'nuclei' and 'cells' have other pixels"):
        sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei")


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ({"cells_key": "cell"}, KeyMissingError, "no labels or shapes element 'cell'"),
        ({"method": "given"}, ParameterError, "say with cells_key="),
        ({"cells_key": "cells", "method": "density"}, ParameterError, "leave one out"),
        ({"cells_key": "cells", "channels": ["a", "b"]}, ParameterError, "channels are for method='stain'"),
        ({"cells_key": "nothing"}, DataError, "no cells in 'nothing': every pixel is background"),
    ],
)
def test_what_does_not_belong_together_is_said_before_any_work(how, kind, said):
    sdata = tissue(nothing=Labels2DModel.parse(0 * CELLS, dims=("y", "x")))
    with pytest.raises(kind, match=said):
        sslcst.tl.segment(sdata, nuclei_key="nuclei", **how)
    with pytest.raises(kind, match=said):
        sslcst.tl.plan(sdata, nuclei_key="nuclei", **how)
    assert not sdata.tables


@pytest.mark.parametrize("method", ["stain", "given"])
def test_whole_cells_have_no_steps(method):
    sdata = tissue()
    sslcst.pp.bin_spots(sdata, nuclei_key="nuclei")
    with pytest.raises(ParameterError, match="learns nothing"):
        sslcst.tl.train(sdata, method=method)


def test_cells_without_any_nucleus_are_drawn_and_reported(tmp_path):
    """The figures that need nuclei are an error that says so."""
    sdata = tissue(nuclei=None)
    sslcst.tl.segment(sdata, cells_key="cells", shapes=True)
    sslcst.pl.segmentation(sdata)
    sslcst.report.write_report(sdata, tmp_path / "a.html")
    assert "Cells without a nucleus" in (tmp_path / "a.html").read_text()
    sslcst.tl.compare(sdata, "sslcst_cells", "cells")
    sslcst.io.write_geojson(sdata, tmp_path / "a.geojson")
    with pytest.raises(DataError, match="no nuclei"):
        sslcst.tl.quality(sdata)


def test_the_plan_is_that_of_the_run():
    plan = sslcst.tl.plan(tissue(), cells_key="cells", nuclei_key="nuclei")
    sdata = tissue()
    sslcst.tl.segment(sdata, cells_key="cells", nuclei_key="nuclei")
    assert plan.bin_size == sdata["sslcst_table"].uns["sslcst"]["bin_size"]
    assert plan.n_transcripts == 3000


@pytest.mark.parametrize("at", ["run.stages.whole_cells.as_cells", "run.stages.cells.measure"])
def test_a_run_that_was_stopped_goes_on(at, tmp_path, monkeypatch):
    """While nuclei are matched, or cells counted; what was found is not found again."""
    tissue().write(tmp_path / "a.zarr")
    how = {
        "cells_key": "cells",
        "nuclei_key": "nuclei",
        "params": {"tiles": {"size": 32, "block": 32, "image_size": 64}},
    }

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"sslcst.{at}", stop)
        with pytest.raises(KeyboardInterrupt):
            sslcst.tl.segment(sd.read_zarr(tmp_path / "a.zarr"), **how)
    stopped, whole = sd.read_zarr(tmp_path / "a.zarr"), tissue()
    with monkeypatch.context() as patch:
        patch.setattr("sslcst.run.stages.nuclei._write", stop)
        sslcst.tl.segment(stopped, **how)
    sslcst.tl.segment(whole, **how)
    assert_same_cells(stopped, whole)
