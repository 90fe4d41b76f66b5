"""Lengths in microns: where they are told from, what carries them, and that nothing else is touched."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
import spatialdata_io
import vendor_formats as vendors
from anndata import AnnData
from geopandas import GeoDataFrame
from spatialdata.models import ShapesModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    Sequence,
    get_transformation,
    remove_transformation,
    set_transformation,
)
from store_files import files_of

import sslcst
from sslcst._sdata.listing import LISTING, entries, read_metadata
from sslcst._sdata.microns import is_in_microns
from sslcst._sdata.raster import affine_matrix, full_scale
from sslcst.errors import KeyMissingError, ParameterError, StoreError

PIXEL = 0.25
TISSUE = vendors.make_tissue()


def chip(*, micron: str | None = None, of: tuple[str, ...] = ("stain", "true_nuclei", "transcripts")) -> sd.SpatialData:
    """A simulated chip whose "global" is pixels, and which has a system in microns too, of some of its elements."""
    whole = sslcst.datasets.simulate(n_cells=40, n_genes=30, pixel_size=PIXEL, cell_diameter=8, seed=1)
    sdata = sd.SpatialData.init_from_elements({key: whole[key] for key in ("stain", "true_nuclei", "transcripts")})
    for key in ("stain", "true_nuclei", "transcripts"):
        in_microns = get_transformation(sdata[key], "global")
        systems = {"global": Sequence([in_microns, Scale([1 / PIXEL] * 2, axes=("x", "y"))])}
        if key != "transcripts":
            systems = {"global": Identity()}
        if micron is not None and key in of:
            systems[micron] = in_microns
        set_transformation(sdata[key], systems, set_all=True)
    return sdata


def systems(sdata: sd.SpatialData) -> dict[str, str]:
    return {
        key: str(get_transformation(element, get_all=True))
        for kind, key, element in sdata.gen_elements()
        if kind != "tables"
    }


def test_a_run_in_microns_is_the_run_in_pixels_told_otherwise() -> None:
    """The same cells; lengths, areas and places are microns; results lie in both systems, and what was there stays."""
    by_pixel, by_micron = chip(), chip()
    before = systems(by_micron)
    sslcst.tl.segment(by_pixel, nuclei_key="true_nuclei", params={"cells": {"radius": 20.0}})
    sslcst.tl.segment(
        by_micron, nuclei_key="true_nuclei", params={"cells": {"radius": 5.0}}, unit="micron", pixel_size=PIXEL
    )
    np.testing.assert_array_equal(by_micron["sslcst_cells"], by_pixel["sslcst_cells"])
    ours, theirs = by_micron["sslcst_table"], by_pixel["sslcst_table"]
    np.testing.assert_allclose(ours.obs["area"], theirs.obs["area"] * PIXEL**2)
    np.testing.assert_allclose(ours.obsm["spatial"], theirs.obsm["spatial"] * PIXEL)
    assert ours.uns["sslcst"]["coordinate_system"] == "micron"
    np.testing.assert_allclose(affine_matrix(by_micron["sslcst_cells"], "micron"), np.diag([PIXEL, PIXEL, 1]))
    np.testing.assert_allclose(affine_matrix(by_micron["sslcst_cells"], "global"), np.eye(3))
    assert {key: text for key, text in systems(by_micron).items() if "sslcst" not in key} == before


def test_boundaries_and_transcripts_carry_both_systems() -> None:
    """Also where shapes alone give the nuclei, and the pixels are our own."""
    sdata = chip()
    circles = GeoDataFrame({"geometry": [shapely.Point(x, x) for x in (20, 60, 100)], "radius": 10.0}, index=[1, 2, 3])
    sdata["circles"] = ShapesModel.parse(circles)
    del sdata["stain"]
    how = {"unit": "micron", "pixel_size": PIXEL, "shapes": True, "assign_points": True}
    sslcst.tl.segment(sdata, nuclei_key="circles", **how)
    for name in ("nuclei", "cells", "boundaries", "transcripts"):
        element = sdata[f"sslcst_{name}"]
        to_micron = affine_matrix(element, "micron")
        np.testing.assert_allclose(to_micron, np.diag([PIXEL, PIXEL, 1]) @ affine_matrix(element, "global"), atol=1e-9)


@pytest.mark.parametrize(
    "name", ["micron", "Microns", "um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "slide_um"]
)
def test_a_system_of_the_elements_comes_first(name: str, caplog) -> None:
    with caplog.at_level(logging.INFO, "sslcst"):
        plan = sslcst.tl.plan(chip(micron=name), nuclei_key="true_nuclei", unit="micron")
    assert f"a pixel of 'true_nuclei' measures 0.25 in {name!r}" in caplog.text
    assert plan.bin_size == pytest.approx(PIXEL * sslcst.tl.plan(chip(), nuclei_key="true_nuclei").bin_size)


@pytest.mark.parametrize("name", ["global", "spot_um8", "0.5_um", "album", "micronuclei", "1", "aligned"])
def test_what_is_not_named_as_microns_is_not_taken_for_it(name: str) -> None:
    assert not is_in_microns(name)


@pytest.mark.parametrize("key", ["stain", "transcripts"])
def test_one_element_in_microns_tells_where_the_other_lies(key: str, caplog) -> None:
    with caplog.at_level(logging.INFO, "sslcst"):
        sslcst.tl.plan(chip(micron="um", of=(key,)), image_key="stain", unit="micron")
    assert f"a pixel of 'stain' measures 0.25 in 'um' ({key!r} lies in both)" in caplog.text


def test_a_size_that_the_elements_contradict_is_refused() -> None:
    sdata = chip(micron="um")
    sslcst.tl.plan(sdata, nuclei_key="true_nuclei", unit="micron", pixel_size=PIXEL)
    with pytest.raises(ParameterError, match=r"pixel_size=0.5: a pixel of 'true_nuclei' measures 0.25 microns in 'um'"):
        sslcst.tl.plan(sdata, nuclei_key="true_nuclei", unit="micron", pixel_size=0.5)
    with pytest.raises(ParameterError, match=r"coordinate_system='global': leave it out"):
        sslcst.tl.plan(sdata, nuclei_key="true_nuclei", unit="micron", coordinate_system="global")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"unit": "micron"}, "nothing tells how many microns a pixel of 'true_nuclei' .* give pixel_size="),
        ({"unit": "mm"}, "unit='mm': must be \"micron\""),
        ({"pixel_size": 0.5}, 'goes with unit="micron"'),
        ({"unit": "micron", "pixel_size": 0.0}, "must be above 0"),
        ({"unit": "micron", "pixel_size": float("nan")}, "must be above 0"),
        ({"unit": "micron", "pixel_size": float("inf")}, "must be above 0"),
    ],
)
def test_a_unit_that_cannot_be_meant_is_refused(given: dict, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        sslcst.tl.segment(chip(), nuclei_key="true_nuclei", **given)


READERS = {
    "xenium": (vendors.write_xenium, spatialdata_io.xenium, vendors.PIXEL),
    "merscope": (vendors.write_merscope, spatialdata_io.merscope, vendors.PIXEL),
    "cosmx": (lambda folder, tissue: vendors.write_cosmx(folder, {1: tissue}), spatialdata_io.cosmx, 0.120280945),
    "seqfish": (vendors.write_seqfish, spatialdata_io.seqfish, vendors.PIXEL),
    "stereoseq": (vendors.write_stereoseq, spatialdata_io.stereoseq, 0.5),
}


# The stereoseq reader leaves bytes of the GEF in a table, of which zarr warns.
@pytest.mark.filterwarnings("ignore:The data type .NullTerminatedBytes")
@pytest.mark.parametrize("reader", READERS)
def test_what_a_reader_leaves_tells_the_pixel(reader: str, tmp_path: Path) -> None:
    """The system is written to the store, for all elements, and nothing but metadata changes there."""
    write, read, pixel = READERS[reader]
    write(tmp_path / "run", TISSUE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers
        read(tmp_path / "run").write(tmp_path / "run.zarr")
    before = files_of(tmp_path / "run.zarr")
    assert sslcst.pp.add_microns(sd.read_zarr(tmp_path / "run.zarr")) == "micron"
    after = files_of(tmp_path / "run.zarr")
    assert after.keys() == before.keys()
    assert all(after[file] == before[file] for file in before if not file.endswith(LISTING))

    sdata = sd.read_zarr(tmp_path / "run.zarr")
    for _, key, element in sdata.gen_elements():
        if key in sdata.images or key in sdata.labels:
            matrix = affine_matrix(full_scale(element), "micron")
            np.testing.assert_allclose(np.linalg.det(matrix), pixel**2, rtol=1e-6)
        elif key not in sdata.tables and reader in ("xenium", "merscope"):  # the vendor's own numbers, not rounded
            np.testing.assert_array_equal(affine_matrix(element, "micron"), np.eye(3))
    listed = entries(read_metadata(tmp_path / "run.zarr" / LISTING))
    for place in (place for place in listed if place.count("/") == 1 and not place.startswith("tables")):
        assert listed[place]["attributes"] == read_metadata(tmp_path / "run.zarr" / place / LISTING)["attributes"]


def cosmx(shape: tuple[int, int] = (100, 100), **columns: list[float]) -> sd.SpatialData:
    """As the reader of CosMx leaves it."""
    table = AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame(columns, index=["1_1", "2_1"]))
    image = sd.models.Image2DModel.parse(np.zeros((3, *shape), np.uint8), dims=("c", "y", "x"))
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0], "target": pd.Categorical(["a", "b"])})
    points = sd.models.PointsModel.parse(frame, feature_key="target")
    elements = {"1_image": image, "1_points": points, "table": table}
    return sd.SpatialData.init_from_elements(elements, attrs={"spatialdata_io_reader": "cosmx"})


@pytest.mark.parametrize(
    ("sdata", "pixel", "warns"),
    [
        (cosmx(**{"Area": [100.0, 400.0], "Area.um2": [4.0, 16.0]}), 0.2, False),
        (cosmx((3648, 5472)), 0.18, False),
        (cosmx((4256, 4256)), 0.120280945, False),
        (cosmx((100, 100)), 0.120280945, True),
    ],
)
def test_pixels_of_cosmx(sdata: sd.SpatialData, pixel: float, warns: bool, caplog) -> None:
    """By the areas of its cells, else by the size of a field; where neither tells, a warning does."""
    sslcst.pp.add_microns(sdata)
    np.testing.assert_allclose(affine_matrix(sdata["1_image"], "micron"), np.diag([pixel, pixel, 1]))
    assert ("is taken to measure" in caplog.text) == warns


def test_points_that_were_brought_to_pixels_are_not_taken_for_microns() -> None:
    """The reader's name alone does not tell that they still are in its units."""
    sdata = chip()
    frame = sdata["transcripts"].compute()
    sdata.attrs["spatialdata_io_reader"] = "xenium"
    del sdata.points["transcripts"]
    sdata["transcripts"] = sd.models.PointsModel.parse(frame.reset_index(drop=True), feature_key="gene")
    with pytest.raises(ParameterError, match="give pixel_size="):
        sslcst.tl.plan(sdata, nuclei_key="true_nuclei", unit="micron")


