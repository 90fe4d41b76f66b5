"""The nuclei of an object: channels, scales, and the choice of the method."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_nuclei import DISCS, IMAGE
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, get_transformation

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst.core import nuclei as module
from sslcst.core.nuclei import choose_method, load_backend, segment_nuclei
from sslcst.errors import BackendError, DataError, KeyMissingError, ParameterError
from sslcst.metrics import best_iou
from sslcst.params import NucleiParams


@pytest.fixture
def tissue() -> SpatialData:
    """An image of two channels and two scales, half a micron a pixel."""
    image = np.stack([np.where(DISCS % 2, IMAGE, 0), np.where(DISCS % 2, 0, IMAGE)])
    to_micron = {"micron": Scale([0.5, 0.5], ("y", "x"))}
    return SpatialData(
        images={
            "stain": Image2DModel.parse(
                image, dims=("c", "y", "x"), c_coords=["a", "b"], transformations=to_micron, scale_factors=[2]
            ),
            "flat": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["a", "b"], transformations=to_micron),
        }
    )


@pytest.mark.parametrize("channel", [["a", "b"], np.array(["a", "b"]), np.array([0, 1])])
def test_nuclei_of_several_channels(tissue: SpatialData, channel) -> None:
    params = {"nuclei": {"method": "watershed"}}
    sslcst.pp.segment_nuclei(tissue, image_key="flat", channel=channel, params=params)
    assert best_iou(DISCS, tissue["sslcst_nuclei"].to_numpy()).min() > 0.8


def test_nuclei_of_a_coarse_scale_lie_where_those_of_the_finest_do(tissue: SpatialData) -> None:
    """Diameters stay in microns; the labels are on the coarse grid, which their transformation stretches."""
    params = {"nuclei": {"method": "watershed", "diameters": [9]}}
    sslcst.pp.segment_nuclei(tissue, image_key="stain", channel=["a", "b"], scale="scale1", params=params)
    labels = tissue["sslcst_nuclei"]
    assert labels.shape == (60, 70)
    matrix = get_transformation(labels, "micron").to_affine_matrix(("y", "x"), ("y", "x"))
    assert matrix == pytest.approx(np.diag([1, 1, 1]))
    assert best_iou(DISCS, np.kron(labels.to_numpy(), np.ones((2, 2), int))).min() > 0.7


@pytest.mark.parametrize(("image_key", "there"), [("stain", "'scale0', 'scale1'"), ("flat", "none")])
def test_scale_that_is_not_there(tissue: SpatialData, image_key: str, there: str) -> None:
    with pytest.raises(KeyMissingError, match=f"'scale5'; there are: {there}"):
        sslcst.pp.segment_nuclei(tissue, image_key=image_key, channel="a", scale="scale5")


# --- the choice of the method


@pytest.fixture
def cellpose_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for Cellpose's models, with Cellpose 3 taken for installed."""
    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(module, "version", lambda name: "3.1.1")
    return tmp_path


def test_the_bundled_network_is_the_default_and_better_ones_are_named(
    cellpose_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Cellpose would have to download its weights, it is not taken unasked; one line says so."""
    with caplog.at_level(logging.INFO, "sslcst"):
        assert choose_method(NucleiParams(diameters=(9,))) == NucleiParams(method="sslcst", diameters=(9,))
    assert len(caplog.messages) == 1
    for name in ("'sslcst'", "'cellpose'", "'stardist'", "'instanseg'", 'pip install "sslcst[cellpose]"'):
        assert name in caplog.text


def test_cellpose_is_the_default_where_its_weights_are(
    cellpose_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (cellpose_folder / "cyto2torch_0").touch()
    with caplog.at_level(logging.INFO, "sslcst"):
        assert choose_method(NucleiParams()).method == "cellpose"
    assert "'cellpose', whose weights are on this machine" in caplog.text
    monkeypatch.setattr(module, "version", lambda name: "4.0.1")  # whose default is another
    assert choose_method(NucleiParams()).method == "sslcst"
    (cellpose_folder / "cpsam").touch()
    assert choose_method(NucleiParams()).method == "cellpose"
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert choose_method(NucleiParams()).method == "sslcst"


@pytest.mark.parametrize("method", module.BACKENDS)
def test_a_method_that_was_asked_for_stays(method: str, caplog: pytest.LogCaptureFixture) -> None:
    params = NucleiParams(method=method, model="some")
    assert choose_method(params) is params
    assert not caplog.messages


def test_the_default_is_what_it_says_it_is(cellpose_folder: Path) -> None:
    """Without a method, the labels are those of the one that is named."""
    assert np.array_equal(segment_nuclei(IMAGE), segment_nuclei(IMAGE, params=NucleiParams(method="sslcst")))


def test_a_model_without_a_method_is_refused() -> None:
    """Two packages may call different models by one name."""
    with pytest.raises(ParameterError, match=r"model='cyto2': say whose it is with method, one of 'cellpose', "):
        segment_nuclei(IMAGE, params=NucleiParams(model="cyto2"))


def test_no_nuclei_names_the_method_that_was_taken(cellpose_folder: Path) -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 20] = 1  # a line is no nucleus
    sdata = SpatialData(images={"stain": Image2DModel.parse(image, dims=("c", "y", "x"))})
    with pytest.raises(DataError, match="No nuclei were found in image 'stain' with method 'sslcst'"):
        sslcst.pp.segment_nuclei(sdata)


def test_unknown_method_lists_the_methods() -> None:
    with pytest.raises(ParameterError, match=r"method='magic': must be one of 'cellpose', 'deepcell', .* 'watershed'"):
        segment_nuclei(IMAGE, params=NucleiParams(method="magic"))


@pytest.mark.parametrize("method", ["cellpose", "deepcell", "instanseg", "stardist"])
def test_missing_package_names_the_extra_and_the_alternatives(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, method, None)
    with pytest.raises(BackendError) as error:
        load_backend(NucleiParams(method=method))
    for hint in (f'pip install "sslcst[{method}]"', 'method="sslcst"', 'method="watershed"', "nuclei_key"):
        assert hint in str(error.value)


def test_the_method_may_be_named_by_itself(tissue) -> None:
    """And the parameters hold its settings; a name that does not exist is answered with those that do."""
    params = {"nuclei": {"method": "sslcst", "diameters": [12.0]}}
    sslcst.pp.segment_nuclei(
        tissue, image_key="stain", channel="a", method="watershed", params=params, key_added="named"
    )
    params["nuclei"]["method"] = "watershed"
    sslcst.pp.segment_nuclei(tissue, image_key="stain", channel="a", params=params, key_added="told")
    assert np.array_equal(*(full_scale(tissue[name]) for name in ("named", "told")))
    with pytest.raises(ParameterError, match=r"'cyto9'.*'watershed'"):
        sslcst.pp.segment_nuclei(tissue, image_key="stain", channel="a", method="cyto9")
