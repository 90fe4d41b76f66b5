"""The whole way from a store to cells, on tissues small enough for a second."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from geopandas import GeoDataFrame
from scipy import sparse
from shapely import Polygon
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, get_transformation, set_transformation
from store_files import files_of
from tiny_chips import chip, with_nuclei

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError
from sslcst.run import pipeline

QUICK = {  # of "ssl-cst"
    "encoder": {"width": 16, "depth": 2, "hidden": (16,)},
    "training": {"max_epochs": 2, "min_steps": 10, "field_size": 2000},
    "sampling": {"max_samples": 300},
    "inputs": {"n_neighbors": 12},
}


@pytest.fixture(scope="module")
def simulated():
    return sslcst.datasets.simulate(n_cells=25, n_genes=40, counts_per_cell=120, seed=3)


@pytest.fixture
def tissue(simulated):
    """A fresh object with the simulated elements, so that a test may add to it."""
    elements = {"stain": simulated["stain"], "transcripts": simulated["transcripts"]}
    elements["true_nuclei"] = simulated["true_nuclei"]
    return sd.SpatialData.init_from_elements(elements)


def labels_of(sdata, name="cells"):
    return sdata.labels[f"sslcst_{name}"].to_numpy()


def frame_of(sdata):
    return sdata.points["transcripts"].compute().reset_index(drop=True)


def with_points(tissue, frame, **kwargs):
    """The tissue with other transcripts."""
    frame = frame.assign(gene=frame["gene"].astype("category"))
    transformations = {"global": Identity()}
    del tissue.points["transcripts"]
    tissue.points["transcripts"] = PointsModel.parse(
        frame, feature_key="gene", transformations=transformations, npartitions=2, **kwargs
    )
    return tissue


def test_results_are_labels_on_the_image_and_a_table_that_annotates_them(tissue):
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK)
    nuclei, cells, table = tissue["sslcst_nuclei"], tissue["sslcst_cells"], tissue["sslcst_table"]
    for labels in (nuclei, cells):
        assert labels.dtype == np.uint32
        assert labels.shape == tissue["stain"].shape[1:]
        assert get_transformation(labels, get_all=True) == get_transformation(tissue["stain"], get_all=True)
    cells, nuclei = cells.to_numpy(), nuclei.to_numpy()
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
    assert table.uns["spatialdata_attrs"] == {
        "region": "sslcst_cells",
        "region_key": "region",
        "instance_key": "cell_id",
    }
    assert table.obs["cell_id"].dtype == np.uint32
    assert table.obs["cell_id"].tolist() == np.unique(cells[cells > 0]).tolist()
    # Independent recount, with pandas.
    frame = frame_of(tissue)
    pixel = np.floor(frame[["y", "x"]].to_numpy(np.float64) / 0.5).astype(int)
    frame["cell"], frame["nucleus"] = cells[tuple(pixel.T)], nuclei[tuple(pixel.T)]
    for matrix, column in ((table.X, "cell"), (table.layers["nuclear"], "nucleus")):
        assert np.issubdtype(matrix.dtype, np.integer)
        inside = frame[frame[column] > 0]
        expected = pd.crosstab(inside[column], inside["gene"]).reindex(
            index=table.obs["cell_id"].to_numpy(), columns=table.var_names, fill_value=0
        )
        assert (matrix.toarray() == expected.to_numpy()).all()
    obs = table.obs
    assert obs["area"].to_numpy() == pytest.approx(np.bincount(cells.ravel())[obs["cell_id"]] * 0.25)
    assert obs["nucleus_area"].to_numpy() == pytest.approx(np.bincount(nuclei.ravel())[obs["cell_id"]] * 0.25)
    assert obs["n_counts"].tolist() == table.X.sum(axis=1).A1.tolist()
    assert obs["n_genes"].tolist() == (table.X > 0).sum(axis=1).A1.tolist()
    first = np.argwhere(cells == obs["cell_id"].iloc[0]).mean(axis=0)
    assert table.obsm["spatial"][0] == pytest.approx((first[::-1] + 0.5) * 0.5)
    on_border = np.unique([*cells[0], *cells[-1], *cells[:, 0], *cells[:, -1]])
    assert set(obs["cell_id"][obs["touches_border"]]) == set(on_border) - {0}


def test_a_store_gets_the_same_results_as_an_object_in_memory_and_keeps_all_it_had(tissue, tmp_path):
    written = sd.SpatialData.init_from_elements({name: element for _, name, element in tissue.gen_elements()})
    written.write(tmp_path / "a.zarr")  # which ties that object, not the tissue, to the store
    before = files_of(tmp_path / "a.zarr")
    on_disk = sd.read_zarr(tmp_path / "a.zarr")
    sslcst.tl.segment(on_disk, method="ssl-cst", params=QUICK)
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK)
    assert tissue.path is None
    reread = sd.read_zarr(tmp_path / "a.zarr")
    for sdata in (on_disk, reread):
        for name in ("nuclei", "cells"):
            assert (labels_of(sdata, name) == labels_of(tissue, name)).all()
        assert (sdata["sslcst_table"].X != tissue["sslcst_table"].X).nnz == 0
        pd.testing.assert_frame_equal(sdata["sslcst_table"].obs, tissue["sslcst_table"].obs, check_categorical=False)
    about = reread["sslcst_table"].uns["sslcst"]
    assert about["params"]["training"]["max_epochs"] == 2
    assert len(about["history"]["validation_loss"]) == 2
    assert about["versions"]["sslcst"] == sslcst.__version__
    after = files_of(tmp_path / "a.zarr")
    assert {name for name in before if after.get(name) != before[name]} <= {"zarr.json", "labels/zarr.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]  # nothing left beside the store


def test_segment_is_its_stages_in_order(tissue, simulated):
    staged = sd.SpatialData.init_from_elements({"stain": simulated["stain"], "transcripts": simulated["transcripts"]})
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, seed=5)
    sslcst.pp.segment_nuclei(staged, params=QUICK)
    sslcst.pp.bin_spots(staged, params=QUICK)
    model = sslcst.tl.train(staged, method="ssl-cst", image_key="stain", params=QUICK, seed=5)
    sslcst.tl.predict(staged, model, params=QUICK)
    sslcst.tl.track(staged, model, params=QUICK)
    sslcst.tl.aggregate(staged)
    assert (labels_of(staged) == labels_of(tissue)).all()
    assert (staged["sslcst_table"].X != tissue["sslcst_table"].X).nnz == 0


def test_same_seed_same_cells(tissue):
    for key in ("a", "b"):
        sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", seed=1, key_added=key)
    assert (tissue["a_cells"].to_numpy() == tissue["b_cells"].to_numpy()).all()
    assert tissue["a_table"].uns["sslcst"]["model"]["sha256"] == tissue["b_table"].uns["sslcst"]["model"]["sha256"]


@pytest.mark.parametrize("what", ["gene", "position"])
def test_transcripts_outside_the_nuclei_shape_the_cells(tissue, simulated, what):
    params = QUICK | {"training": {"max_epochs": 8, "min_steps": 25, "field_size": 2000, "learning_rate": 1e-2}}
    sslcst.tl.segment(tissue, method="ssl-cst", params=params, nuclei_key="true_nuclei")
    cells = labels_of(tissue)
    frame = frame_of(simulated)
    pixel = np.floor(frame[["y", "x"]].to_numpy(np.float64) / 0.5).astype(int)
    outside = np.flatnonzero(simulated["true_nuclei"].to_numpy()[tuple(pixel.T)] == 0)
    shuffled = np.random.default_rng(0).permutation(outside)
    columns = ["gene"] if what == "gene" else ["x", "y"]
    frame.loc[outside, columns] = frame.loc[shuffled, columns].to_numpy()
    if what == "position":  # strewn anew over all that is no nucleus
        places = np.argwhere(simulated["true_nuclei"].to_numpy() == 0)
        chosen = np.random.default_rng(1).choice(len(places), len(outside))
        frame.loc[outside, ["y", "x"]] = ((places[chosen] + 0.5) * 0.5).astype(np.float32)
    with_points(tissue, frame)
    sslcst.tl.segment(tissue, method="ssl-cst", params=params, nuclei_key="true_nuclei", overwrite=True)
    assert (labels_of(tissue) != cells).any()


@pytest.mark.parametrize(
    "matrix",
    [
        [[3.0, 0, 7], [0, 3.0, -50], [0, 0, 1]],
        [[0, -1.0, 0], [1.0, 0, 0], [0, 0, 1]],
        [[0.8, -0.6, 2], [0.6, 0.8, 1], [0, 0, 1]],
        [[1.0, 0.2, 0], [0.1, 1.1, 0], [0, 0, 1]],
    ],
    ids=["scale and translation", "quarter turn", "rotation", "affine"],
)
def test_image_and_points_meet_through_their_transformations(tissue, simulated, matrix):
    """Moving the tissue's coordinate system moves nothing on the image's own grid."""
    sslcst.tl.segment(tissue, nuclei_key="true_nuclei")
    moved = sd.SpatialData.init_from_elements(
        {"transcripts": PointsModel.parse(frame_of(simulated), feature_key="gene", npartitions=1)}
    )
    nuclei = Labels2DModel.parse(simulated["true_nuclei"].to_numpy(), dims=("y", "x"))
    move = np.array(matrix)
    to_micron = np.diag([0.5, 0.5, 1.0])
    set_transformation(moved["transcripts"], Affine(move, ("x", "y"), ("x", "y")), "tissue")
    moved["nuclei"] = nuclei
    set_transformation(moved["nuclei"], Affine(move @ to_micron, ("x", "y"), ("x", "y")), "tissue")
    unit = float(np.sqrt(abs(np.linalg.det(move))))
    bin_size = tissue["sslcst_table"].uns["sslcst"]["bin_size"]
    sslcst.tl.segment(
        moved,
        nuclei_key="nuclei",
        coordinate_system="tissue",
        params={"spots": {"bin_size": bin_size * unit}},
    )
    spatial = tissue["sslcst_table"].obsm["spatial"]
    assert moved["sslcst_table"].obsm["spatial"].shape == spatial.shape
    same = (labels_of(moved) == labels_of(tissue)).mean()
    if "affine" not in str(matrix) and abs(move[0] @ move[1]) < 1e-9:  # angles and ratios kept: nothing changes
        assert same > 0.995  # but rounding, of transcripts on the edge of a bin
        own = np.c_[spatial, np.ones(len(spatial))] @ move.T
        assert moved["sslcst_table"].obsm["spatial"] == pytest.approx(own[:, :2], abs=0.2 * unit)
    else:
        assert same > 0.8  # other bins
    in_nuclei = tissue["sslcst_table"].layers["nuclear"].sum()
    assert moved["sslcst_table"].layers["nuclear"].sum() == pytest.approx(in_nuclei, rel=2e-3)


def test_places_with_a_table_of_counts_are_read_as_molecules_are(tissue, simulated):
    """What spatialdata-io's stereoseq reader gives: points of x, y alone, genes in the table that annotates them."""
    frame = frame_of(simulated)
    frame[["x", "y"]] = np.floor(frame[["x", "y"]]) + 0.25
    with_points(tissue, frame)
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", key_added="molecules")

    places, row = np.unique(frame[["x", "y"]].to_numpy(), axis=0, return_inverse=True)
    gene = frame["gene"].cat.remove_unused_categories()
    counts = sparse.csr_matrix((np.ones(len(frame)), (row.ravel(), gene.cat.codes)))
    instances = np.random.default_rng(0).permutation(len(places))
    points = PointsModel.parse(pd.DataFrame(places, columns=["x", "y"]), npartitions=1)
    table = TableModel.parse(
        ad.AnnData(
            counts[instances],
            obs=pd.DataFrame(
                {"region": pd.Categorical(["bins"] * len(places)), "bin": instances}, index=instances.astype(str)
            ),
            var=pd.DataFrame(index=gene.cat.categories.astype(str)),
        ),
        region="bins",
        region_key="region",
        instance_key="bin",
    )
    binned = sd.SpatialData.init_from_elements(
        {"bins": points, "bin_table": table, "true_nuclei": simulated["true_nuclei"]}
    )
    sslcst.tl.segment(binned, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei")
    assert (binned["sslcst_table"].X != tissue["molecules_table"].X).nnz == 0
    assert (labels_of(binned) == tissue["molecules_cells"].to_numpy()).all()


def test_a_count_column_is_as_good_as_repeated_rows(tissue, simulated):
    frame = frame_of(simulated)[["x", "y", "gene"]]
    count = np.random.default_rng(0).integers(1, 4, len(frame))
    with_points(tissue, frame.loc[np.repeat(frame.index, count)].reset_index(drop=True))
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", key_added="rows")
    with_points(tissue, frame.assign(umis=count))
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", count_key="umis")
    assert (tissue["sslcst_table"].X != tissue["rows_table"].X).nnz == 0
    assert (labels_of(tissue) == tissue["rows_cells"].to_numpy()).all()


@pytest.mark.parametrize("large", [300, 70_000, 3_000_000_000])
def test_large_counts_stay_exact(tissue, simulated, large):
    frame = frame_of(simulated)[["x", "y", "gene"]].assign(count=1)
    in_nucleus = np.argwhere(simulated["true_nuclei"].to_numpy() == 1)[0]
    frame.loc[0, ["y", "x"]] = ((in_nucleus + 0.5) * 0.5).astype(np.float32)
    frame.loc[0, "count"] = large
    with_points(tissue, frame)
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei")
    assert tissue["sslcst_table"][tissue["sslcst_table"].obs["cell_id"] == 1, frame.loc[0, "gene"]].X.toarray() >= large
    assert tissue["sslcst_table"].X.max() < large + 1000


def test_nuclei_as_shapes_and_no_image(simulated):
    """Squares in microns, drawn on a grid over the points, keep their ids."""
    corners = np.array([[0, 0], [0, 5], [5, 5], [5, 0]])
    squares = GeoDataFrame(
        geometry=[Polygon(corners + offset) for offset in ((20, 20), (40, 31), (30, 50))], index=[7, 3, 11]
    )
    sdata = sd.SpatialData.init_from_elements(
        {"transcripts": simulated["transcripts"], "squares": ShapesModel.parse(squares)}
    )
    sslcst.tl.segment(sdata, nuclei_key="squares")
    table = sdata["sslcst_table"]
    assert table.obs["cell_id"].tolist() == [3, 7, 11]
    assert table.obs["nucleus_area"].to_numpy() == pytest.approx(25, rel=0.15)
    frame = frame_of(simulated)
    inside = frame[frame["x"].between(40, 45) & frame["y"].between(31, 36)]
    assert table.layers["nuclear"][0].sum() == pytest.approx(len(inside), rel=0.1, abs=5)


def test_a_multiscale_image_is_read_at_its_finest_scale(tissue):
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, key_added="single")
    image = tissue["stain"]
    several = Image2DModel.parse(
        image.to_numpy(),
        dims=("c", "y", "x"),
        c_coords=["DAPI"],
        scale_factors=[2],
        transformations=dict(get_transformation(image, get_all=True)),
    )
    del tissue.images["stain"]
    tissue.images["stain"] = several
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK)
    assert (full_scale(tissue["sslcst_cells"]).to_numpy() == tissue["single_cells"].to_numpy()).all()