def test_which_pixels_are_meant_is_asked_where_they_differ() -> None:
    sdata = chip()
    sdata["fine"] = sd.models.Image2DModel.parse(
        np.zeros((1, 8, 8)), dims=("c", "y", "x"), transformations={"global": Scale([0.5, 0.5], axes=("x", "y"))}
    )
    with pytest.raises(KeyMissingError, match="choose with image_key="):
        sslcst.pp.add_microns(sdata, pixel_size=0.25)
    sslcst.pp.add_microns(sdata, pixel_size=0.25, image_key="fine")
    np.testing.assert_allclose(affine_matrix(sdata["stain"], "micron"), np.diag([0.5, 0.5, 1]))


def test_where_all_lies_in_microns_a_size_is_no_more_than_checked() -> None:
    sdata = chip(micron="um")
    for key in ("stain", "true_nuclei", "transcripts"):
        remove_transformation(sdata[key], "global")
    assert sslcst.pp.add_microns(sdata, pixel_size=PIXEL) == "um"
    with pytest.raises(ParameterError, match=r"a pixel of 'stain' measures 0\.25 microns in 'um'"):
        sslcst.pp.add_microns(sdata, pixel_size=0.5)


def test_pixels_are_of_one_size_up_to_rounding() -> None:
    """A turned image, whose pixels are as large as those of the labels, but for the last bits."""
    sdata, turn = chip(), np.deg2rad(0.3)
    matrix = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    moved = Affine(np.array(matrix) @ np.diag([1 + 1e-9, 1, 1]), ("x", "y"), ("x", "y"))
    set_transformation(sdata["stain"], moved, "global")
    assert sslcst.pp.add_microns(sdata, pixel_size=PIXEL) == "micron"


