"""What numbers from outside make us allocate: a few that cannot be meant are refused, with words, before any work."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from anndata import AnnData
from geopandas import GeoDataFrame
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, set_transformation

import sslcst
from sslcst._sdata.raster import Raster, labels_on, raster_over_points
from sslcst._section import check_seed
from sslcst.core.layout import lay_out
from sslcst.core.spots import GeneMoments, Grid, bin_transcripts
from sslcst.errors import DataError, ParameterError
from sslcst.params import Params


def points(yx: np.ndarray, *, npartitions: int = 2) -> sd.SpatialData:
    frame = pd.DataFrame(yx, columns=["y", "x"]).assign(gene="a")
    element = PointsModel.parse(
        frame, feature_key="gene", npartitions=npartitions, transformations={"global": Identity()}
    )
    return sd.SpatialData(points={"rna": element})


@pytest.fixture
def tissue() -> sd.SpatialData:
    """Transcripts on 100 x 100, and nuclei as circles of radius 5."""
    sdata = points(np.random.default_rng(0).uniform(0, 100, (2000, 2)))
    circles = shapely.points([[20, 30], [60, 50], [80, 80]])
    nuclei = ShapesModel.parse(
        GeoDataFrame({"radius": [5.0] * 3}, geometry=circles), transformations={"global": Identity()}
    )
    sdata["nuclei"] = nuclei
    return sdata


@pytest.mark.parametrize("far", [[1e7, 1e7], [1e7, 5], [-1e7, 5], [5, 1e12], [1e300, -1e300], [1.7e308, -1.7e308]])
def test_a_transcript_far_off_is_refused_where_no_image_bounds_the_tissue(tissue: sd.SpatialData, far: list) -> None:
    yx = np.vstack([tissue["rna"][["y", "x"]].compute().to_numpy(), far])
    del tissue.points["rna"]
    tissue["rna"] = points(yx)["rna"]
    with pytest.raises(DataError, match=r"Points 'rna' reach from .* in coordinate system 'global'.*Leave out.*image"):
        sslcst.tl.segment(tissue, nuclei_key="nuclei")


@pytest.mark.parametrize("scale", [1e-8, 1e-3])
def test_shapes_of_other_units_are_refused_where_they_give_the_pixels(tissue: sd.SpatialData, scale: float) -> None:
    """Of these pixels the tissue would have too many."""
    set_transformation(tissue["nuclei"], Scale([scale, scale], axes=("x", "y")), "global")
    with pytest.raises(DataError, match="check the units of points and shapes"):
        sslcst.tl.segment(tissue, nuclei_key="nuclei")


def test_sections_apart_and_any_number_of_partitions_are_as_large_as_they_are() -> None:
    """Two pieces with a gap between them, on 1,600 squares of 256 pixels, of which they hold 2 %."""
    yx = np.random.default_rng(0).uniform(0, 1000, (4000, 2))
    sdata = points(np.vstack([yx, yx + 9_240]), npartitions=5)
    assert raster_over_points(sdata, "rna", "global", 1.0).shape[0] in range(10_200, 10_241)
    with pytest.raises(DataError, match="nearly all of them empty"):
        raster_over_points(points(np.vstack([yx[:2], yx[:2] + 9_240])), "rna", "global", 1.0)


SCALE = {"raster_shape": (100, 100), "pixel_size": 0.5, "pixel_sides": np.array([0.5, 0.5])}


@pytest.mark.parametrize("value", [1e-9, 0.04, 11, 1e6])
def test_bins_are_of_the_size_of_nuclei(value: float) -> None:
    with pytest.raises(ParameterError, match=r"spots.bin_size=.*between 0\.05 and 10,.*the median nucleus measures 5"):
        lay_out(10, **SCALE, params=Params.of({"spots": {"bin_size": value}}))


@pytest.mark.parametrize("value", [1e-9, 0.4, 101, 1e6])
def test_an_expected_radius_is_of_the_size_of_nuclei(value: float) -> None:
    with pytest.raises(ParameterError, match=r"radius=.*between 0\.5 and 100,.*the median nucleus measures 5"):
        lay_out(10, **SCALE, params=Params.of({"cells": {"radius": value}}))


def test_lengths_within_bounds_are_taken() -> None:
    layout = lay_out(10, **SCALE, params=Params.of({"cells": {"radius": 20}, "spots": {"bin_size": 0.5}}))
    assert (layout.radius, layout.grid.whole_shape) == (40, (100, 100))


def test_units_in_which_nothing_can_be_meant_are_refused_before_training() -> None:
    with pytest.raises(DataError, match=r"nucleus measures 1e\+09: choose a coordinate system of larger units"):
        lay_out(10, (100, 100), pixel_size=1e8, pixel_sides=np.array([1e8, 1e8]), params=Params())


def affine(*rows: tuple[float, float, float]) -> Affine:
    return Affine(np.array([*rows, (0, 0, 1)], float), ("x", "y"), ("x", "y"))


SINGULAR = {
    "nothing": affine((0, 0, 0), (0, 0, 0)),
    "a line": affine((0, 0, 0), (0, 1, 0)),
    "a line aslant": affine((1, 1, 0), (1, 1, 0)),
    "nearly a line": affine((1, 1, 0), (1, 1 + 1e-13, 0)),
    "very thin": affine((1e6, 0, 0), (0, 1, 0)),
    "NaN": affine((np.nan, 0, 0), (0, 1, 0)),
    "infinite": affine((np.inf, 0, 0), (0, 1, 0)),
    "moved to NaN": affine((1, 0, np.nan), (0, 1, 0)),
    "vanishing": affine((1e-12, 0, 0), (0, 1e-12, 0)),
    "bursting": affine((1e12, 0, 0), (0, 1e12, 0)),
}


@pytest.mark.parametrize("kind", SINGULAR)
@pytest.mark.parametrize("key", ["rna", "nuclei"])
def test_transformations_that_flatten_are_refused_of_each_element(tissue: sd.SpatialData, kind: str, key: str) -> None:
    labels = Labels2DModel.parse(np.eye(100, dtype=np.uint32), dims=("y", "x"), transformations={"global": Identity()})
    del tissue.shapes["nuclei"]
    tissue["nuclei"] = labels
    set_transformation(tissue[key], SINGULAR[kind], "global")
    with pytest.raises(DataError, match=f"The transformation of '{key}' to 'global' cannot be inverted"):
        sslcst.tl.segment(tissue, nuclei_key="nuclei")


@pytest.mark.parametrize("unit", [1e-6, 1.0])
def test_rasters_are_compared_in_pixels_whatever_the_unit(unit: float) -> None:
    """In metres, pixels of 0.20 and 0.21 micron are no less apart than in microns."""
    labels = np.arange(100, dtype=np.uint32).reshape(10, 10)
    own, other = (Raster((10, 10), np.diag([side * unit, side * unit, 1]), "global", {}) for side in (0.2, 0.25))
    assert labels_on(labels, own, own) is labels
    assert labels_on(labels, own, other)[4, 4] == labels[5, 5]


def test_squares_of_the_largest_counts_do_not_overflow() -> None:
    """A gene of huge counts varies; with squares of 64 bits its variance became negative, and it was left out."""
    rng = np.random.default_rng(0)
    yx, gene = rng.uniform(0, 64, (3000, 2)), rng.integers(0, 5, 3000)
    count = np.where(gene == 3, 2**32 - 1, 1)
    spots = bin_transcripts(yx, gene, count, n_genes=5, grid=Grid((64, 64), (1.0, 1.0), 1.0))
    moments = GeneMoments.of(spots)
    assert (moments.squares > 0).all()
    assert moments.total[3] == (gene == 3).sum() * (2**32 - 1)
    assert moments.variable(1).tolist() == [3]


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0])
def test_geojson_is_as_fine_as_pixels_in_every_unit(tmp_path, unit: float) -> None:
    """In millimetres and metres too: corners of the outline of one square cell, in pixels."""
    labels = np.zeros((20, 20), np.uint32)
    labels[5:12, 3:9] = 1
    element = Labels2DModel.parse(
        labels, dims=("y", "x"), transformations={"unit": Scale([0.2 * unit, 0.2 * unit], axes=("x", "y"))}
    )
    obs = pd.DataFrame({"cell_id": [1], "region": pd.Categorical(["s_cells"])}, index=["1"])
    table = TableModel.parse(
        AnnData(np.ones((1, 1)), obs=obs),
        region="s_cells",
        region_key="region",
        instance_key="cell_id",
    )
    sdata = sd.SpatialData(labels={"s_cells": element, "s_nuclei": element}, tables={"s_table": table})
    sslcst.io.write_geojson(sdata, tmp_path / "a.json", key="s", coordinate_system="unit")
    (feature,) = json.loads((tmp_path / "a.json").read_text())["features"]
    corners = np.array(feature["geometry"]["coordinates"][0]) / (0.2 * unit)
    np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[3, 5], [9, 12]], atol=0.02)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70, 1.0, True, "1", None, float("nan")])
def test_a_seed_is_a_whole_number_that_a_store_holds(seed: object) -> None:
    with pytest.raises(ParameterError, match=r"^seed="):
        check_seed(seed)
