"""The folder of a run: what was done is known to the last bit, and nothing that no run made is worked in or removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE
from store_files import files_of

from sslcst._sdata.places import temporary_folder
from sslcst._sdata.scratch import Scratch, checksum, fingerprint_in
from sslcst.errors import StoreError
from sslcst.run.stages.nuclei import create
from sslcst.run.workspace import read_labels

FINGERPRINT = "0123"


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else."""
    folder = tmp_path / "victim"
    (folder / "spots").mkdir(parents=True)
    (folder / "spots" / "a.npz").write_text("mine")
    return folder


@pytest.fixture
def scratch(tmp_path):
    """A folder with one step done."""
    scratch = Scratch(tmp_path / ".a.zarr.sslcst-x")
    scratch.open(FINGERPRINT)
    scratch.save("spots/a.npz", {"x": np.arange(9)})
    scratch.path("nuclei/c").write_bytes(b"chunk")
    scratch.finish("spots.done", ["spots/a.npz", "nuclei"])
    return scratch


def test_what_is_done_is_known_again(scratch):
    assert scratch.open(FINGERPRINT)
    assert scratch.is_finished("spots.done")
    assert not scratch.is_finished("other.done")


@pytest.mark.parametrize("name", ["spots/a.npz", "nuclei/c", "spots.done"])
def test_a_flipped_bit_is_noticed(scratch, name):
    """Wherever it lies, in what was done or in the note of it."""
    file = scratch.folder / name
    content = file.read_bytes()
    for i in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        assert not scratch.is_finished("spots.done"), i
    file.write_bytes(content)
    assert scratch.is_finished("spots.done")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"3", b"\xff\xfe", b'{"spots/a.npz": null}', b"[" * 99999]
)
def test_a_note_that_cannot_be_read_notes_nothing(scratch, content):
    (scratch.folder / "spots.done").write_bytes(content)
    assert not scratch.is_finished("spots.done")


def test_a_file_that_is_gone_added_or_renamed_is_noticed(scratch):
    (scratch.folder / "nuclei" / "c").rename(scratch.folder / "nuclei" / "d")
    assert not scratch.is_finished("spots.done")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"other"', b"\xff", b"{"])
def test_a_folder_that_does_not_tell_what_it_is_of_starts_anew(scratch, content):
    (scratch.folder / "run.json").write_bytes(content)
    assert not scratch.open(FINGERPRINT)
    assert scratch.is_empty()
    assert fingerprint_in(scratch.folder) == FINGERPRINT


@pytest.mark.parametrize("planted", ["link to a folder", "link to a run", "dangling link", "file", "folder of others"])
@pytest.mark.parametrize("ending", ["", "~"])
def test_what_no_run_made_is_refused_and_left_alone(tmp_path, victim, planted, ending):
    """At the place of the folder, and at that to which it goes when it is removed."""
    place = tmp_path / ".a.zarr.sslcst-x"
    if ending:
        Scratch(place).open("other")
        Scratch(place).write_text("done", "")
    there = place.with_name(place.name + ending)
    if planted == "link to a run":
        (victim / "run.json").write_text(f'"{FINGERPRINT}"')
    if "link" in planted:
        there.symlink_to(tmp_path / "nowhere" if planted == "dangling link" else victim)
    elif planted == "file":
        there.write_text("mine")
    else:
        victim.rename(there)
        victim.mkdir()
    before = files_of(tmp_path)
    with pytest.raises(StoreError, match="is in the way: no run of sslcst made it"):
        Scratch(place).open(FINGERPRINT)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["spots", "spots/b.npz", "nuclei/c"])
def test_links_in_the_folder_are_not_followed(scratch, victim, name):
    """All is made anew, and only the link itself is removed."""
    before = files_of(victim)
    place = scratch.folder / name
    if name == "spots":
        (place / "a.npz").unlink()
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(victim / "spots" if name == "spots" else victim / "spots" / "a.npz")
    assert not scratch.open(FINGERPRINT)
    scratch.save("spots/a.npz", {"x": np.zeros(3)})
    assert files_of(victim) == before


def test_no_file_is_written_through_a_link(scratch, victim):
    before = files_of(victim)
    for name in ("spots/.a.npz.new", "spots/a.npz", ".spots.done.new", "spots.done"):
        (scratch.folder / name).unlink(missing_ok=True)
        (scratch.folder / name).symlink_to(victim / "spots" / "a.npz")
    scratch.save("spots/a.npz", {"x": np.zeros(3)})
    scratch.finish("spots.done", ["spots/a.npz"])
    assert files_of(victim) == before
    assert scratch.is_finished("spots.done")
    assert not (scratch.folder / "spots" / "a.npz").is_symlink()


