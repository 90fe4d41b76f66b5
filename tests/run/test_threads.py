"""Runs beside others in one process: same seed, same bits; and what the process had before it has after."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dask
import numba
import numpy as np
import pytest
import torch
from numba.core.event import Listener, install_listener
from tiny_chips import assert_same_cells, chip, params_of, segment

import sslcst
from sslcst.core import threads
from sslcst.core.nuclei import load_backend
from sslcst.errors import DataError
from sslcst.methods.network.load import _BUNDLED, _network_of
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.params import NucleiParams
from sslcst.run import execute

SMALL = params_of({"tiles": {"size": 64}})


def on_a_new_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def segmented(seed: int, **kwargs):
    sdata = chip(n_cells=40)
    segment(sdata, SMALL, seed=seed, **kwargs)
    return sdata


def hash_of(sdata) -> str:
    return sdata["sslcst_table"].uns["sslcst"]["model"]["sha256"]


@pytest.mark.parametrize("method", ["density", "network"])
def test_methods_that_learn_nothing_give_in_threads_what_they_give_alone(method):
    def run(_: int):
        sdata = chip(n_cells=40)
        sslcst.tl.segment(sdata, nuclei_key="true_nuclei", method=method, params={"tiles": {"size": 64}})
        return sdata

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(run, range(3)))
    alone = run(0)
    for sdata in together:
        assert_same_cells(sdata, alone)


@pytest.mark.parametrize("kwargs", [{}, {"nuclei_key": None}], ids=["nuclei given", "nuclei found"])
def test_runs_in_threads_give_what_they_give_one_after_the_other(kwargs):
    """Seeds, both the same and others, each with its own model and cells."""
    seeds = [0, 1, 0]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: segmented(seed, **kwargs), seeds))
    alone = {seed: segmented(seed, **kwargs) for seed in set(seeds)}
    for seed, sdata in zip(seeds, together, strict=True):
        assert hash_of(sdata) == hash_of(alone[seed])
        assert_same_cells(sdata, alone[seed])
    assert hash_of(alone[0]) != hash_of(alone[1])


@pytest.mark.parametrize("kind", ["spot", "field"])
def test_steps_in_threads_give_what_they_give_one_after_the_other(kind):
    sdata = chip(n_cells=40)
    params = params_of({"encoder": {"kind": kind}})
    sslcst.pp.import_nuclei(sdata, "true_nuclei")
    sslcst.pp.bin_spots(sdata, params=params)

    def trained(seed: int) -> str:
        return sslcst.tl.train(sdata, method="ssl-cst", params=params, seed=seed).sha256()

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(trained, [0, 1, 0]))
    assert together == [trained(seed) for seed in (0, 1, 0)]


def state() -> dict[str, object]:
    """What all in a process have in common, as far as anything here could change it."""
    import matplotlib

    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch's threads": (torch.get_num_threads(), on_a_new_thread(torch.get_num_threads)),
        "numba's threads": (numba.get_num_threads(), on_a_new_thread(numba.get_num_threads)),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "type": torch.get_default_dtype(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "matplotlib": dict(matplotlib.rcParams),
        "loggers": (logging.root.level, [*logging.root.handlers], logging.getLogger("sslcst").level),
    }


@pytest.mark.parametrize("nuclei_key", ["true_nuclei", None])
def test_a_run_changes_nothing_of_the_process(nuclei_key):
    segmented(3, nuclei_key=nuclei_key)  # imports what it needs, which may set what it likes
    before = state()
    segmented(3, nuclei_key=nuclei_key)
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()


NETWORKS = {
    "spot": lambda: make_encoder(5, EncoderParams(kind="spot", width=8, depth=1, hidden=(8,))),
    "field": lambda: make_encoder(5, EncoderParams(kind="field", width=8, depth=1, hidden=(8,))),
    "nuclei": lambda: load_backend(NucleiParams(method="sslcst")),
    "cells": lambda: _network_of.__wrapped__(_BUNDLED.read_bytes(), "cpu"),  # past its cache
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_new_network_draws_nothing_from_torchs_own_generator(make):
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


def kept() -> Counter[str]:
    """Objects of the packages that hold data and weights, by their types, and threads."""
    gc.collect()
    packages = {"sslcst", "torch", "spatialdata", "anndata", "pandas", "xarray", "zarr", "tqdm"}
    names = (f"{type(each).__module__}.{type(each).__name__}" for each in gc.get_objects())
    found = Counter(name for name in names if name.split(".")[0] in packages)
    # zarr's are kept, and more are started whenever all happen to be at work
    return found + Counter(threads=sum(not each.name.startswith("asyncio") for each in threading.enumerate()))


def test_runs_leave_nothing_behind():
    """One after the other in one process; the first ones fill caches, of the last run's model among others."""
    with dask.config.set(scheduler="synchronous"):  # whose own threads are kept as long as it likes
        for seed in (0, 1):
            segmented(seed)
        before = kept()
        for seed in (2, 3, 4):
            segmented(seed)
        assert kept() - before == Counter()


