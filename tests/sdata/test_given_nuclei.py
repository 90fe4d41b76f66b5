"""Nuclei and cells that are given, as shapes or labels: what is drawn, what they are called, what is told."""

from __future__ import annotations

import logging

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from shapely import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box, transform
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Affine, Identity, set_transformation
from square_nuclei import MERSCOPE, SIDE, SQUARES, broken, shapes, squares_as_labels, tissue

import sslcst
from sslcst._sdata.labels import GivenLabels
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError, KeyMissingError
from sslcst.pp import import_cells, import_nuclei


def drawn(element, **where) -> np.ndarray:
    """What import_nuclei makes of shapes or labels."""
    sdata = tissue()
    kind = sdata.shapes if isinstance(element, gpd.GeoDataFrame) else sdata.labels
    kind.data["mine"] = element  # without the checks of the model
    import_nuclei(sdata, "mine", **where)
    return full_scale(sdata.labels["sslcst_nuclei"]).to_numpy()


# What is drawn.


def test_only_points_are_grown_by_a_radius():
    """A column of that name beside polygons (of Xenium's or others' cells) is no more than a column."""
    plain = drawn(shapes(SQUARES))
    assert np.bincount(plain.ravel())[1:].tolist() == [100, 100, 100]
    assert (drawn(shapes(SQUARES, radius=[3.0, 4.0, 5.0])) == plain).all()
    pieces = [MultiPolygon([square]) for square in SQUARES]
    assert (drawn(shapes(pieces, radius=[3.0, np.nan, -1.0])) == plain).all()


def test_of_mixed_shapes_the_points_are_circles():
    labels = drawn(broken([SQUARES[0], Point(45, 15)], radius=[4.0, 4.0]))
    areas = np.bincount(labels.ravel())
    assert areas[1] == 100
    assert areas[2] == pytest.approx(np.pi * 16, rel=0.1)


def test_without_an_image_the_grid_is_told_by_the_polygons_not_their_radius():
    sizes = []
    for columns in ({}, {"radius": [40.0] * 3}):
        sdata = tissue(mine=shapes(SQUARES, **columns))
        del sdata.images["stain"]
        import_nuclei(sdata, "mine")
        sizes.append(sdata.labels["sslcst_nuclei"].shape)
    assert sizes[0] == sizes[1]


USELESS = [
    pytest.param(Polygon(), "empty or missing", id="empty"),
    pytest.param(None, "empty or missing", id="missing"),
    pytest.param(LineString([(1, 1), (9, 9)]), "without an area", id="line"),
    pytest.param(Polygon([(1, 1), (9, 9), (5, 5)]), "without an area", id="flat polygon"),
    pytest.param(GeometryCollection([LineString([(1, 1), (5, 5)])]), "without an area", id="collection of lines"),
    pytest.param(
        transform(box(1, 1, 3, 4), lambda xy: np.where(xy == 4, np.nan, xy)), "not finite", id="NaN in a polygon"
    ),
    pytest.param(Point(30, 30), "points without a positive radius", id="point"),
    pytest.param(box(-30, -30, -20, -20), "off the image", id="off"),
    pytest.param(box(1.6, 1.6, 1.9, 1.9), "too small for a pixel", id="small"),
    pytest.param(box(62, 12, 64, 14), "hidden under others", id="hidden"),
]


@pytest.mark.parametrize(("shape", "reason"), USELESS)
def test_a_shape_of_which_nothing_can_be_made_is_left_out_and_told(shape, reason, caplog):
    with caplog.at_level(logging.INFO, "sslcst"):
        labels = drawn(broken([SQUARES[0], shape, *SQUARES[1:]], index=["a", "bad", "b", "c"]))
    assert np.bincount(labels.ravel())[1:].tolist() == [100, 0, 100, 100]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("1 of 4 shapes in 'mine' are left out: 1 ")
    assert reason in line
    assert "'bad'" in line


@pytest.mark.parametrize("radius", [np.nan, -2.0, 0.0, np.inf])
def test_a_circle_needs_a_positive_radius(radius, caplog):
    labels = drawn(broken([Point(20, 20), Point(40, 40)], radius=[4.0, radius]))
    assert np.unique(labels).tolist() == [0, 1]
    assert "1 points without a positive radius (1)" in caplog.text


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Polygon([(10, 10, 5), (10, 20, 5), (20, 20, 5), (20, 10, 5)]), id="3-D"),
        pytest.param(GeometryCollection([MultiPolygon([box(10, 10, 20, 20)]), LineString([(1, 1), (9, 9)])]), id="mix"),
        pytest.param(Polygon([(10, 10), (20, 10), (20, 20), (10, 20), (10, 10), (10, 15)]), id="spike"),
    ],
)
def test_odd_shapes_with_an_area_are_drawn(shape):
    labels = drawn(broken([SQUARES[1], shape]))
    expected = np.zeros((SIDE, SIDE), bool)
    expected[10:20, 10:20] = True
    assert ((labels == 2) == expected).all()


