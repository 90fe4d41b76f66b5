"""A call that is made again: after its run is complete, after it was stopped, from elsewhere, or with results about."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from stopped_runs import COMMIT, PARAMS, beside, exit_code
from tiny_chips import assert_same_cells, chip, segment, with_transcripts
from typer.testing import CliRunner

import sslcst
from sslcst._sdata.elements import choose_points
from sslcst._sdata.raster import full_scale
from sslcst.cli import app
from sslcst.errors import KeyMissingError, StoreError
from sslcst.run import pipeline
from sslcst.run.execute import with_real_paths
from sslcst.tl import _segment


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store that no test writes to, with transcripts of no usual name."""
    path = tmp_path_factory.mktemp("original") / "a.zarr"
    sdata = chip(n_cells=40)
    sdata["tx"] = with_transcripts(sdata, sdata["transcripts"].compute(), npartitions=3).points.pop("transcripts")
    sdata.write(path)
    return path


@pytest.fixture(scope="module")
def complete(original, tmp_path_factory):
    """A store with the results of a run."""
    path = tmp_path_factory.mktemp("complete") / "a.zarr"
    shutil.copytree(original, path)
    segment(sd.read_zarr(path), PARAMS)
    return path


def state(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file of a store."""
    files = {file: file.stat() for file in sorted(path.rglob("*")) if file.is_file()}
    return {str(file): (about.st_size, about.st_mtime_ns) for file, about in files.items()}


def test_the_same_call_after_its_run_is_done(complete, monkeypatch, caplog):
    """It computes nothing and changes nothing; an object that was read before then holds the results."""
    monkeypatch.setattr(_segment, "_run", None)
    before, part = state(complete), sd.read_zarr(complete)
    kept = part["sslcst_table"]
    del part["sslcst_cells"]
    with caplog.at_level(logging.INFO, "sslcst"):
        segment(part, PARAMS)
    assert "nothing is left to do" in caplog.text
    assert part["sslcst_table"] is kept
    assert "sslcst_cells" in part
    assert state(complete) == before
    assert beside(complete) == []


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"shapes": False}, {"params": {}}, {"points_key": "sslcst_transcripts"}]
)
def test_another_call_is_refused_as_before(complete, other):
    with pytest.raises(KeyMissingError, match="exists: choose another key_added, or overwrite=True"):
        segment(sd.read_zarr(complete), **{"params": PARAMS} | other)
    assert beside(complete) == []


def test_a_job_line_that_is_repeated_ends_well(path, monkeypatch):
    """From another directory, through a link, after a run that was killed when it had published."""
    line = ["segment", "--nuclei-key", "true_nuclei", "--set", "network.threshold=0.6"]
    assert CliRunner().invoke(app, [*line, str(path)]).exit_code == 0
    before = state(path)
    (path.parent / "link.zarr").symlink_to(path)
    monkeypatch.chdir(path.parent)
    for store in ("a.zarr", "link.zarr"):
        again = CliRunner().invoke(app, [*line, store])
        assert (again.exit_code, "cells in sslcst_cells" in again.stdout) == (0, True), again.output
    assert CliRunner().invoke(app, [*line, "a.zarr", "--seed", "1"]).exit_code == 1
    assert state(path) == before


@pytest.mark.parametrize(
    "step",
    [
        ("sslcst._sdata.store", "_swap", 1),
        ("sslcst._sdata.store", "_move", 1),
        ("sslcst._sdata.store", "_move", 2),
        COMMIT,
    ],
)
def test_a_run_that_replaces_its_own_nuclei_is_finished_by_the_same_call(path, complete, step):
    """Killed while it replaced them, it finds them neither as they were nor where they were."""
    call = {"nuclei_key": "sslcst_nuclei", "overwrite": True, "shapes": False, "assign_points": False}
    segment(sd.read_zarr(path), PARAMS, shapes=False, assign_points=False, seed=1)
    assert exit_code(path, *step, **call) == -signal.SIGKILL
    stopped = sd.read_zarr(path)
    segment(stopped, PARAMS, **call)
    for found in (stopped, sd.read_zarr(path)):
        assert_same_cells(found, sd.read_zarr(complete))
    assert beside(path) == []


def test_results_are_never_chosen_as_input(complete):
    """Transcripts with their cells added are beside the transcripts; whoever names them gets them."""
    found = sd.read_zarr(complete)
    assert choose_points(found, None) == "tx"
    assert choose_points(found, "sslcst_transcripts") == "sslcst_transcripts"
    alone = sd.SpatialData(points={"sslcst_transcripts": found["sslcst_transcripts"]})
    with pytest.raises(KeyMissingError, match="There is no points element"):
        choose_points(alone, None)


def test_vendors_transcripts_with_cells_of_their_own_are_chosen():
    sdata = chip(n_cells=40)
    frame = sdata["transcripts"].compute().assign(cell_id=np.int32(1), probability=0.5)
    with_transcripts(sdata, frame)
    sdata["vendor_transcripts"] = sdata.points.pop("transcripts")
    assert choose_points(sdata, None) == "vendor_transcripts"


def test_adding_transcripts_warns_of_nothing(path, caplog):
    """Least of all in spatialdata's words, which ask users to report what is ours to do."""
    with caplog.at_level(logging.WARNING):
        logging.getLogger("spatialdata._logging").addHandler(caplog.handler)
        segment(sd.read_zarr(path), PARAMS)
    logging.getLogger("spatialdata._logging").removeHandler(caplog.handler)
    assert "report" not in caplog.text and "unknown categories" not in caplog.text


def test_ctrl_c_says_that_the_same_call_goes_on(path, monkeypatch, caplog):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "find_spots", interrupt)
        segment(sd.read_zarr(path), PARAMS)
    assert "the same call goes on from there" in caplog.text
    with caplog.at_level(logging.INFO, "sslcst"):
        segment(sd.read_zarr(path), PARAMS)
    assert "Going on with a run that was stopped" in caplog.text


