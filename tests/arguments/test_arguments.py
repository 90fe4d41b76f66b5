"""Whatever a public function is given: our own error, that says what was expected, before any work.

Each argument of each function is tried with each kind of object that lies about where one works: those of this package,
of spatialdata, anndata, numpy, pandas, and plain ones. Those that fit are left out here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from anndata import AnnData
from matplotlib import pyplot as plt
from scipy import sparse
from spatialdata.models import ShapesModel

import sslcst
from sslcst._arguments import checked
from sslcst.device import choose_device
from sslcst.errors import BackendError, KeyMissingError, ParameterError, SslcstError
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.model import Epoch, Model
from sslcst.methods.ssl_cst.params import EncoderParams, TrainingParams
from sslcst.params import Params

matplotlib.use("agg")
ROOMS = ("datasets", "io", "metrics", "pl", "pp", "report", "tl")
FUNCTIONS = {
    f"{room}.{name}": getattr(import_module(f"sslcst.{room}"), name)
    for room in ROOMS
    for name in import_module(f"sslcst.{room}").__all__
    if inspect.isfunction(getattr(import_module(f"sslcst.{room}"), name))
}
TINY = EncoderParams(width=8, depth=1, hidden=(8,))
MODEL = Model(
    encoder=make_encoder(2, TINY),
    encoder_params=TINY,
    genes=("a", "b"),
    bin_size=1.0,
    radius=6.0,
    n_neighbors=6,
    window=2,
    seed=0,
    n_samples=9,
    history=(Epoch(0, 1.0, 1.0, 0.5, 0.5),),
)


@pytest.fixture(scope="module")
def tissue() -> sd.SpatialData:
    """A small tissue with results of every kind, made by hand: nothing is trained for it."""
    sdata = sslcst.datasets.simulate(n_cells=12, n_genes=5, counts_per_cell=20)
    for name in ("nuclei", "cells"):
        sdata[f"sslcst_{name}"] = sdata[f"true_{name}"]
    sslcst.pp.bin_spots(sdata)
    sdata["sslcst_spots"].obs["probability"] = 0.5
    sdata["sslcst_spots"].obsm["direction"] = np.full((sdata["sslcst_spots"].n_obs, 16), 1 / 16, np.float32)
    sslcst.tl.aggregate(sdata)
    history = {name: [1.0] for name in ("train_loss", "validation_loss", "inside_accuracy", "direction_accuracy")}
    sdata["sslcst_table"].uns["sslcst"] = {"history": {"epoch": [0]} | history}
    circles = pd.DataFrame({"geometry": [None], "radius": [3.0]})
    sdata["circles"] = ShapesModel.parse(np.array([[9.0, 9.0]]), geometry=0, radius=circles["radius"].to_numpy())
    return sdata


@pytest.fixture(scope="module")
def objects(tissue: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each kind, by the kind's name in annotations or a name of its own."""
    several = sd.models.Labels2DModel.parse(tissue["true_cells"].to_numpy(), scale_factors=[2])
    frame = sslcst.tl.quality(tissue)
    _, ax = plt.subplots()
    return {
        "SpatialData": tissue,
        "AnnData": tissue["truth"],
        "labels": tissue["true_cells"],
        "labels of several scales": several,
        "image": tissue["stain"],
        "points": tissue["transcripts"],
        "shapes": tissue["circles"],
        "frame": frame,
        "frames": {"ours": frame},
        "Model": MODEL,
        "Params": Params(),
        "TrainingParams": TrainingParams(),
        "Comparison": sslcst.tl.compare(tissue, "sslcst_cells", "sslcst_nuclei"),
        "Owners": sslcst.pp.read_owners(tissue),
        "sparse": tissue["truth"].X,
        "floats": np.array([[0.5, 1.5]]),
        "NaN": float("nan"),
        "infinity": float("inf"),
        "negative": -3,
        "fraction": 2.5,
        "whole": 3,
        "truth": True,
        "nothing": None,
        "text": "no such thing",
        "empty text": "",
        "bytes": b"text",
        "path": tmp_path_factory.mktemp("none") / "none.zarr",
        "list": ["a", 1],
        "empty list": [],
        "mapping": {"a": 1},
        "texts of numpy": np.array(["a", "b"]),
        "objects of numpy": np.array([None, "b"], object),
        "dates of numpy": np.array(["2026-01-01"], "datetime64[D]"),
        "number of numpy": np.float64(0.25),
        "tensor": torch.zeros(2),
        "axes": ax,
        "figure": ax.figure,
        "function": print,
        "class": sd.SpatialData,
        "module": sslcst,
        "object": object(),
    }