def test_a_removal_that_was_stopped_is_ended_by_the_next(scratch):
    """It has another name then, and what it is stands in it till all else is gone."""
    scratch.folder.rename(scratch.folder.with_name(scratch.folder.name + "~"))
    assert not scratch.open("other")
    assert [path.name for path in scratch.folder.parent.iterdir()] == [scratch.folder.name]


@pytest.mark.parametrize("place", ["spots/a.npz", "nuclei.zarr/zarr.json", "nuclei.zarr/c/0/0"])
def test_what_is_damaged_is_never_taken_for_empty(scratch, place):
    """By a second tile that is at work when a first finds the damage, and whose result counts as done: no block means
    no spots, and no chunk no nuclei.
    """
    create(scratch, (4, 4), "nuclei.zarr")[:] = 1
    scratch.finish("both.done", ["spots/a.npz", "nuclei.zarr"])
    everything = slice(0, 4), slice(0, 4)
    (scratch.folder / place).write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            read_labels(scratch, "nuclei.zarr", everything) if "zarr" in place else scratch.load(place)
        assert scratch.has(place)
    assert not scratch.is_finished("both.done")


def test_what_comes_too_late_is_not_taken_for_another_runs(scratch):
    """A task goes on after Ctrl-C, on a worker always; the next call, with other parameters, has begun by then."""
    late, own = (Scratch(scratch.folder, run) for run in (FINGERPRINT, "other"))
    assert late.open(FINGERPRINT)
    late.save("spots/a.npz", {"x": np.zeros(3)})
    assert not own.open("other")
    own.save("spots/a.npz", {"x": np.ones(3)})
    before = files_of(scratch.folder)
    for name in ("spots/a.npz", "spots/b.npz"):
        with pytest.raises(StoreError, match="no longer that of the run"):
            late.save(name, {"x": np.zeros(3)})
    with pytest.raises(StoreError, match="no longer that of the run"):
        late.finish("spots/a.done", ["spots/a.npz"])
    assert files_of(scratch.folder) == before


def test_checksums_know_names_sizes_and_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert checksum(tmp_path / "a" / "x")[0] == 5
    assert checksum(tmp_path / "a") != checksum(tmp_path / "a" / "x")
    assert checksum(tmp_path / "none") is None
    (tmp_path / "a" / "y").symlink_to(tmp_path / "a" / "x")
    assert checksum(tmp_path / "a") is checksum(tmp_path / "a" / "y") is None


KILLED = """
import os
from sslcst._sdata.places import temporary_folder
from sslcst._sdata.scratch import Scratch
with temporary_folder() as folder:
    Scratch(folder).open("0123")
    Scratch(folder).write_text("spots", "x")
    print(folder, flush=True)
    {then}
"""


def test_the_folder_of_a_killed_run_in_memory_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "sslcst-run-mine").mkdir()
    (tmp_path / "sslcst-run-mine" / "notes").write_text("of a user")
    env = os.environ | {"TMPDIR": str(tmp_path)}
    dead = subprocess.run(
        [sys.executable, "-c", KILLED.format(then="os._exit(9)")], stdout=subprocess.PIPE, env=env, timeout=PATIENCE
    )
    waiting = [sys.executable, "-c", KILLED.format(then="input()")]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as alive:
        there = Path(alive.stdout.readline().decode().strip())
        assert there.is_dir()
        assert not Path(dead.stdout.decode().strip()).exists()  # the second has removed that of the first
        with temporary_folder() as own:
            assert {path.name for path in tmp_path.iterdir()} == {there.name, own.name, "sslcst-run-mine"}
        alive.communicate(b"\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sslcst-run-mine"]


def test_files_are_parsed_one_after_the_other(scratch, monkeypatch):
    """Of tiles that are read at once: Python before 3.11.8 fails where two threads parse headers."""
    inside, most, load = [], [], np.load

    @contextmanager
    def slow(path):
        inside.append(path)
        most.append(len(inside))
        time.sleep(0.01)
        with load(path) as file:
            yield file
        inside.remove(path)

    monkeypatch.setattr(np, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(scratch.load, ["spots/a.npz"] * 8):
            assert np.array_equal(found["x"], np.arange(9))
    assert most == [1] * 8