def test_a_trained_model_serves_the_next_tissue(tissue, tmp_path):
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", key_added="trained")
    sslcst.pp.import_nuclei(tissue, "true_nuclei")
    sslcst.pp.bin_spots(tissue, params=QUICK)
    model = sslcst.tl.train(tissue, method="ssl-cst", params=QUICK)
    sslcst.io.write_model(model, tmp_path / "a.safetensors")
    again = sslcst.io.read_model(tmp_path / "a.safetensors")
    assert again.history == model.history
    assert again.genes == model.genes
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei", model=again, overwrite=True)
    assert (labels_of(tissue) == tissue["trained_cells"].to_numpy()).all()


@pytest.mark.filterwarnings(
    "ignore::PendingDeprecationWarning"
)  # spatialdata-plot sets colours as matplotlib 3.11 dislikes
def test_chained_with_scanpy_squidpy_and_spatialdata_plot(tissue, tmp_path):
    import matplotlib.pyplot as plt
    import scanpy as sc
    import spatialdata_plot  # noqa: F401
    import squidpy as sq

    tissue.write(tmp_path / "a.zarr")
    sslcst.tl.segment(tissue, method="ssl-cst", params=QUICK, nuclei_key="true_nuclei")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    adata = sdata.tables["sslcst_table"]
    gene = adata.var_names[0]
    figure, ax = plt.subplots()
    sdata.pl.render_labels("sslcst_cells", color=gene, table_name="sslcst_table").pl.show(ax=ax)
    assert ax.images
    plt.close(figure)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    sc.pp.neighbors(adata, n_neighbors=5)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, resolution=2)
    assert adata.obs["leiden"].nunique() > 1
    sq.gr.spatial_neighbors_knn(adata)
    sq.gr.nhood_enrichment(adata, cluster_key="leiden", show_progress_bar=False)
    n = adata.obs["leiden"].nunique()
    assert adata.uns["leiden_nhood_enrichment"]["zscore"].shape == (n, n)


def test_cells_without_a_nucleus_that_cannot_be_numbered_are_refused_before_transcripts_are_read(monkeypatch):
    """Their ids follow those of the nuclei, bin by bin, in 32 bits, which a long run need not end to tell."""
    sdata = chip()
    nuclei = sdata["true_nuclei"].to_numpy().astype(np.uint32)
    with_nuclei(sdata, np.where(nuclei == nuclei.max(), 2**32 - 9, nuclei))
    monkeypatch.setattr(pipeline, "fill", pytest.fail)
    how = {"nuclei_key": "true_nuclei", "method": "ssl-cst"}
    with pytest.raises(DataError, match=r"cannot be numbered on a grid of \d+ bins: set flow.orphans=False"):
        sslcst.tl.segment(sdata, **how, params={"flow": {"orphans": True}})
