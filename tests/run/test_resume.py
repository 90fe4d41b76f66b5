"""A run that is stopped, by anything, harms nothing, and goes on where it was.

``SSLCST_KILLS=50`` kills at as many random moments as that.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from patience import wait_until
from spatialdata.transformations import Scale, set_transformation
from stopped_runs import COMMIT, PARAMS, assert_opens, before, beside, exit_code, hashes, start
from store_files import files_of
from tiny_chips import assert_same_cells, chip, params_of, segment, with_nuclei, with_transcripts

import sslcst
from sslcst._sdata import scratch, store
from sslcst._sdata.lock import locked
from sslcst.errors import DataError, KeyMissingError, StoreError
from sslcst.methods.ssl_cst import method
from sslcst.run import results, workspace
from sslcst.run.stages import cells, nuclei, transcripts
from sslcst.tl import _segment

KILLS = int(os.environ.get("SSLCST_KILLS", 4))
N_TILES = 4


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store that no test writes to."""
    path = tmp_path_factory.mktemp("original") / "a.zarr"
    sdata = chip(n_cells=40)
    with_transcripts(sdata, sdata["transcripts"].compute(), npartitions=3).write(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    """The store of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    shutil.copytree(original, path)
    segment(sd.read_zarr(path), PARAMS)
    return sd.read_zarr(path)


def assert_complete(path: Path, undisturbed: sd.SpatialData, before: dict[str, str]) -> None:
    found = sd.read_zarr(path)
    assert_same_cells(found, undisturbed)
    pd.testing.assert_frame_equal(
        found["sslcst_transcripts"].compute(), undisturbed["sslcst_transcripts"].compute(), check_categorical=False
    )
    assert found["sslcst_boundaries"].geometry.equals(undisturbed["sslcst_boundaries"].geometry)
    assert hashes(path) == before
    assert beside(path) == []


class Counts:
    """How many tiles each stage worked on, how often a model was fitted, and how many partitions were read."""

    def __init__(self, patch):
        self.of = Counter()
        patch.setattr(workspace, "_map_tile", self.counted(workspace._map_tile, lambda work, tile: work[0]))
        for module, name in ((method, "fit"), (transcripts, "_append")):
            patch.setattr(module, name, self.counted(getattr(module, name), lambda *args, name=name, **kwargs: name))

    def counted(self, function, name):
        def call(*args, **kwargs):
            self.of[name(*args, **kwargs)] += 1
            return function(*args, **kwargs)

        return call


PREDICT = ("sslcst.run.stages.passes", "_of_tile", 2)
STEPS = [
    ("sslcst.run.stages.nuclei", "_write", 1),
    ("sslcst.run.stages.nuclei", "_finish", 1),
    ("sslcst.run.stages.transcripts", "_append", 2),
    ("sslcst.run.stages.spots", "_of_tile", 2),
    ("sslcst.run.stages.passes", "_of_tile", 2),
    ("sslcst.run.stages.passes", "_of_tile", 9),  # in the training batches
    ("sslcst.methods.ssl_cst.method", "write_model", 1),
    PREDICT,
    ("sslcst.run.pipeline", "find_cells", 1),
    ("sslcst.run.stages.cells", "_of_tile", 3),
    ("sslcst.run.results", "statistics", 2),
    COMMIT,
    ("sslcst._sdata.store", "_swap", 1),
    ("sslcst._sdata.store", "_unlist", 1),
    ("sslcst._sdata.store", "_move", 1),
    ("sslcst._sdata.store", "_add_to_group", 3),
    ("sslcst._sdata.store", "_move", 2),
    ("sslcst._sdata.store", "consolidate", 1),
    ("sslcst._sdata.scratch", "remove_trash", 2),
]


def test_killed_at_each_step(path, undisturbed):
    """Killed again and again, each time a step further, the same call ends as if nothing had been."""
    before_us = hashes(path)
    for step in STEPS:
        assert exit_code(path, *step) == -signal.SIGKILL, step
        assert_opens(path, before_us)
    segment(sd.read_zarr(path), PARAMS)
    assert_complete(path, undisturbed, before_us)


def test_killed_at_random_moments(path, original, undisturbed):
    before_us = hashes(path)
    began = time.monotonic()
    assert exit_code(path) == 0
    seconds = time.monotonic() - began
    killed = 0
    for i in range(KILLS):
        shutil.rmtree(path)
        shutil.copytree(original, path)
        began = time.monotonic()
        child = start(path)
        child.join(seconds * random.Random(i).random())
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if child.exitcode == 0:  # sooner than the first, which had what all are forked from to wait for
            seconds = time.monotonic() - began
        left = assert_opens(path, before_us)
        if "sslcst_table" in left:  # what is left is beside the store, and swept by whatever run is next
            store.finish(path)
        else:
            segment(left, PARAMS)
        assert_complete(path, undisturbed, before_us)
        logging.getLogger(__name__).info("%d of %d runs of %.1f s were killed.", killed, i + 1, seconds)
    assert killed or not KILLS


def test_a_stopped_run_goes_on_with_what_is_done(path, undisturbed, monkeypatch):
    before_us = hashes(path)
    assert exit_code(path, "sslcst.run.stages.cells", "_of_tile", 3) == -signal.SIGKILL
    counts = Counts(monkeypatch)
    segment(sd.read_zarr(path), PARAMS)
    assert set(counts.of) == {"cells"}
    assert 0 < counts.of["cells"] < N_TILES
    assert_complete(path, undisturbed, before_us)


def rewritten_points(path: Path) -> dict:
    """Other transcripts in a later partition, of the same number and the same size on the disk."""
    [*_, last] = sorted((path / "points" / "transcripts" / "points.parquet").glob("*.parquet"))
    frame = pd.read_parquet(last)
    frame["x"] = frame["x"].to_numpy()[::-1]
    frame.to_parquet(last)
    return {}


def moved_points(sdata: sd.SpatialData) -> dict:
    set_transformation(sdata["transcripts"], Scale([0.99, 0.99], ("x", "y")), "global")
    return {}


def changed_points(sdata: sd.SpatialData) -> dict:
    """Only in memory, and not in the first partition."""
    frame = sdata["transcripts"].compute()
    frame.loc[frame.index[-1], "x"] /= 2
    with_transcripts(sdata, frame, npartitions=3)
    return {}


def changed_nuclei(sdata: sd.SpatialData) -> dict:
    labels = sdata["true_nuclei"].to_numpy().copy()
    labels[labels == 5] = 0
    with_nuclei(sdata, labels)
    return {}


OTHER = {
    "points on disk": rewritten_points,
    "transformation": moved_points,
    "points in memory": changed_points,
    "nuclei in memory": changed_nuclei,
    "seed": lambda sdata: {"seed": 1},
    "parameters": lambda sdata: {"params": {"flow": {"threshold": 0.6}}},
    "model": lambda sdata: {"model": _model()},
}


@lru_cache
def _model():
    sdata = chip(n_cells=40)
    sslcst.pp.import_nuclei(sdata, "true_nuclei")
    sslcst.pp.bin_spots(sdata, params=PARAMS)
    return sslcst.tl.train(sdata, method="ssl-cst", params=PARAMS, seed=7)


@pytest.mark.parametrize("what", OTHER)
def test_other_input_never_meets_what_was_done(half_done, what, monkeypatch):
    """Nothing of a stopped run is used when anything changed that bears on the result."""
    change = OTHER[what]
    given = change(half_done) if what == "points on disk" else {}
    sdata = sd.read_zarr(half_done)
    given |= {} if what == "points on disk" else change(sdata)
    sources = fingerprint_of(sdata, **given)
    assert sources != scratch.fingerprint_in(store.scratch_folder(half_done, "sslcst"))


@pytest.fixture(scope="module")
def stopped(original, tmp_path_factory):
    """The folder of a run that was killed when all but the cells was done."""
    path = tmp_path_factory.mktemp("stopped") / "a.zarr"
    shutil.copytree(original, path)
    assert exit_code(path, "sslcst.run.stages.cells", "_of_tile", 2) == -signal.SIGKILL
    return path.parent


@pytest.fixture
def half_done(stopped, tmp_path, monkeypatch):
    """A copy of it in the very place that the run knows, so that names and times of files are the same."""
    kept = tmp_path / "kept"
    shutil.copytree(stopped, kept, copy_function=shutil.copy2)
    yield stopped / "a.zarr"
    shutil.rmtree(stopped)
    shutil.copytree(kept, stopped, copy_function=shutil.copy2)


class Stop(Exception):
    """Raised where enough is known."""


def fingerprint_of(sdata: sd.SpatialData, *, params=None, **given) -> str:
    """The fingerprint with which a run opens its scratch folder."""
    seen = []

    def stop(self, fingerprint):
        seen.append(fingerprint)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch.Scratch, "open", stop)
        with pytest.raises(Stop):
            segment(sdata, params_of({"tiles": {"size": 64}}, params or {}), **given)
    return seen[0]


def test_the_same_input_is_known_again(half_done):
    """By another process, in another session."""
    known = scratch.fingerprint_in(store.scratch_folder(half_done, "sslcst"))
    assert fingerprint_of(sd.read_zarr(half_done)) == known


@pytest.mark.parametrize("folder", [False, True])
def test_other_weights_in_the_same_file_are_other_input(path, tmp_path, folder):
    """Of a model that is a file, or a folder of files as StarDist's."""
    model = tmp_path / "model"
    file = model / "weights.h5" if folder else model
    file.parent.mkdir(exist_ok=True)
    params = {"nuclei": {"method": "sslcst", "model": str(model)}}
    known = []
    for minute, content in enumerate((b"one", b"two", b"two")):
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
            os.utime(file, (60 * minute, 60 * minute))  # file systems may keep no parts of a second
        known.append(fingerprint_of(sd.read_zarr(path), params=params))
    assert known[0] != known[1] == known[2]


def test_other_parameters_start_anew(half_done, monkeypatch):
    """And the result is that of a store that never saw the stopped run."""
    counts = Counts(monkeypatch)
    segment(sd.read_zarr(half_done), PARAMS, seed=1)
    assert counts.of["spots"] == counts.of["prediction"] == N_TILES
    fresh = chip(n_cells=40)
    segment(fresh, PARAMS, seed=1)
    assert_same_cells(sd.read_zarr(half_done), fresh)
    assert beside(half_done) == []


def test_later_runs_in_a_process_meet_nothing_of_earlier_ones(path):
    """Neither their model nor their nuclei, though all lie in the same place."""
    sdata, fresh = sd.read_zarr(path), chip(n_cells=40)
    segment(sdata, PARAMS)
    for each in (sdata, fresh):
        with_nuclei(each, each["true_nuclei"].to_numpy()[:60, :70])
    segment(sdata, PARAMS, seed=1, overwrite=True)
    segment(fresh, PARAMS, seed=1)
    assert_same_cells(sdata, fresh)


def test_what_is_overwritten_stays_until_the_new_is_whole(path, undisturbed):
    before_us = hashes(path)
    segment(sd.read_zarr(path), PARAMS, seed=1)
    for step in (
        PREDICT,
        COMMIT,
        ("sslcst._sdata.store", "_swap", 1),
    ):
        assert exit_code(path, *step, overwrite=True) == -signal.SIGKILL
        found = assert_opens(path, before_us)
        assert found["sslcst_table"].uns["sslcst"]["seed"] == 1
        assert found["sslcst_cells"].to_numpy().max() == found["sslcst_table"].obs["cell_id"].max()
    segment(sd.read_zarr(path), PARAMS, overwrite=True)
    assert_complete(path, undisturbed, before_us)


def test_one_run_at_a_time(path, tmp_path):
    """A second one is refused while the first is at work, and not after it died."""
    child = start(path, ("sslcst.run.stages.spots", "_of_tile", 1), waits=tmp_path / "here")
    wait_until(lambda: (tmp_path / "here").exists() or not child.is_alive())
    assert child.is_alive()
    with pytest.raises(StoreError, match="Another run is at work on"):
        segment(sd.read_zarr(path), PARAMS)
    child.kill()
    child.join()
    with locked(path):
        pass


FILES = ["transcripts/*.bin", "spots/*.npz", "spots.counts/*.npz", "of_bins.around.distance/*.npz", "cores/*.npz"]
FILES += ["of_spots.probability/*.npz", "prediction/*.done", "nuclei.npz", "nuclei.zarr/c/*/*"]
FILES += ["nuclei.zarr/zarr.json", "fit/model.safetensors", "fit/model.json", "run.json"]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [(pattern, "flipped") for pattern in FILES]
    + [(pattern, damage) for pattern in ("spots/*.npz", "run.json") for damage in ("empty", "truncated", "garbage")]
    + [("nuclei.zarr/c/*/*", "garbage"), ("fit/model.safetensors", "truncated")],
)
def test_a_damaged_file_is_made_anew(half_done, undisturbed, pattern, damage):
    """Down to a single bit, which the note of what was done tells; the result is that of a run that nothing stopped."""
    before_us = hashes(half_done)
    file = sorted(store.scratch_folder(half_done, "sslcst").glob(pattern))[0]
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    damaged = {"empty": b"", "truncated": content[:middle], "garbage": content[::-1], "flipped": flipped}
    file.write_bytes(damaged[damage])
    segment(sd.read_zarr(half_done), PARAMS)
    assert_complete(half_done, undisturbed, before_us)


