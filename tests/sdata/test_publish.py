"""What a run puts into an object and its store: never in the place of what is not ours, and as a whole."""

from __future__ import annotations

import json

import pytest
import spatialdata as sd
import zarr
from quick_runs import KINDS, result, results_in, segment, tissue, value_of, without_work
from stopped_runs import Killed, before, kill
from store_files import files_of

import sslcst
from sslcst._sdata import store
from sslcst._sdata.scratch import Scratch
from sslcst.errors import KeyMissingError, SslcstError, StoreError
from sslcst.methods.density.method import DensityFit

ALL = {"shapes": True, "assign_points": True}


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    without_work(monkeypatch)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "a.zarr"
    tissue().write(path)
    return path


def everything(path):
    """All bytes of a store and of what lies beside it."""
    return files_of(path.parent)


WHERE = [
    ("SSLCST_cells", "labels", "memory", False),
    ("Sslcst_Table", "tables", "store", True),
    ("sslcst_BOUNDARIES", "shapes", "memory", True),
    ("sslcst_BOUNDARIES", "shapes", "part", False),
    ("sslcst_Cells", "points", "store", False),
    ("SSLCST_TRANSCRIPTS", "tables", "part", True),
]


@pytest.mark.parametrize(("name", "kind", "where", "overwrite"), WHERE)
def test_names_that_differ_in_case_alone_are_refused_before_any_work(path, monkeypatch, name, kind, where, overwrite):
    """Whatever their kind, whether the run would write outlines or not, and wherever they are."""
    sdata = sd.read_zarr(path)
    sdata[name] = result(kind, 7, "given")
    if where == "memory":
        sdata.path = None
    else:
        sdata.write_element(name)
    if where == "part":
        sdata = sd.read_zarr(
            path, selection=("points", "labels") if kind == "tables" else ("points", "labels", "tables")
        )
        if name in sdata:
            del sdata[name]
    without_work(monkeypatch, meanwhile=lambda: pytest.fail("work began"))
    held = everything(path)
    with pytest.raises(KeyMissingError, match=f"'{name}' exists.*case alone.*choose another key_added"):
        segment(sdata, overwrite=overwrite)
    assert everything(path) == held
    sd.read_zarr(path)


def test_a_second_run_of_a_prefix_in_other_case_is_refused(path):
    sdata = sd.read_zarr(path)
    segment(sdata)
    with pytest.raises(KeyMissingError, match="case alone"):
        segment(sdata, key_added="SSLCST")
    assert results_in(sd.read_zarr(path)) == dict.fromkeys(("nuclei", "cells", "table"), 1)


