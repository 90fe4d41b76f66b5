"""`sslcst repair` cleans what was left, says so, and touches nothing else."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from quick_runs import result, results_in, segment, tissue, value_of, without_work
from spatialdata.models import Labels2DModel, PointsModel
from stopped_runs import kill
from store_files import files_of

from sslcst._sdata.lock import locked
from sslcst._sdata.repair import repair
from sslcst.errors import StoreError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    labels = Labels2DModel.parse(np.eye(8, dtype=np.uint32), dims=("y", "x"))
    points = PointsModel.parse(pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}))
    sd.SpatialData(labels={"a": labels}, points={"p": points}).write(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def zarr_lists(store: Path) -> None:
    """What other tools do: list all that is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(store)


def orphan(store: Path) -> None:
    """What a failed write of labels leaves: a group that is listed and holds nothing."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)["labels"]
    group.create_group("half")
    group.attrs["ome"] = {"labels": ["a", "half"]}
    zarr_lists(store)


def test_a_whole_store_stays_as_it_is(store: Path) -> None:
    before = files_of(store.parent)
    assert repair(store) == []
    assert files_of(store.parent) == before


def test_an_orphaned_group_goes_and_the_store_opens(store: Path) -> None:
    """With it, spatialdata cannot read the store; without it, all else is there, bit by bit."""
    kept = {name: value for name, value in files_of(store).items() if "zarr.json" not in name}
    orphan(store)
    with pytest.raises(KeyError):
        sd.read_zarr(store)
    said = repair(store)
    assert any(line.startswith("labels/half") for line in said)
    assert {name: value for name, value in files_of(store).items() if "zarr.json" not in name} == kept
    assert list(sd.read_zarr(store).labels) == ["a"]
    assert json.loads((store / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"] == ["a"]
    assert repair(store) == []


def test_a_dry_run_only_says(store: Path) -> None:
    """The same words, and nothing changes."""
    orphan(store)
    (store.parent / ".run.zarr.sslcst-cells").mkdir()
    before = files_of(store.parent)
    said = repair(store, dry_run=True)
    assert files_of(store.parent) == before
    assert (store.parent / ".run.zarr.sslcst-cells").exists()
    assert repair(store) == said


def test_what_runs_left_beside_the_store_goes_and_nothing_of_others(store: Path) -> None:
    scratch, other = store.parent / ".run.zarr.sslcst-cells", store.parent / ".run2.zarr.sslcst-cells"
    for folder in (scratch, other):
        folder.mkdir()
        (folder / "run.json").write_text('"of a run"')
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


def chunks(folder: Path) -> dict[str, str]:
    """All files but those of metadata."""
    return {name: value for name, value in files_of(folder).items() if not name.endswith("zarr.json")}


@pytest.fixture
def tissue_store(tmp_path: Path) -> Path:
    tissue().write(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


@pytest.mark.parametrize("place", ["images/stain", "labels/given", "points/molecules"])
@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_an_element_with_damaged_metadata_keeps_its_data(tissue_store: Path, place: str, damage: str) -> None:
    """It leaves the list, so that the rest can be read; what the list told of it is kept, to be put back."""
    file = tissue_store / place / "zarr.json"
    whole = json.loads(file.read_text())
    file.write_text('{"zarr_form') if damage == "cut short" else file.unlink()
    held = files_of(tissue_store / place)
    planned = repair(tissue_store, dry_run=True)
    said = repair(tissue_store)
    assert said == planned
    assert any(line.startswith(place) and "write it anew" in line for line in said)
    assert files_of(tissue_store / place) == held
    assert place.split("/")[1] not in sd.read_zarr(tissue_store)
    told = json.loads((tissue_store.parent / "run.zarr.unlisted.json").read_text())
    whole.pop("consolidated_metadata", None)  # which some versions of zarr note of every group in a list
    assert {key: told[place][key] for key in whole} == whole


def half_written_points(store: Path) -> None:
    """The last of its files is cut short."""
    [file, *_] = sorted((store / "points" / "molecules" / "points.parquet").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-50])


def test_half_written_points_that_are_listed_leave_the_list(tissue_store: Path) -> None:
    half_written_points(tissue_store)
    held = chunks(tissue_store)
    said = repair(tissue_store)
    assert any("points/molecules cannot be read" in line for line in said)
    assert chunks(tissue_store) == held
    assert set(sd.read_zarr(tissue_store).labels) == {"given"}


@pytest.mark.parametrize("kind", ["images", "labels", "points", "shapes", "tables"])
def test_half_written_elements_that_are_not_listed_stay_so(store: Path, kind: str) -> None:
    """They are told of, as long as there is data in them; the store opens before and after."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False).require_group(kind).create_group("half")
    group.create_array("s0", data=np.ones(4))
    before = files_of(store)
    said = repair(store)
    assert [line.split(" ")[0] for line in said] == [f"{kind}/half"]
    assert files_of(store) == before
    assert "half" not in sd.read_zarr(store)


@pytest.mark.parametrize("place", ["images/mine", "labels/mine", "notes"])
def test_a_user_s_folder_is_left_alone(store: Path, place: str) -> None:
    (store / place).mkdir(parents=True)
    (store / place / "read.me").write_text("mine")
    before = files_of(store.parent)
    assert repair(store) == []
    assert files_of(store.parent) == before


@pytest.mark.parametrize("file", ["zarr.json", "labels/zarr.json"])
def test_unreadable_metadata_of_the_store_are_told_in_words(store: Path, file: str) -> None:
    (store / file).write_text("")
    before = files_of(store.parent)
    with pytest.raises(StoreError, match=rf"{file} cannot be read.*put it back from a copy"):
        repair(store)
    assert files_of(store.parent) == before


