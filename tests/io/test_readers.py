"""Runs in the vendors' own formats, read by spatialdata-io, segmented without a key given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import spatialdata_io
import squidpy as sq
import vendor_formats as vendors
from spatialdata.models import Image2DModel, Image3DModel, Labels3DModel, PointsModel
from spatialdata.transformations import Identity
from vendor_formats import TISSUE, stored

import sslcst
from sslcst._sdata.elements import NUCLEAR_CHANNELS, STAINS, TRANSCRIPTS, choose_image, choose_key, choose_points
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError, KeyMissingError


@dataclass(frozen=True)
class Platform:
    """How a run of TISSUE is written, and what the log must say."""

    write: Callable[[Path], None]
    read: Callable[[Path], sd.SpatialData]
    says: tuple[str, ...]
    controls: tuple[str, ...] = ()
    poor: bool = False  # each tenth molecule is
    upward: bool = False  # rows of the image as read count from below
    pixel: float = 1.0  # in the coordinate system


PLATFORMS = {
    "xenium": Platform(
        lambda folder: vendors.write_xenium(folder, TISSUE),
        spatialdata_io.xenium,
        (
            "channel of image 'morphology_focus' is 'DAPI'",
            "Points 'transcripts': genes in column 'feature_name', one molecule a row, z is left aside",
            "of quality below 20",
        ),
        vendors.XENIUM_CONTROLS,
        poor=True,
    ),
    "merscope": Platform(
        lambda folder: vendors.write_merscope(folder, TISSUE),
        spatialdata_io.merscope,
        ("_z3' is 'DAPI'", "genes in column 'gene', one molecule a row, z is left aside"),
        vendors.MERSCOPE_CONTROLS,
    ),
    "cosmx": Platform(
        lambda folder: vendors.write_cosmx(folder, {1: TISSUE}),
        spatialdata_io.cosmx,
        ("The blue of the composite image '1_image' shows nuclei", "Points '1_points': genes in column 'target'"),
        vendors.COSMX_CONTROLS,
        upward=True,
    ),
    "seqfish": Platform(
        lambda folder: vendors.write_seqfish(folder, TISSUE),
        spatialdata_io.seqfish,
        ("Points 'Roi1_TranscriptList': genes in column 'name'", "coordinate system 'Roi1', where a pixel is 0.5 wide"),
        pixel=vendors.PIXEL,
    ),
    "stereoseq": Platform(
        lambda folder: vendors.write_stereoseq(folder, TISSUE),
        spatialdata_io.stereoseq,
        (
            "The image is 'SS200000135TL_D1_regist', unless image_key= says otherwise",
            "The points element is 'bin1_genes'",
            "Points 'bin1_genes': genes and counts in table 'bin1_table'",
        ),
    ),
}


@pytest.fixture(params=PLATFORMS)
def platform(request) -> Platform:
    return PLATFORMS[request.param]


def counted_by_hand(cells: np.ndarray, platform: Platform) -> pd.DataFrame:
    """Cells x genes of the molecules that were written, in the labels as they lie on the image that was read."""
    read = TISSUE.with_controls(*platform.controls) if platform.controls else TISSUE
    kept = ~np.isin(read.gene, platform.controls)
    if platform.poor:
        kept &= np.arange(len(kept)) % 10 != 0
    row, column = read.yx[kept].astype(int).T
    owner = cells[len(cells) - 1 - row if platform.upward else row, column]
    return pd.crosstab(owner[owner > 0], read.gene[kept][owner > 0])


# The stereoseq reader leaves bytes of the GEF in a table, of which zarr warns.
@pytest.mark.filterwarnings("ignore:The data type .NullTerminatedBytes")
def test_a_run_is_segmented_without_a_key(platform: Platform, tmp_path: Path, caplog) -> None:
    """The nuclei are those of the stain; each molecule is counted where it was written; what was there stays."""
    platform.write(tmp_path / "run")
    sdata = stored(platform.read, tmp_path / "run")
    names, tables = set(sdata._shared_keys), {name: table.copy() for name, table in sdata.tables.items()}
    with caplog.at_level(logging.INFO, "sslcst"):
        sslcst.tl.segment(sdata)
    for words in platform.says:
        assert words in caplog.text

    assert set(sdata._shared_keys) == names | {"sslcst_nuclei", "sslcst_cells", "sslcst_table"}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(sdata.tables[name].obs, table.obs)

    table = sdata["sslcst_table"]
    nuclei, cells = (full_scale(sdata[f"sslcst_{name}"]) for name in ("nuclei", "cells"))
    truth = TISSUE.nuclei[::-1] if platform.upward else TISSUE.nuclei
    assert 12 <= table.n_obs <= 20  # of 16
    assert ((nuclei.to_numpy() > 0) == (truth > 0)).mean() > 0.95
    expected = counted_by_hand(cells.to_numpy(), platform)
    found = table.to_df().set_index(table.obs["cell_id"])
    pd.testing.assert_frame_equal(
        found.loc[expected.index, expected.columns], expected, check_dtype=False, check_names=False
    )
    assert found.to_numpy().sum() == expected.to_numpy().sum()
    assert set(table.var_names) == set(TISSUE.gene)
    area = np.bincount(cells.to_numpy().ravel())[table.obs["cell_id"]] * platform.pixel**2
    np.testing.assert_allclose(table.obs["area"], area)

    table = table.copy()
    sq.gr.spatial_neighbors_knn(table, n_neighs=4)
    assert (table.obsp["spatial_connectivities"].sum(axis=1) == 4).all()


@pytest.mark.parametrize("key", ["nucleus_labels", "nucleus_boundaries"])
def test_the_vendors_own_nuclei_serve(tmp_path: Path, key: str) -> None:
    """Xenium's, as labels of several scales or as outlines in microns, keep their ids and their place."""
    vendors.write_xenium(tmp_path / "run", TISSUE)
    sdata = stored(spatialdata_io.xenium, tmp_path / "run")
    sslcst.tl.segment(sdata, nuclei_key=key)
    nuclei = full_scale(sdata["sslcst_nuclei"]).to_numpy()
    if key == "nucleus_labels":
        np.testing.assert_array_equal(nuclei, TISSUE.nuclei)
    assert (nuclei == TISSUE.nuclei).mean() > 0.97  # outlines are convex
    assert sdata["sslcst_table"].obs["cell_id"].tolist() == list(range(1, TISSUE.cells.max() + 1))