def sound(name: str, tissue: sd.SpatialData, folder: Path) -> dict[str, Any]:
    """Arguments with which a function would do its work, as far as it needs any."""
    labels, cells = (tissue[key].to_numpy() for key in ("true_nuclei", "true_cells"))
    counts, owner = tissue["truth"].X, np.array([1, 1, 2])
    given: dict[str, dict[str, Any]] = {
        "io.read_gef": {"path": folder / "a.gef"},
        "io.read_gem": {"path": folder / "a.gem"},
        "io.read_model": {"path": folder / "a.safetensors"},
        "io.write_model": {"model": MODEL, "path": folder / "new.safetensors"},
        "io.write_geojson": {"sdata": tissue, "path": folder / "a.json"},
        "io.write_xenium_explorer": {"sdata": tissue, "path": folder / "explorer"},
        "report.write_report": {"sdata": tissue, "path": folder / "a.html"},
        "metrics.contamination": {"counts": counts, "pairs": np.array([[0, 1]])},
        "metrics.exclusive_pairs": {"nuclear": counts},
        "metrics.correlation": {"owner_a": owner, "owner_b": owner, "gene": np.array([0, 1, 0])},
        "metrics.fraction_right": {"reference_owner": owner, "owner": owner},
        "metrics.diameters": {"labels": cells},
        "metrics.n_cells": {"labels": cells},
        "metrics.quality": {
            "cells": cells,
            "nuclei": labels,
            "yx": np.array([[1.5, 1.5]]),
            "gene": np.array([0]),
        },
        "pl.quality": {"frames": {"ours": sslcst.tl.quality(tissue)}},
        "pl.training": {"data": tissue},
        "pl.compare": {"sdata": tissue, "a_key": "true_cells", "b_key": "true_nuclei"},
        "tl.compare": {"sdata": tissue, "a_key": "true_cells", "b_key": "true_nuclei"},
        "tl.predict": {"sdata": tissue, "model": MODEL},
        "tl.track": {"sdata": tissue, "model": MODEL},
        "pp.import_cells": {"sdata": tissue, "cells_key": "true_cells"},
        "pp.import_nuclei": {"sdata": tissue, "nuclei_key": "true_nuclei"},
        "datasets.simulate": {},
    }
    usual = {"reference": cells, "labels": labels} if name.startswith("metrics") else {"sdata": tissue}
    return given.get(name, usual)


# The objects that fit an annotation: with these a function would go to work, or say later what it does not find.
FITS = {
    "SpatialData": {"SpatialData"},
    "AnnData": {"AnnData"},
    "Model": {"Model"},
    "Comparison": {"Comparison"},
    "Params": {"Params"},
    "Mapping[str, Any]": {"frames", "mapping", "labels of several scales"},  # answered by what they hold
    "Mapping[str, pd.DataFrame]": {"frames"},
    "None": {"nothing"},
    "str": {"text", "empty text"},
    "bool": {"truth"},
    "int": {"whole", "negative"},
    "float": {"whole", "negative", "fraction", "number of numpy"},
    "os.PathLike[str]": {"path", "text"},
    "Path": {"path", "text"},
    "Sequence[str]": {"empty list", "texts of numpy"},
    "Sequence[float]": {"empty list"},
    "Sequence[str | int]": {"empty list", "texts of numpy"},
    "Collection[Hashable]": {"list", "empty list", "texts of numpy", "objects of numpy", "dates of numpy"},
    "Axes": {"axes"},
}
# Arrays are told apart by what they hold, which each metric does by itself.
ARRAYS = {"labels", "image", "floats", "texts of numpy", "objects of numpy", "dates of numpy", "tensor", "empty list"}
ARRAYS |= {"list", "number of numpy"}