def test_a_polygon_that_crosses_itself_is_both_its_lobes():
    labels = drawn(shapes([SQUARES[1], Polygon([(4, 30), (24, 50), (24, 30), (4, 50)])]))
    assert (labels == 2).sum() == pytest.approx(200, abs=25)


def test_where_nothing_can_be_made_of_any_shape_the_rows_are_named():
    with pytest.raises(DataError, match=r"shapes 'mine': 2 empty or missing \('a', 'c'\); 1 without an area \('b'\)"):
        drawn(broken([None, LineString([(0, 0), (9, 9)]), Polygon()], index=["a", "b", "c"]))
    with pytest.raises(DataError, match="Nothing can be made of shapes 'mine': there are none"):
        drawn(broken([]))
    with pytest.raises(DataError, match=r"none of the 3 shapes is seen on the raster: 3 off the image"):
        drawn(shapes([box(100 + x, 100, 105 + x, 105) for x in (0, 10, 20)]))


def test_shapes_that_a_transformation_flattens():
    element = shapes(SQUARES)
    set_transformation(element, Affine(np.diag([0.0, 1, 1]), ("x", "y"), ("x", "y")))
    with pytest.raises(DataError, match="of 'mine' to 'global' cannot be inverted"):
        drawn(element)


def test_shapes_turned_and_sheared_lie_where_their_transformation_says():
    """Each drawn by its own corners, moved by hand."""
    matrix = np.array([[0.8, -0.5, 14], [0.6, 0.9, -6], [0, 0, 1]])
    inverse = np.linalg.inv(matrix)
    own = [Polygon(np.array(s.exterior.coords) @ inverse[:2, :2].T + inverse[:2, 2]) for s in SQUARES]
    element = shapes(own, radius=[9.0] * 3)
    set_transformation(element, Affine(matrix, ("x", "y"), ("x", "y")))
    assert (drawn(element) == drawn(shapes(SQUARES))).mean() > 0.99


# What they are called.

IDS = [
    pytest.param(["aaaa-1", "b", "oikd-1"], str, id="text"),
    pytest.param(MERSCOPE, np.integer, id="19 digits"),
    pytest.param(np.array(MERSCOPE, np.uint64) + np.uint64(2**63), np.integer, id="uint64"),
    pytest.param([2**32 + 1, 1, 2], np.integer, id="that would be one in 32 bits"),
    pytest.param([-1, 5, 2], np.integer, id="negative"),
    pytest.param([0, 1, 2], np.integer, id="from 0"),
    pytest.param([1.5, 1.25, 2.0], float, id="floats"),
    pytest.param([5, 5, 7], np.integer, id="twice the same"),
    pytest.param(["1", 1, "x"], str, id="text and numbers"),
    pytest.param([True, False, True], np.bool_, id="truth"),
    pytest.param(pd.Categorical(["q", "p", "r"]), str, id="categories"),
    pytest.param(pd.Index(["q", "p", "r"], dtype="string"), str, id="string type"),
    pytest.param(pd.array(MERSCOPE, "Int64"), np.integer, id="nullable"),
]


@pytest.mark.parametrize(("ids", "kind"), IDS)
def test_ids_that_labels_cannot_hold_are_kept_beside_numbers(ids, kind, tmp_path):
    """In the object, in the store, and in their own type."""
    sdata = tissue(mine=shapes(SQUARES, index=pd.Index(ids)))
    import_cells(sdata, "mine")
    cells = full_scale(sdata.labels["imported_cells"]).to_numpy()
    assert (cells == squares_as_labels([1, 2, 3], np.uint32)).all()
    del sdata.shapes["mine"]  # not every index can be written
    sdata.write(tmp_path / "a.zarr")
    for each in (sdata, sd.read_zarr(tmp_path / "a.zarr")):
        table = each.tables["imported_cells_ids"]
        assert table.obs["cell_id"].tolist() == [1, 2, 3]
        found = table.obs["source_id"].tolist()
        assert found == ([str(each) for each in ids] if kind is str else pd.Index(ids).tolist())
        assert table.obs["source_id"].dtype == "category" or issubclass(table.obs["source_id"].dtype.type, kind)


def test_ids_of_two_levels_are_joined():
    sdata = tissue(mine=shapes(SQUARES, index=pd.MultiIndex.from_product([["fov1"], [7, 8, 9]])))
    import_nuclei(sdata, "mine")
    assert sdata.tables["sslcst_nuclei_ids"].obs["source_id"].tolist() == ["fov1_7", "fov1_8", "fov1_9"]


def test_ids_that_stand_for_more_than_one_are_told(caplog):
    drawn(shapes(SQUARES, index=[5, 5, 7]))
    assert "Shapes 'mine': 2 ids stand for more than one" in caplog.text