def test_another_choice_of_transcripts_reaches_spots_and_counts(tmp_path: Path) -> None:
    vendors.write_seqfish(tmp_path / "run", TISSUE)
    sdata = stored(spatialdata_io.seqfish, tmp_path / "run")
    left_out, *others = sorted(set(TISSUE.gene))
    sslcst.tl.segment(sdata, params={"transcripts": {"exclude": f"{left_out}$"}})
    assert sdata["sslcst_table"].var_names.tolist() == others


@pytest.mark.parametrize(
    ("names", "usual", "chosen"),
    [
        (["morphology_mip", "morphology_focus", "he_image"], STAINS, "morphology_focus"),
        (["A1_mask", "A1_tissue_cut", "A1_regist"], STAINS, "A1_regist"),
        (["A1_regist", "B2_regist"], STAINS, None),
        (["run_z2", "run_z3"], STAINS, None),
        (["bin1_genes", "bin20_genes", "bin100_genes"], TRANSCRIPTS, "bin1_genes"),
        (["bin20_genes", "bin100_genes"], TRANSCRIPTS, None),
        (["PolyT", "Cellbound1", "DAPI"], NUCLEAR_CHANNELS, "DAPI"),
        (["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"], NUCLEAR_CHANNELS, "DAPI"),
        (["Membrane", "Nucleus"], NUCLEAR_CHANNELS, "Nucleus"),
        (["DAPI", "Hoechst 33342"], NUCLEAR_CHANNELS, None),
        (["r", "g", "b"], NUCLEAR_CHANNELS, None),
    ],
)
def test_of_the_readers_names_one_is_meant_or_none(
    names: list[str], usual: tuple[str, ...], chosen: str | None
) -> None:
    if chosen is not None:
        assert choose_key(names, None, kind="thing", argument="key", usual=usual) == chosen
        return
    with pytest.raises(KeyMissingError, match="Several could be the thing: choose with key="):
        choose_key(names, None, kind="thing", argument="key", usual=usual)


