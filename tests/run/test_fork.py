"""A process made by fork has none of the threads of the one it was made from: it says so at once, and never waits."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from patience import PATIENCE
from tiny_chips import chip, params_of, segment, segment_whole

import sslcst
from sslcst.core import threads
from sslcst.errors import ProcessError, SslcstError

PARAMS = params_of({"tiles": {"size": 64}})

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def done():
    """A chip after a run, step by step, in this process."""
    sdata = chip(n_cells=40)
    segment_whole(sdata, PARAMS)
    return sdata


def forked(function):
    """What a function raises or returns in a process made by fork."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            there.send(function())
        except SslcstError as error:
            there.send(error)

    child = context.Process(target=work)
    child.start()
    try:
        assert here.poll(PATIENCE), "it waits for ever"
        return here.recv()
    finally:
        child.kill()
        child.join()


CALLS = {
    "segment": lambda sdata: sslcst.tl.segment(sdata, nuclei_key="true_nuclei", key_added="x"),
    "plan": lambda sdata: sslcst.tl.plan(sdata, nuclei_key="true_nuclei"),
    "segment_nuclei": lambda sdata: sslcst.pp.segment_nuclei(sdata, key_added="x"),
    "import_nuclei": lambda sdata: sslcst.pp.import_nuclei(sdata, "true_nuclei"),
    "check_alignment": lambda sdata: sslcst.pp.check_alignment(sdata, nuclei_key="sslcst_nuclei"),
    "erode_nuclei": sslcst.pp.erode_nuclei,
    "bin_spots": sslcst.pp.bin_spots,
    "train": sslcst.tl.train,
    "track": lambda sdata: sslcst.tl.track(sdata, sslcst.tl.train(sdata)),
    "aggregate": sslcst.tl.aggregate,
    "pl.segmentation": sslcst.pl.segmentation,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_after_a_run_a_fork_is_refused_at_once(done, call):
    error = forked(lambda: call(done))
    assert isinstance(error, ProcessError)
    for word in ("fork", "spawn", "before the first run", "dask.distributed"):
        assert word in str(error)


def test_a_pool_of_processes_hands_the_error_over(done):
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    try:
        with pytest.raises(ProcessError, match="spawn"):
            pool.submit(_segment).result(PATIENCE)
    finally:
        for child in multiprocessing.active_children():
            child.kill()
        pool.shutdown()


def _segment() -> str:
    sdata = chip(n_cells=40)
    segment(sdata, PARAMS)
    return sdata["sslcst_table"].uns["sslcst"]["model"]["sha256"]


def test_a_compiled_loop_is_refused_where_nothing_else_asked(done):
    """What numba would end with a signal."""
    from sslcst.core.polygons import polygons

    cells = done["sslcst_cells"].to_numpy()
    assert isinstance(forked(lambda: polygons(cells)), ProcessError)


def test_what_starts_no_thread_goes_on(done):
    assert isinstance(forked(lambda: sslcst.datasets.simulate(n_cells=10, n_genes=5).images["stain"].shape), tuple)


def test_the_error_is_one_that_processes_can_hand_over():
    assert isinstance(pickle.loads(pickle.dumps(ProcessError("it"))), ProcessError)


def test_numbas_threads_count_whoever_started_them(done, monkeypatch):
    """Another package may have: a fork ends with the first loop all the same."""
    monkeypatch.setattr(threads, "_used", False)
    assert isinstance(forked(lambda: sslcst.tl.train(done)), ProcessError)


BEFORE = """
import multiprocessing
import test_fork as t
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as early:
        here = t._segment()
        assert early.apply_async(t._segment).get(300) == here
        print("the same")
"""


def test_a_pool_made_before_the_first_run_works():
    """And gives the same as the process that it was made by."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", BEFORE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.stdout.endswith("the same\n"), ended.stderr
