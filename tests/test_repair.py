"""`sslcst repair` cleans what was left, says so, and touches nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from spatialdata.models import Labels2DModel, PointsModel

from sslcst.errors import StoreError
from sslcst.repair import repair
from sslcst.store import consolidate, locked


@pytest.fixture
def store(tmp_path: Path) -> Path:
    labels = Labels2DModel.parse(np.eye(8, dtype=np.uint32), dims=("y", "x"))
    points = PointsModel.parse(pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}))
    sd.SpatialData(labels={"a": labels}, points={"p": points}).write(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def files(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def orphan(store: Path) -> None:
    """What a failed write of labels leaves: a group that is listed and holds nothing."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)["labels"]
    group.create_group("half")
    group.attrs["ome"] = {"labels": ["a", "half"]}
    consolidate(store)


def test_a_whole_store_stays_as_it_is(store: Path) -> None:
    before = files(store.parent)
    assert repair(store) == []
    assert files(store.parent) == before


def test_an_orphaned_group_goes_and_the_store_opens(store: Path) -> None:
    """With it, spatialdata cannot read the store; without it, all else is there, bit by bit."""
    kept = {name: value for name, value in files(store).items() if "zarr.json" not in name}
    orphan(store)
    with pytest.raises(KeyError):
        sd.read_zarr(store)
    said = repair(store)
    assert any(line.startswith("labels/half") for line in said)
    assert {name: value for name, value in files(store).items() if "zarr.json" not in name} == kept
    assert list(sd.read_zarr(store).labels) == ["a"]
    assert json.loads((store / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"] == ["a"]
    assert repair(store) == []


def test_a_dry_run_only_says(store: Path) -> None:
    """The same words, and nothing changes."""
    orphan(store)
    (store.parent / ".run.zarr.sslcst-cells").mkdir()
    before = files(store.parent)
    said = repair(store, dry_run=True)
    assert files(store.parent) == before
    assert (store.parent / ".run.zarr.sslcst-cells").exists()
    assert repair(store) == said


def test_what_runs_left_beside_the_store_goes_and_nothing_of_others(store: Path) -> None:
    scratch, other = store.parent / ".run.zarr.sslcst-cells", store.parent / ".run2.zarr.sslcst-cells"
    for folder in (scratch, other):
        folder.mkdir()
        (folder / "spots.npz").write_bytes(b"x" * 2**20)
    stray = store / "zarr.abc.partial"
    stray.write_text("{")
    said = repair(store)
    assert any("1.0 MiB" in line for line in said)
    assert not scratch.exists() and not stray.exists()
    assert other.exists()


def test_elements_that_are_gone_leave_the_list(store: Path) -> None:
    """A list that tells of an element that is not there keeps the store from opening."""
    shutil.rmtree(store / "labels" / "a")
    said = repair(store)
    assert any("labels/a" in line for line in said)
    assert not sd.read_zarr(store).labels


def test_a_store_at_which_a_run_works_is_refused(store: Path) -> None:
    with locked(store), pytest.raises(StoreError, match="Another run is at work"):
        repair(store)


def test_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no SpatialData store of zarr format 3"):
        repair(tmp_path)
