"""The cores of nuclei of an object: what is added, and told."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import square_nuclei
from scipy import ndimage
from skimage.draw import disk
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

import sslcst
from sslcst.errors import KeyMissingError
from sslcst.methods.ssl_cst.erosion import (
    erode_and_report,
)


def tissue() -> SpatialData:
    """Three nuclei, and a noisy stain of them."""
    nuclei = np.zeros((40, 44), np.uint32)
    for name, center, radius in ((3, (9, 9), 6), (7, (9, 30), 8), (300, (29, 12), 7)):
        nuclei[disk(center, radius, shape=nuclei.shape)] = name
    faint = ndimage.gaussian_filter((nuclei > 0) + 0.3 * np.random.default_rng(0).standard_normal(nuclei.shape), 1)
    return SpatialData(
        images={"stain": Image2DModel.parse(faint[None], dims=("c", "y", "x"), c_coords=["DAPI"])},
        labels={"sslcst_nuclei": Labels2DModel.parse(nuclei, dims=("y", "x"))},
    )


def test_pp_logs_and_returns_the_report(caplog: pytest.LogCaptureFixture) -> None:
    sdata = tissue()
    with caplog.at_level(logging.INFO, "sslcst"):
        report = sslcst.pp.erode_nuclei(sdata, seed=2)
    assert caplog.messages == [str(report)]
    expected, same = erode_and_report(sdata["sslcst_nuclei"].to_numpy(), seed=2)
    assert np.array_equal(sdata["sslcst_cores"].to_numpy(), expected)
    assert report == same


def test_pp_takes_the_contrast_from_the_stain() -> None:
    sdata = tissue()
    params = {"erosion": {"contrast": 3}}
    sslcst.pp.erode_nuclei(sdata, params=params, key_added="without")
    sslcst.pp.erode_nuclei(sdata, image_key="stain", params=params)
    with_stain, without = (np.count_nonzero(sdata[key].to_numpy()) for key in ("sslcst_cores", "without"))
    assert with_stain < without


def test_cores_keep_the_ids_of_nuclei_that_labels_cannot_hold() -> None:
    sdata = square_nuclei.tissue()
    labels = square_nuclei.squares_as_labels(square_nuclei.MERSCOPE, np.int64)
    labels[40:50, 20:30] = 0
    labels[44, 24] = square_nuclei.MERSCOPE[2]  # too small to have a core
    sdata["nuclei"] = Labels2DModel.parse(labels, dims=("y", "x"))
    sslcst.pp.erode_nuclei(sdata, nuclei_key="nuclei")
    found = sdata["sslcst_cores_ids"].obs
    assert found["source_id"].tolist() == square_nuclei.MERSCOPE[:2]
    cores = sdata["sslcst_cores"].to_numpy()
    for number, each in zip(found["cell_id"], found["source_id"], strict=True):
        assert (labels[cores == number] == each).all()


@pytest.mark.parametrize(
    ("where", "message"),
    [(["other"], "no image 'other'"), (["stain", "GFP"], "no channel of image 'stain' named 'GFP'")],
)
def test_pp_names_what_is_not_there(where: list[str], message: str) -> None:
    with pytest.raises(KeyMissingError, match=message):
        sslcst.pp.erode_nuclei(tissue(), **dict(zip(("image_key", "channel"), where, strict=False)))
