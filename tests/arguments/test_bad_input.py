"""Whatever is wrong with the input: a clear error before anything is written, or a result that is right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale, set_transformation
from store_files import files_of

import sslcst
from sslcst.errors import BackendError, DataError, KeyMissingError, ParameterError, StoreError, TrainingError

QUICK = {  # of "ssl-cst"
    "encoder": {"width": 8, "depth": 1, "hidden": (8,)},
    "training": {"max_epochs": 1, "min_steps": 1},
    "sampling": {"max_samples": 100},
    "inputs": {"n_neighbors": 6},
}


SIDE = 60


def discs(*centers, radius=7):
    """Labels 1, 2, ... of discs on a field of SIDE x SIDE pixels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint32)
    for number, (row, column) in enumerate(centers, 1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    return labels


def transcripts(n=1500, genes=6, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.uniform(0, SIDE, (n, 2)), columns=["x", "y"])
    return frame.assign(gene=[f"g{i}" for i in rng.integers(0, genes, n)])


def points(frame, **kwargs):
    frame = frame.assign(gene=frame["gene"].astype("category")) if "gene" in frame else frame
    return PointsModel.parse(frame, npartitions=1, transformations={"global": Identity()}, **kwargs)


def raster(model, array, dims, **kwargs):
    return model.parse(array, dims=dims, transformations={"global": Identity()}, **kwargs)


@pytest.fixture
def sdata():
    labels = discs((15, 15), (40, 20), (25, 45))
    stain = (np.random.default_rng(0).normal(100, 5, labels.shape) + 800 * (labels > 0)).astype(np.uint16)
    return sd.SpatialData.init_from_elements(
        {
            "stain": raster(Image2DModel, stain[None], ("c", "y", "x")),
            "nuclei": raster(Labels2DModel, labels, ("y", "x")),
            "transcripts": points(transcripts(), feature_key="gene"),
        }
    )


def replace(sdata, **elements):
    for name, element in elements.items():
        del sdata[name]
        sdata[name] = element


def check_result(sdata):
    """What holds of every result."""
    cells, nuclei = (sdata.labels[f"sslcst_{name}"].to_numpy() for name in ("cells", "nuclei"))
    table = sdata["sslcst_table"]
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
    assert table.obs["cell_id"].tolist() == np.unique(cells[cells > 0]).tolist()
    assert (table.X - table.layers["nuclear"]).min() >= 0


# --- refused ---------------------------------------------------------------------------------------------------------


def no_transcripts(sdata):
    replace(sdata, transcripts=points(transcripts().iloc[:0], feature_key="gene"))


def nan_coordinate(sdata):
    replace(sdata, transcripts=points(transcripts().assign(x=lambda t: t["x"].where(t.index != 3)), feature_key="gene"))


def all_off_the_image(sdata):
    replace(sdata, transcripts=points(transcripts().assign(x=lambda t: t["x"] - 1000), feature_key="gene"))


def half_a_count(sdata):
    replace(sdata, transcripts=points(transcripts().assign(count=0.5), feature_key="gene"))


def negative_count(sdata):
    replace(sdata, transcripts=points(transcripts().assign(count=-1), feature_key="gene"))


def gene_missing(sdata):
    frame = transcripts()
    frame.loc[5, "gene"] = None
    replace(sdata, transcripts=points(frame, feature_key="gene"))


def no_gene_column(sdata):
    replace(sdata, transcripts=points(transcripts().rename(columns={"gene": "what"})))


def no_nuclei(sdata):
    replace(sdata, nuclei=raster(Labels2DModel, discs(), ("y", "x")))


def every_transcript_in_a_nucleus(sdata):
    replace(sdata, nuclei=raster(Labels2DModel, np.ones((SIDE, SIDE), np.uint32), ("y", "x")))


def no_transcript_in_a_nucleus(sdata):
    frame = transcripts()
    inside = sdata["nuclei"].to_numpy()[frame["y"].astype(int), frame["x"].astype(int)] > 0
    replace(sdata, transcripts=points(frame[~inside].reset_index(drop=True), feature_key="gene"))


def fractional_labels(sdata):
    sdata["nuclei"].data = sdata["nuclei"].data.astype(np.float32)  # as labels, spatialdata 0.8 does not take them


def no_common_system(sdata):
    set_transformation(sdata["transcripts"], {"elsewhere": Identity()}, set_all=True)


def flat_transformation(sdata):
    set_transformation(sdata["nuclei"], Scale([0.0, 1.0], ("x", "y")), "global")


REFUSED = [
    (no_transcripts, {}, DataError, "'transcripts' are empty"),
    (nan_coordinate, {}, DataError, "'transcripts' have 1 rows with NaN"),
    (all_off_the_image, {}, DataError, "None of the 1500 transcripts"),
    (half_a_count, {}, DataError, "'count' of points 'transcripts' must hold counts"),
    (negative_count, {}, DataError, "'count' of points 'transcripts' must hold counts"),
    (gene_missing, {}, DataError, "'transcripts' have 1 rows without a gene"),
    (no_gene_column, {}, KeyMissingError, "gene_key=.*'what'"),
    (
        None,
        {"gene_key": "Gene"},
        KeyMissingError,
        "no gene column of points 'transcripts' named 'Gene'; there are: 'gene'",
    ),
    (None, {"count_key": "n"}, KeyMissingError, "no column 'n'"),
    (no_nuclei, {}, DataError, "no nuclei in 'nuclei'"),
    (None, {"nuclei_key": "cells"}, KeyMissingError, "no labels or shapes element 'cells'; there are: 'nuclei'"),
    (None, {"points_key": "spots"}, KeyMissingError, "no points element 'spots'; there are: 'transcripts'"),
    (None, {"nuclei_key": None, "image_key": "dapi"}, KeyMissingError, "no image 'dapi'; there are: 'stain'"),
    (None, {"nuclei_key": None, "channel": "DAPI"}, KeyMissingError, "no channel of image 'stain' named 'DAPI'"),
    (every_transcript_in_a_nucleus, {}, DataError, "no negative sample"),
    (no_transcript_in_a_nucleus, {}, DataError, "No transcript lies in the core of a nucleus"),
    (fractional_labels, {}, DataError, "'nuclei' are float32: they must be integers"),
    (no_common_system, {}, KeyMissingError, "'elsewhere'.*share no coordinate system"),
    (None, {"coordinate_system": "micron"}, KeyMissingError, "'micron'; there are: 'global'"),
    (flat_transformation, {}, DataError, "'nuclei' to 'global' cannot be inverted"),
    (None, {"params": {"trainin": {}}}, ParameterError, "no such section"),
    (None, {"params": {"training": {"epochs": 3}}}, ParameterError, "no such parameter"),
    (None, {"params": {"training": {"batch_size": 0}}}, ParameterError, "must be above 0"),
    (None, {"params": {"training": {"batch_size": "many"}}}, ParameterError, "must be of type int"),
    (None, {"seed": -1}, ParameterError, "seed=-1"),
    (None, {"device": "cuda:7"}, BackendError, "no GPU"),
]


@pytest.mark.parametrize(("spoil", "arguments", "error", "message"), REFUSED)
def test_refused_with_the_element_named_and_nothing_written(sdata, tmp_path, spoil, arguments, error, message):
    if spoil:
        spoil(sdata)
    if "fractional" in message or spoil is fractional_labels:
        store = None  # spatialdata itself cannot write these
    else:
        sdata.write(tmp_path / "a.zarr")
        store, sdata = tmp_path / "a.zarr", sd.read_zarr(tmp_path / "a.zarr")
        before = files_of(store)
    elements = set(sdata._shared_keys)
    with pytest.raises(error, match=message):
        sslcst.tl.segment(sdata, **({"nuclei_key": "nuclei", "method": "ssl-cst", "params": QUICK} | arguments))
    assert set(sdata._shared_keys) == elements
    if store:
        assert files_of(store) == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_is_refused(sdata, value):
    replace(sdata, stain=raster(Image2DModel, np.full((1, SIDE, SIDE), value, np.uint16), ("c", "y", "x")))
    with pytest.raises(DataError, match="no contrast"):
        sslcst.tl.segment(sdata)


def test_several_images_must_be_chosen_from(sdata):
    sdata["other"] = sdata["stain"]
    with pytest.raises(KeyMissingError, match=r"choose with image_key=; there are: 'stain', 'other'"):
        sslcst.tl.segment(sdata)


def test_several_channels_must_be_chosen_from(sdata):
    two = np.concatenate([sdata["stain"].to_numpy()] * 2)
    replace(sdata, stain=raster(Image2DModel, two, ("c", "y", "x"), c_coords=["a", "b"]))
    with pytest.raises(KeyMissingError, match=r"choose with channel=; there are: 'a', 'b'"):
        sslcst.tl.segment(sdata)
    sslcst.tl.segment(sdata, channel="b")
    check_result(sdata)


@pytest.mark.parametrize("name", ["sslcst_nuclei", "sslcst_cells"])
def test_an_existing_result_is_not_replaced_unasked(sdata, name):
    sdata[name] = sdata["nuclei"]
    with pytest.raises(KeyMissingError, match=f"'{name}' exists.*overwrite=True"):
        sslcst.tl.segment(sdata, nuclei_key="nuclei")
    sslcst.tl.segment(sdata, nuclei_key="nuclei", overwrite=True)
    check_result(sdata)


def test_an_element_of_another_kind_is_never_replaced(sdata):
    sdata["sslcst_cells"] = sdata["stain"]
    with pytest.raises(KeyMissingError, match="none of ours"):
        sslcst.tl.segment(sdata, nuclei_key="nuclei", overwrite=True)


def test_a_store_that_cannot_be_written_is_refused_before_any_work(sdata, tmp_path, monkeypatch):
    sdata.write(tmp_path / "a.zarr")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write even where the rights forbid it
    monkeypatch.setattr("sslcst.pp.import_nuclei", lambda *args, **kwargs: pytest.fail("work began"))
    with pytest.raises(StoreError, match=r"a\.zarr cannot be written to"):
        sslcst.tl.segment(sdata, nuclei_key="nuclei")


@pytest.mark.parametrize("kind", ["spot", "field"])
def test_a_loss_that_is_not_a_number_leaves_the_store_as_it_was(sdata, tmp_path, kind):
    sdata.write(tmp_path / "run.zarr")
    before = files_of(tmp_path)
    params = QUICK | {"encoder": QUICK["encoder"] | {"kind": kind}}
    params |= {"training": {"max_epochs": 3, "min_steps": 3, "warm_up": 1, "learning_rate": 1e30}}
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "run.zarr"), nuclei_key="nuclei", method="ssl-cst", params=params)
    assert files_of(tmp_path) == before