@pytest.mark.parametrize(
    ("names", "beside", "chosen"),
    [
        (["1_points", "2_points", "12_points"], "2_image", "2_points"),
        (["transcripts-a", "transcripts-b"], "dapi-b", "transcripts-b"),
        (["transcripts-a", "transcripts-b"], "dapi", None),
        (["2_points", "2_others"], "2_image", None),
        (["s_region_0_transcripts", "s_region_1_transcripts"], "s_region_1_z3", "s_region_1_transcripts"),
        (["transcripts-S1-rep1", "transcripts-S2-rep1"], "dapi-S2-rep1", "transcripts-S2-rep1"),
        (["1_points-a", "2_points-a", "1_points-b"], "1_image-b", "1_points-b"),
    ],
)
def test_what_is_meant_beside_another_element(names: list[str], beside: str, chosen: str | None) -> None:
    if chosen is not None:
        assert choose_key(names, None, kind="thing", argument="key", beside=beside) == chosen
        return
    with pytest.raises(KeyMissingError, match="Several could be the thing: choose with key="):
        choose_key(names, None, kind="thing", argument="key", beside=beside)


@pytest.mark.parametrize(("argument", "name"), [("points_key", "2_points"), ("image_key", "2_image")])
def test_one_of_several_fields_of_view_is_chosen(argument: str, name: str, tmp_path: Path) -> None:
    """CosMx has an image and a points element for each field: which one, the user says, and gets that one's cells."""
    other = vendors.make_tissue(n_cells=13, seed=1)
    vendors.write_cosmx(tmp_path / "run", {1: TISSUE, 2: other})
    sdata = stored(spatialdata_io.cosmx, tmp_path / "run")
    with pytest.raises(KeyMissingError, match="choose with points_key=; there are: '1_points', '2_points'"):
        sslcst.tl.segment(sdata)
    sslcst.tl.segment(sdata, **{argument: name})
    cells = full_scale(sdata["sslcst_cells"]).to_numpy()
    assert cells.shape == other.dapi.shape
    row, column = other.yx.astype(int).T
    assert sdata["sslcst_table"].X.sum() == (cells[len(cells) - 1 - row, column] > 0).sum()


def test_one_of_several_planes_is_chosen(tmp_path: Path) -> None:
    """MERSCOPE has an image for each plane that is read."""
    vendors.write_merscope(tmp_path / "run", TISSUE, z_layers=(2, 3))
    sdata = stored(
        lambda folder: spatialdata_io.merscope(folder, z_layers=[2, 3], region_name="a", slide_name="b"),
        tmp_path / "run",
    )
    with pytest.raises(KeyMissingError, match="choose with image_key=; there are: 'b_a_z2', 'b_a_z3'"):
        sslcst.tl.segment(sdata)
    sslcst.tl.segment(sdata, image_key="b_a_z2")
    assert sdata["sslcst_table"].n_obs >= 12


def test_visium_hd_is_refused_with_what_to_do(tmp_path: Path) -> None:
    vendors.write_visium_hd(tmp_path / "run", TISSUE)
    sdata = stored(lambda folder: spatialdata_io.visium_hd(folder, load_segmentations_only=False), tmp_path / "run")
    with pytest.raises(DataError, match=r"Visium HD run: .* too coarse .* Space Ranger 4 .* bin2cell"):
        sslcst.tl.segment(sdata)