ARGUMENTS = [
    (name, argument) for name, function in FUNCTIONS.items() for argument in inspect.signature(function).parameters
]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_wrong_kind_is_answered(
    name: str, argument: str, tissue: sd.SpatialData, objects: Mapping[str, Any], tmp_path: Path
) -> None:
    function = FUNCTIONS[name]
    annotation = inspect.signature(function).parameters[argument].annotation
    kinds = set(annotation.split(" | ")) if "[str | int]" not in annotation else {"str", "int", "None", "Sequence[str]"}
    fitting = set().union(*(FITS.get(kind, set()) for kind in kinds))
    given, before = sound(name, tissue, tmp_path), set(tissue._shared_keys)
    tried = 0
    for kind, value in objects.items():
        if kind in fitting or (kinds & {"ArrayLike", "NDArray[np.integer]", "sparse.sparray"} and kind in ARRAYS):
            continue
        if kind == "sparse" and "sparse.sparray" in kinds:
            continue
        if argument == "spot_size" and kind in ("NaN", "infinity"):  # asked of the file first
            continue
        with pytest.raises(SslcstError, match=argument):
            function(**given | {argument: value})
        tried += 1
    assert tried > 20
    assert set(tissue._shared_keys) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "argument"), [each for each in ARGUMENTS if each[0].startswith("metrics.")])
def test_an_array_of_something_else_is_answered(
    name: str, argument: str, tissue: sd.SpatialData, objects: Mapping[str, Any], tmp_path: Path
) -> None:
    """Of texts, dates, objects, fractions, of another length or of other dimensions."""
    if "Array" not in inspect.signature(FUNCTIONS[name]).parameters[argument].annotation:
        pytest.skip("no array")
    wrong = [objects[kind] for kind in sorted(ARRAYS - {"number of numpy", "floats", "labels", "image"})]
    wrong += [[[1], [1, 2]], np.array([[0.5, np.nan]]), np.array(["1"]), np.ones((1, 3), complex), -np.ones(3, int)]
    for value in wrong:
        with pytest.raises(SslcstError):
            FUNCTIONS[name](**sound(name, tissue, tmp_path) | {argument: value})
    plt.close("all")


# --- What is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["run.zarr", Path("run.zarr"), None, AnnData(), 3])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name[:3] in ("pl.", "pp.", "tl.")])
def test_who_has_no_object_is_told_how_to_read_one(name: str, value: object) -> None:
    function = FUNCTIONS[name]
    first, *others = inspect.signature(function).parameters.values()
    if "SpatialData" not in first.annotation or ("AnnData" in first.annotation and isinstance(value, AnnData)):
        pytest.skip("takes others")
    needed = {each.name: "a" for each in others if each.default is each.empty}
    with pytest.raises(ParameterError, match=r"spatialdata\.read_zarr"):
        function(value, **needed)


def test_a_quality_of_the_object_itself_is_told_what_frames_are(tissue: sd.SpatialData) -> None:
    with pytest.raises(ParameterError, match=r"frames .*tl\.quality"):
        sslcst.pl.quality(tissue)
    with pytest.raises(ParameterError, match=r"frames .*tl\.quality"):
        sslcst.pl.quality(sslcst.tl.quality(tissue))


def test_a_training_of_the_model_itself_is_told_what_is_drawn() -> None:
    with pytest.raises(ParameterError, match=r"data is of type Model: must be a SpatialData object or an AnnData"):
        sslcst.pl.training(MODEL)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature_and_docstring_stay_in_sight(name: str) -> None:
    function = FUNCTIONS[name]
    assert function.__doc__
    assert function.__name__ == name.split(".")[1]
    assert "args" not in inspect.signature(function).parameters
    assert function.__wrapped__


def test_what_python_says_of_a_call_stays() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'imagekey'"):
        sslcst.tl.segment(None, imagekey="a")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'labels'"):
        sslcst.metrics.f1([1])


def test_an_annotation_that_nobody_can_check_is_met_at_import() -> None:
    def strange(a: complex) -> None:
        """Never called."""

    with pytest.raises(KeyError, match="complex"):
        checked(strange)