def test_stages_say_what_they_miss(sdata):
    with pytest.raises(KeyMissingError, match="no labels element 'sslcst_nuclei'"):
        sslcst.pp.erode_nuclei(sdata)
    with pytest.raises(KeyMissingError, match="no table of spots 'sslcst_spots'"):
        sslcst.tl.train(sdata)
    sslcst.pp.import_nuclei(sdata, "nuclei")
    sslcst.pp.bin_spots(sdata)
    with pytest.raises(KeyMissingError, match=r"no predictions: run sslcst\.tl\.predict"):
        sslcst.tl.track(sdata, sslcst.tl.train(sdata))


@pytest.mark.parametrize(("method", "params"), [("density", {}), ("ssl-cst", QUICK)])
def test_a_model_of_other_bins_is_refused(sdata, method, params):
    sslcst.pp.import_nuclei(sdata, "nuclei")
    sslcst.pp.bin_spots(sdata)
    model = sslcst.tl.train(sdata, method=method, params=params)
    with pytest.raises(DataError, match=r"set spots\.bin_size=1"):
        sslcst.tl.segment(
            sdata, nuclei_key="nuclei", method=method, model=model, params={"spots": {"bin_size": 2.0}}, overwrite=True
        )


# --- unusual but right -----------------------------------------------------------------------------------------------


