"""GeoJSON: outlines that give the labels back, in the pixels of the image, as QuPath's own export has them."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapely import Polygon, contains_xy
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Translation

from sslcst._sdata.raster import apply_affine
from sslcst.errors import DataError, KeyMissingError, StoreError
from sslcst.io import _geojson, write_geojson
from sslcst.pl import segmentation

HEIGHT, WIDTH = 30, 40
# The labels lie on a coarser grid than the image, and begin elsewhere: pixel (x, y) is the image's (2 x + 6, 2 y + 4).
LABELS_TO_GLOBAL = np.array([[2.0, 0.0, 6.0], [0.0, 2.0, 4.0], [0.0, 0.0, 1.0]])


@pytest.fixture
def sdata() -> SpatialData:
    """Cells 5 and 9 with nuclei, 12 without one."""
    cells, nuclei = np.zeros((2, HEIGHT, WIDTH), np.uint32)
    cells[4:14, 6:16], cells[4:14, 16:26], cells[20:24, 30:36] = 5, 9, 12
    cells[14, 8:11] = 5
    nuclei[6:10, 8:12], nuclei[6:10, 18:22] = 5, 9
    table = AnnData(
        np.ones((3, 1), np.float32),
        obs=pd.DataFrame(
            {"cell_id": np.array([12, 5, 9], np.uint32), "region": pd.Categorical(["sslcst_cells"] * 3)},
            index=["12", "5", "9"],
        ).assign(
            n_counts=[3, 1, 7],
            mean_prob=[np.nan, 0.5, 0.25],
            touches_border=[False, True, False],
            leiden=pd.Categorical(["1", "0", np.nan]),
        ),
    )
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    systems = {"global": Affine(LABELS_TO_GLOBAL, **axes), "micron": Scale([0.5, 0.25], axes=("x", "y"))}
    return SpatialData(
        images={
            "stain": Image2DModel.parse(
                np.zeros((1, 80, 100), np.uint8), dims=("c", "y", "x"), transformations={"global": Identity()}
            )
        },
        labels={
            f"sslcst_{name}": Labels2DModel.parse(array, dims=("y", "x"), transformations=dict(systems))
            for name, array in {"cells": cells, "nuclei": nuclei}.items()
        },
        tables={
            "sslcst_table": TableModel.parse(table, region="sslcst_cells", region_key="region", instance_key="cell_id")
        },
    )


def features(path: Path) -> dict[str, dict]:
    """Features by name, of a file that is JSON by the letter (no NaN)."""
    collection = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert collection["type"] == "FeatureCollection"
    return {feature["properties"]["name"]: feature for feature in collection["features"]}


def ring(geometry: dict) -> np.ndarray:
    assert geometry["type"] == "Polygon"
    [corners] = geometry["coordinates"]
    assert corners[0] == corners[-1]
    return np.array(corners)


def test_in_the_pixels_of_the_image(sdata: SpatialData, tmp_path: Path) -> None:
    """Filled on the image, outlines of cells and nuclei are their labels, scaled and moved there."""
    write_geojson(sdata, tmp_path / "a.geojson")
    found = features(tmp_path / "a.geojson")
    rows, columns = np.indices((80, 100)) + 0.5
    for geometry, name in (("geometry", "cells"), ("nucleusGeometry", "nuclei")):
        labels = np.kron(sdata[f"sslcst_{name}"].to_numpy(), np.ones((2, 2), np.uint32))
        expected = np.zeros((80, 100), np.uint32)
        expected[4 : 4 + 2 * HEIGHT, 6 : 6 + 2 * WIDTH] = labels
        filled = np.zeros_like(expected)
        for cell, feature in found.items():
            if geometry in feature:
                filled[contains_xy(Polygon(ring(feature[geometry])), columns, rows)] = int(cell)
        assert (filled == expected).all()
    assert "nucleusGeometry" not in found["12"]


@pytest.mark.parametrize("kept", [["red", "no colour"], {"one": "red", "two": "blue"}])
def test_colours_that_are_none_are_told(sdata: SpatialData, tmp_path: Path, kept: object) -> None:
    sdata["sslcst_table"].uns["leiden_colors"] = kept
    with pytest.raises(DataError, match=r"uns\['leiden_colors'\] of the table must list colours"):
        write_geojson(sdata, tmp_path / "a.geojson", class_key="leiden")
    with pytest.raises(DataError, match=r"uns\['leiden_colors'\] of the table must list colours"):
        segmentation(sdata, color="leiden")


def test_outlines_become_numbers_one_by_one(
    sdata: SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As objects, those of a whole chip would take many times the memory of its labels."""
    moved, at_feature = [], []
    monkeypatch.setattr(_geojson, "apply_affine", lambda *given: moved.append(given) or apply_affine(*given))
    monkeypatch.setattr(_geojson.json, "dumps", lambda feature: at_feature.append(len(moved)) or "{}")
    write_geojson(sdata, tmp_path / "a.geojson")
    assert at_feature == [1, 3, 5]  # 12 has no nucleus


