"""`pp.check_alignment` and `pp.align`: misplaced stains find back by a transformation, simulated and real ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Scale, Sequence, get_transformation, set_transformation

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError, KeyMissingError, ParameterError

AXES = ("y", "x")


def matrix(element, system: str = "global") -> np.ndarray:
    return get_transformation(element, system).to_affine_matrix(AXES, AXES)


def misplace(sdata: sd.SpatialData, keys: list[str], shift: tuple[float, float], angle: float) -> None:
    """Move elements in every coordinate system, by units of "global" and degrees about the middle of the first."""
    shape = full_scale(sdata[keys[0]]).shape[-2:]
    middle = (matrix(sdata[keys[0]]) @ [*np.divide(shape, 2), 1])[:2]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    step = np.vstack([np.c_[linear, middle - linear @ middle + shift], [0, 0, 1]])
    for key in keys:
        to_global = matrix(sdata[key])
        moved = {}
        for system, old in get_transformation(sdata[key], get_all=True).items():
            onward = matrix(sdata[key], system) @ np.linalg.inv(to_global)
            moved[system] = Sequence([old, Affine(onward @ step @ np.linalg.inv(onward), AXES, AXES)])
        set_transformation(sdata[key], moved, set_all=True)


def error(now: np.ndarray, truth: np.ndarray, shape: tuple[int, int]) -> float:
    """Root mean square distance of an image's pixels from where they belong, in units."""
    ends = np.stack(np.meshgrid(*(np.linspace(0, size, 9) for size in shape)), -1).reshape(-1, 2)
    off = ends @ (now - truth)[:2, :2].T + (now - truth)[:2, 2]
    return float(np.sqrt((off**2).sum(axis=1).mean()))


def simulated(seed: int = 0) -> sd.SpatialData:
    """A tissue in two coordinate systems."""
    sdata = sslcst.datasets.simulate(n_cells=200, n_genes=5, seed=seed)
    for _, _, element in sdata.gen_spatial_elements():
        old = get_transformation(element)
        set_transformation(element, Sequence([old, Scale([2, 2], axes=("x", "y"))]), "twice")
    return sdata


NUCLEUS = 0.6 * 12  # microns


@pytest.mark.parametrize("nuclei_key", [None, "true_nuclei"])
def test_a_misplaced_stain_finds_back_in_all_coordinate_systems(nuclei_key: str | None) -> None:
    """From the stain or the nuclei in it: to within a spot and a half, with what derives from it; no pixel moves.

    What is named twice moves once.
    """
    sdata = simulated()
    pixels = sdata["stain"].to_numpy().copy()
    keys = ["stain", "true_nuclei", "true_cells"]
    truth = {key: {system: matrix(sdata[key], system) for system in ("global", "twice")} for key in keys}
    misplace(sdata, keys, (4.0, -6.5), 2.0)
    before = sslcst.pp.check_alignment(sdata, image_key="stain", nuclei_key=nuclei_key)
    assert before.misaligned
    found = sslcst.pp.align(sdata, image_key="stain", nuclei_key=nuclei_key, labels_keys=[*keys[1:], "true_cells"])
    assert found.angle == pytest.approx(-2, abs=0.4)
    for key in keys:
        for system, size in (("global", 1), ("twice", 2)):
            now = matrix(sdata[key], system)
            assert error(now, truth[key][system], pixels.shape[1:]) < 1.5 / 16 * NUCLEUS * size
    after = sslcst.pp.check_alignment(sdata, image_key="stain", nuclei_key=nuclei_key)
    assert not after.misaligned
    assert after.score > 10 * before.score
    assert (sdata["stain"].to_numpy() == pixels).all()


def test_what_is_in_place_stays_there() -> None:
    """Well placed data are called so, from stain and from nuclei, and hardly moved."""
    sdata = simulated()
    truth = matrix(sdata["stain"])
    for nuclei in ({}, {"nuclei_key": "true_nuclei"}):
        assert not sslcst.pp.check_alignment(sdata, **nuclei).misaligned
    sslcst.pp.align(sdata)
    assert error(matrix(sdata["stain"]), truth, sdata["stain"].shape[1:]) < 1.5 / 16 * NUCLEUS


def test_moves_what_shares_a_system_with_the_points_alone(tmp_path: Path) -> None:
    """A system of the image's own keeps its meaning; the new place survives the store; other elements do not move.

    The image is multiscale, and its scales stay on one another.
    """
    sdata = simulated()
    steps, pixels = get_transformation(sdata["stain"], get_all=True), sdata["stain"].to_numpy()
    sdata["stain"] = Image2DModel.parse(pixels, dims="cyx", scale_factors=[2], transformations=dict(steps))
    set_transformation(sdata["stain"], Scale([1, 1], axes=("x", "y")), "own")
    misplace(sdata, ["stain"], (0, 5), 0)
    own, cells = matrix(sdata["stain"], "own"), matrix(sdata["true_cells"])
    sdata.write(tmp_path / "a.zarr")
    sslcst.pp.align(sdata, image_key="stain", max_angle=0)
    assert (matrix(sdata["stain"], "own") == own).all()
    assert (matrix(sdata["true_cells"]) == cells).all()
    sdata.write_transformations()
    stored = sd.read_zarr(tmp_path / "a.zarr")
    assert np.allclose(matrix(stored["stain"]), matrix(sdata["stain"]))
    scales = [next(iter(stored["stain"][scale].data_vars.values())) for scale in ("scale0", "scale1")]
    fine, coarse = map(matrix, scales)
    ratio = np.divide(scales[1].shape[1:], scales[0].shape[1:])
    assert error(fine, cells, pixels.shape[1:]) < 1.5 / 16 * NUCLEUS
    assert error(coarse @ np.diag([*ratio, 1]), fine, pixels.shape[1:]) < 0.01 * NUCLEUS


