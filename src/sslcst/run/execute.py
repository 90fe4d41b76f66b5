"""Tasks on the workers of the active dask client as they are, and on two threads where there is none."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import Any, TypeVar

import dask.array as da
import numba
import torch
import zarr
from zarr.storage import LocalStore

from sslcst._logging import logger, progress
from sslcst.core.threads import settle
from sslcst.errors import ClusterError

T = TypeVar("T")

THREADS = 2  # tiles at work at once, where there is no cluster

_TRIES = 3
_NO_WORKER = ("replicate", "No valid workers")  # how dask says, before or while it looks, that none takes data
_PATIENCE = 60.0  # seconds in which workers that stand still may find memory
_PACKAGES_BYTES = 2**30  # of a worker: what it imports takes 0.7 GiB, and dask pauses it at 80 % of its limit


def active_client() -> Any | None:
    """The `dask.distributed` client that is active, if there is one; none within a task, which holds its worker up."""
    distributed = sys.modules.get("distributed")  # nobody made a client who has not imported it
    if distributed is None or _is_task(distributed):
        return None
    try:
        return distributed.get_client()
    except ValueError:  # what it raises for "there is none"
        return None


def _is_task(distributed: Any) -> bool:
    """Whether this is called by a task of a cluster: were it to wait for others there, these might never begin."""
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def with_real_paths(array: Any) -> Any:
    """An array of dask that is read from the same files in whatever directory a worker is."""
    if not isinstance(array, da.Array):
        return array
    real = {
        key: zarr.open_array(value.store.root.resolve() / value.path, mode="r")
        for key, value in dict(array.dask).items()
        if isinstance(value, zarr.Array) and isinstance(value.store, LocalStore) and not value.store.root.is_absolute()
    }
    return da.Array(dict(array.dask) | real, array.name, array.chunks, meta=array) if real else array


def check_workers(tile_bytes: float = 0.0) -> None:
    """See that the workers of the active client, if there is one, have memory for a run.

    One that may lack what a tile takes is but warned of; that the packages alone do not fit is a `ClusterError`.
    """
    client = active_client()
    if client is None:
        return
    given = min((worker["memory_limit"] or inf for worker in _workers(client)), default=inf)
    if given < _PACKAGES_BYTES:
        raise ClusterError(
            f"A worker of the cluster has {given / 2**30:.2f} GiB of memory; the packages alone need "
            f"{_PACKAGES_BYTES / 2**30:.0f} GiB, and a tile more (sslcst.tl.plan tells how much): make the cluster "
            "with a larger memory_limit, and fewer workers."
        )
    if given < _PACKAGES_BYTES + tile_bytes:
        logger.warning(
            "A worker of the cluster has %.1f GiB of memory, and may need %.1f: should it stand still or be ended, set "
            "tiles.size smaller, for the same cells, or make the cluster with a larger memory_limit.",
            given / 2**30,
            (_PACKAGES_BYTES + tile_bytes) / 2**30,
        )


def run(stage: str, task: Callable[[Any, T], Any], job: Any, items: Sequence[T], *, unit: str = "tile") -> list[Any]:
    """Run a task on each item; what the tasks return, in the order of the items.

    It is called with `job`, what all have in common, which is sent to each worker once, and an item; and is a function
    of a module, so that other processes find it.
    """
    client = active_client()
    with progress(stage, len(items), unit=unit) as bar:
        if client is None:
            results = []
            with ThreadPoolExecutor(THREADS) as pool:  # whose end waits for the task that is at work when another fails
                for result in pool.map(partial(task, job), items):
                    results.append(result)
                    bar.update()
                    _give_back()
            return results
        return _on_cluster(client, task, job, items, bar)


def _give_back() -> None:
    """Return what was freed to the system: glibc keeps up to 2 GiB of it after tiles in which a network has run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _on_cluster(client: Any, task: Callable[[Any, T], Any], job: Any, items: Sequence[T], bar: Any) -> list[Any]:
    """Run a task on each item on a cluster; what was lost with a worker is done again."""
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    results: dict[int, Any] = {}
    lost: Exception | None = None
    for _ in range(_TRIES):
        _wait(client, lambda: any(worker["status"] == "running" for worker in _workers(client)))
        try:
            [shared] = client.scatter([job], broadcast=True, hash=False)
        except (TimeoutError, ValueError) as error:
            if not any(words in str(error) for words in _NO_WORKER):
                raise
            lost = error  # the last worker was paused since: wait for one again
            continue
        left = [i for i in range(len(items)) if i not in results]
        futures = client.map(_on_worker, [items[i] for i in left], task=task, job=shared, pure=False)
        place = dict(zip(futures, left, strict=True))
        try:
            for done in _finished(client, as_completed(futures)):
                results[place[done]] = done.result()  # raises what the task raised
                bar.update()
            return [results[i] for i in range(len(items))]
        except (FutureCancelledError, KilledWorker) as error:
            lost = error
            logger.warning("The cluster lost a worker, and with it a part of the work, which is done again.")
        finally:
            client.cancel(futures)
    raise ClusterError(
        f"The cluster lost workers {_TRIES} times in one stage ({lost}). Have they enough memory? Set tiles.size "
        "smaller, or give them more and call again with the same arguments: then the run goes on where it was."
    ) from lost


def _finished(client: Any, left: Any) -> Iterator[Any]:
    """Futures as they are done."""
    while not left.is_empty():
        _wait(client, left.has_ready)
        yield next(left)


def _wait(client: Any, ready: Callable[[], bool]) -> None:
    """Wait for something, for as long as a worker can go on, or the first is yet to come."""
    since = monotonic()
    while not ready():
        sleep(0.02)
        if monotonic() - since < _PATIENCE:
            continue
        if (workers := _workers(client)) and all(map(_stands_still, workers)):
            raise ClusterError(
                f"All workers of the cluster have stood still for {_PATIENCE:.0f} s: dask paused them for lack of "
                "memory. Set tiles.size smaller, or make the cluster with a larger memory_limit, and call again with "
                "the same arguments: then the run goes on where it was."
            )
        since = monotonic()


def _workers(client: Any) -> list[dict[str, Any]]:
    """What the scheduler knows of its workers."""
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _stands_still(worker: dict[str, Any]) -> bool:
    return worker["status"] == "paused" and not worker["metrics"]["task_counts"].get("executing")


def _on_worker(item: T, *, task: Callable[[Any, T], Any], job: Any) -> Any:
    """Run a task with as many compiled threads as the worker lets torch have; numba counts them thread by thread."""
    settle()
    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), before))
    try:
        return task(job, item)
    finally:
        numba.set_num_threads(before)
        _give_back()