FULL = [  # in the order of a run, which goes on after each
    (scratch.Scratch, "write_text", 1),
    (nuclei, "_write", 1),
    (scratch.Scratch, "save", 1),
    (transcripts, "_append", 2),
    (scratch.Scratch, "save", 5),
    (method, "write_model", 1),
    (cells, "_of_tile", 2),
    (results, "statistics", 2),
    (store, "_unlist", 1),
    (store, "_move", 2),
    (store, "consolidate", 1),
]


def test_a_full_disk(path, undisturbed):
    """A clear error, a store as it was; with room again the same call goes on."""
    before_us = hashes(path)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name, call in FULL:
        with pytest.MonkeyPatch.context() as patch:
            before(module, name, call, full, patch.setattr)
            with pytest.raises(StoreError, match="No space left"):
                segment(sd.read_zarr(path), PARAMS)
        assert "sslcst_table" not in assert_opens(path, before_us)
    segment(sd.read_zarr(path), PARAMS)
    assert_complete(path, undisturbed, before_us)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != path.parent and access(place, mode))
    monkeypatch.setattr(_segment, "_run", None)
    with pytest.raises(StoreError, match="cannot be written to"):
        segment(sd.read_zarr(path), PARAMS)
    assert beside(path) == []


def test_in_memory_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sdata = chip(n_cells=40)
    segment(sdata, PARAMS)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyMissingError, match="exists"):
        segment(sdata, PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_segmented_leaves_nothing(path):
    """Neither in the store nor beside it."""
    before_us = files_of(path)
    sdata = sd.read_zarr(path)
    with_nuclei(sdata, np.ones(sdata["true_nuclei"].shape))
    with pytest.raises(DataError):
        segment(sdata, PARAMS)
    assert files_of(path) == before_us
    assert beside(path) == []