def in_other_case(store: Path, names: list[str]) -> None:
    """What an earlier version let happen: elements whose names differ in case alone."""
    for kind, name in (place.split("/") for place in names):
        shutil.copytree(store / kind / name, store / kind / name.upper())
    zarr_lists(store)
    root = json.loads((store / "zarr.json").read_text())
    entries = root["consolidated_metadata"]["metadata"]
    in_order = sorted(entries, key=lambda path: (path.count("/"), path.swapcase()))  # in which spatialdata meets them
    root["consolidated_metadata"]["metadata"] = {path: entries[path] for path in in_order}
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match="not unique"):
        sd.read_zarr(store)


@pytest.mark.parametrize("recorded", [True, False])
def test_results_named_as_a_user_s_element_case_apart_leave_the_list(tissue_store: Path, monkeypatch, recorded) -> None:
    """All of the run, and nothing of the user's; also of runs that left no record of what they wrote."""
    without_work(monkeypatch)
    segment(sd.read_zarr(tissue_store))
    in_other_case(tissue_store, ["labels/sslcst_cells"])
    if not recorded:
        shutil.rmtree(tissue_store / "tables" / "sslcst_table" / "uns" / "sslcst" / "results")
    held = chunks(tissue_store)
    said = repair(tissue_store, dry_run=True)
    assert repair(tissue_store) == said
    found = sd.read_zarr(tissue_store)
    assert {name for _, name, _ in found.gen_elements()} == {"stain", "given", "molecules", "SSLCST_CELLS"}
    assert chunks(tissue_store) == held
    assert repair(tissue_store) == []


@pytest.mark.filterwarnings("ignore:The table is annotating:UserWarning")
def test_of_two_runs_named_alike_case_apart_the_later_leaves_the_list(tissue_store: Path, monkeypatch) -> None:
    without_work(monkeypatch)
    segment(sd.read_zarr(tissue_store), 1)
    with monkeypatch.context() as patch:
        patch.setattr("sslcst.tl._segment.check_free", lambda *_, **__: {})
        patch.setattr("sslcst._sdata.store.taken", lambda *_: [])
        patch.setattr("sslcst._sdata.journal.taken", lambda *_: [])
        patch.setattr("sslcst._sdata.store.read_back", lambda *_: {})
        with pytest.raises(KeyError, match="not unique"):  # by spatialdata, once all is published
            segment(sd.read_zarr(tissue_store), 2, key_added="SSLCST")
    with pytest.raises(ValueError, match="not unique"):
        sd.read_zarr(tissue_store)
    repair(tissue_store)
    assert results_in(sd.read_zarr(tissue_store)) == dict.fromkeys(("nuclei", "cells", "table"), 1)


def test_of_raw_elements_named_alike_none_is_chosen(tissue_store: Path) -> None:
    in_other_case(tissue_store, ["labels/given"])
    before = files_of(tissue_store)
    said = repair(tissue_store)
    assert any("labels/GIVEN and labels/given differ in case alone" in line and "move" in line for line in said)
    assert files_of(tissue_store) == before


def test_a_link_in_the_place_of_a_scratch_folder_is_left(store: Path) -> None:
    """And so is what it leads to, even if that looks like a run that was killed while it published."""
    victim = store.parent / "victim"
    victim.mkdir()
    (victim / "whole.json").write_text('{"new": [], "former": []}')
    link = store.parent / ".run.zarr.sslcst-cells"
    link.symlink_to(victim)
    said = repair(store)
    assert any("is a link" in line for line in said)
    assert link.is_symlink() and (victim / "whole.json").exists()


@pytest.mark.parametrize("places", [["labels/../../victim"], ["../victim"], ["victim/a"], "labels/a", {"a": 1}, [3]])
def test_a_journal_that_leads_elsewhere_is_not_followed(store: Path, places) -> None:
    victim = store.parent / "victim"
    victim.mkdir()
    folder = store.parent / ".run.zarr.sslcst-cells"
    folder.mkdir()
    (folder / "whole.json").write_text(json.dumps({"new": [], "former": places}))
    before = files_of(store)
    repair(store)
    assert victim.is_dir() and files_of(store) == before


def test_a_killed_write_is_finished(tissue_store: Path, monkeypatch) -> None:
    """A dry run says so, and what else it would do."""
    without_work(monkeypatch)
    kill("_move", 2, lambda: segment(sd.read_zarr(tissue_store), 1, shapes=True))
    before = files_of(tissue_store.parent)
    said = repair(tissue_store, dry_run=True)
    assert files_of(tissue_store.parent) == before
    assert repair(tissue_store) == said and "put in their places" in said[0]
    assert set(results_in(sd.read_zarr(tissue_store)).values()) == {1}
    assert repair(tissue_store) == []


def test_a_killed_write_in_whose_place_is_another_s_is_given_up(tissue_store: Path, monkeypatch) -> None:
    without_work(monkeypatch)
    kill("_move", 2, lambda: segment(sd.read_zarr(tissue_store), 1))
    other = sd.read_zarr(tissue_store)
    other["SSLCST_cells"] = result("labels", 7)
    other.write_element("SSLCST_cells")
    said = repair(tissue_store, dry_run=True)
    assert repair(tissue_store) == said and "is not put into the store" in said[0]
    assert value_of(sd.read_zarr(tissue_store), "SSLCST_cells") == 7
    assert results_in(sd.read_zarr(tissue_store)) == {}
