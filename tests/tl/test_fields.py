"""Fields of view and samples of one object, segmented as one: one model, one table, cells whole over the seams."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy.ndimage import binary_dilation
from skimage.measure import label
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale, Sequence, Translation, get_transformation, set_transformation
from stopped_runs import COMMIT, beside, exit_code
from tiny_chips import chip

import sslcst
from sslcst.errors import DataError, KeyMissingError, ParameterError

PIXEL = 0.5
DENSITY = {"tiles": {"size": 64, "block": 32}}


def cut(whole: sd.SpatialData, rows: list[int], columns: list[int], *, overlap: int = 0) -> sd.SpatialData:
    """Fields "1", "2", ... between these edges, in pixels, at their positions on the stage; labels of their own ids."""
    stain, nuclei = whole["stain"].to_numpy(), whole["true_nuclei"].to_numpy()
    frame = whole["transcripts"].compute()
    frame[["y", "x"]] /= PIXEL
    elements, n = {}, 0
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            n += 1
            part = np.s_[top : bottom + overlap, left : right + overlap]
            height, width = nuclei[part].shape
            on = frame.query("@top <= y < @top + @height and @left <= x < @left + @width").reset_index(drop=True)
            on[["y", "x"]] -= (top, left)
            place = Sequence([Translation([top, left], axes=("y", "x")), Scale([PIXEL, PIXEL], axes=("y", "x"))])
            systems = {"transformations": {f"{n}": Identity(), "global": place}}
            own = np.unique(nuclei[part], return_inverse=True)[1].reshape(height, width).astype(np.uint32)
            elements[f"{n}_stain"] = Image2DModel.parse(stain[:, *part], dims=("c", "y", "x"), **systems)
            elements[f"{n}_nuclei"] = Labels2DModel.parse(own, dims=("y", "x"), **systems)
            elements[f"{n}_points"] = PointsModel.parse(on, feature_key="gene", **systems)
    return sd.SpatialData.init_from_elements(elements)


def together(sdata: sd.SpatialData, shape: tuple[int, int], kind: str = "cells", key: str = "sslcst") -> np.ndarray:
    """The labels of all fields, each in its place."""
    out = np.zeros(shape, np.uint32)
    for name in (name for name in sdata.labels if name.startswith(f"{key}_") and name.endswith(f"_{kind}")):
        matrix = sd.transformations.get_transformation(sdata[name]).to_affine_matrix(("y", "x"), ("y", "x"))
        top, left = np.rint(matrix[:2, 2] / PIXEL).astype(int)
        labels = sdata[name].to_numpy()
        out[top : top + len(labels), left : left + labels.shape[1]] = labels
    return out


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two label images tell the same pixels together."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs)


def _check_nearly(one: np.ndarray, other: np.ndarray) -> None:
    """See that the cells of two label images are the same but for a few pixels."""
    pairs, n = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1, return_counts=True)
    most = np.zeros(other.max() + 1, int)
    np.maximum.at(most, pairs[1], n)
    assert most.sum() > 0.97 * one.size
    assert np.unique(one).size == np.unique(other).size


@pytest.mark.parametrize("overlap", [0, 7])
@pytest.mark.parametrize("stained", [False, True])
def test_a_tissue_cut_into_fields_gives_the_cells_of_the_whole(overlap, stained):
    whole = chip()
    height, width = whole["true_nuclei"].shape
    fields = cut(whole, [0, 50, height], [0, 61, width], overlap=overlap)
    keys = {
        "method": "density",
        "params": DENSITY | ({"nuclei": {"method": "watershed", "diameters": [4]}} if stained else {}),
    }
    sslcst.tl.segment(whole, **keys, nuclei_key=None if stained else "true_nuclei")
    sslcst.tl.segment(fields, **keys, fields="all", nuclei_key=None if stained else "nuclei")
    assert same_partition(together(fields, (height, width), "nuclei"), whole["sslcst_nuclei"].to_numpy())
    if not stained:  # a bin between two nuclei goes to that of the lesser id, and these differ
        _check_nearly(together(fields, (height, width)), whole["sslcst_cells"].to_numpy())
        return
    assert same_partition(together(fields, (height, width)), whole["sslcst_cells"].to_numpy())
    one, other = fields["sslcst_table"], whole["sslcst_table"]
    assert len(one) == len(other)
    order, same = (np.lexsort(table.obsm["spatial"].T) for table in (one, other))
    np.testing.assert_allclose(one.obsm["spatial"][order], other.obsm["spatial"][same])
    genes = other.var_names.intersection(one.var_names)
    assert (one[order, genes].X != other[same, genes].X).nnz == 0
    for name in ("area", "nucleus_area", "n_counts", "n_spots", "touches_border"):
        assert one.obs[name].to_numpy()[order].tolist() == other.obs[name].to_numpy()[same].tolist()
    assert one.obs["fov"].cat.categories.tolist() == ["1", "2", "3", "4"]
    assert one.uns["sslcst"]["total_counts"] == other.uns["sslcst"]["total_counts"]


@pytest.fixture
def fields() -> sd.SpatialData:
    """Two fields that adjoin, segmented."""
    sdata = cut(chip(n_cells=60), [0, 96], [0, 48, 96])
    sslcst.tl.segment(sdata, fields="all", nuclei_key="nuclei", shapes=True, assign_points=True)
    return sdata


def test_each_field_is_looked_at_by_its_key(fields, tmp_path):
    table = fields["sslcst_table"]
    for field in "12":
        key = f"sslcst_{field}"
        own = table[table.obs["fov"] == field]
        assert set(own.obs["region"]) == {f"{key}_cells"}
        frame = sslcst.tl.quality(fields, key=key)
        assert set(own.obs["cell_id"]) <= set(frame.index) <= set(table.obs["cell_id"])
        sslcst.pl.segmentation(fields, key=key, color="n_counts")
        sslcst.io.write_geojson(fields, tmp_path / f"{field}.geojson", key=key)
        sslcst.report.write_report(fields, tmp_path / f"{field}.html", key=key)
        assert f"{field}_stain" in (tmp_path / f"{field}.html").read_text()
        assert sorted(fields[f"{key}_boundaries"].index) == sorted(own.obs["cell_id"])
        points = fields[f"{key}_transcripts"].compute()
        assert len(points) == len(fields[f"{field}_points"])
    whole = pd.concat([fields[f"sslcst_{field}_transcripts"].compute() for field in "12"])
    n_counts = whole["cell_id"].value_counts().reindex(table.obs["cell_id"], fill_value=0)
    assert n_counts.tolist() == table.obs["n_counts"].tolist()


@pytest.mark.parametrize(
    "look",
    [
        lambda sdata, path: sslcst.tl.quality(sdata),
        lambda sdata, path: sslcst.pl.segmentation(sdata),
        lambda sdata, path: sslcst.report.write_report(sdata, path / "a.html"),
        lambda sdata, path: sslcst.io.write_geojson(sdata, path / "a.geojson"),
    ],
)
def test_what_looks_at_one_field_lists_them(fields, tmp_path, look):
    with pytest.raises(KeyMissingError, match=r"key='sslcst' is a run of several fields: .*'sslcst_1', 'sslcst_2'"):
        look(fields, tmp_path)


def test_what_is_of_all_fields_takes_the_run(fields):
    assert sslcst.io.read_model(fields).levels == sslcst.io.read_model(fields, key="sslcst_2").levels
    sslcst.tl.intensities(fields)
    assert fields["sslcst_table"].obsm["intensities"].notna().all(axis=None)
    for element, kind in (("boundaries", "shapes"), ("cells", "labels")):
        sslcst.tl.annotate(fields, element)
        regions = fields["sslcst_table"].uns["spatialdata_attrs"]["region"]
        assert regions == [f"sslcst_1_{element}", f"sslcst_2_{element}"]
        assert set(fields["sslcst_table"].obs["region"]) == set(regions)
        assert all(region in getattr(fields, kind) for region in regions)


@pytest.mark.parametrize("of_all", [sslcst.tl.intensities, sslcst.tl.annotate])
def test_the_key_of_one_field_is_told_where_all_are_taken(fields, of_all):
    with pytest.raises(KeyMissingError, match="key='sslcst_2' is one field of a run: give key='sslcst'"):
        of_all(fields, key="sslcst_2")


def test_a_field_without_cells_has_no_boundaries(tmp_path, caplog):
    """Shapes cannot be empty; all else is there, and the same call finds it done."""
    sdata = cut(chip(n_cells=60), [0, 96], [0, 48, 96])
    nuclei = sdata["2_nuclei"]
    sdata["2_nuclei"] = nuclei.copy(data=nuclei.data * 0)
    sdata.write(tmp_path / "run.zarr")
    sdata = sd.read_zarr(tmp_path / "run.zarr")
    keys = {"fields": "all", "nuclei_key": "nuclei", "shapes": True, "assign_points": True}
    sslcst.tl.segment(sdata, **keys)
    again = sd.read_zarr(tmp_path / "run.zarr")
    with caplog.at_level("INFO", "sslcst"):
        sslcst.tl.segment(again, **keys)
    assert "nothing is left to do" in caplog.text
    for found in (sdata, again, sd.read_zarr(tmp_path / "run.zarr")):
        assert list(found.shapes) == ["sslcst_1_boundaries"]
        assert len(found["sslcst_2_transcripts"]) == len(found["2_points"])
        assert found["sslcst_table"].obs["fov"].value_counts().to_dict() == {"1": 33, "2": 0}
        assert "sslcst_2_boundaries" not in found["sslcst_table"].uns["sslcst"]["results"]
        sslcst.tl.annotate(found)
        assert found["sslcst_table"].uns["spatialdata_attrs"]["region"] == "sslcst_1_boundaries"
    sslcst.tl.segment(again, **keys, overwrite=True)


def test_lengths_of_fields_in_microns(tmp_path):
    """As those of a system that is in microns already."""
    one, other = (cut(chip(n_cells=60), [0, 96], [0, 48, 96]) for _ in range(2))
    keys = {"fields": "all", "nuclei_key": "nuclei", "shapes": True}
    sslcst.tl.segment(one, **keys)
    sslcst.tl.segment(other, **keys, unit="micron", pixel_size=PIXEL)
    ours, theirs = other["sslcst_table"], one["sslcst_table"]
    np.testing.assert_allclose(ours.obsm["spatial"], theirs.obsm["spatial"])
    np.testing.assert_allclose(ours.obs["area"], theirs.obs["area"])
    assert "micron" in get_transformation(other["sslcst_2_boundaries"], get_all=True)
    pd.testing.assert_frame_equal(*(sslcst.tl.quality(sdata, key="sslcst_2") for sdata in (one, other)))
    sslcst.report.write_report(other, tmp_path / "a.html", key="sslcst_2")


@pytest.mark.parametrize("overlap", [0, 7])
def test_cells_in_the_stain_of_fields_are_those_of_the_whole(overlap, monkeypatch, tmp_path):
    """Cells over a seam are one, of channels by their names."""

    def load(params, *, device):
        return lambda image, diameter: label(image[0] > 0.5)

    monkeypatch.setattr("sslcst.core.nuclei.cellpose.load", load)
    whole = chip(n_cells=60)
    nuclei = whole["true_nuclei"].to_numpy() > 0
    channels = np.stack([200 * nuclei, 150 * binary_dilation(nuclei)]).astype(np.uint8)
    del whole.images["stain"]
    where = get_transformation(whole["true_nuclei"], get_all=True)
    names = ["DAPI", "membrane"]
    whole["stain"] = Image2DModel.parse(channels, dims=("c", "y", "x"), c_coords=names, transformations=where)
    fields = cut(whole, [0, 96], [0, 48, 96], overlap=overlap)
    for field in "12":
        fields[f"{field}_stain"] = fields[f"{field}_stain"].assign_coords(c=names)
    params = {"nuclei": {"method": "watershed", "diameters": [4]}, "stain": {"method": "cellpose", "diameters": [6]}}
    sslcst.tl.segment(whole, method="stain", params=params)
    sslcst.tl.segment(fields, method="stain", params=params, fields="all")
    assert same_partition(together(fields, nuclei.shape), whole["sslcst_cells"].to_numpy())
    of_cell = [
        table.obs["n_nuclei"].sort_values().tolist() for table in (fields["sslcst_table"], whole["sslcst_table"])
    ]
    assert of_cell[0] == of_cell[1]
    assert fields["sslcst_table"].uns["sslcst"]["fields"]["2"]["channels"] == "membrane\nDAPI"
    sslcst.pl.segmentation(fields, key="sslcst_2")
    sslcst.report.write_report(fields, tmp_path / "a.html", key="sslcst_2")


@pytest.mark.parametrize("bare", "12")
def test_fields_of_which_one_has_no_image_are_told(bare):
    """Given cells of all would else have nuclei in some fields alone."""
    sdata = cut(chip(n_cells=60), [0, 96], [0, 48, 96])
    del sdata.images[f"{bare}_stain"]
    for of_keys in (sslcst.tl.plan, sslcst.tl.segment):
        with pytest.raises(KeyMissingError, match=f"Field '{bare}' has no image to find nuclei in, as others have"):
            of_keys(sdata, fields="all", cells_key="nuclei")
    assert sslcst.tl.plan(sdata, fields="all", cells_key="nuclei", nuclei_key="nuclei").n_transcripts > 0


def test_samples_that_were_concatenated():
    samples = {name: sd.deepcopy(chip(seed, n_cells=60)) for seed, name in enumerate(("old", "young-1"))}
    sdata = sd.concatenate(samples, concatenate_tables=False)
    for _, _, element in [*sdata.gen_spatial_elements()]:  # which lie in another system too
        [(system, own)] = get_transformation(element, get_all=True).items()
        set_transformation(element, own, system.replace("global", "slide"))
    sslcst.tl.segment(sdata, fields="all", nuclei_key="true_nuclei")
    table = sdata["sslcst_table"]
    assert table.obs_names.is_unique
    assert table.obs["sample"].value_counts().to_dict() == dict(old=60, **{"young-1": 60})
    assert set(table.obs["region"]) == {"sslcst_old_cells", "sslcst_young-1_cells"}
    assert "fov" not in table.obs


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ("3", KeyMissingError, r"no field '3'; there are: '1', '2'"),
        (np.array(["1", "3"]), KeyMissingError, r"no field '3'; there are: '1', '2'"),
        ([], ParameterError, r"name each field once; there are: '1', '2'"),
        (["1", "1"], ParameterError, r"name each field once; there are: '1', '2'"),
    ],
)
def test_fields_that_are_not_there(fields, error, says):
    with pytest.raises(error, match=says):
        sslcst.tl.segment(cut(chip(n_cells=60), [0, 96], [0, 48, 96]), fields=fields)


def test_keys_are_given_without_the_field():
    with pytest.raises(KeyMissingError, match=r"There are no fields.*without what the fields add to them \('image'\)"):
        sslcst.tl.segment(cut(chip(n_cells=60), [0, 96], [0, 48, 96]), fields="all", image_key="1_stain")


def test_an_image_without_points_is_left_out(caplog):
    sdata = cut(chip(n_cells=60), [0, 96], [0, 48, 96])
    del sdata.points["2_points"]
    with caplog.at_level("INFO", "sslcst"):
        sslcst.tl.segment(sdata, fields="all", nuclei_key="nuclei")
    assert "left out: '2_stain'" in caplog.text
    assert set(sdata["sslcst_table"].obs["fov"]) == {"1"}


def test_a_mask_of_nuclei_is_told_of_fields_too():
    sdata = cut(chip(n_cells=60), [0, 96], [0, 48, 96])
    for field in "12":
        sdata[f"{field}_nuclei"].data = (sdata[f"{field}_nuclei"].data > 0).astype(np.uint8)
    with pytest.raises(DataError, match=r"Labels '1_nuclei' hold one id for .* pieces"):
        sslcst.tl.segment(sdata, fields="all", nuclei_key="nuclei")


def test_one_image_has_no_fields():
    with pytest.raises(KeyMissingError, match="There are no fields"):
        sslcst.tl.segment(chip(n_cells=60), fields="all")


def test_a_region_goes_with_one_field():
    with pytest.raises(ParameterError, match=r"region.*leave out fields"):
        sslcst.tl.segment(cut(chip(n_cells=60), [0, 96], [0, 48, 96]), fields="all", region=(0, 0, 9, 9))


@pytest.fixture
def stored_fields(tmp_path) -> sd.SpatialData:
    """Two fields in a store."""
    cut(chip(n_cells=60), [0, 96], [0, 48, 96]).write(tmp_path / "run.zarr")
    return sd.read_zarr(tmp_path / "run.zarr")


def test_a_run_of_fields_gives_way_as_a_whole(stored_fields, caplog):
    sdata, n_before = stored_fields, len(stored_fields.labels)
    keys = {"fields": "all", "nuclei_key": "nuclei"}
    sslcst.tl.segment(sdata, **keys, shapes=True)
    again = sd.read_zarr(sdata.path)
    with caplog.at_level("INFO", "sslcst"):
        sslcst.tl.segment(again, **keys, shapes=True)
    assert "nothing is left to do" in caplog.text
    with pytest.raises(KeyMissingError, match="exists: choose another key_added, or overwrite=True"):
        sslcst.tl.segment(again, fields="1", nuclei_key="nuclei")
    sslcst.tl.segment(again, fields="1", nuclei_key="nuclei", overwrite=True)
    for found in (again, sd.read_zarr(sdata.path)):
        assert len(found.labels) == n_before + 2
        assert not found.shapes
    sslcst.tl.segment(again, nuclei_key="2_nuclei", overwrite=True)
    assert len(sd.read_zarr(sdata.path).labels) == n_before + 2


def test_a_field_of_a_run_does_not_give_way_to_another(fields):
    """Whose prefix is the name of the field; nor the other way round."""
    one = {"nuclei_key": "1_nuclei", "points_key": "1_points", "overwrite": True}
    every = {"fields": "all", "nuclei_key": "nuclei", "overwrite": True}
    sslcst.tl.segment(fields, **every)
    before = fields["sslcst_1_cells"].to_numpy()
    with pytest.raises(KeyMissingError, match="'sslcst_1_cells' is a result of the run of 'sslcst_table'"):
        sslcst.tl.segment(fields, **one, key_added="sslcst_1")
    np.testing.assert_array_equal(fields["sslcst_1_cells"], before)
    sslcst.tl.segment(fields, **one, key_added="other_1")
    with pytest.raises(KeyMissingError, match="'other_1_cells' is a result of the run of 'other_1_table'"):
        sslcst.tl.segment(fields, **every, key_added="other")


def test_results_of_fields_are_taken_as_nuclei(fields):
    sslcst.tl.segment(fields, fields="all", nuclei_key="sslcst_nuclei", overwrite=True)
    assert fields["sslcst_table"].uns["sslcst"]["fields"]["2"]["nuclei_key"] == "sslcst_2_nuclei"


@pytest.mark.parametrize("whole", [{"cells_key": "nuclei"}, {"cells_key": "nuclei", "nuclei_key": "nuclei"}])
def test_whole_cells_that_are_given_are_joined_too(fields, whole):
    sslcst.tl.segment(fields, fields="all", **whole, key_added="given")
    assert len(fields["given_table"]) == len(fields["sslcst_table"])
    assert fields["given_table"].obs["n_nuclei"].median() == 1


def test_a_killed_run_of_fields_goes_on(stored_fields, tmp_path):
    keys = {"fields": "all", "nuclei_key": "nuclei"}
    names = sorted(name for _, name, _ in stored_fields.gen_elements())
    assert exit_code(tmp_path / "run.zarr", *COMMIT, **keys) == -9
    found = sd.read_zarr(tmp_path / "run.zarr")
    assert sorted(name for _, name, _ in found.gen_elements()) == names
    assert exit_code(tmp_path / "run.zarr", **keys) == 0
    found = sd.read_zarr(tmp_path / "run.zarr")
    assert set(found["sslcst_table"].obs["fov"]) == {"1", "2"}
    assert {"sslcst_1_cells", "sslcst_2_boundaries", "sslcst_2_transcripts"} <= {
        name for _, name, _ in found.gen_elements()
    }
    assert [*beside(tmp_path / "run.zarr")] == []