@pytest.mark.parametrize("ids", [[7, 3, 11], [2**32 - 1, 1, 5]])
def test_ids_that_labels_can_hold_stay(ids):
    sdata = tissue(mine=shapes(SQUARES, index=ids))
    import_nuclei(sdata, "mine")
    assert (full_scale(sdata.labels["sslcst_nuclei"]).to_numpy() == squares_as_labels(ids, np.uint32)).all()
    assert not sdata.tables


def test_the_table_of_ids_goes_with_the_labels_it_is_of():
    sdata = tissue(text=shapes(SQUARES, index=list("abc")), plain=shapes(SQUARES, index=[1, 2, 3]))
    import_nuclei(sdata, "text")
    import_nuclei(sdata, "plain")
    assert not sdata.tables


def test_an_element_of_the_name_of_that_table_is_not_touched():
    sdata = tissue(sslcst_nuclei_ids=shapes(SQUARES), mine=shapes(SQUARES, index=list("abc")))
    with pytest.raises(KeyMissingError, match="'sslcst_nuclei_ids', which would hold the original ids, exists"):
        import_nuclei(sdata, "mine")
    assert "sslcst_nuclei_ids" in sdata.shapes
    assert not sdata.labels


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=17)], ids=["numpy", "dask"])
def test_large_labels_are_numbered_in_their_order(dtype, wrap):
    sdata = tissue()
    sdata.labels["mine"] = Labels2DModel.parse(wrap(squares_as_labels(MERSCOPE[::-1], dtype)), dims=("y", "x"))
    import_nuclei(sdata, "mine")
    assert (full_scale(sdata.labels["sslcst_nuclei"]).to_numpy() == squares_as_labels([3, 2, 1], np.uint32)).all()
    source_id = sdata.tables["sslcst_nuclei_ids"].obs["source_id"]
    assert source_id.dtype == dtype
    assert source_id.tolist() == MERSCOPE


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_small_labels_stay_whatever_their_type(dtype):
    labels = squares_as_labels([5, 3, 9], dtype)
    assert (drawn(Labels2DModel.parse(labels, dims=("y", "x"))) == labels).all()
    several = Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=[2])
    assert (drawn(several) == labels).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (squares_as_labels([-1, 3, 9], np.int32), "'mine' hold -1: they must not be negative"),
        (squares_as_labels([-1, 3, 9], np.int64), "'mine' hold -1: they must not be negative"),
        (squares_as_labels([1, 3, 9], np.float32), "'mine' are float32: they must be integers"),
        (squares_as_labels([1, 1, 1], bool), "'mine' are bool.*skimage.measure.label"),
        (squares_as_labels([1, 1, 1], np.uint8), "'mine' hold one id for 3 pieces.*skimage.measure.label"),
        (squares_as_labels([255, 255, 255], np.int64), "'mine' hold one id for 3 pieces.*skimage.measure.label"),
        (squares_as_labels([0, 0, 0], np.int64), "no nuclei in 'mine': every pixel is background"),
    ],
)
def test_labels_that_are_none(labels, message):
    element = Labels2DModel.parse(squares_as_labels([1, 2, 3], np.uint8), dims=("y", "x"))
    with pytest.raises(DataError, match=message):
        drawn(element.copy(data=da.from_array(labels)))


def test_one_nucleus_may_lie_across_bands_and_have_specks():
    labels = squares_as_labels([0, 7, 0], np.uint8)
    labels[0, 0] = labels[-1, -1] = 7
    assert (drawn(Labels2DModel.parse(labels, dims=("y", "x"))) == labels).all()
    tall = GivenLabels.of("tall", np.repeat(np.array([0, 1, 0], np.uint8), [1000, 48, 1000])[:, None], None)
    tall.check(np.array([1]))


# What is said where elements do not fit.


def test_where_there_is_no_image_the_nuclei_are_pointed_to():
    sdata = tissue(mine=shapes(SQUARES))
    del sdata.images["stain"]
    for call in (sslcst.tl.segment, sslcst.tl.plan, sslcst.pp.segment_nuclei):
        with pytest.raises(KeyMissingError, match=r"no image to find nuclei in.*nuclei_key=.*'mine'"):
            call(sdata)


def test_a_coordinate_system_that_is_not_shared():
    sdata = tissue(mine=shapes(SQUARES))
    set_transformation(sdata["transcripts"], {"micron": Identity(), "global": Identity()}, set_all=True)
    message = (
        r"by 'mine' \(in 'global'\) and 'transcripts' \(in 'global', 'micron'\) named 'micron'; there are: 'global'"
    )
    with pytest.raises(KeyMissingError, match=message):
        sslcst.tl.segment(sdata, nuclei_key="mine", coordinate_system="micron")