@pytest.mark.parametrize("tables", [{}, {"table": AnnData(np.ones((2, 2), np.float32))}])
def test_where_there_is_nothing_an_error_says_so(tables: dict) -> None:
    with pytest.raises(KeyMissingError, match="nothing that could lie in microns"):
        sslcst.pp.add_microns(sd.SpatialData(tables=tables), pixel_size=PIXEL)


def test_added_twice_is_added_once(tmp_path: Path) -> None:
    chip().write(tmp_path / "run.zarr")
    sslcst.pp.add_microns(sd.read_zarr(tmp_path / "run.zarr"), pixel_size=PIXEL)
    before = files_of(tmp_path / "run.zarr")
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    assert sslcst.pp.add_microns(sdata) == "micron"
    assert files_of(tmp_path / "run.zarr") == before
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", unit="micron")  # and a run takes it as it lies there
    assert sdata["sslcst_table"].uns["sslcst"]["coordinate_system"] == "micron"


def test_a_store_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch) -> None:
    """And so does the object: the disk is full at the second element."""
    chip().write(tmp_path / "run.zarr")
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    before, write, done = (files_of(tmp_path / "run.zarr"), systems(sdata)), sd.SpatialData.write_transformations, []

    def full(self: sd.SpatialData, name: str) -> None:
        if done:
            raise OSError("No space left on device")
        done.append(name)
        write(self, name)

    monkeypatch.setattr(sd.SpatialData, "write_transformations", full)
    with pytest.raises(StoreError, match="No space left"):
        sslcst.pp.add_microns(sdata, pixel_size=PIXEL)
    assert done
    assert (files_of(tmp_path / "run.zarr"), systems(sdata)) == before


def test_elements_that_are_in_the_object_alone_get_it_there(tmp_path: Path) -> None:
    chip().write(tmp_path / "run.zarr")
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    sdata["mine"] = ShapesModel.parse(GeoDataFrame({"geometry": [shapely.box(0, 0, 4, 4)]}))
    sslcst.pp.add_microns(sdata, pixel_size=PIXEL)
    assert "micron" in get_transformation(sdata["mine"], get_all=True)
    assert not (tmp_path / "run.zarr" / "shapes" / "mine").exists()


def test_a_stopped_run_in_microns_is_known_again(tmp_path: Path, caplog) -> None:
    """And one in pixels is another run."""
    chip().write(tmp_path / "run.zarr")
    how = {"nuclei_key": "true_nuclei", "unit": "micron", "pixel_size": PIXEL}
    sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), **how)
    with caplog.at_level(logging.INFO, "sslcst"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), **how)
    assert "nothing is left to do" in caplog.text
    with pytest.raises(KeyMissingError, match="exists"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), nuclei_key="true_nuclei")