def test_a_fault_before_anything_is_done_leaves_nothing(path, monkeypatch):
    """Whatever it is, even one that nobody foresaw."""

    def fault(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(_segment, "_run", fault)
    with pytest.raises(ZeroDivisionError):
        segment(sd.read_zarr(path), PARAMS)
    assert beside(path) == []


@pytest.mark.parametrize("there", ["moved", "elsewhere"])
def test_a_store_that_is_no_longer_there_is_said_to_be_so(path, monkeypatch, there):
    """Also where it was read by a relative path and the directory changed: all of it would be read as zeros."""
    monkeypatch.chdir(path.parent)
    sdata = sd.read_zarr("a.zarr")
    (path.parent / "other").mkdir()
    path.rename(path.parent / "b.zarr") if there == "moved" else monkeypatch.chdir("other")
    with pytest.raises(StoreError, match=r"There is no store .*a\.zarr: it was moved or deleted.*working directory"):
        segment(sdata, PARAMS)
    assert beside(path.parent / "b.zarr") == ([] if there == "moved" else ["a.zarr"]) + ["other"]


def test_an_image_whose_files_are_gone_is_refused(path):
    """Of a missing chunk zarr makes zeros."""
    sdata = sd.read_zarr(path, selection=("images", "points"))
    sdata.path = None
    shutil.rmtree(path / "images")
    with pytest.raises(StoreError, match=r"'stain' is read from .*, which is not there"):
        sslcst.tl.segment(sdata, method="ssl-cst", params=PARAMS)


def test_relative_paths_are_those_of_the_start(path, monkeypatch):
    """Results are read after the directory has changed, and so is the image, by workers that have another one."""
    monkeypatch.chdir(path.parent)
    sdata = sd.read_zarr("a.zarr")
    image = full_scale(sdata["stain"]).data
    expected, real = image.compute(), with_real_paths(image)
    segment(sdata, PARAMS)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(real.compute(), expected)
    assert sdata["sslcst_cells"].to_numpy().max() == sdata["sslcst_table"].obs["cell_id"].max()
    assert len(sdata["sslcst_transcripts"].compute()) == len(sdata["tx"].compute())


def test_a_store_behind_a_link_is_worked_on_where_it_lies(path, tmp_path_factory, monkeypatch):
    """So that nothing is renamed from one disk to another."""
    link = tmp_path_factory.mktemp("links") / "link.zarr"
    link.symlink_to(path)
    rename = os.rename

    def on_one_disk(source, target):
        assert link.parent not in (*Path(source).parents, *Path(target).parents)
        rename(source, target)

    monkeypatch.setattr(os, "rename", on_one_disk)
    segment(sd.read_zarr(link), PARAMS)
    assert [file.name for file in link.parent.iterdir()] == ["link.zarr"]
    assert "sslcst_table" in sd.read_zarr(path)
