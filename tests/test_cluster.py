"""An active `dask.distributed` client is used as it is, and gives what threads give."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from stopped_runs import PARAMS
from tiny_chips import assert_same_cells, chip, segment

from sslcst.run import execute

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Two processes of one thread each."""
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",  # any free port: another suite may run beside this one
        local_directory=str(tmp_path_factory.mktemp("dask")),
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def by_threads():
    sdata = chip(n_cells=40)
    assert execute.active_client() is None
    segment(sdata, PARAMS)
    return sdata


def test_processes_give_what_threads_give(by_threads, client):
    sdata = chip(n_cells=40)
    assert execute.active_client() is client
    segment(sdata, PARAMS)
    assert_same_cells(sdata, by_threads)
    for name in ("cell_id", "probability"):
        one, other = (each["sslcst_transcripts"][name].compute().to_numpy() for each in (sdata, by_threads))
        assert (one == other).all()


def test_a_killed_worker_is_made_up_for(by_threads, client):
    """Its tasks go to the other, and the result is the same."""
    pids = set(client.run(os.getpid).values())

    def kill():
        while not any(client.processing().values()):
            time.sleep(0.01)
        os.kill(min(pids), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    sdata = chip(n_cells=40)
    segment(sdata, PARAMS)
    killer.join()
    assert set(client.run(os.getpid).values()) != pids
    assert_same_cells(sdata, by_threads)
