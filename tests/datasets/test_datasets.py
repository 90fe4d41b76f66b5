"""The simulated tissue: its truth is what every accuracy in this project is measured against."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import kstest
from skimage.measure import regionprops_table
from spatialdata.transformations import Identity, get_transformation, set_transformation

from sslcst.datasets import simulate
from sslcst.datasets._params import TissueParams
from sslcst.datasets._tissue import simulate_tissue
from sslcst.errors import ParameterError, SslcstError


@pytest.fixture(scope="module")
def still() -> sd.SpatialData:
    """A tissue whose transcripts stay where they are made."""
    return simulate(n_cells=200, n_genes=60, counts_per_cell=400, diffusion=0, seed=3)


def to_global(element) -> np.ndarray:
    return get_transformation(element).to_affine_matrix(("x", "y"), ("x", "y"))


def pixels(sdata: sd.SpatialData, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixel (y, x) of `labels` that each transcript lies in, by way of the elements' transformations alone."""
    points = sdata["transcripts"].compute()
    xy = np.c_[points[["x", "y"]].to_numpy(np.float64), np.ones(len(points))]
    x, y, _ = np.floor(np.linalg.inv(to_global(sdata[labels])) @ to_global(sdata["transcripts"]) @ xy.T).astype(int)
    return y, x


def label_at(sdata: sd.SpatialData, labels: str) -> np.ndarray:
    return sdata[labels].to_numpy()[pixels(sdata, labels)]


def same_type_share(sdata: sd.SpatialData) -> float:
    """Share of cells whose nearest neighbour is of their own type."""
    truth = sdata["truth"]
    nearest = cKDTree(truth.obsm["spatial"]).query(truth.obsm["spatial"], k=2)[1][:, 1]
    codes = truth.obs["cell_type"].cat.codes.to_numpy()
    return float((codes == codes[nearest]).mean())


# --- cells and nuclei ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    n_cells=st.integers(1, 50),
    pixel_size=st.sampled_from([0.4, 0.5, 1.0, 1.5]),
    coverage=st.floats(0.05, 0.95),
    nuclear_shift=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)
@example(
    n_cells=30, pixel_size=0.5, coverage=0.9, nuclear_shift=0.5, seed=133
)  # a cell and a nucleus came in two parts
def test_every_cell_is_one_region_with_a_nucleus_and_cytoplasm(n_cells, pixel_size, coverage, nuclear_shift, seed):
    params = TissueParams(
        n_cells=n_cells, pixel_size=pixel_size, coverage=coverage, nuclear_shift=nuclear_shift, seed=seed
    )
    tissue = simulate_tissue(params, np.random.default_rng(seed))
    assert tissue.cells.dtype == tissue.nuclei.dtype == np.uint32
    assert_array_equal(tissue.cells[tissue.nuclei > 0], tissue.nuclei[tissue.nuclei > 0])
    assert_array_equal(np.unique(tissue.cells[tissue.cells > 0]), np.arange(1, n_cells + 1))
    for cell in range(1, n_cells + 1):
        assert ndimage.label(tissue.cells == cell)[1] == 1
        assert ndimage.label(tissue.nuclei == cell)[1] == 1
    assert (np.bincount(tissue.cells.ravel())[1:] > np.bincount(tissue.nuclei.ravel())[1:]).all()


def test_sizes_and_coverage_are_as_asked():
    sdata = simulate(n_cells=150, pixel_size=0.8, cell_diameter=15, coverage=0.6, counts_per_cell=1)
    cells, obs = sdata["true_cells"].to_numpy(), sdata["truth"].obs
    assert (cells > 0).mean() == pytest.approx(0.6, abs=0.01)
    assert np.sqrt(obs["area"].mean() * 4 / np.pi) == pytest.approx(15, rel=0.02)
    assert np.sqrt(obs["nucleus_area"] / obs["area"]).mean() == pytest.approx(0.6, abs=0.02)
    assert_allclose(obs["area"], ndimage.sum_labels(np.full(cells.shape, 0.64), cells, obs["cell_id"]))


def test_some_cells_touch_and_some_lie_apart(still):
    cells = still["true_cells"].to_numpy()
    largest = ndimage.maximum_filter(cells, footprint=ndimage.generate_binary_structure(2, 1))
    touches = np.isin(still["truth"].obs["cell_id"], cells[(largest != cells) & (cells > 0)])
    lowest = ndimage.minimum_filter(np.where(cells > 0, cells, cells.max() + 1), size=3)
    touches |= np.isin(still["truth"].obs["cell_id"], cells[(lowest != cells) & (cells > 0)])
    assert 0.3 < touches.mean() < 0.98


