"""Stain, nuclei and transcripts that do not lie on one another, or not on the same tissue: said, and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale, get_transformation

import sslcst
from sslcst.errors import DataError
from sslcst.report._result import Result
from sslcst.report._warnings import warnings_of

AXES = ("y", "x")


@pytest.fixture(scope="module")
def tissue() -> sd.SpatialData:
    return sslcst.datasets.simulate(n_cells=110, n_genes=5, seed=3)


def placed(tissue: sd.SpatialData, change) -> sd.SpatialData:
    """The true nuclei and the transcripts, after a change to the pixels and the transformation of the first."""
    labels = tissue["true_nuclei"]
    pixels, step = change(labels.to_numpy(), get_transformation(labels))
    nuclei = Labels2DModel.parse(np.ascontiguousarray(pixels), dims=("y", "x"), transformations={"global": step})
    return sd.SpatialData(labels={"nuclei": nuclei}, points={"transcripts": tissue["transcripts"]})


@contextmanager
def heard() -> Iterator[list[str]]:
    """The warnings that are logged."""
    texts: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    ear = Ear(logging.WARNING)
    logging.getLogger("sslcst").addHandler(ear)
    try:
        yield texts
    finally:
        logging.getLogger("sslcst").removeHandler(ear)


def segment(sdata: sd.SpatialData, **kwargs) -> list[str]:
    """The warnings of a run, which are also those of its table and on its report."""
    with heard() as texts:
        sslcst.tl.segment(sdata, **({"nuclei_key": "nuclei"} | kwargs))
    about = sdata["sslcst_table"].uns["sslcst"]
    assert about["warnings"].splitlines() == texts
    shown = " ".join(warning.what for warning in warnings_of(Result.of(sdata, "sslcst", None)))
    assert all(text.split(". ")[0] in shown for text in texts)
    return texts


def test_nuclei_in_a_wrong_place_are_said(tissue: sd.SpatialData, tmp_path: Path) -> None:
    """What is compared, where, and what to check; in the log, in the store, and in a copy of what is read there."""
    sdata = placed(tissue, lambda labels, step: (labels[::-1], step))
    sdata.write(tmp_path / "s.zarr")
    texts = segment(sdata)
    assert len(texts) == 1
    for part in ("lie on one another", "'nuclei'", "'transcripts'", "'global'", "transformations", "flipped", "units"):
        assert part in texts[0]
    table = sd.read_zarr(tmp_path / "s.zarr")["sslcst_table"].copy()
    assert table.uns["sslcst"]["warnings"].splitlines() == texts


def test_a_stain_upside_down_is_said(tissue: sd.SpatialData) -> None:
    stain = Image2DModel.parse(
        tissue["stain"].to_numpy()[:, ::-1].copy(), dims="cyx", transformations={"global": Scale([0.5, 0.5], axes=AXES)}
    )
    sdata = sd.SpatialData(images={"dapi": stain}, points={"transcripts": tissue["transcripts"]})
    kwargs = {"params": {"nuclei": {"method": "watershed"}}, "nuclei_key": None}
    with heard() as texts:
        sslcst.tl.segment(sdata, **kwargs)
    assert "'dapi'" in texts[0] and "lie on one another" in texts[0]


def test_most_transcripts_off_the_image_are_said(tissue: sd.SpatialData) -> None:
    """A fifth of the image is left, with enough transcripts to go on; the rest lies off it."""
    texts = segment(placed(tissue, lambda labels, step: (labels[: len(labels) // 3], step)))
    said = [text for text in texts if "lie off the image" in text]
    assert len(said) == 1
    for part in ("'nuclei'", "'transcripts'", "'global'", "transformations", "units"):
        assert part in said[0]


def test_few_nuclei_for_the_transcripts_are_said(tissue: sd.SpatialData) -> None:
    """As where a stain has lost them: one in nine is left."""
    texts = segment(placed(tissue, lambda labels, step: (np.where(labels % 9 == 1, labels, 0), step)))
    assert any("far from all of the" in text and "nuclei.diameters" in text and "channel" in text for text in texts)


def test_nothing_is_said_of_correct_data(tissue: sd.SpatialData) -> None:
    sdata = placed(tissue, lambda labels, step: (labels, step))
    assert segment(sdata) == []
    assert sdata["sslcst_table"].uns["sslcst"]["warnings"] == ""


def test_steps_say_so_too(tissue: sd.SpatialData) -> None:
    """`pp.bin_spots` warns in the same words, and none on the image is an error that names both."""
    sdata = placed(tissue, lambda labels, step: (labels[: len(labels) // 3], step))
    sslcst.pp.erode_nuclei(sdata, nuclei_key="nuclei")
    with heard() as texts:
        sslcst.pp.bin_spots(sdata, nuclei_key="nuclei")
    assert "lie off the image" in texts[0] and "'nuclei'" in texts[0]
    frame = pd.DataFrame({"x": [-5.0, -6.0], "y": [-5.0, -6.0], "gene": ["a", "b"]})
    sdata["transcripts"] = PointsModel.parse(frame, transformations={"global": Identity()})
    for run in (sslcst.pp.bin_spots, sslcst.tl.segment):
        with pytest.raises(DataError, match=r"None of the 2 .*'nuclei'.*'transcripts'.*'global'"):
            run(sdata, nuclei_key="nuclei")