# --- Devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "meant"), [("gpu", "cuda"), ("GPU:0", "cuda"), ("CUDA", "cuda"), ("cdua", "cuda"), ("Cpu", "cpu")]
)
def test_a_misspelt_device_is_answered_with_the_close_one(device: str, meant: str) -> None:
    with pytest.raises(ParameterError, match=rf"did you mean '{meant}'\?"):
        choose_device(device)


@pytest.mark.parametrize(
    "device", ["", "cuda:", "cuda:-1", "cuda:a", "cuda:1:2", "cuda 0", "meta", "cuda:" + "9" * 5000]
)
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(ParameterError, match="device="):
        choose_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "cpu:1", "mps:7", "xpu:7"])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    with pytest.raises(BackendError, match=rf"device='{device}' was asked for, but torch sees"):
        choose_device(device)


# --- Names and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [1, np.int64(1), np.uint8(1), "1", "b"])
def test_the_place_of_a_channel_counts_as_its_name(tissue: sd.SpatialData, channel: str | int) -> None:
    sdata = of_channels(tissue, "a", "b")
    sslcst.pp.segment_nuclei(sdata, channel=channel, method="watershed")
    assert sdata["sslcst_nuclei"].to_numpy().any()
    sslcst.pl.nuclei(sdata, channel=channel)
    plt.close("all")


def test_a_name_wins_over_a_place(tissue: sd.SpatialData) -> None:
    """Channel 1 by name is the first, which is empty here."""
    with pytest.raises(SslcstError, match="no contrast"):
        sslcst.pp.segment_nuclei(of_channels(tissue, 1, 0), channel=1, method="watershed")


@pytest.mark.parametrize("channel", [-1, 2, "-1", "2", "c", "9" * 5000])
def test_a_channel_that_is_not_there_is_told_those_that_are(tissue: sd.SpatialData, channel: str | int) -> None:
    sdata = of_channels(tissue, "a", "b")
    sdata["sslcst_nuclei"] = sdata["true_nuclei"]
    for look in (sslcst.pp.segment_nuclei, sslcst.tl.plan, sslcst.pl.nuclei):
        with pytest.raises(KeyMissingError, match=r"channel.*'a', 'b'"):
            look(sdata, channel=channel)


def of_channels(tissue: sd.SpatialData, *names: str | int) -> sd.SpatialData:
    """The tissue with a stain of two channels, the first of them empty."""
    pixels = tissue["stain"].to_numpy()
    stain = sd.models.Image2DModel.parse(
        np.concatenate([np.zeros_like(pixels), pixels]), dims=("c", "y", "x"), c_coords=list(names)
    )
    elements = {name: tissue[name] for name in ("true_nuclei", "transcripts")}
    return sd.SpatialData.init_from_elements({"stain": stain, **elements})


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", image_key="stian"), "stain"),
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", points_key="Transcripts"), "transcripts"),
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", nuclei_key="true-nuclei"), "true_nuclei"),
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", gene_key="genes"), "gene"),
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", coordinate_system="globl"), "global"),
        (lambda sdata: sslcst.tl.segment(sdata, key_added="new", channel="dapi"), "DAPI"),
        (lambda sdata: sslcst.tl.train(sdata, spots_key="sslcst_spot"), "sslcst_spots"),
        (lambda sdata: sslcst.pl.nuclei(sdata, nuclei_key="sslcst_nucleus"), "sslcst_nuclei"),
        (lambda sdata: sslcst.pl.segmentation(sdata, truth_key="true_cell"), "true_cells"),
        (lambda sdata: sslcst.pl.nuclei(sdata, channel="DAPI2"), "DAPI"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_close_one(
    tissue: sd.SpatialData, call: Callable[[sd.SpatialData], object], meant: str
) -> None:
    with pytest.raises(KeyMissingError, match=rf"did you mean '{meant}'\?"):
        call(tissue)


def test_counts_may_be_sparse_or_dense(tissue: sd.SpatialData) -> None:
    counts, pairs = tissue["truth"].X, np.array([[0, 1]])
    expected = sslcst.metrics.contamination(counts, pairs)
    for same in (counts.toarray(), sparse.csc_array(counts), sparse.coo_matrix(counts)):
        assert np.array_equal(sslcst.metrics.contamination(same, pairs), expected, equal_nan=True)