def test_shapes_vary_from_round_to_elongated_and_are_irregular():
    cells = simulate(n_cells=60, coverage=0.25, counts_per_cell=1, seed=3)["true_cells"].to_numpy()
    shapes = regionprops_table(cells, properties=["eccentricity", "solidity"])
    aspect = 1 / np.sqrt(1 - shapes["eccentricity"] ** 2)
    assert np.quantile(aspect, 0.1) < 1.4
    assert np.quantile(aspect, 0.9) > 1.8
    assert np.quantile(shapes["solidity"], 0.1) < 0.935, "ellipses of this size have 0.95"


def test_nuclear_shift_moves_nuclei_off_centre():
    def offset(nuclear_shift: float) -> float:
        sdata = simulate(n_cells=80, coverage=0.3, nuclear_shift=nuclear_shift, counts_per_cell=1)
        cells, nuclei = sdata["true_cells"].to_numpy(), sdata["true_nuclei"].to_numpy()
        ids = range(1, 81)
        gap = np.subtract(
            ndimage.center_of_mass(cells > 0, cells, ids), ndimage.center_of_mass(nuclei > 0, nuclei, ids)
        )
        return float(np.linalg.norm(gap, axis=1).mean() * 0.5)  # microns

    assert offset(0) < 0.4
    assert offset(0.5) > 1.2


def test_neighbours_share_a_type_unless_mixed(still):
    assert same_type_share(still) > 0.6
    assert same_type_share(simulate(n_cells=200, mixing=1, counts_per_cell=1, seed=3)) < 0.4


# --- transcripts --------------------------------------------------------------------------------------------------


def test_points_are_the_counts_of_the_table():
    sdata = simulate(n_cells=30, n_genes=25, counts_per_cell=80, diffusion=2, ambient=0.2, seed=1)
    points, truth = sdata["transcripts"].compute(), sdata["truth"]
    owned = points[points["cell_id"] > 0]
    recount = np.zeros(truth.shape, int)
    np.add.at(recount, (owned["cell_id"].to_numpy() - 1, owned["gene"].cat.codes.to_numpy()), 1)
    assert list(owned["gene"].cat.categories) == list(truth.var_names)
    assert_array_equal(recount, truth.X.toarray())
    assert (truth.layers["nuclear"].toarray() <= truth.X.toarray()).all()


def test_without_diffusion_each_transcript_lies_in_its_compartment(still):
    points, truth = still["transcripts"].compute(), still["truth"]
    owner = points["cell_id"].to_numpy()
    owned = owner > 0
    assert_array_equal(label_at(still, "true_cells")[owned], owner[owned])
    in_nucleus = owned & (label_at(still, "true_nuclei") > 0)
    assert_array_equal(
        np.bincount(owner[in_nucleus], minlength=truth.n_obs + 1)[1:], truth.layers["nuclear"].sum(axis=1).A1
    )


@pytest.mark.parametrize("compartment", ["nucleus", "cytoplasm"])
def test_transcripts_are_uniform_within_a_compartment(still, compartment):
    """The left half of a compartment has transcripts in proportion to its area, give or take binomial chance."""
    cells, in_nucleus = still["true_cells"].to_numpy(), still["true_nuclei"].to_numpy() > 0
    n_cells = still["truth"].n_obs
    middle = np.r_[0, [x for _, x in ndimage.center_of_mass(cells > 0, cells, range(1, n_cells + 1))]]
    left = np.arange(cells.shape[1]) + 0.5 < middle[cells]
    parts = 2 * in_nucleus + left
    found = parts[pixels(still, "true_cells")]
    owner = still["transcripts"].compute()["cell_id"].to_numpy()

    part = 2 * (compartment == "nucleus")
    n_right, n_left = (np.bincount(owner[found == p], minlength=n_cells + 1)[1:] for p in (part, part + 1))
    area_right, area_left = (np.bincount(cells[parts == p], minlength=n_cells + 1)[1:] for p in (part, part + 1))
    share, n = area_left / (area_left + area_right), n_left + n_right
    usable = (share > 0.1) & (share < 0.9) & (n > 20)
    n_left, n, share = n_left[usable], n[usable], share[usable]
    z = (n_left - n * share) / np.sqrt(n * share * (1 - share))
    assert len(z) > 100
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.2)


