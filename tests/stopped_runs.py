"""Runs in processes of their own, which may be killed; forked from one that has imported all and run nothing."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from importlib import import_module
from pathlib import Path

import pytest
import spatialdata as sd
from patience import PATIENCE
from tiny_chips import params_of, segment

from sslcst._sdata import journal, store

PARAMS = params_of({"tiles": {"size": 64}})
COMMIT = ("sslcst.tl._segment", "commit", 1)  # where a run publishes

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["stopped_runs", "sslcst.tl", "sslcst.datasets"])


def start(
    path: Path, stopped_at: tuple[str, str, int] | None = None, *, waits: Path | None = None, **kwargs
) -> multiprocessing.Process:
    """Segment a store; at the n-th call of a module's function the process kills itself, or makes a file and waits."""
    child = _SERVER.Process(target=_work, args=(path, stopped_at, waits, kwargs))
    child.start()
    return child


def exit_code(path: Path, *stopped_at, **kwargs) -> int:
    """How such a process ended."""
    child = start(path, stopped_at or None, **kwargs)
    child.join(PATIENCE)
    return child.exitcode


def _work(path: Path, stopped_at: tuple[str, str, int] | None, waits: Path | None, kwargs: dict) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # bars of progress

    def stop() -> None:
        if waits is None:
            os.kill(os.getpid(), signal.SIGKILL)
        waits.touch()
        time.sleep(PATIENCE)

    if stopped_at is not None:
        module, name, call = stopped_at
        before(import_module(module), name, call, stop)
    segment(sd.read_zarr(path), PARAMS, **kwargs)


def before(module, name: str, call: int, action, patch=setattr) -> None:
    """Before the n-th call of a function something else happens."""
    function, calls = getattr(module, name), []

    def hooked(*args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            action()
        return function(*args, **kwargs)

    patch(module, name, hooked)


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


def kill(step, call, action):
    """Run until a step of publishing, where the process ends as by a kill: nothing is undone."""

    def end():
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "put_back", lambda *_: None)
        patch.setattr(store, "put_back", lambda *_: None)
        patch.setattr(store, "_clear", lambda *_: None)
        before(store, step, call, end, patch.setattr)
        with pytest.raises(Killed):
            action()


def beside(path: Path) -> list[str]:
    """What lies beside a store."""
    return sorted(other.name for other in path.parent.iterdir() if other != path)


def hashes(path: Path) -> dict[str, str]:
    """Of all files of the elements that were in the store before us."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.relative_to(path).parts[1:2] in (("stain",), ("true_nuclei",), ("transcripts",))
    }


def assert_opens(path: Path, before: dict[str, str]) -> sd.SpatialData:
    """The store opens, and what was in it is as it was."""
    assert hashes(path) == before
    found = sd.read_zarr(path)
    assert {"stain", "true_nuclei", "transcripts"} <= {name for _, name, _ in found.gen_elements()}
    return found