STEPS = {
    "import_nuclei": lambda sdata, key: sslcst.pp.import_nuclei(sdata, "given", key_added=key),
    "import_cells": lambda sdata, key: sslcst.pp.import_cells(sdata, "given", key_added=key),
    "segment_nuclei": lambda sdata, key: sslcst.pp.segment_nuclei(sdata, key_added=key),
    "erode_nuclei": lambda sdata, key: sslcst.pp.erode_nuclei(sdata, nuclei_key="given", key_added=key),
    "bin_spots": lambda sdata, key: sslcst.pp.bin_spots(sdata, key_added=key),
    "track": lambda sdata, key: sslcst.tl.track(sdata, DensityFit(1.0, None), key_added=key),
    "aggregate": lambda sdata, key: sslcst.tl.aggregate(sdata, key_added=key),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stored", [False, True])
def test_steps_refuse_such_names_too(path, step, stored):
    sdata = sd.read_zarr(path) if stored else tissue()
    if stored:
        del sdata.images["stain"]  # it is in the store alone
    with pytest.raises(KeyMissingError, match=r"'stain' exists.*case alone"):
        STEPS[step](sdata, "STAIN")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("later", [{}, {"shapes": True}, {"assign_points": True}, ALL])
def test_overwriting_leaves_nothing_of_the_run_before(path, stored, later):
    """Neither in the store nor in the object: outlines of other cells would seem to be of these."""
    sdata = sd.read_zarr(path) if stored else tissue()
    segment(sdata, 1, **ALL)
    segment(sdata, 2, overwrite=True, **later)
    kept = {"boundaries": "shapes" in later, "transcripts": "assign_points" in later}
    expected = {ending: 2 for ending in KINDS if kept.get(ending, True)}
    assert results_in(sdata) == expected
    if stored:
        assert results_in(sd.read_zarr(path)) == expected
        assert not (path / "shapes" / "sslcst_boundaries").exists() or "boundaries" in expected
        assert [other.name for other in path.parent.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("later", [{}, ALL])
def test_what_the_run_before_did_not_write_is_no_result(path, later):
    """The table tells what its run wrote; points of the user's own that are named alike are not deleted."""
    sdata = sd.read_zarr(path)
    segment(sdata, 1)
    sdata["sslcst_transcripts"] = result("points", 7)
    sdata.write_element("sslcst_transcripts")
    with pytest.raises(KeyMissingError, match="'sslcst_transcripts' exists and was not written by the run"):
        segment(sd.read_zarr(path), 2, overwrite=True, **later)
    assert value_of(sd.read_zarr(path), "sslcst_transcripts") == 7


@pytest.mark.parametrize("name", ["sslcst_boundaries", "sslcst_transcripts"])
def test_without_a_run_before_there_is_nothing_to_overwrite(path, name):
    """Boundaries of the user's own stay, though this run would make some."""
    sdata = sd.read_zarr(path)
    sdata[name] = result(KINDS[name.removeprefix("sslcst_")], 7)
    sdata.write_element(name)
    with pytest.raises(KeyMissingError, match=f"'{name}' exists and was not written by the run"):
        segment(sdata, overwrite=True, **ALL)
    assert value_of(sd.read_zarr(path), name) == 7


def test_what_the_run_reads_is_not_removed(path):
    sdata = sd.read_zarr(path)
    segment(sdata, 1, **ALL)
    with pytest.raises(KeyMissingError, match=r"points_key='sslcst_transcripts'.*assign_points=True"):
        segment(sdata, 2, points_key="sslcst_transcripts", overwrite=True)
    assert results_in(sd.read_zarr(path))["transcripts"] == 1


def test_nuclei_of_the_run_before_may_be_those_of_this(path):
    sdata = sd.read_zarr(path)
    segment(sdata, 1)
    segment(sdata, 2, nuclei_key="sslcst_nuclei", overwrite=True)
    assert results_in(sd.read_zarr(path)) == dict.fromkeys(("nuclei", "cells", "table"), 2)


def write_meanwhile(path, name, kind, value=7):
    other = sd.read_zarr(path)
    other[name] = result(kind, value, "given")
    other.write_element(name)


@pytest.mark.parametrize(
    ("name", "kind"), [("sslcst_cells", "labels"), ("sslcst_table", "points"), ("SSLCST_nuclei", "shapes")]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_written_while_the_run_is_at_work_stays(path, monkeypatch, name, kind, overwrite):
    without_work(monkeypatch, meanwhile=lambda: write_meanwhile(path, name, kind))
    with pytest.raises(StoreError, match=f"{kind}/{name} was written while the run was at work"):
        segment(sd.read_zarr(path), overwrite=overwrite)
    found = sd.read_zarr(path)
    assert value_of(found, name) == 7
    assert sum(element.startswith("sslcst") for _, element, _ in found.gen_elements()) == (name.startswith("sslcst"))


def test_what_is_added_to_the_object_meanwhile_stays(monkeypatch):
    sdata = tissue()
    without_work(monkeypatch, meanwhile=lambda: sdata.labels.__setitem__("sslcst_cells", result("labels", 7)))
    with pytest.raises(StoreError, match="labels/sslcst_cells was written while"):
        segment(sdata)
    assert results_in(sdata) == {"cells": 7}


SWAP = [("_unlist", 1), ("_move", 1), ("_add_to_group", 2), ("_move", 2), ("consolidate", 1)]


@pytest.mark.parametrize(
    ("step", "call", "former"), [(*SWAP[1], False), (*SWAP[3], False), (*SWAP[2], True), (*SWAP[4], True)]
)
def test_a_killed_swap_is_finished_by_any_run_and_nothing_of_others_is_replaced(path, step, call, former, caplog):
    """What was written meanwhile where a result belongs stays; then all of the run goes back."""
    if former:
        segment(sd.read_zarr(path), 1)
    kill(step, call, lambda: segment(sd.read_zarr(path), 2, overwrite=True))
    write_meanwhile(path, "SSLCST_BOUNDARIES", "shapes")  # of none of the names that were to be written
    write_meanwhile(path, "Sslcst_Cells", "points") if not former else None
    segment(sd.read_zarr(path), 3, key_added="other")
    found = sd.read_zarr(path)
    assert results_in(found, "other") == dict.fromkeys(("nuclei", "cells", "table"), 3)
    assert value_of(found, "SSLCST_BOUNDARIES") == 7
    if former:
        assert results_in(found) == dict.fromkeys(("nuclei", "cells", "table"), 2)
    else:
        assert value_of(found, "Sslcst_Cells") == 7
        assert results_in(found) == {}
        assert "is not put into the store" in caplog.text


def test_a_user_s_element_where_a_killed_run_s_belongs_stays(path):
    """Though the result that it replaced was put aside, and overwriting was asked for."""
    segment(sd.read_zarr(path), 1)
    kill("_add_to_group", 1, lambda: segment(sd.read_zarr(path), 2, overwrite=True))
    write_meanwhile(path, "sslcst_cells", "labels")
    segment(sd.read_zarr(path), 3, key_added="other")
    assert results_in(sd.read_zarr(path)) == {"nuclei": 1, "cells": 7, "table": 1}


ERRORS = [
    ("_unlist", 1, OSError("No space left"), True),
    ("_move", 1, json.JSONDecodeError("broken", "", 0), True),
    ("_add_to_group", 2, KeyboardInterrupt(), False),
    ("_move", 2, MemoryError(), True),
    ("consolidate", 1, Killed(), False),
    ("consolidate", 1, ZeroDivisionError(), True),
    ("read_back", 1, KeyboardInterrupt(), False),
    ("read_back", 1, OSError("Input/output error"), True),
]


@pytest.mark.parametrize(("step", "call", "error", "former"), ERRORS)
def test_any_error_goes_back_byte_by_byte(path, error, step, call, former):
    """The lists of groups too, and nothing is left beside the store."""
    if former:
        segment(sd.read_zarr(path), 1, **ALL)
    held = everything(path)

    def fail():
        raise error

    with pytest.MonkeyPatch.context() as patch:
        before(store, step, call, fail, patch.setattr)
        with pytest.raises((SslcstError, type(error))):
            store.commit(
                sd.read_zarr(path),
                {"sslcst_cells": result("labels", 2), "b": result("tables", 2)},
                {"sslcst_cells": "labels", "b": "tables"},
            )
    assert everything(path) == held


def test_a_store_that_cannot_be_read_back_is_as_before(path):
    """Another's labels are broken while the run is at work: an error says so, and nothing of ours is in the store."""
    sdata = sd.read_zarr(path)
    (path / "labels" / "given" / "zarr.json").write_text('{"zarr_')
    held = files_of(path)
    with pytest.raises(StoreError, match=r"cannot be read.*not added"):
        store.commit(sdata, {"a": result("labels", 1)}, {"a": "labels"})
    assert files_of(path) == held


@pytest.mark.parametrize("kind", ["images", "labels", "points", "shapes", "tables"])
def test_what_another_tool_left_half_written_stays_unlisted(path, kind):
    """And the store goes on opening."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False).require_group(kind)
    group.create_group("half").create_group("deeper")
    segment(sd.read_zarr(path), 1, **ALL)
    found = sd.read_zarr(path)
    assert "half" not in found
    assert results_in(found) == dict.fromkeys(KINDS, 1)
    assert (path / kind / "half" / "deeper" / "zarr.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_half_written_element_in_our_place_is_left_alone(path, overwrite):
    (path / "labels" / "sslcst_cells" / "s0").mkdir(parents=True)
    with pytest.raises(KeyMissingError, match="sslcst_cells"):
        segment(sd.read_zarr(path), overwrite=overwrite)
    assert (path / "labels" / "sslcst_cells" / "s0").exists()


def test_a_store_without_a_list_gets_one(path):
    root = json.loads((path / "zarr.json").read_text())
    root.pop("consolidated_metadata")
    (path / "zarr.json").write_text(json.dumps(root))
    segment(sd.read_zarr(path))
    assert {"stain", "given", "molecules", "sslcst_cells"} <= {name for _, name, _ in sd.read_zarr(path).gen_elements()}


def test_our_list_is_that_of_zarr(path):
    """What we list by ourselves is what zarr would list of the same store."""
    segment(sd.read_zarr(path), 1, **ALL)
    segment(sd.read_zarr(path), 2, overwrite=True)
    ours = json.loads((path / "zarr.json").read_text())
    with pytest.warns(zarr.errors.ZarrUserWarning):
        zarr.consolidate_metadata(path)
    assert json.loads((path / "zarr.json").read_text()) == ours


@pytest.mark.parametrize("file", ["zarr.json", "labels/zarr.json"])
def test_unreadable_metadata_are_told_in_words_before_any_work(path, monkeypatch, file):
    sdata = sd.read_zarr(path)
    (path / file).write_text('{"zarr_format": 3, "node')
    without_work(monkeypatch, meanwhile=lambda: pytest.fail("work began"))
    with pytest.raises(StoreError, match=rf"{file} cannot be read.*put it back from a copy"):
        segment(sdata)


@pytest.mark.parametrize("step", ["_swap", "_move"])
def test_a_damaged_journal_stops_no_later_run(path, step):
    """Emptied by a loss of power: what had begun goes on from its copy, what had not is given up."""
    segment(sd.read_zarr(path), 1)
    kill(step, 1, lambda: segment(sd.read_zarr(path), 2, overwrite=True))
    next(path.parent.glob(".a.zarr.sslcst-*/whole.json")).write_bytes(b"")
    segment(sd.read_zarr(path), 3, key_added="other")
    found = sd.read_zarr(path)
    assert set(results_in(found).values()) == {1 if step == "_swap" else 2}
    assert set(results_in(found, "other").values()) == {3}


def test_files_are_flushed_before_what_names_them(path, monkeypatch):
    """Staged results before the note that they are whole, that before anything moves, the list before the end."""
    flushed = []
    monkeypatch.setattr("sslcst._sdata.durable.os.fsync", flushed.append)
    seen, remove = {}, Scratch.remove

    def removed(folder):  # for the last time where the run ends
        seen["remove"] = len(flushed)
        remove(folder)

    monkeypatch.setattr(Scratch, "remove", removed)
    for step in ("_swap", "_unlist", "_move"):
        before(store, step, 1, lambda step=step: seen.setdefault(step, len(flushed)), monkeypatch.setattr)
    segment(sd.read_zarr(path))
    assert 0 < seen["_swap"] < seen["_unlist"] < seen["remove"] <= len(flushed)