@pytest.fixture(scope="module")
def make_stores(shared: Path):
    """The script that lies beside the real data and builds objects of them."""
    spec = importlib.util.spec_from_file_location("make_stores", shared / "tools" / "make_stores.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_real_nuclei_in_place_are_no_alarm(make_stores, shared: Path) -> None:
    sdata = make_stores.prostate(shared / "data" / "xenium_prime_prostate")
    found = sslcst.pp.check_alignment(sdata, nuclei_key="reference_nuclei", coordinate_system="micron")
    assert found.found
    assert not found.misaligned
    assert np.hypot(*found.shift) < 1


@pytest.fixture(scope="module")
def cosmx(make_stores, shared: Path) -> sd.SpatialData:
    """The CosMx field of view, with nuclei by the bundled network."""
    sdata = make_stores.cosmx(shared / "data" / "cosmx_lung12_fov2")
    sslcst.pp.segment_nuclei(sdata, method="sslcst", coordinate_system="micron")
    return sdata


@pytest.mark.parametrize(("shift", "angle"), [((0, 0), 0), ((12, -20), 0), ((-8, 15), 3)])
@pytest.mark.parametrize("nuclei_key", [None, "sslcst_nuclei"])
def test_real_stain_finds_back(cosmx: sd.SpatialData, nuclei_key: str | None, shift, angle) -> None:
    """To where the vendor placed it, up to what some 60 nuclei can tell: 2 spots, of 2.8 pixels, with an angle."""
    truth = matrix(cosmx["dapi"])
    elements = {"dapi": Image2DModel, "sslcst_nuclei": Labels2DModel}
    sdata = sd.SpatialData.init_from_elements(
        {key: model().parse(cosmx[key].copy()) for key, model in elements.items()}
        | {"transcripts": cosmx["transcripts"]}
    )
    misplace(sdata, list(elements), shift, angle)
    placed = {"image_key": "dapi", "nuclei_key": nuclei_key}
    check = sslcst.pp.check_alignment(sdata, **placed)
    assert check.found
    assert check.misaligned == any((*shift, angle))
    sslcst.pp.align(sdata, **placed)
    assert error(matrix(sdata["dapi"]), truth, cosmx["dapi"].shape[1:]) < 2 * check.diameter / 16


def test_counts_weigh() -> None:
    """A row of several molecules counts as so many rows."""
    sdata = simulated()
    one = sslcst.pp.check_alignment(sdata, nuclei_key="true_nuclei")
    frame = sdata["transcripts"].compute()
    rows = frame.assign(count=1).loc[np.repeat(frame.index, 2)].reset_index(drop=True)
    rows["count"] = np.where(rows.index % 2, 3, 0)
    points = sd.models.PointsModel.parse(
        rows, npartitions=3, transformations=get_transformation(sdata["transcripts"], get_all=True)
    )
    sdata["transcripts"] = points
    three = sslcst.pp.check_alignment(sdata, nuclei_key="true_nuclei")
    assert three.share == pytest.approx(one.share)
    assert np.allclose(three.shift, one.shift, atol=0.1)


def test_genes_of_another_name_are_told() -> None:
    """As in all that reads transcripts: some of them are of control probes."""
    sdata = simulated()
    frame = sdata["transcripts"].compute().rename(columns={"gene": "what"}).drop(columns="cell_id")
    systems = get_transformation(sdata["transcripts"], get_all=True)
    sdata["transcripts"] = sd.models.PointsModel.parse(frame.assign(of=1), transformations=systems)
    with pytest.raises(KeyMissingError, match="gene_key="):
        sslcst.pp.check_alignment(sdata, nuclei_key="true_nuclei")
    assert sslcst.pp.check_alignment(sdata, nuclei_key="true_nuclei", gene_key="what").found
    assert sslcst.pp.align(sdata, nuclei_key="true_nuclei", gene_key="what").found


def test_bad_input_is_refused() -> None:
    sdata = simulated()
    with pytest.raises(ParameterError, match="max_angle"):
        sslcst.pp.check_alignment(sdata, max_angle=90)
    with pytest.raises(ParameterError, match="max_shift"):
        sslcst.pp.check_alignment(sdata, max_shift=0)
    with pytest.raises(KeyMissingError, match="count_key"):
        sslcst.pp.check_alignment(sdata, count_key="n")
    with pytest.raises(KeyMissingError, match="'nuclei'"):
        sslcst.pp.check_alignment(sdata, nuclei_key="nuclei")
    with pytest.raises(KeyMissingError, match="'more'"):
        sslcst.pp.align(sdata, labels_keys=["more"])
    before = matrix(sdata["stain"])
    frame = sdata["transcripts"].compute()
    frame[["x", "y"]] = np.random.default_rng(0).uniform(0, sdata["stain"].shape[1] / 2, (len(frame), 2))
    sdata["transcripts"] = sd.models.PointsModel.parse(frame, transformations={"global": sd.transformations.Identity()})
    with pytest.raises(DataError, match=r"no placement stands out.*Nothing was moved"):
        sslcst.pp.align(sdata)
    assert (matrix(sdata["stain"]) == before).all()
