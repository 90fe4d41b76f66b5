"""Real tissues, little trained: that they run and conserve. How good the cells are, benchmarks/accuracy.py tells."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, Sequence, Translation

import sslcst
from sslcst import metrics


@pytest.fixture(scope="module")
def store_of(shared, make_stores, tmp_path_factory):
    """Builds a store of real data with the script that lies beside them."""
    folders = {"prostate": "xenium_prime_prostate", "cosmx": "cosmx_lung12_fov2"}

    def build(name):
        path = tmp_path_factory.mktemp("stores") / f"{name}.zarr"
        getattr(make_stores, name)(shared / "data" / folders[name]).write(path)
        return sd.read_zarr(path)

    return build


def test_xenium_prostate_from_given_nuclei(store_of):
    sdata = store_of("prostate")
    sslcst.tl.segment(sdata, nuclei_key="reference_nuclei", coordinate_system="micron")
    cells, nuclei, reference = (
        sdata.labels[name].to_numpy() for name in ("sslcst_cells", "reference_nuclei", "reference_cells")
    )
    assert (sdata.labels["sslcst_nuclei"].to_numpy() == nuclei).all()
    assert metrics.mean_best_iou(reference, cells) > metrics.mean_best_iou(reference, nuclei)
    frame = sdata.points["transcripts"][["x", "y", "gene"]].compute()
    frame = frame[~frame["gene"].str.contains("Codeword|Control|Intergenic")]  # which stand for no gene
    owner = cells[(frame["y"] / 0.5).astype(int), (frame["x"] / 0.5).astype(int)]
    assert sdata["sslcst_table"].X.sum() == np.count_nonzero(owner)


@pytest.mark.parametrize("method", ["sslcst", "watershed"])
def test_cosmx_from_the_stain_without_a_download(store_of, method):
    sdata = store_of("cosmx")
    sslcst.tl.segment(sdata, coordinate_system="micron", params={"nuclei": {"method": method}})
    table, reference = sdata["sslcst_table"], sdata.labels["reference_cells"].to_numpy()
    assert 50 < table.n_obs < 100  # the vendor has 67 cells
    assert metrics.mean_best_iou(reference, sdata.labels["sslcst_cells"].to_numpy()) > 0.3
    assert table.obs["area"].median() == pytest.approx(100, rel=0.8)  # square microns


def test_cosmx_from_the_stain_by_cellpose(store_of, cyto_weights):
    sdata = store_of("cosmx")
    nuclei = {"method": "cellpose", "model": str(cyto_weights), "diameters": [8]}
    sslcst.tl.segment(sdata, coordinate_system="micron", params={"nuclei": nuclei})
    assert 50 < sdata["sslcst_table"].n_obs < 100
    assert sdata["sslcst_table"].uns["sslcst"]["params"]["nuclei"]["method"] == "cellpose"


def test_merscope_liver_from_its_membranes(shared, cyto_weights):
    """Hepatocytes, of which some have two nuclei; channels are known by their names."""
    spatialdata_io = pytest.importorskip("spatialdata_io")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader
        sdata = spatialdata_io.merscope(shared / "data" / "merscope_liver" / "region_0", z_layers=3)
    stain = {"method": "cellpose", "model": str(cyto_weights)}
    sslcst.tl.segment(sdata, method="stain", params={"stain": stain}, unit="micron")
    table = sdata["sslcst_table"]
    assert table.uns["sslcst"]["channels"].split("\n") == ["Cellbound1", "DAPI"]
    assert table.obs["n_nuclei"].max() > 1
    assert (table.obs["area"] >= table.obs["nucleus_area"]).all()
    assert table.obs["area"].median() == pytest.approx(180, rel=0.5)  # square microns


def test_vendor_cells_are_counted_as_geopandas_counts_them(prostate):
    """Of the labels, whose polygons are those of spatialdata."""
    cells, nuclei = prostate["reference_cells"].to_numpy(), prostate["reference_nuclei"].to_numpy()
    sslcst.tl.segment(prostate, cells_key="reference_cells", nuclei_key="reference_nuclei")
    obs = prostate["sslcst_table"].obs.set_index("cell_id")
    shapes = sd.to_polygons(prostate["reference_cells"])
    points = prostate["transcripts"].compute()
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(2 * points["x"], 2 * points["y"]))
    inside = gpd.sjoin(places, shapes.set_geometry(shapes.geometry.set_crs(None)).set_index("label"))
    expected = inside.groupby("label").size().reindex(obs.index, fill_value=0)
    assert obs["n_counts"].sum() == pytest.approx(expected.sum(), rel=0.03)
    assert np.corrcoef(obs["n_counts"], expected)[0, 1] > 0.99
    np.testing.assert_array_equal(prostate["sslcst_cells"], cells)
    np.testing.assert_array_equal(prostate["sslcst_nuclei"].to_numpy() > 0, (nuclei > 0) & (cells == nuclei))


def test_stereo_seq_gem_conserves_every_count(shared):
    sdata = sslcst.io.read_gem(next((shared / "data" / "stereoseq_gem").glob("*.gem.gz")))
    frame = sdata.points["transcripts"].compute()
    nuclei = sslcst.datasets.simulate(n_cells=150, seed=0)["true_nuclei"].to_numpy()[:300, :300]
    corner = np.floor(frame[["x", "y"]].min().to_numpy())
    place = Sequence([Translation(corner, ("x", "y")), Scale([0.5, 0.5], ("x", "y"))])
    sdata.labels["nuclei"] = Labels2DModel.parse(nuclei, dims=("y", "x"), transformations={"micron": place})
    sslcst.tl.segment(sdata, nuclei_key="nuclei", coordinate_system="micron")
    cells = sdata.labels["sslcst_cells"].to_numpy()
    row, column = (np.floor(frame[axis] - low).astype(int) for axis, low in zip("yx", corner[::-1], strict=True))
    on = (row < cells.shape[0]) & (column < cells.shape[1])
    owner = np.where(on, cells[np.where(on, row, 0), np.where(on, column, 0)], 0)
    assert sdata["sslcst_table"].X.sum() == frame["count"][owner > 0].sum() > 0
    by_gene = frame[owner > 0].groupby("gene", observed=False)["count"].sum()
    assert (sdata["sslcst_table"].to_df().sum() == by_gene).all()
