"""Cells of few molecules or of a small area are dropped everywhere, and told; `test_tiles.py` asks it of steps too."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from shapely import box
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel
from tiny_chips import chip, segment, segment_whole

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError, ParameterError

DENSITY = {"nuclei_key": "true_nuclei", "method": "density"}


def at_least(**least) -> dict:
    return {"cells": least, "tiles": {"size": 96, "block": 32}}


def ids_in(labels) -> set[int]:
    return set(np.unique(full_scale(labels).to_numpy()).tolist()) - {0}


def test_none_is_dropped_unless_asked_and_how_many_is_told(caplog):
    sdata = chip()
    with caplog.at_level(logging.INFO, "sslcst"):
        segment(sdata, at_least(), **DENSITY)
        assert "dropped" not in caplog.text
        segment(sdata, at_least(min_counts=40), **DENSITY, key_added="few")
    every, few = (sdata[f"{key}_table"] for key in ("sslcst", "few"))
    n = int((every.obs["n_counts"] < 40).sum())
    assert every.uns["sslcst"]["n_dropped"] == 0 < n == few.uns["sslcst"]["n_dropped"]
    assert every.uns["sslcst"]["n_nuclei"] == few.uns["sslcst"]["n_nuclei"] == len(few) + n
    assert few.uns["sslcst"]["params"]["cells"]["min_counts"] == 40
    assert f"{n} of {n + len(few)} cells are below cells.min_counts=40 and cells.min_area=0" in caplog.text


@pytest.mark.parametrize("least", [{"min_counts": 10_000}, {"min_area": 1e9}])
def test_to_drop_all_is_an_error_that_leaves_everything_as_it_was(least, tmp_path):
    sdata, steps = chip(), chip()
    sdata.write(tmp_path / "a.zarr")
    with pytest.raises(DataError, match=r"All of the \d+ cells are below cells.min_counts"):
        segment(sd.read_zarr(tmp_path / "a.zarr"), at_least(**least), **DENSITY)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]
    with pytest.raises(DataError, match="All of the"):
        segment_whole(steps, at_least(**least), "density")
    assert "sslcst_table" not in steps
    assert ids_in(steps["sslcst_nuclei"]) == ids_in(steps["true_nuclei"])


@pytest.mark.parametrize("wrong", [{"min_counts": -1}, {"min_area": -0.5}, {"min_counts": 2.5}, {"min_area": "10"}])
def test_bounds(wrong):
    with pytest.raises(ParameterError, match=r"cells\.min_"):
        sslcst.params.Params.of({"cells": wrong})


def test_all_scales_of_the_labels(tmp_path):
    sdata = chip()
    nuclei = sdata["true_nuclei"]
    where = dict(nuclei.attrs["transform"])
    fine = Labels2DModel.parse(nuclei.to_numpy(), dims=("y", "x"), scale_factors=[2], transformations=where)
    del sdata.labels["true_nuclei"]
    sdata["true_nuclei"] = fine
    sdata.write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    segment(sdata, at_least(min_counts=40), **DENSITY)
    kept = set(sdata["sslcst_table"].obs["cell_id"])
    for name in ("sslcst_nuclei", "sslcst_cells"):
        scales = [next(iter(scale.data_vars.values())) for scale in sdata[name].children.values()]
        assert len(scales) == 2
        assert [ids_in(scale) <= kept for scale in scales] == [True, True]


def test_original_ids_stay_with_their_cells_and_given_nuclei_stay_as_they_are():
    rng = np.random.default_rng(0)
    squares = gpd.GeoDataFrame(geometry=[box(x, 10, x + 6, 16) for x in (5, 25, 45)], index=list("abc"))
    places = [(rng.uniform(0, (60, 30), (400, 2)))]
    places += [rng.uniform((x, 10), (x + 6, 16), (n, 2)) for x, n in ((5, 300), (25, 20), (45, 300))]
    frame = pd.DataFrame(np.concatenate(places), columns=["x", "y"])
    frame["gene"] = pd.Categorical(rng.choice(list("de"), len(frame)))
    points = PointsModel.parse(frame, feature_key="gene", npartitions=1)

    def made() -> sd.SpatialData:
        return sd.SpatialData.init_from_elements({"mine": ShapesModel.parse(squares), "transcripts": points})

    sdata, steps, params = made(), made(), {"cells": {"min_counts": 200}}
    sslcst.tl.segment(sdata, nuclei_key="mine", params=params)
    assert sdata["sslcst_table"].obs["source_id"].tolist() == ["a", "c"]
    assert ids_in(sdata["sslcst_cells"]) == ids_in(sdata["sslcst_nuclei"]) == {1, 3}
    assert list(sdata["mine"].index) == list("abc")
    sslcst.pp.import_nuclei(steps, "mine")
    sslcst.pp.bin_spots(steps)
    model = sslcst.tl.train(steps)
    sslcst.tl.predict(steps, model)
    sslcst.tl.track(steps, model)
    sslcst.tl.aggregate(steps, params=params)
    assert steps["sslcst_table"].obs["source_id"].tolist() == ["a", "c"]
    for name in ("nuclei", "cells"):
        np.testing.assert_array_equal(steps[f"sslcst_{name}"], sdata[f"sslcst_{name}"])

    steps["theirs"] = steps["sslcst_cells"].copy()
    before = steps["theirs"].to_numpy().copy()
    most = {"cells": {"min_counts": int(steps["sslcst_table"].obs["n_counts"].max())}}
    sslcst.tl.aggregate(steps, cells_key="theirs", params=most, key_added="of_theirs")
    assert steps["of_theirs"].n_obs == 1
    np.testing.assert_array_equal(steps["theirs"], before)


def test_of_a_region_too(tmp_path):
    """Cells that reach out of the region are not in it, whatever is dropped."""
    sdata = chip()
    sdata.write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    for key, least in (("every", 0), ("few", 40)):
        segment(sdata, at_least(min_counts=least), **DENSITY, region=(10, 10, 50, 50), key_added=key)
    sslcst.tl.intensities(sdata, key="few", image_key="stain")
    every, few = (sdata[f"{key}_table"] for key in ("every", "few"))
    kept = every.obs["n_counts"] >= 40
    assert 0 < kept.sum() < len(kept)
    assert few.obs["cell_id"].tolist() == every.obs["cell_id"][kept].tolist()
    assert ids_in(sdata["few_cells"]) == ids_in(sdata["few_nuclei"]) == set(few.obs["cell_id"])
    assert few.obsm["intensities"].notna().all(axis=None)