def one_nucleus(sdata):
    replace(sdata, nuclei=raster(Labels2DModel, discs((30, 30)), ("y", "x")))


def one_gene(sdata):
    replace(sdata, transcripts=points(transcripts(genes=1), feature_key="gene"))


def few_transcripts(sdata):
    """Fewer than a spot wants neighbours."""
    frame = pd.DataFrame(
        {"x": [15.5, 16.5, 20.5, 45.5, 3.5], "y": [15.5, 14.5, 40.5, 25.5, 55.5], "gene": list("abcab")}
    )
    replace(sdata, transcripts=points(frame, feature_key="gene"))


def negative_coordinates(sdata):
    frame = pd.concat([transcripts(), transcripts(50, seed=1).assign(x=lambda t: -t["x"] - 1)], ignore_index=True)
    replace(sdata, transcripts=points(frame, feature_key="gene"))


def no_far_spot(sdata):
    """Nuclei so dense that nothing is far from all: the farthest serve as negative samples."""
    centers = [(row, column) for row in range(6, SIDE, 12) for column in range(6, SIDE, 12)]
    replace(sdata, nuclei=raster(Labels2DModel, discs(*centers, radius=4), ("y", "x")))


def large_ids(sdata):
    labels = discs((15, 15), (40, 20), (25, 45)).astype(np.int64)
    replace(sdata, nuclei=raster(Labels2DModel, np.array([0, 70_000, 5, 4_000_000_000])[labels], ("y", "x")))


