"""The store is never harmed, whatever happens while results are written."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import spatialdata as sd
from patience import PATIENCE
from spatialdata.models import Image2DModel, Labels2DModel

from sslcst._sdata import store
from sslcst.errors import KeyMissingError, StoreError

KINDS = {"a_nuclei": "labels", "a_cells": "labels"}


def labels(value):
    return Labels2DModel.parse(np.full((8, 8), value, np.uint32), dims=("y", "x"))


def results(value):
    return {name: labels(value) for name in KINDS}


@pytest.fixture
def sdata(tmp_path):
    image = Image2DModel.parse(np.arange(64, dtype=np.uint16).reshape(1, 8, 8), dims=("c", "y", "x"))
    sd.SpatialData(images={"stain": image}).write(tmp_path / "a.zarr")
    return sd.read_zarr(tmp_path / "a.zarr")


def values(path):
    """What a reader finds: name -> the one value of each of our labels, and the image unharmed."""
    found = sd.read_zarr(path)
    assert (found["stain"].to_numpy().ravel() == np.arange(64)).all()
    return {name: int(np.unique(found.labels[name].to_numpy()).item()) for name in found.labels}


def test_commit_is_seen_by_the_object_and_by_every_reader(sdata):
    store.commit(sdata, results(1), KINDS)
    assert values(sdata.path) == {"a_nuclei": 1, "a_cells": 1}
    assert set(sdata.labels) == set(KINDS)
    assert [p.name for p in sdata.path.parent.iterdir()] == ["a.zarr"]
    import zarr

    listed = zarr.open_group(sdata.path, mode="r")["labels"].attrs["ome"]["labels"]
    assert sorted(listed) == sorted(KINDS)


def test_what_is_replaced_is_replaced_whole(sdata):
    store.commit(sdata, results(1), KINDS)
    store.commit(sdata, results(2), KINDS)
    assert values(sdata.path) == {"a_nuclei": 2, "a_cells": 2}
    assert int(sdata["a_cells"].to_numpy().max()) == 2


@pytest.mark.parametrize(
    ("step", "call"), [("_unlist", 1), ("_move", 1), ("_move", 2), ("_add_to_group", 1), ("_add_to_group", 2)]
)
def test_a_failed_write_leaves_the_old_results(sdata, monkeypatch, step, call):
    store.commit(sdata, results(1), KINDS)
    original, calls = getattr(store, step), []

    def fail(*args):
        calls.append(args)
        if len(calls) == call:
            raise OSError("No space left on device")
        return original(*args)

    monkeypatch.setattr(store, step, fail)
    with pytest.raises(StoreError, match=r"No space left.*unharmed"):
        store.commit(sdata, results(2), KINDS)
    assert values(sdata.path) == {"a_nuclei": 1, "a_cells": 1}
    assert [p.name for p in sdata.path.parent.iterdir()] == ["a.zarr"]


KILLED = """
import os, sys
import numpy as np, spatialdata as sd
from spatialdata.models import Labels2DModel
from sslcst._sdata import store

path, step, call = sys.argv[1], sys.argv[2], int(sys.argv[3])
original, calls = getattr(store, step), []

def die(*args):
    calls.append(args)
    if len(calls) == call:
        os._exit(9)
    return original(*args)

setattr(store, step, die)
labels = {name: Labels2DModel.parse(np.full((8, 8), 2, np.uint32), dims=("y", "x")) for name in ("a_nuclei", "a_cells")}
store.commit(sd.read_zarr(path), labels, dict.fromkeys(labels, "labels"))
"""


@pytest.mark.parametrize("had_results", [False, True])
@pytest.mark.parametrize(("step", "call"), [("_unlist", 1), ("_move", 1), ("_add_to_group", 2), ("consolidate", 1)])
def test_a_killed_write_leaves_a_store_that_opens_and_that_the_next_run_cleans(sdata, had_results, step, call):
    """A process that ends at the step runs no handler, as with kill -9."""
    if had_results:
        store.commit(sdata, results(1), KINDS)
    child = subprocess.run([sys.executable, "-c", KILLED, str(sdata.path), step, str(call)], timeout=PATIENCE)
    assert child.returncode == 9
    assert values(sdata.path) in ({}, {"a_nuclei": 1, "a_cells": 1})
    again = sd.read_zarr(sdata.path)
    store.check_free(again, KINDS, overwrite=True)
    store.commit(again, results(3), KINDS)
    assert values(sdata.path) == {"a_nuclei": 3, "a_cells": 3}
    assert [p.name for p in sdata.path.parent.iterdir()] == ["a.zarr"]


def test_what_the_store_holds_counts_even_where_the_object_does_not(sdata):
    store.commit(sdata, results(1), KINDS)
    part = sd.read_zarr(sdata.path, selection=("images",))
    with pytest.raises(KeyMissingError, match="exists: choose another key_added, or overwrite=True"):
        store.check_free(part, KINDS, overwrite=False)
    with pytest.raises(KeyMissingError, match="'a_cells' exists among the labels and is none of ours"):
        store.check_free(part, {"a_cells": "tables"}, overwrite=True)
    store.check_free(part, KINDS, overwrite=True)


def test_a_store_of_an_older_format_is_refused(sdata):
    (sdata.path / "zarr.json").rename(sdata.path / ".zgroup")
    with pytest.raises(StoreError, match="zarr format 3"):
        store.check_free(sdata, KINDS, overwrite=False)