def test_torchs_threads_are_those_of_a_new_thread(monkeypatch):
    """Whatever was done in this one: numba changes their number where it starts its own."""

    def unsettled() -> tuple[int, int]:
        expected = on_a_new_thread(torch.get_num_threads)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)  # as if another package had changed it
        asked = []
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        monkeypatch.setattr(threads, "_numbers", lambda: expected)
        threads.settle()
        return asked, [expected]

    asked, expected = on_a_new_thread(unsettled)
    assert asked == expected


def test_what_is_done_aside_is_asked_for_when_it_has_ended(monkeypatch):
    """Ctrl-C while a future is waited for may leave it locked: then its thread never ends, nor who waits for that."""
    result, ended = Future.result, []

    def asked(future, timeout=None):
        ended.append(future.done())
        return result(future, timeout)

    monkeypatch.setattr(Future, "result", asked)
    assert threads.aside(lambda: time.sleep(0.05) or 3) == 3
    assert ended == [True]


def test_what_takes_all_cores_is_called_by_one_thread_at_a_time():
    """By any of several functions; one may call another."""
    inside, most = [0], [0]

    @threads.one_at_a_time
    def inner() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1

    outer = threads.one_at_a_time(inner)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: (inner, outer)[i % 2](), range(20)))
    assert most == [1]


class Bar:
    """A progress bar that notes by whom it is moved, or stops all at the first step, as Ctrl-C does."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error, self.movers = error, []

    @contextmanager
    def __call__(self, *args, **kwargs):
        yield self

    def update(self) -> None:
        self.movers.append(threading.get_ident())
        if self.error is not None:
            raise self.error


def test_a_stage_moves_its_bar_by_one_thread_and_keeps_the_order(monkeypatch):
    """Counts are lost where two threads do, and a notebook's bar is none of theirs."""
    bar = Bar()
    monkeypatch.setattr(execute, "progress", bar)
    assert execute.run("stage", lambda job, item: time.sleep(item % 3 / 300) or (job, item), 1, range(9)) == [
        (1, item) for item in range(9)
    ]
    assert bar.movers == 9 * [threading.get_ident()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_no_tile_is_begun_once_a_run_is_stopped_and_none_is_left_at_work(monkeypatch, error):
    begun, ended = [], []

    def task(job, item):
        begun.append(item)
        time.sleep(0.02)
        ended.append(item)
        if error is DataError and item == 1:
            raise error("unfit")

    monkeypatch.setattr(execute, "progress", Bar(KeyboardInterrupt if error is KeyboardInterrupt else None))
    with pytest.raises(error):
        execute.run("stage", task, None, range(1000))
    assert len(begun) < 1000  # a few, where this thread is not kept from its work
    assert sorted(begun) == sorted(ended)


def test_loops_are_compiled_where_there_is_no_folder_to_keep_them_in(monkeypatch):
    """As in a container, by a user without a home: numba would not even let the package be imported."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])

    @threads.compiled()
    def doubled(x):
        return x + x

    assert doubled(3) == 6


def test_all_parallel_loops_ask_for_the_process():
    """A loop that numba spreads over threads is compiled in one place, which looks at the process before each call."""
    src = Path(sslcst.__file__).parent
    found = {
        path.relative_to(src).as_posix()
        for path in src.rglob("*.py")
        if re.search(r"parallel=True|numba\.n?jit\(|cache=True", path.read_text(encoding="utf-8"))
    }
    assert found == {"core/threads.py"}


def test_nothing_of_the_whole_process_is_set():
    """Neither seeds nor threads: a run shares them with others."""
    src = Path(sslcst.__file__).parent
    shared = (
        r"manual_seed_all|torch\.manual_seed|fork_rng|np\.random\.(?!default_rng|Generator|SeedSequence)|rcParams\["
    )
    found = [path.name for path in src.rglob("*.py") if re.search(shared, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_break_numba_while_it_compiles():
    """Stopped between two of its steps, it would compile nothing more in this process."""

    @threads.compiled()
    def doubled(x):
        return x + x

    class CtrlC(Listener):
        def on_start(self, _):
            pressed.append(threading.current_thread())
            if len(pressed) == 1:
                signal.raise_signal(signal.SIGINT)

        def on_end(self, _):
            pass

    pressed = []
    with install_listener("numba:compiler_lock", CtrlC()):
        with pytest.raises(KeyboardInterrupt):
            doubled(3)
        assert threading.main_thread() not in pressed
        for thread in set(pressed):  # stopped while it started the thread, it has not waited for it
            thread.join()
        before = len(pressed)
        assert doubled(3) == 6
        assert len(pressed) == before  # it was compiled to the end
