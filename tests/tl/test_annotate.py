"""The boundaries of cells, as other packages take them: spatialdata-plot's colours, sopa's files for the Explorer."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from shapely import Polygon
from spatialdata.models import TableModel

import sslcst
from sslcst.errors import BackendError, DataError, KeyMissingError, ParameterError, StoreError
from sslcst.io import write_xenium_explorer
from sslcst.io._explorer import _shapes
from sslcst.tl import annotate


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Cells with their boundaries, and cells in microns without, in a store."""
    path = tmp_path_factory.mktemp("cells") / "a.zarr"
    sdata = sslcst.datasets.simulate(n_cells=30, n_genes=20, seed=0)
    sdata.write(path)
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", shapes=True)
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", key_added="bare", unit="micron", pixel_size=0.25)
    return path


@pytest.fixture
def sdata(path):
    sdata = sd.read_zarr(path)
    for key in ("sslcst", "bare"):
        obs = sdata[f"{key}_table"].obs
        obs["kind"] = pd.Categorical(np.where(obs["n_counts"] > obs["n_counts"].median(), "rich", "poor"))
    return sdata


def colours(ax) -> int:
    return len(np.unique(np.concatenate([each.get_facecolor() for each in ax.collections]), axis=0))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of spatialdata-plot under matplotlib 3.11
@pytest.mark.parametrize("key", ["sslcst", "bare"])
def test_spatialdata_plot_colours_boundaries_and_labels_again(sdata, key):
    import spatialdata_plot  # noqa: F401

    annotate(sdata, key=key)
    names = {"table_name": f"{key}_table"}
    gene, shapes = sdata[f"{key}_table"].var_names[0], f"{key}_boundaries"
    for color, few in ((gene, 5), ("kind", 2)):
        ax = plt.figure().gca()
        sdata.pl.render_shapes(shapes, color=color, method="matplotlib", **names).pl.show("global", ax=ax)
        assert colours(ax) >= few
    annotate(sdata, "cells", key=key)
    sdata.pl.render_labels(f"{key}_cells", color="kind", **names).pl.show("global")


def test_the_boundaries_are_those_of_a_run_with_shapes(sdata, path):
    annotate(sdata, key="bare")
    made, known = sdata["bare_boundaries"], sdata["sslcst_boundaries"]
    assert made.index.tolist() == known.index.tolist() == sdata["bare_table"].obs["cell_id"].tolist()
    assert made.geometry.tolist() == known.geometry.tolist()
    assert known.attrs["transform"].keys() <= made.attrs["transform"].keys()
    TableModel.validate(sdata["bare_table"])
    sdata.validate_table_in_spatialdata(sdata["bare_table"])
    assert "bare_boundaries" not in sd.read_zarr(path)


def test_a_run_in_place_of_the_cells_replaces_their_boundaries_and_not_those_of_others(sdata, path):
    """In the store, too, nothing is left of them."""
    again = {"nuclei_key": "true_nuclei", "key_added": "bare", "overwrite": True, "seed": 1}
    sdata["bare_boundaries"] = sdata["sslcst_boundaries"]
    with pytest.raises(KeyMissingError, match="'bare_boundaries' exists and was not written by the run"):
        sslcst.tl.segment(sdata, **again)
    del sdata.shapes["bare_boundaries"]
    annotate(sdata, key="bare")
    sslcst.tl.segment(sdata, **again)
    assert "bare_boundaries" not in sdata
    assert sdata["bare_table"].uns["spatialdata_attrs"]["region"] == "bare_cells"
    assert "bare_boundaries" not in sd.read_zarr(path)


def test_what_cannot_be_annotated(sdata):
    with pytest.raises(ParameterError, match="must be one of boundaries, cells"):
        annotate(sdata, "nuclei")
    with pytest.raises(KeyMissingError, match="There is no labels element 'other_cells'"):
        annotate(sdata, key="other")
    sdata["bare_table"].obs["cell_id"] += 1000
    with pytest.raises(DataError, match="do not occur"):
        annotate(sdata, key="bare")
    assert sdata["bare_table"].uns["spatialdata_attrs"]["region"] == "bare_cells"


def test_explorer_without_sopa(sdata, tmp_path, monkeypatch):
    monkeypatch.setattr("sslcst.io._explorer.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'sslcst\[explorer\]'"):
        write_xenium_explorer(sdata, tmp_path / "a")


def test_boundaries_of_which_some_were_taken_out_are_drawn_anew_for_the_explorer(sdata):
    known, ids = sdata["sslcst_boundaries"], sdata["sslcst_table"].obs["cell_id"].to_numpy()
    sdata["sslcst_boundaries"] = known.iloc[1:]
    cells, _ = _shapes(sdata, ids, "sslcst_cells", "sslcst_nuclei", "sslcst_boundaries")
    assert cells.geometry.tolist() == known.geometry.loc[ids].tolist()


@pytest.fixture
def _sopa():
    pytest.importorskip("sopa", reason="sopa is not installed")


def arrays(path):
    return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")


@pytest.mark.usefixtures("_sopa")
@pytest.mark.parametrize("key", ["sslcst", "bare"])
def test_explorer(sdata, key, tmp_path):
    """Counts, groups, polygons in microns and the ids of the cells; the object stays as it is."""
    from sopa.io.explorer import int_cell_id

    table = sdata[f"{key}_table"]
    before = table.obs.copy()
    write_xenium_explorer(sdata, tmp_path / "a", key=key, pixel_size=0.25 if key == "sslcst" else None)
    pd.testing.assert_frame_equal(table.obs, before)
    assert table.uns["spatialdata_attrs"]["region"] == f"{key}_cells"
    about = json.loads((tmp_path / "a" / "experiment.xenium").read_text())
    assert about["num_cells"] == len(table)
    assert about["pixel_size"] == 0.25
    cells, counts, groups = (
        arrays(tmp_path / "a" / f"{name}.zarr.zip") for name in ("cells", "cell_feature_matrix", "analysis")
    )
    assert cells["cell_id"][:, 0].tolist() == table.obs["cell_id"].tolist()
    assert int_cell_id("aaaaaaab-1") == 1
    nuclei, boundaries = cells["polygon_vertices"][:].reshape(2, len(table), -1, 2)
    for rings, name in ((nuclei, "true_nuclei"), (boundaries, f"{key}_cells")):
        for ring, cell in zip(rings, table.obs["cell_id"], strict=True):
            yx = (np.argwhere(sdata[name].to_numpy() == cell) + 0.5) * 0.25
            assert Polygon(ring).area == pytest.approx(len(yx) * 0.25**2, rel=0.1)
            assert Polygon(ring).centroid.coords[0] == pytest.approx(yx.mean(axis=0)[::-1], abs=0.2)
    inside = counts["cell_features"]
    assert inside.attrs["feature_keys"][:-1] == list(table.var_names)
    assert inside["data"][: table.X.nnz].sum() == table.X.sum()
    assert groups["cell_groups"].attrs["grouping_names"] == ["region", "kind"]
    assert (tmp_path / "a" / "transcripts.zarr.zip").exists()


@pytest.mark.usefixtures("_sopa")
def test_explorer_refuses(sdata, tmp_path):
    with pytest.raises(ParameterError, match="pixel_size"):
        write_xenium_explorer(sdata, tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        write_xenium_explorer(sdata, tmp_path / "file", pixel_size=0.25)
    sdata["sslcst_table"].X = sdata["sslcst_table"].X * 0.5
    with pytest.raises(DataError, match="holds no counts"):
        write_xenium_explorer(sdata, tmp_path / "a", pixel_size=0.25)
    assert not (tmp_path / "a").exists()