@pytest.mark.parametrize("kind", ["image", "nuclei"])
def test_three_dimensional_rasters_are_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    vendors.write_seqfish(tmp_path / "run", TISSUE)
    sdata = stored(spatialdata_io.seqfish, tmp_path / "run")
    place = {"Roi1": Identity()}
    if kind == "image":
        sdata["stack"] = Image3DModel.parse(np.stack([TISSUE.dapi] * 3)[None], transformations=place)
    else:
        sdata["stack"] = Labels3DModel.parse(np.stack([TISSUE.nuclei] * 3), transformations=place)
    with pytest.raises(DataError, match="'stack' is three-dimensional, with 3 planes: add one of them"):
        sslcst.tl.segment(sdata, **{f"{kind}_key": "stack"})


@pytest.mark.parametrize("name", ["b", "gone", None, 3])
def test_objects_of_sopa_name_their_image_and_transcripts(name):
    """Its readers do in the attributes, which tells one of several; a name that is gone, or none, says nothing."""
    image = Image2DModel.parse(np.zeros((1, 4, 4), np.uint8), dims=("c", "y", "x"))
    points = PointsModel.parse(pd.DataFrame({"x": [1.0], "y": [1.0], "gene": ["a"]}), feature_key="gene")
    names = {} if name is None else {"cell_segmentation_image": name, "transcripts_dataframe": name}
    sdata = sd.SpatialData(images={"a": image, "b": image}, attrs=names)
    other = sd.SpatialData(points={"a": points, "b": points}, attrs=names)
    for choose, among in ((choose_image, sdata), (choose_points, other)):
        if name == "b":
            assert choose(among, None) == "b"
        else:
            with pytest.raises(KeyMissingError, match="Several could be"):
                choose(among, None)
        assert choose(among, "a") == "a"
    fields = sd.SpatialData(points={"1_p": points, "2_p": points}, attrs={"transcripts_dataframe": "2_p"})
    assert choose_points(fields, None) == "2_p"
    assert choose_points(fields, None, beside="1_i") == "1_p"


def test_all_fields_of_view_in_one_call(tmp_path: Path) -> None:
    """Of CosMx, which lie apart on this stage, and regions of seqFISH, each in a coordinate system of its own."""
    tissues = {fov: vendors.make_tissue(seed=fov) for fov in (1, 2, 10)}
    vendors.write_cosmx(tmp_path / "cosmx", tissues)
    for roi in ("Roi1", "Roi2"):
        vendors.write_seqfish(tmp_path / "seqfish", TISSUE, roi)
    fields = {"cosmx": ["1", "2", "10"], "seqfish": ["Roi1", "Roi2"]}
    for name, reader in (("cosmx", spatialdata_io.cosmx), ("seqfish", spatialdata_io.seqfish)):
        sdata = stored(reader, tmp_path / name)
        for unit in (None, "micron"):
            sslcst.tl.segment(sdata, fields="all", unit=unit, key_added=f"in_{unit}")
            table = sdata[f"in_{unit}_table"]
            assert table.obs["fov"].cat.categories.tolist() == fields[name]
            assert table.obs_names.is_unique
            assert table.obs["fov"].value_counts().min() > 10
            for field in fields[name]:
                frame = sslcst.tl.quality(sdata, key=f"in_{unit}_{field}")
                own = table[table.obs["fov"] == field].obs
                assert frame["n_counts"].tolist() == own["n_counts"].tolist()
                sslcst.pl.segmentation(sdata, key=f"in_{unit}_{field}")
    one, other = (np.sort(table.obs["area"][table.obs["fov"] == roi]) for roi in fields["seqfish"])
    np.testing.assert_allclose(one, other, rtol=0.05)  # twice one tissue, on other places of a network's grid