def test_genes_are_enriched_in_nuclei_as_stated(still):
    truth = still["truth"]
    nuclear, total = (counts.toarray().sum(axis=0) for counts in (truth.layers["nuclear"], truth.X))
    area, nuclear_area = truth.obs["area"].sum(), truth.obs["nucleus_area"].sum()
    density_ratio = (nuclear / nuclear_area) / ((total - nuclear) / (area - nuclear_area))
    well_seen = total > 500
    assert well_seen.sum() > 30
    assert_allclose(density_ratio[well_seen], truth.var["nuclear_enrichment"][well_seen], rtol=0.25)
    assert truth.var["nuclear_enrichment"].max() > 2


def test_diffusion_is_gaussian_with_the_sigma_asked_for():
    """The seed fixes where each transcript is made, so the difference between two runs is what diffusion did."""
    made, found = (
        simulate(n_cells=60, diffusion=sigma, ambient=0, seed=5)["transcripts"].compute() for sigma in (0, 1.5)
    )
    assert_array_equal(made["cell_id"], found["cell_id"])
    inner = made[["x", "y"]].sub(made[["x", "y"]].max() / 2).abs().max(axis=1) < made["x"].max() / 2 - 8
    step = (found[["x", "y"]] - made[["x", "y"]])[inner].to_numpy()
    assert_allclose(step.std(axis=0), 1.5, rtol=0.03)
    assert_allclose(step.mean(axis=0), 0, atol=0.05)
    assert np.mean(np.abs(step) < 1.5) == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("diffusion", [0, 3, 1000])
def test_no_transcript_leaves_the_field(diffusion):
    sdata = simulate(n_cells=20, diffusion=diffusion, ambient=0.3, seed=2)
    points = sdata["transcripts"].compute()
    extent = np.array(sdata["true_cells"].shape) * 0.5
    assert (points[["y", "x"]] >= 0).all(axis=None)
    assert (points[["y", "x"]] < extent).all(axis=None)


@pytest.mark.parametrize("ambient", [0, 0.05, 0.5])
def test_ambient_transcripts_are_the_share_asked_for_and_lie_anywhere(ambient):
    sdata = simulate(n_cells=100, ambient=ambient, seed=4)
    points = sdata["transcripts"].compute()
    is_ambient = points["cell_id"] == 0
    assert is_ambient.mean() == pytest.approx(ambient, abs=1e-4)
    if ambient:
        extent = np.array(sdata["true_cells"].shape[::-1]) * 0.5
        place = points.loc[is_ambient, ["x", "y"]] / extent
        for axis in ("x", "y"):
            assert kstest(place[axis], "uniform").pvalue > 1e-3


def test_the_order_of_transcripts_does_not_tell_their_cell(still):
    owner = still["transcripts"].compute()["cell_id"].to_numpy().astype(float)
    assert abs(np.corrcoef(owner[1:], owner[:-1])[0, 1]) < 0.02


def test_counts_vary_and_their_mean_is_as_asked(still):
    total = still["truth"].X.sum(axis=1).A1
    assert total.mean() == pytest.approx(400, rel=0.1)
    assert 0.3 < total.std() / total.mean() < 1
    assert np.corrcoef(total, still["truth"].obs["area"])[0, 1] > 0.4


def test_cells_of_a_type_express_alike(still):
    counts = still["truth"].X.toarray()
    alike = np.corrcoef(np.log1p(counts))
    codes = still["truth"].obs["cell_type"].cat.codes.to_numpy()
    same = codes[:, None] == codes
    assert alike[same & ~np.eye(len(codes), dtype=bool)].mean() > alike[~same].mean() + 0.2


# --- stain --------------------------------------------------------------------------------------------------------


def test_the_stain_shows_the_nuclei_through_blur_and_noise(still):
    stain, nuclei = still["stain"].to_numpy()[0].astype(float), still["true_nuclei"].to_numpy()
    assert still["stain"].dtype == np.uint16
    assert list(still["stain"].coords["c"].to_numpy()) == ["DAPI"]
    far = ndimage.distance_transform_edt(nuclei == 0) > 6
    assert np.median(stain[nuclei > 0]) > 4 * np.median(stain[far])
    brightness = ndimage.mean(stain, nuclei, range(1, 201))
    assert brightness.std() / brightness.mean() > 0.26, "nuclei differ in brightness, not in size and texture alone"
    assert stain[far].std() > 10, "the camera is noisy"
    rim = (nuclei == 0) & ndimage.binary_dilation(nuclei > 0)
    assert np.median(stain[rim]) > 1.5 * np.median(stain[far]), "blur carries light past the nuclei's edges"


# --- the object ---------------------------------------------------------------------------------------------------


