"""Results that wait to be published, found damaged or tampered with: what was before comes back, nobody is harmed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spatialdata as sd
from quick_runs import results_in, segment, tissue, without_work
from stopped_runs import kill
from store_files import files_of

from sslcst._sdata import store
from sslcst.errors import StoreError


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A store whose runs take no time."""
    tissue().write(tmp_path / "a.zarr")
    without_work(monkeypatch)
    return tmp_path / "a.zarr"


@pytest.fixture
def victim(path):
    """A folder of somebody else beside the store."""
    folder = path.parent / "victim"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    (folder / "run.json").write_text('"0123"')
    (folder / "whole.json").write_text('{"new": {"labels/sslcst_cells": [0, 0]}, "former": []}')
    return folder


def scratch_of(path: Path, key: str = "sslcst") -> Path:
    return store.scratch_folder(path, key)


@pytest.mark.parametrize(("step", "call"), [("_swap", 1), ("_move", 2), ("consolidate", 1)])
@pytest.mark.parametrize("former", [False, True])
def test_results_that_were_damaged_since_are_not_published(path, step, call, former, caplog):
    """Before they were moved, or after: the same call makes them anew."""
    if former:
        segment(sd.read_zarr(path), 1)
    kill(step, call, lambda: segment(sd.read_zarr(path), 2, overwrite=True))
    chunk = next(
        file
        for place in (scratch_of(path) / "new.zarr", path)
        for file in sorted((place / "labels" / "sslcst_cells").rglob("c/**/*"))
        if file.is_file()
    )
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    segment(sd.read_zarr(path), 3, key_added="other")
    assert "labels/sslcst_cells was damaged since" in caplog.text
    found = sd.read_zarr(path)
    assert results_in(found) == (dict.fromkeys(("nuclei", "cells", "table"), 1) if former else {})
    segment(found, 2, overwrite=True)
    assert results_in(sd.read_zarr(path)) == dict.fromkeys(("nuclei", "cells", "table"), 2)


def test_a_lost_result_does_not_take_what_was_before_with_it(path):
    segment(sd.read_zarr(path), 1)
    kill("_unlist", 1, lambda: segment(sd.read_zarr(path), 2, overwrite=True))
    (scratch_of(path) / "new.zarr" / "labels" / "sslcst_cells").rename(path.parent / "lost")
    segment(sd.read_zarr(path), 3, key_added="other")
    assert set(results_in(sd.read_zarr(path)).values()) == {1}


@pytest.mark.parametrize("place", ["labels/../../victim", "../victim", "/victim", "labels/.hidden", "labels", 3])
@pytest.mark.parametrize("part", ["new", "former"])
def test_no_place_leads_out_of_the_store(path, victim, place, part):
    """However the note of a killed run was changed."""
    kill("_swap", 1, lambda: segment(sd.read_zarr(path), 2))
    note = scratch_of(path) / "whole.json"
    noted = json.loads(note.read_text())
    noted[part] = noted[part] | {str(place): [0, 0]} if part == "new" else [place]
    note.write_text(json.dumps(noted))
    before = files_of(victim)
    segment(sd.read_zarr(path), 3, key_added="other")
    assert files_of(victim) == before
    assert results_in(sd.read_zarr(path)) == {}


@pytest.mark.parametrize("ending", ["sslcst", "other", "other~", "write"])
@pytest.mark.parametrize("planted", ["link", "folder"])
def test_what_only_bears_the_name_of_a_run_is_left_alone(path, victim, ending, planted):
    """It is refused where it is in the way, and overlooked where it is not."""
    place = scratch_of(path, ending)
    if planted == "link":
        place.symlink_to(victim)
    else:
        (victim / "run.json").unlink()
        victim.rename(place)
    before = files_of(path.parent)
    if ending == "sslcst":
        with pytest.raises(StoreError, match="is in the way"):
            segment(sd.read_zarr(path), 1)
    else:
        segment(sd.read_zarr(path), 1)
    after = files_of(path.parent)
    kept = {name: value for name, value in before.items() if not name.startswith("a.zarr/")}
    assert {name: value for name, value in after.items() if not name.startswith("a.zarr/")} == kept


def test_links_in_the_folder_of_a_killed_run_are_refused(path, victim):
    kill("_swap", 1, lambda: segment(sd.read_zarr(path), 2))
    cells = scratch_of(path) / "new.zarr" / "labels" / "sslcst_cells"
    cells.rename(path.parent / "aside")
    cells.symlink_to(victim)
    before = files_of(victim)
    with pytest.raises(StoreError, match="holds links"):
        segment(sd.read_zarr(path), 3, key_added="other")
    assert files_of(victim) == before
    assert results_in(sd.read_zarr(path)) == {}
