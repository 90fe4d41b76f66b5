"""An active `dask.distributed` client is used as it is, and gives what threads give."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import dask
import pytest
from patience import PATIENCE, wait_until
from stopped_runs import PARAMS, before
from tiny_chips import assert_same_cells, chip, segment

from sslcst.errors import ClusterError
from sslcst.run import execute

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """dask tells its workers by variables of this process to take one thread each; later ones are to take all cores."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Two processes of one thread each."""
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",  # any free port: another suite may run beside this one
        local_directory=str(tmp_path_factory.mktemp("dask")),
        memory_limit=None,  # else a share of the machine's, which may be small where there are many cores
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def by_threads():
    sdata = chip(n_cells=40)
    assert execute.active_client() is None
    segment(sdata, PARAMS)
    return sdata


@contextmanager
def workers(memory_limit: str | None, **memory: object):
    """One worker in this process, which may hold much of other tests, and how dask watches its memory."""
    settings = {f"distributed.worker.memory.{name}": value for name, value in memory.items()}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", memory_limit=memory_limit
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def ours(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.name == "sslcst"]


def test_too_little_memory_is_told_before_anything_is_done():
    """Such workers were paused or ended when they imported the packages, and the run waited for ever."""
    sdata = chip(n_cells=40)
    with workers("300MB"), pytest.raises(ClusterError, match=r"0\.28 GiB of memory.* need 1 GiB.* larger memory_limit"):
        segment(sdata, PARAMS)
    assert "sslcst_table" not in sdata.tables


def test_memory_that_may_not_do_for_a_tile_is_warned_of(caplog):
    with workers("2GiB"):
        execute.check_workers(2**29)
        assert not ours(caplog)
        execute.check_workers(3 * 2**30)
    assert "has 2.0 GiB of memory, and may need 4.0" in caplog.text
    assert "tiles.size smaller" in caplog.text


@pytest.mark.parametrize("memory_limit", ["0", None])
def test_workers_without_a_limit_are_not_in_doubt(memory_limit, caplog):
    with workers(memory_limit):
        execute.check_workers(2**50)
    assert not ours(caplog)


def test_workers_that_stand_still_are_an_error(monkeypatch):
    """Paused for lack of memory, with none of them at work: nothing would ever come."""
    monkeypatch.setattr(execute, "_PATIENCE", 1.0)
    pausing = {"pause": 1e-6, "target": False, "spill": False, "terminate": False, "monitor-interval": "10ms"}
    with workers("8GB", **pausing) as client:
        wait_until(lambda: [worker["status"] for worker in execute._workers(client)] == ["paused"])
        with pytest.raises(ClusterError, match=r"stood still for 1 s.*tiles\.size smaller"):
            execute.run("stage", _double, None, [1, 2])


@pytest.mark.parametrize(
    "error",
    [ValueError("Could not replicate data"), TimeoutError("No valid workers found")],
    ids=["before", "meanwhile"],
)
def test_a_worker_that_is_paused_as_it_is_sent_data_is_waited_for(monkeypatch, error):
    """Dask tells it in one way or another, by when it finds out."""
    scatter, errors = distributed.Client.scatter, [error]

    def once_in_vain(*args, **kwargs):
        if errors:
            raise errors.pop()
        return scatter(*args, **kwargs)

    monkeypatch.setattr(distributed.Client, "scatter", once_in_vain)
    with workers(None):
        assert execute.run("stage", _double, None, [1, 2]) == [2, 4]


def _double(job: None, item: int) -> int:
    return 2 * item


def test_a_cluster_whose_workers_are_yet_to_come_is_waited_for(monkeypatch):
    """Jobs of a cluster may wait in a queue for hours."""
    monkeypatch.setattr(execute, "_PATIENCE", 0.1)
    waiting = distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0", memory_limit=None
    )
    with waiting as cluster, distributed.Client(cluster):
        threading.Timer(1, cluster.scale, [1]).start()
        execute.check_workers(2**50)
        assert execute.run("stage", _double, None, [1, 2, 3]) == [2, 4, 6]


def test_processes_give_what_threads_give(by_threads, client):
    sdata = chip(n_cells=40)
    assert execute.active_client() is client
    segment(sdata, PARAMS)
    assert_same_cells(sdata, by_threads)
    for name in ("cell_id", "probability"):
        one, other = (each["sslcst_transcripts"][name].compute().to_numpy() for each in (sdata, by_threads))
        assert (one == other).all()


def test_a_killed_worker_is_made_up_for(by_threads, client, monkeypatch):
    """Its tasks go to the other, and the result is the same."""
    pids = set(client.run(os.getpid).values())
    before(execute, "_finished", 1, lambda: os.kill(min(pids), signal.SIGKILL), monkeypatch.setattr)
    sdata = chip(n_cells=40)
    segment(sdata, PARAMS)
    client.wait_for_workers(2, timeout=PATIENCE)
    assert min(pids) not in client.run(os.getpid).values()
    assert_same_cells(sdata, by_threads)


def test_a_run_within_a_task_waits_for_no_worker(by_threads, client):
    """Samples may be mapped over a cluster: with one on each worker, none is left for the tiles of these."""

    def cells(_: int):
        sdata = chip(n_cells=40)
        segment(sdata, PARAMS)
        return sdata["sslcst_cells"].to_numpy()

    samples = client.map(cells, range(2), pure=False)
    distributed.wait(samples, timeout=PATIENCE)
    for found in client.gather(samples):
        assert (found == by_threads["sslcst_cells"].to_numpy()).all()