def arrays(sdata: sd.SpatialData) -> dict[str, np.ndarray]:
    points, truth = sdata["transcripts"].compute(), sdata["truth"]
    return {
        "stain": sdata["stain"].to_numpy(),
        "true_cells": sdata["true_cells"].to_numpy(),
        "true_nuclei": sdata["true_nuclei"].to_numpy(),
        "cell_type": truth.obs["cell_type"].cat.codes.to_numpy(),
        "spatial": truth.obsm["spatial"],
        "counts": truth.X.toarray(),
        "nuclear": truth.layers["nuclear"].toarray(),
        **{name: points[name].to_numpy() for name in ("x", "y", "cell_id")},
        "gene": points["gene"].cat.codes.to_numpy(),
    }


def test_a_seed_gives_one_tissue():
    first, again, other = (arrays(simulate(n_cells=25, n_genes=20, seed=seed)) for seed in (7, 7, 8))
    for name, array in first.items():
        assert_array_equal(array, again[name], err_msg=name)
        assert not np.array_equal(array, other[name]), name


def test_cells_and_stain_do_not_depend_on_genes_and_transcripts():
    first = arrays(simulate(n_cells=25))
    second = arrays(simulate(n_cells=25, n_genes=33, counts_per_cell=50, diffusion=3, ambient=0.5))
    for name in ("stain", "true_cells", "true_nuclei", "cell_type"):
        assert_array_equal(first[name], second[name], err_msg=name)


def test_centroids_are_in_microns(still):
    cells = still["true_cells"].to_numpy()
    inside = cells == 17
    y, x = ((np.argwhere(inside) + 0.5) * 0.5).mean(axis=0)
    assert_allclose(still["truth"].obsm["spatial"][16], [x, y])


def test_the_object_comes_back_from_disk_as_it_was(tmp_path):
    sdata = simulate(n_cells=20, n_genes=15, seed=9)
    sdata.write(tmp_path / "tissue.zarr")
    back = sd.read_zarr(tmp_path / "tissue.zarr")
    for name, array in arrays(sdata).items():
        assert_array_equal(arrays(back)[name], array, err_msg=name)
    assert back.coordinate_systems == ["global"]
    for name in ("stain", "true_cells", "true_nuclei", "transcripts"):
        assert_array_equal(to_global(back[name]), to_global(sdata[name]))
    assert back["transcripts"].attrs["spatialdata_attrs"] == {"feature_key": "gene", "instance_key": "cell_id"}
    assert back["transcripts"].dtypes[["x", "y", "cell_id"]].tolist() == [np.float32, np.float32, np.uint32]
    assert back["truth"].obs["cell_id"].dtype == np.uint32
    matched, table = sd.join_spatialelement_table(
        sdata=back, spatial_element_names="true_cells", table_name="truth", how="left"
    )
    assert table.n_obs == 20
    assert_array_equal(matched["true_cells"], back["true_cells"])


def test_elements_do_not_share_their_transformations():
    sdata = simulate(n_cells=5, counts_per_cell=5)
    set_transformation(sdata["stain"], Identity(), "pixels")
    for name in ("true_cells", "true_nuclei", "transcripts"):
        assert set(get_transformation(sdata[name], get_all=True)) == {"global"}


# --- parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_cells", 0),
        ("n_cells", 10.5),
        ("n_cells", True),
        ("pixel_size", 0),
        ("pixel_size", -1),
        ("pixel_size", float("nan")),
        ("cell_diameter", "12"),
        ("cell_diameter", 3.9),  # not 8 pixels
        ("coverage", 1),
        ("coverage", 0),
        ("nuclear_shift", 0.6),
        ("n_genes", 0),
        ("n_types", 0),
        ("mixing", 1.1),
        ("counts_per_cell", 0),
        ("counts_per_cell", float("inf")),
        ("diffusion", -0.1),
        ("ambient", 1),
        ("seed", -1),
        ("seed", None),
    ],
)
def test_a_bad_parameter_is_named(name, value):
    with pytest.raises(ParameterError, match=f"^{name}="):
        simulate(**{name: value})


def test_the_smallest_tissue_is_whole():
    sdata = simulate(n_cells=1, n_genes=1, n_types=1, pixel_size=1, cell_diameter=8, counts_per_cell=20)
    assert sdata["truth"].shape == (1, 1)
    assert len(sdata["transcripts"]) >= sdata["truth"].X.sum() > 0


def test_errors_can_be_caught_as_one_kind():
    with pytest.raises(SslcstError):
        simulate(n_cells=-1)