def systems_without_global(sdata):
    """Several coordinate systems of other names, of which the two elements share one."""
    set_transformation(sdata["nuclei"], {"tissue": Identity(), "slide": Identity()}, set_all=True)
    set_transformation(sdata["transcripts"], {"tissue": Identity(), "other": Identity()}, set_all=True)


def nucleus_without_transcripts(sdata):
    frame = transcripts()
    near = np.hypot(frame["x"] - 45, frame["y"] - 25) < 15
    replace(sdata, transcripts=points(frame[~near].reset_index(drop=True), feature_key="gene"))


@pytest.mark.parametrize(
    "spoil",
    [
        one_nucleus,
        one_gene,
        few_transcripts,
        negative_coordinates,
        no_far_spot,
        large_ids,
        systems_without_global,
        nucleus_without_transcripts,
    ],
)
def test_unusual_input_gives_a_right_result(sdata, tmp_path, spoil):
    spoil(sdata)
    sdata.write(tmp_path / "a.zarr")
    sslcst.tl.segment(sdata, nuclei_key="nuclei")
    check_result(sdata)
    check_result(sd.read_zarr(tmp_path / "a.zarr"))
    assert sdata["sslcst_table"].n_obs == len(np.unique(sdata["nuclei"].to_numpy())) - 1


def test_more_cells_than_16_bits_count(tmp_path):
    """66,049 nuclei of 3 x 3 pixels."""
    side = 257 * 5
    nuclei = np.zeros((side, side), np.uint32)
    ids = np.arange(1, 257**2 + 1, dtype=np.uint32).reshape(257, 257)
    for row in (1, 2, 3):
        for column in (1, 2, 3):
            nuclei[row::5, column::5] = ids
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(0, side, (20_000, 2)), columns=["x", "y"]).assign(gene="a")
    frame.loc[0, ["x", "y"]] = side - 2.5  # in the last nucleus
    sdata = sd.SpatialData.init_from_elements(
        {"nuclei": raster(Labels2DModel, nuclei, ("y", "x")), "transcripts": points(frame, feature_key="gene")}
    )
    sslcst.tl.segment(sdata, nuclei_key="nuclei")
    check_result(sdata)
    table = sdata["sslcst_table"]
    assert table.n_obs == 257**2
    assert table.obs["cell_id"].iloc[-1] == 257**2
    assert table.X[-1].sum() >= 1
