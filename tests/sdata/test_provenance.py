"""The run remembers what it used: every later call takes it where its user names nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import spatialdata_io
import vendor_formats as vendors
from matplotlib.axes import Axes
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation
from typer.testing import CliRunner
from vendor_formats import TISSUE, stored

import sslcst
from sslcst import pl, pp, tl
from sslcst._sdata.raster import full_scale
from sslcst.cli import app
from sslcst.errors import KeyMissingError

OTHER = vendors.make_tissue(n_cells=13, seed=1)


def write_two_rois(folder: Path) -> None:
    for roi, tissue in (("Roi1", OTHER), ("Roi2", TISSUE)):
        vendors.write_seqfish(folder, tissue, roi)


# How a run is written and read, which keys `segment` needs, and the stain that it is of.
RUNS: dict[str, tuple[Callable[[Path], None], Callable[[Path], sd.SpatialData], dict[str, Any], Callable]] = {
    "xenium": (
        lambda folder: vendors.write_xenium(folder, TISSUE),
        spatialdata_io.xenium,
        {},
        lambda sdata: full_scale(sdata["morphology_focus"]).sel(c="DAPI"),
    ),
    "merscope": (  # two planes of four stains, DAPI not the first
        lambda folder: vendors.write_merscope(
            folder, TISSUE, z_layers=(2, 3), others=("Cellbound1", "Cellbound2", "PolyT")
        ),
        lambda folder: spatialdata_io.merscope(folder, z_layers=[2, 3], region_name="a", slide_name="b"),
        {"image_key": "b_a_z2"},
        lambda sdata: full_scale(sdata["b_a_z2"]).sel(c="DAPI"),
    ),
    "cosmx": (  # two fields of view at their places of the stage, DAPI in blue
        lambda folder: vendors.write_cosmx(folder, {1: OTHER, 2: TISSUE}),
        spatialdata_io.cosmx,
        {"points_key": "2_points", "image_key": "2_image"},
        lambda sdata: full_scale(sdata["2_image"]).sel(c="b"),
    ),
    "seqfish": (  # two regions, none in "global"
        write_two_rois,
        spatialdata_io.seqfish,
        {"points_key": "Roi2_TranscriptList", "image_key": "Roi2_DAPI"},
        lambda sdata: full_scale(sdata["Roi2_DAPI"]).isel(c=0),
    ),
    "stereoseq": (  # bins of two sizes, several images
        lambda folder: vendors.write_stereoseq(folder, TISSUE),
        spatialdata_io.stereoseq,
        {},
        lambda sdata: full_scale(sdata["SS200000135TL_D1_regist"]).isel(c=0),
    ),
}


@pytest.fixture
def drawn(monkeypatch) -> list[np.ndarray]:
    """Each grey picture that is handed to matplotlib."""
    pictures, imshow = [], Axes.imshow

    def look(self, pixels, *args, **kwargs):
        if kwargs.get("cmap") == "gray":
            pictures.append(np.asarray(pixels))
        return imshow(self, pixels, *args, **kwargs)

    monkeypatch.setattr(Axes, "imshow", look)
    return pictures


# The stereoseq reader leaves bytes of the GEF in a table, of which zarr warns.
@pytest.mark.filterwarnings("ignore:The data type .NullTerminatedBytes")
@pytest.mark.parametrize("vendor", RUNS)
def test_nothing_is_named_after_the_run(vendor: str, tmp_path: Path, drawn: list[np.ndarray]) -> None:
    """Pictures, report, figures and export are of the stain, the transcripts and the places that were segmented."""
    write, read, keys, stain_of = RUNS[vendor]
    write(tmp_path / "run")
    tl.segment(stored(read, tmp_path / "run"), **keys)
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    table, stain = sdata["sslcst_table"], stain_of(sdata).to_numpy()

    pl.segmentation(sdata)
    pl.nuclei(sdata)
    pl.compare(sdata, "sslcst_cells", "sslcst_nuclei")
    assert len(drawn) == 3
    for picture in drawn:
        np.testing.assert_array_equal(picture, stain)

    sslcst.report.write_report(sdata, tmp_path / "a.html")
    np.testing.assert_array_equal(drawn[3], stain)
    assert all(np.isin(picture, stain).all() for picture in drawn[4:])  # close views
    quality = tl.quality(sdata)
    assert quality.index.tolist() == table.obs["cell_id"].tolist()
    assert quality["n_counts"].tolist() == table.obs["n_counts"].tolist()
    comparison = tl.compare(sdata, "sslcst_cells", "sslcst_cells")
    assert comparison.mean_best_iou == (1, 1)
    share = table.X.sum() / table.uns["sslcst"]["total_counts"]
    assert comparison.share_in_cells[0] <= share + 1e-9  # of all transcripts, on the image or not
    area = table.obs["area"].to_numpy()
    assert comparison.diameter[0] == pytest.approx(np.median(2 * np.sqrt(area / np.pi)))
    assert tl.compare(sdata, "sslcst_nuclei", "sslcst_cells").transcripts_alike < 1

    tl.intensities(sdata)
    assert len(table.obsm["intensities"]) == table.n_obs
    sslcst.io.write_geojson(sdata, tmp_path / "cells.geojson")
    cells = full_scale(sdata["sslcst_cells"]).to_numpy()
    for feature in json.loads((tmp_path / "cells.geojson").read_text())["features"]:
        x, y = np.array(feature["geometry"]["coordinates"][0]).T
        rows, columns = np.nonzero(cells == int(feature["properties"]["name"]))
        assert (x.min(), y.min()) == pytest.approx((columns.min(), rows.min()))  # in pixels of the stain
        assert (x.max(), y.max()) == pytest.approx((columns.max() + 1, rows.max() + 1))


@pytest.fixture(scope="module")
def original() -> sd.SpatialData:
    """Two images, of three channels and of one; points of two columns of genes; units beside pixels; no "global"."""
    rng = np.random.default_rng(0)
    systems = {"pixel": Identity(), "micron": Scale([0.5, 0.5], ("x", "y"))}
    stain = np.stack([rng.integers(0, 2000, TISSUE.dapi.shape, np.uint16), TISSUE.dapi, OTHER_CHANNEL])
    sdata = sd.SpatialData(
        images={
            "b": Image2DModel.parse(stain, c_coords=["red", "blue", "green"], transformations=dict(systems)),
            "c": Image2DModel.parse(stain[:1], transformations=dict(systems)),
        },
        points={name: points(systems) for name in ("molecules", "others")},
    )
    return sdata


OTHER_CHANNEL = TISSUE.dapi // 2 + 100


def points(systems: dict[str, Any]) -> Any:
    import pandas as pd
    from spatialdata.models import PointsModel

    frame = pd.DataFrame({"x": TISSUE.yx[:, 1], "y": TISSUE.yx[:, 0], "probe": TISSUE.gene, "gene": "one"})
    frame["weight"] = 2
    return PointsModel.parse(frame, transformations=dict(systems))


KEYS = {
    "image_key": "b",
    "channel": "blue",
    "points_key": "molecules",
    "gene_key": "probe",
    "count_key": "weight",
    "coordinate_system": "micron",
}


@pytest.fixture
def sdata(original: sd.SpatialData) -> sd.SpatialData:
    return copy_of(original)


@pytest.fixture(scope="module")
def segmented(original: sd.SpatialData) -> sd.SpatialData:
    sdata = copy_of(original)
    tl.segment(sdata, **KEYS)
    tl.segment(sdata, **KEYS | {"channel": 2, "coordinate_system": "pixel"}, key_added="f1")
    return sdata


def copy_of(sdata: sd.SpatialData) -> sd.SpatialData:
    """One whose transformations can be changed."""
    return sd.deepcopy(sdata)


def test_the_table_tells_every_key(segmented: sd.SpatialData) -> None:
    """As it was given, or as it was chosen; and a channel by its name."""
    about = segmented["sslcst_table"].uns["sslcst"]
    assert {name: about[name] for name in KEYS} == KEYS
    assert segmented["f1_table"].uns["sslcst"]["channel"] == "green"
    assert "nuclei_key" not in about


def test_each_result_has_its_own(segmented: sd.SpatialData, drawn: list[np.ndarray]) -> None:
    """Nuclei, channel and units of `key`; of cells that are named, their own."""
    for key, channel, unit in (("sslcst", TISSUE.dapi, 0.5), ("f1", OTHER_CHANNEL, 1)):
        table = segmented[f"{key}_table"]
        pl.segmentation(segmented, key=key)
        np.testing.assert_array_equal(drawn[-1], channel)
        own = tl.quality(segmented, key=key)
        np.testing.assert_allclose(own["n_counts"], table.obs["n_counts"])
        np.testing.assert_allclose(own["diameter"], 2 * np.sqrt(table.obs["area"] / np.pi))
        assert table.obs["area"].sum() == (segmented[f"{key}_cells"].to_numpy() > 0).sum() * unit**2
        assert tl.quality(segmented, cells_key=f"{key}_cells").equals(own)
    tl.intensities(segmented)
    assert list(segmented["sslcst_table"].obsm["intensities"]) == ["red", "blue", "green"]


def test_quality_is_of_the_nuclei_of_the_cells(segmented: sd.SpatialData) -> None:
    sdata = copy_of(segmented)
    del sdata.labels["sslcst_nuclei"]
    assert len(tl.quality(sdata, cells_key="f1_cells"))
    with pytest.raises(KeyMissingError, match="no labels or shapes element 'sslcst_nuclei'"):
        tl.quality(sdata)  # and not by those of another


def test_what_is_named_wins(segmented: sd.SpatialData, drawn: list[np.ndarray]) -> None:
    """And brings nothing along that was said of another element: a channel of an image, a column of points."""
    pl.segmentation(segmented, channel="red", coordinate_system="pixel")
    np.testing.assert_array_equal(drawn[-1], segmented["b"].to_numpy()[0])
    pl.segmentation(segmented, image_key="c")
    np.testing.assert_array_equal(drawn[-1], segmented["c"].to_numpy()[0])
    assert tl.quality(segmented, coordinate_system="pixel")["diameter"].median() > 2 * 1.5
    assert (tl.quality(segmented, points_key="others")["n_genes"] <= 1).all()  # of column "gene"
    assert (tl.quality(segmented, gene_key="gene")["n_genes"] <= 1).all()
    assert tl.compare(segmented, "sslcst_cells", "f1_cells", coordinate_system="pixel").diameter[0] == pytest.approx(
        2 * tl.compare(segmented, "sslcst_cells", "f1_cells").diameter[0]
    )


def test_what_is_gone_is_chosen_anew_or_asked_for(segmented: sd.SpatialData, drawn: list[np.ndarray], caplog) -> None:
    """As if there had been no run: never a picture of something else, and never other units unsaid."""
    sdata = copy_of(segmented)
    image = sdata.images.pop("b")
    pl.segmentation(sdata)  # the only one
    np.testing.assert_array_equal(drawn[-1], segmented["c"].to_numpy()[0])
    sdata.images["renamed"] = image
    for call in (pl.segmentation, lambda sdata: sslcst.report.write_report(sdata, "a.html")):
        with pytest.raises(KeyMissingError, match="Several could be the image: choose with image_key="):
            call(sdata)
    del sdata.points["molecules"]
    assert (tl.quality(sdata, gene_key="probe", count_key="weight")["n_counts"] > 0).any()
    del sdata.points["others"]
    with pytest.raises(KeyMissingError, match="There is no points element"):
        tl.quality(sdata)
    assert tl.compare(sdata, "sslcst_cells", "sslcst_cells").n_pairs

    sdata = copy_of(segmented)
    channels = Image2DModel.parse(
        sdata["b"].to_numpy(), c_coords=["DNA", "a", "b"], transformations=get_transformation(sdata["b"], get_all=True)
    )
    sdata.images["b"] = channels
    pl.segmentation(sdata)
    np.testing.assert_array_equal(drawn[-1], channels.to_numpy()[0])
    figures = tl.compare(sdata, "sslcst_cells", "sslcst_cells").diameter
    for kind, name, element in list(sdata.gen_elements()):
        if kind == "labels":
            sdata[name] = Labels2DModel.parse(element.to_numpy(), transformations={"pixel": Identity()})
    # That the image and the transcripts still lie in microns tells where these do.
    assert tl.compare(sdata, "sslcst_cells", "sslcst_cells").diameter == pytest.approx(figures)
    for name in ("b", "c", "molecules", "others"):
        set_transformation(sdata[name], {"pixel": Identity()}, set_all=True)
    with caplog.at_level(logging.WARNING, "sslcst"):
        assert tl.compare(sdata, "sslcst_cells", "sslcst_cells").diameter == pytest.approx(2 * np.array(figures))
    assert "in coordinate system 'micron', which 'sslcst_cells' and" in caplog.text


def test_steps_hand_on_what_they_used(sdata: sd.SpatialData, tmp_path: Path, drawn: list[np.ndarray]) -> None:
    """From stain to table each step takes what those before it were told; the object keeps it in a store."""
    pp.segment_nuclei(sdata, image_key="b", channel=["blue", "green"], coordinate_system="micron", key_added="n")
    pl.nuclei(sdata, nuclei_key="n")
    assert drawn[-1].max() >= 1  # of both, scaled
    pp.segment_nuclei(sdata, image_key="b", channel="blue", coordinate_system="micron", key_added="n")
    pl.nuclei(sdata, nuclei_key="n")
    np.testing.assert_array_equal(drawn[-1], TISSUE.dapi)
    pp.bin_spots(sdata, points_key="molecules", gene_key="probe", count_key="weight", nuclei_key="n")
    model = tl.train(sdata)
    tl.predict(sdata, model)
    tl.track(sdata, model)
    tl.aggregate(sdata)
    assert dict(sdata["sslcst_table"].uns["sslcst"]) == KEYS | {"nuclei_key": "n"}
    sdata.write(tmp_path / "a.zarr")
    for held in (sdata, sd.read_zarr(tmp_path / "a.zarr")):
        pl.segmentation(held)
        pl.nuclei(held, nuclei_key="n")
        for picture in drawn[-2:]:
            np.testing.assert_array_equal(picture, TISSUE.dapi)
        frame = tl.quality(held)
        np.testing.assert_allclose(frame["n_counts"], held["sslcst_table"].obs["n_counts"])
        np.testing.assert_allclose(frame["diameter"], 2 * np.sqrt(held["sslcst_table"].obs["area"] / np.pi))
        sslcst.io.write_geojson(held, tmp_path / "a.geojson")
        sslcst.report.write_report(held, tmp_path / "a.html")


def test_a_run_on_nuclei_that_were_found_shows_their_stain(sdata: sd.SpatialData, drawn: list[np.ndarray]) -> None:
    pp.segment_nuclei(sdata, image_key="b", channel="blue", coordinate_system="pixel", key_added="n")
    columns = {name: KEYS[name] for name in ("points_key", "gene_key", "count_key")}
    tl.segment(sdata, nuclei_key="n", **columns, coordinate_system="pixel")
    pl.segmentation(sdata)
    np.testing.assert_array_equal(drawn[-1], TISSUE.dapi)
    assert sdata["sslcst_table"].uns["sslcst"]["nuclei_key"] == "n"


def test_the_last_who_made_labels_is_believed(segmented: sd.SpatialData, drawn: list[np.ndarray]) -> None:
    """A step that replaces the nuclei of a run, and a run that replaces those of a step."""
    sdata = copy_of(segmented)
    pp.segment_nuclei(sdata, image_key="b", channel="green", coordinate_system="pixel")
    ax = pl.nuclei(sdata)
    np.testing.assert_array_equal(drawn[-1], OTHER_CHANNEL)
    assert ax.get_xlabel() == "x (pixel)"
    tl.segment(sdata, **KEYS, overwrite=True)
    ax = pl.nuclei(sdata)
    np.testing.assert_array_equal(drawn[-1], TISSUE.dapi)
    assert ax.get_xlabel() == "x (micron)"
    assert "sslcst_nuclei" not in segmented.attrs.get("sslcst", {})


def test_nuclei_without_an_image_are_drawn_on_black(
    sdata: sd.SpatialData, tmp_path: Path, drawn: list[np.ndarray], caplog
) -> None:
    """Where the run needed none and several are there, none is guessed, and that is said."""
    sdata["given"] = Labels2DModel.parse(TISSUE.nuclei, transformations=get_transformation(sdata["b"], get_all=True))
    tl.segment(sdata, nuclei_key="given", **{k: v for k, v in KEYS.items() if k not in ("image_key", "channel")})
    with caplog.at_level(logging.INFO, "sslcst"):
        pl.segmentation(sdata)
    assert not drawn
    assert "choose with image_key=; there are: 'b', 'c'" in caplog.text
    sslcst.io.write_geojson(sdata, tmp_path / "a.geojson")
    assert len(tl.quality(sdata))


def test_other_cells_are_judged_as_the_result(segmented: sd.SpatialData) -> None:
    """By the same transcripts and nuclei, in the same units."""
    sdata = copy_of(segmented)
    sdata["vendor"] = sdata["f1_cells"]
    pp.import_cells(sdata, "vendor", coordinate_system="pixel", key_added="imported")
    frame, same = tl.quality(sdata, cells_key="imported"), tl.quality(sdata, cells_key="f1_cells", key="f1")
    np.testing.assert_allclose(frame["diameter"], same["diameter"] / 2)
    assert frame["n_counts"].equals(same["n_counts"])


def test_systems_are_those_of_the_run(segmented: sd.SpatialData) -> None:
    """Also where "global" was added later."""
    sdata = copy_of(segmented)
    for name in ("b", "sslcst_cells", "sslcst_nuclei", "molecules"):
        set_transformation(sdata[name], Scale([7.0, 7.0], ("x", "y")), "global")
    assert pl.segmentation(sdata).get_xlabel() == "x (micron)"
    assert tl.quality(sdata).equals(tl.quality(segmented))


@pytest.mark.parametrize("stored_first", [False, True])
def test_a_run_in_microns_is_shown_and_judged_in_microns(
    stored_first: bool, tmp_path: Path, drawn: list[np.ndarray]
) -> None:
    """Though of all in the store only what it made lies in that system."""
    vendors.write_merscope(tmp_path / "run", TISSUE, others=("Cellbound1", "PolyT"))
    sdata = stored(spatialdata_io.merscope, tmp_path / "run")
    tl.segment(sdata, unit="micron")
    sdata = sd.read_zarr(tmp_path / "run.zarr") if stored_first else sdata
    [image] = sdata.images
    before = get_transformation(sdata[image], get_all=True)
    table, dapi = sdata["sslcst_table"], full_scale(sdata[image]).sel(c="DAPI").to_numpy()
    across = 2 * np.sqrt(table.obs["area"].to_numpy() / np.pi)
    assert 4 < np.median(across) < 20  # microns, where pixels are half as large

    for ax in (pl.segmentation(sdata, points_key=next(iter(sdata.points))), pl.nuclei(sdata)):
        assert ax.get_xlabel() == "x (micron)"
        np.testing.assert_array_equal(drawn[-1], dapi)
    pl.compare(sdata, "sslcst_cells", "sslcst_nuclei")
    sslcst.report.write_report(sdata, tmp_path / "a.html")
    np.testing.assert_allclose(tl.quality(sdata)["diameter"], across)
    assert tl.compare(sdata, "sslcst_cells", "sslcst_cells").diameter[0] == pytest.approx(np.median(across))
    sslcst.io.write_geojson(sdata, tmp_path / "a.geojson")
    first = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    x, _ = np.array(first["geometry"]["coordinates"][0]).T
    columns = np.nonzero(full_scale(sdata["sslcst_cells"]).to_numpy() == int(first["properties"]["name"]))[1]
    assert (x.min(), x.max()) == pytest.approx((columns.min(), columns.max() + 1))  # in pixels of the stain
    assert set(get_transformation(sdata[image], get_all=True)) == set(before)  # nothing else is changed


def test_the_command_line_draws_what_was_segmented(
    segmented: sd.SpatialData, tmp_path: Path, drawn: list[np.ndarray]
) -> None:
    copy_of(segmented).write(tmp_path / "a.zarr")
    for key, picture in (("sslcst", TISSUE.dapi), ("f1", OTHER_CHANNEL)):
        drawn.clear()
        asked = ["report", str(tmp_path / "a.zarr"), "--out", str(tmp_path / "b.html"), "--key", key]
        assert CliRunner().invoke(app, asked).exit_code == 0
        np.testing.assert_array_equal(drawn[0], picture)


def test_quality_is_of_the_transcripts_that_were_counted(sdata: sd.SpatialData) -> None:
    """Also where the run left out others than usual."""
    left_out = sorted(set(TISSUE.gene))[0]
    tl.segment(sdata, **KEYS, params={"transcripts": {"exclude": f"{left_out}$"}})
    assert tl.quality(sdata)["n_counts"].tolist() == sdata["sslcst_table"].obs["n_counts"].tolist()
