"""Cells of a region of interest: which they are, where they lie, and that little else is looked at."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import spatialdata as sd
from geopandas import GeoDataFrame
from matplotlib import pyplot as plt
from patience import PATIENCE
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, get_transformation, set_transformation

import sslcst
from sslcst._sdata.raster import affine_matrix, full_scale
from sslcst.core.geometry import Regions
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.run.stages import nuclei as stages

BOX = (60.0, 70.0, 110.0, 100.0)
NUCLEI = {"nuclei_key": "true_nuclei"}


@pytest.fixture(scope="module")
def tissue() -> sd.SpatialData:
    return sslcst.datasets.simulate(n_cells=600, n_genes=30, pixel_size=0.5, cell_diameter=8, seed=4)


def chip(tissue: sd.SpatialData, **shapes: object) -> sd.SpatialData:
    """Stain, nuclei and transcripts, in microns, and polygons by their names."""
    elements = {key: tissue[key].copy() for key in ("stain", "true_nuclei", "transcripts")}
    sdata = sd.SpatialData.init_from_elements(elements)
    for name, polygons in shapes.items():
        sdata[name] = ShapesModel.parse(GeoDataFrame({"geometry": np.atleast_1d(polygons)}))
    return sdata


def centroids(sdata: sd.SpatialData, key: str = "true_nuclei") -> dict[int, np.ndarray]:
    """Where the nuclei lie in "global" (x, y), by their ids."""
    regions = Regions.of(full_scale(sdata[key]).to_numpy())
    matrix = affine_matrix(full_scale(sdata[key]), "global")
    xy = (regions.centers @ matrix[:2, :2].T + matrix[:2, 2])[:, ::-1]
    return dict(zip(regions.ids.tolist(), xy, strict=True))


def in_whole(sdata: sd.SpatialData, key: str, like: str) -> np.ndarray:
    """Labels of a region laid where they lie among those of all."""
    step = np.linalg.inv(affine_matrix(full_scale(sdata[like]), "global")) @ affine_matrix(
        full_scale(sdata[key]), "global"
    )
    np.testing.assert_allclose(step[:2, :2], np.eye(2), atol=1e-9)
    row, column = np.rint(step[:2, 2]).astype(int)
    np.testing.assert_allclose(step[:2, 2], [row, column], atol=1e-9)
    out, labels = np.zeros(full_scale(sdata[like]).shape, np.uint32), full_scale(sdata[key]).to_numpy()
    out[row : row + len(labels), column : column + labels.shape[1]] = labels
    return out


def test_the_cells_are_those_whose_nucleus_lies_there(tissue: sd.SpatialData) -> None:
    """In labels, table, boundaries and transcripts; they are cropped, and lie where they lay."""
    sdata = chip(tissue)
    sslcst.tl.segment(sdata, **NUCLEI, region=BOX, shapes=True, assign_points=True)
    where = centroids(sdata)
    wanted = {i for i, (x, y) in where.items() if BOX[0] <= x <= BOX[2] and BOX[1] <= y <= BOX[3]}
    assert 20 < len(wanted) < len(where) / 2
    table = sdata["sslcst_table"]
    assert set(table.obs["cell_id"]) == wanted
    assert set(sdata["sslcst_boundaries"].index) == wanted
    assert set(sdata["sslcst_transcripts"]["cell_id"].compute()) <= wanted | {0}
    for name in ("nuclei", "cells"):
        labels = sdata[f"sslcst_{name}"]
        assert set(np.unique(labels)) == wanted | {0}
        assert np.prod(labels.shape) < 0.7 * np.prod(sdata["true_nuclei"].shape)
    nuclei = in_whole(sdata, "sslcst_nuclei", "true_nuclei")
    np.testing.assert_array_equal(nuclei > 0, np.isin(sdata["true_nuclei"], list(wanted)))
    np.testing.assert_allclose([where[i] for i in table.obs["cell_id"]], table.obsm["spatial"], atol=4)
    about = table.uns["sslcst"]
    points = sdata["transcripts"].compute()
    assert about["total_counts"] == (points["x"].between(BOX[0], BOX[2]) & points["y"].between(BOX[1], BOX[3])).sum()
    assert about["n_nuclei"] == len(wanted)
    assert tuple(about["region"]) == BOX


@pytest.mark.parametrize("method", ["density", "network"])
def test_far_from_the_edge_the_cells_are_those_of_the_whole(tissue: sd.SpatialData, method: str) -> None:
    """With the lengths and the model of the whole, pixel by pixel and count by count."""
    sdata = chip(tissue)
    params = {"cells": {"radius": 4.0}, "spots": {"bin_size": 0.5}}
    sslcst.pp.bin_spots(sdata, **NUCLEI, params=params)
    model = sslcst.tl.train(sdata, method=method, params=params)
    how = {**NUCLEI, "method": method, "params": params, "model": model}
    sslcst.tl.segment(sdata, **how, key_added="whole")
    sslcst.tl.segment(sdata, **how, region=BOX, key_added="part")
    whole, part = sdata["whole_cells"].to_numpy(), in_whole(sdata, "part_cells", "whole_cells")
    ids = sdata["part_table"].obs["cell_id"].to_list()
    same = np.where(np.isin(whole, ids), whole, 0) == part
    assert same.all() if method == "density" else same.mean() > 0.999  # of networks, rounding may differ
    if method == "density":
        ours, theirs = sdata["part_table"], sdata["whole_table"]
        theirs = theirs[theirs.obs["cell_id"].isin(ids)]
        np.testing.assert_array_equal(ours.X.toarray(), theirs.X.toarray())
        np.testing.assert_allclose(ours.obsm["spatial"], theirs.obsm["spatial"])


def test_nuclei_found_there_are_those_of_the_whole(tissue: sd.SpatialData, monkeypatch) -> None:
    """Intensities and sizes are told by all of the stain, whatever the region shows."""
    sdata, seen = chip(tissue), []
    look = stages.sample_stain
    monkeypatch.setattr(stages, "sample_stain", lambda image, *rest: seen.append(image.shape) or look(image, *rest))
    sslcst.tl.segment(sdata, image_key="stain", key_added="whole")
    sslcst.tl.segment(sdata, image_key="stain", region=BOX, key_added="part")
    assert seen == [sdata["stain"].shape[1:]]
    whole, part = sdata["whole_nuclei"].to_numpy(), in_whole(sdata, "part_nuclei", "whole_nuclei")
    wanted = np.isin(whole, np.setdiff1d(whole[part > 0], 0))
    assert (wanted & (part > 0)).sum() > 0.97 * (wanted | (part > 0)).sum()


@pytest.mark.parametrize("multiscale", [False, True])
def test_every_system_and_scale_is_kept(tissue: sd.SpatialData, multiscale: bool) -> None:
    """A turned image, in two systems; the region is in the units of the one that is chosen."""
    sdata = chip(tissue)
    turned = Affine(np.array([[0, 0.5, 10], [-0.5, 0, 300], [0, 0, 1.0]]), ("x", "y"), ("x", "y"))
    labels = sdata["true_nuclei"].to_numpy()
    sdata["true_nuclei"] = Labels2DModel.parse(
        labels,
        dims=("y", "x"),
        scale_factors=[2, 2] if multiscale else None,
        transformations={"global": turned, "pixel": Identity()},
    )
    to_pixel = Scale([2.0, 2.0], axes=("x", "y"))
    places = {"pixel": to_pixel, "global": Sequence([to_pixel, turned])}
    set_transformation(sdata["transcripts"], places, set_all=True)
    where = centroids(sdata)
    (x0, y0), (x1, y1) = np.quantile(list(where.values()), [0.3, 0.6], axis=0)
    sslcst.tl.segment(sdata, **NUCLEI, region=(x0, y0, x1, y1))
    wanted = {i for i, (x, y) in where.items() if x0 <= x <= x1 and y0 <= y <= y1}
    assert set(sdata["sslcst_table"].obs["cell_id"]) == wanted
    cells = sdata["sslcst_cells"]
    assert set(get_transformation(cells, get_all=True)) == {"global", "pixel"}
    assert len(getattr(cells, "children", {})) == (3 if multiscale else 0)
    assert (in_whole(sdata, "sslcst_nuclei", "true_nuclei") > 0).sum() == np.isin(labels, list(wanted)).sum()


def test_shapes_count_as_one_with_their_holes(tissue: sd.SpatialData) -> None:
    ring = shapely.Point(85, 85).buffer(30) - shapely.Point(85, 85).buffer(15)
    sdata = chip(tissue, roi=[ring, shapely.box(20, 20, 50, 50), shapely.box(40, 40, 60, 60)])
    sslcst.tl.segment(sdata, **NUCLEI, region="roi")
    union = shapely.union_all(sdata["roi"].geometry)
    wanted = {i for i, xy in centroids(sdata).items() if union.intersects(shapely.Point(xy))}
    assert set(sdata["sslcst_table"].obs["cell_id"]) == wanted


def test_a_region_in_microns(tissue: sd.SpatialData) -> None:
    """Its shapes lie in pixels; the box is in the units that lengths are in."""
    sdata = chip(tissue, roi=shapely.box(*BOX))
    for key in ("stain", "true_nuclei", "transcripts", "roi"):
        old = get_transformation(sdata[key], "global")
        both = {"global": Sequence([old, Scale([2.0, 2.0], axes=("x", "y"))])}
        set_transformation(sdata[key], both, set_all=True)
    unit = {"unit": "micron", "pixel_size": 0.5}
    sslcst.tl.segment(sdata, **NUCLEI, region=BOX, **unit, key_added="box")
    sslcst.tl.segment(sdata, **NUCLEI, region="roi", **unit, key_added="shape")
    np.testing.assert_array_equal(sdata["box_cells"], sdata["shape_cells"])
    assert set(get_transformation(sdata["box_cells"], get_all=True)) == {"global", "micron"}


CROSSING = shapely.Polygon([(10, 10), (40, 40), (40, 10), (10, 40)])


@pytest.mark.parametrize(
    ("region", "error", "says"),
    [
        ("nowhere", KeyMissingError, "no shapes element 'nowhere'; there are: 'crossing', 'empty', 'far'"),
        ("stain", KeyMissingError, "no shapes element 'stain'"),
        ("crossing", DataError, "1 polygons of region 'crossing' are not valid .*Self-intersection.*make_valid"),
        ("empty", DataError, "Nothing can be made of shapes 'empty'"),
        ("far", DataError, "region 'far' lies off the image, which reaches from x=0, y=0"),
        ((1000, 1000, 1100, 1100), DataError, "lies off the image"),
        ((50, 50, 40, 60), ParameterError, "with x0 < x1 and y0 < y1"),
        ((50, 50, 50, 60), ParameterError, "with x0 < x1 and y0 < y1"),
        ((0, 0, float("nan"), 1), ParameterError, "finite"),
        ((0, 0, float("inf"), 1), ParameterError, "finite"),
        ((0, 0, 1), ParameterError, "four numbers"),
    ],
)
def test_a_region_that_cannot_be_meant_is_refused_before_any_work(
    tissue: sd.SpatialData, region: object, error: type[Exception], says: str, monkeypatch
) -> None:
    far = shapely.box(900, 900, 950, 950)
    sdata = chip(tissue, crossing=CROSSING, empty=shapely.Polygon(), far=far)
    monkeypatch.setattr("sslcst.tl._segment.run", pytest.fail)
    monkeypatch.setattr("sslcst.tl._sources.open_transcripts", pytest.fail)
    with pytest.raises(error, match=says):
        sslcst.tl.segment(sdata, **NUCLEI, region=region)


def test_shapes_of_another_system_are_refused(tissue: sd.SpatialData) -> None:
    sdata = chip(tissue, roi=shapely.box(*BOX))
    set_transformation(sdata["roi"], {"elsewhere": Identity()}, set_all=True)
    with pytest.raises(
        KeyMissingError, match="region='roi' lies in 'elsewhere', and not in coordinate system 'global'"
    ):
        sslcst.tl.plan(sdata, **NUCLEI, region="roi")


def test_a_region_without_a_nucleus_is_told(tissue: sd.SpatialData) -> None:
    sdata = chip(tissue)
    x, y = next(iter(centroids(sdata).values())) + 0.01
    with pytest.raises(DataError, match=r"No nucleus has its centroid in region=.*: \d+ lie around it"):
        sslcst.tl.segment(sdata, **NUCLEI, region=(x, y, x + 0.01, y + 0.01))


def test_nuclei_as_shapes_beyond_the_region_are_not_called_lost(tissue: sd.SpatialData, caplog) -> None:
    sdata = chip(tissue)
    sdata["nuclei"] = sd.to_polygons(sdata["true_nuclei"])
    sslcst.tl.segment(sdata, nuclei_key="nuclei", image_key="stain", region=BOX)
    assert "off the image" not in caplog.text


def test_little_but_the_region_is_read(tissue: sd.SpatialData, monkeypatch) -> None:
    """Of nuclei and transcripts; the plan is of the region too."""
    sdata = chip(tissue)
    wide, small = (sslcst.tl.plan(sdata, **NUCLEI, region=region) for region in (None, (5, 5, 20, 20)))
    assert small.n_transcripts < wide.n_transcripts / 2
    assert np.prod(small.bins) < np.prod(wide.bins) / 2
    frame = sdata["transcripts"].compute().sort_values("y", ignore_index=True)
    del sdata.points["transcripts"]
    sdata["transcripts"] = sd.models.PointsModel.parse(frame, feature_key="gene", npartitions=8)
    read, partition = [], sslcst._sdata.transcripts.TranscriptSource.partition
    monkeypatch.setattr(
        sslcst._sdata.transcripts.TranscriptSource, "partition", lambda self, i: read.append(i) or partition(self, i)
    )
    sslcst.tl.segment(sdata, **NUCLEI, region=(5, 5, 20, 20))
    assert 0 < len(read) < 6


def test_what_follows_takes_a_region_as_it_is(tissue: sd.SpatialData, tmp_path: Path) -> None:
    """Figures, a comparison with all cells, and the report, which names the box, also of what a store gives back."""
    whole = chip(tissue)
    sslcst.tl.segment(whole, **NUCLEI, region=BOX, unit="micron", pixel_size=0.5)
    whole["true_cells"] = tissue["true_cells"].copy()
    whole.write(tmp_path / "run.zarr")
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    n = sdata["sslcst_table"].n_obs
    assert len(sslcst.tl.quality(sdata)) == n
    comparison = sslcst.tl.compare(sdata, "sslcst_cells", "true_cells")
    assert comparison.n_cells[0] == n
    assert comparison.mean_best_iou[0] > 0.5
    sslcst.pl.segmentation(sdata)
    plt.close("all")
    sslcst.report.write_report(sdata, tmp_path / "page.html")
    assert "60, 70, 110, 100" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_region_in_a_store_is_known_again(tissue: sd.SpatialData, tmp_path: Path, caplog) -> None:
    """And another region is another run."""
    chip(tissue).write(tmp_path / "run.zarr")
    sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), **NUCLEI, region=BOX)
    with caplog.at_level(logging.INFO, "sslcst"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), **NUCLEI, region=BOX)
    assert "nothing is left to do" in caplog.text
    with pytest.raises(KeyMissingError, match="exists"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), **NUCLEI, region=(60, 70, 110, 101))


ASKED_AT_ONCE = """
import threading
import numpy as np
import shapely
from sslcst._sdata.region import Area

angle, rng = np.arange(20_000) * 2 * np.pi / 20_000, np.random.default_rng(0)
ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (100 + rng.random((20_000, 1)))
for _ in range(20):
    area, together = Area(shapely.polygons(ring), "region"), threading.Barrier(4)

    def ask():
        together.wait()
        area.holds(rng.random((10_000, 2)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_tiles_may_ask_a_region_at_once():
    """As threads of one worker do: GEOS ended the process where a polygon was first asked by two."""
    assert subprocess.run([sys.executable, "-c", ASKED_AT_ONCE], timeout=PATIENCE).returncode == 0