def test_features_are_as_qupath_exports_them(sdata: SpatialData, tmp_path: Path) -> None:
    """Cell objects in the table's order, measurements that are numbers, classes with a colour, ids that are UUIDs."""
    sdata["sslcst_table"].uns["leiden_colors"] = ["#ff0000", "#0000ff"]
    write_geojson(sdata, tmp_path / "a.geojson", class_key="leiden")
    found = features(tmp_path / "a.geojson")
    assert list(found) == ["12", "5", "9"]
    assert {feature["type"] for feature in found.values()} == {"Feature"}
    assert {feature["properties"]["objectType"] for feature in found.values()} == {"cell"}
    assert len({UUID(feature["id"]) for feature in found.values()}) == 3
    assert [feature["properties"]["measurements"] for feature in found.values()] == [
        {"n_counts": 3, "touches_border": 0},
        {"n_counts": 1, "mean_prob": 0.5, "touches_border": 1},
        {"n_counts": 7, "mean_prob": 0.25, "touches_border": 0},
    ]
    assert found["5"]["properties"]["classification"] == {"name": "0", "color": [255, 0, 0]}
    assert found["12"]["properties"]["classification"] == {"name": "1", "color": [0, 0, 255]}
    assert "classification" not in found["9"]["properties"]


def test_what_is_no_number_is_no_measurement(sdata: SpatialData, tmp_path: Path) -> None:
    """Durations, dates; of numbers that may be missing those that are there."""
    obs = sdata["sslcst_table"].obs
    obs["age"], obs["day"] = pd.to_timedelta([1, 2, 3], unit="s"), pd.Timestamp("2026-01-01")
    obs["rank"], obs["seen"] = pd.array([None, 1, 2], "Int64"), pd.array([True, None, False], "boolean")
    write_geojson(sdata, tmp_path / "a.geojson")
    found = features(tmp_path / "a.geojson")
    own = {cell: feature["properties"]["measurements"] for cell, feature in found.items()}
    assert {cell: {name: of[name] for name in ("rank", "seen") if name in of} for cell, of in own.items()} == {
        "12": {"seen": 1},
        "5": {"rank": 1},
        "9": {"rank": 2, "seen": 0},
    }
    assert not {"age", "day"} & own["12"].keys()


def test_in_a_coordinate_system(sdata: SpatialData, tmp_path: Path) -> None:
    write_geojson(sdata, tmp_path / "a.geojson", coordinate_system="micron")
    corners = ring(features(tmp_path / "a.geojson")["9"]["geometry"])
    assert np.unique(corners, axis=0).tolist() == [[8, 1], [8, 3.5], [13, 1], [13, 3.5]]


def test_without_an_image(sdata: SpatialData, tmp_path: Path) -> None:
    """The pixels are the labels'."""
    del sdata.images["stain"]
    write_geojson(sdata, tmp_path / "a.geojson")
    corners = ring(features(tmp_path / "a.geojson")["9"]["geometry"])
    assert np.unique(corners, axis=0).tolist() == [[16, 4], [16, 14], [26, 4], [26, 14]]


def test_cells_that_were_filtered_out_stay_out(sdata: SpatialData, tmp_path: Path) -> None:
    """A file of that name is replaced."""
    write_geojson(sdata, tmp_path / "a.geojson")
    sdata.tables["sslcst_table"] = sdata["sslcst_table"][["9"]].copy()
    write_geojson(sdata, tmp_path / "a.geojson")
    assert list(features(tmp_path / "a.geojson")) == ["9"]


def test_spatialdata_io_reads_it(sdata: SpatialData, tmp_path: Path) -> None:
    """As shapes, of the labels' areas in pixels of the image."""
    from spatialdata_io import geojson

    write_geojson(sdata, tmp_path / "a.geojson")
    shapes = geojson(tmp_path / "a.geojson", coordinate_system="global")
    assert shapes.area.tolist() == [4 * 24, 4 * 103, 4 * 100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "other"}, "no labels element 'other_cells'; there are: 'sslcst_cells', 'sslcst_nuclei'"),
        ({"image_key": "no"}, "no image 'no'; there are: 'stain'"),
        ({"coordinate_system": "mm"}, "'mm'; there are: 'global', 'micron'"),
        ({"class_key": "no"}, "no column 'no' in the table; it has .*'leiden'"),
    ],
)
def test_missing_names_are_told(sdata: SpatialData, tmp_path: Path, arguments: dict, message: str) -> None:
    """And no file is begun."""
    with pytest.raises(KeyMissingError, match=message):
        write_geojson(sdata, tmp_path / "a.geojson", **arguments)
    assert not list(tmp_path.iterdir())


def test_several_images(sdata: SpatialData, tmp_path: Path) -> None:
    sdata.images["other"] = Image2DModel.parse(
        np.zeros((1, 9, 9), np.uint8),
        dims=("c", "y", "x"),
        transformations={"global": Translation([6, 4], axes=("x", "y"))},
    )
    with pytest.raises(KeyMissingError, match="image_key"):
        write_geojson(sdata, tmp_path / "a.geojson")
    write_geojson(sdata, tmp_path / "a.geojson", image_key="other")
    assert ring(features(tmp_path / "a.geojson")["9"]["geometry"]).min(axis=0).tolist() == [32, 8]


def test_table_of_other_cells(sdata: SpatialData, tmp_path: Path) -> None:
    sdata["sslcst_table"].obs["cell_id"] = np.array([12, 5, 10], np.uint32)
    with pytest.raises(DataError, match="1 of the labels to outline do not occur, among them 10"):
        write_geojson(sdata, tmp_path / "a.geojson")


def test_folder_that_is_not_there(sdata: SpatialData, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no/a\.geojson could not be written: there is no folder"):
        write_geojson(sdata, tmp_path / "no" / "a.geojson")
