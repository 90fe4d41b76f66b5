"""Threads of torch and numba, which a run shares with all else in its process, and leaves as they are.

Both start their threads once, by OpenMP. A process made by fork has none of them and does not know it: numba ends it,
torch and dask wait in it for ever. Whether this is one is asked before each use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

import numba

from sslcst.errors import ProcessError

P, R, T = ParamSpec("P"), TypeVar("R"), TypeVar("T")

# Held by a thread while a network, or a loop for all cores, computes: a second one at the same time would only take its
# cores and double its memory, and not all of numba's kinds of threads bear it. Meanwhile others read, or do what takes
# one core.
all_cores = threading.RLock()

_used = False  # whether threads have been started for a run of this process, or of one that it was forked from
_severed = False  # whether this process was forked from one that had


def check_process() -> None:
    """Raise a `ProcessError` if this process was made by fork from one that has computed before: then it cannot."""
    if _severed:
        raise ProcessError(
            "This process was made by fork from one whose threads were at work, without which it cannot compute. Make "
            'the pool before the first run, or with multiprocessing.get_context("spawn"), or use a dask.distributed '
            "client."
        )


def settle() -> None:
    """Let torch have in this thread the threads that it has in a new one; rounding depends on their number.

    numba changes that number in the thread in which it starts its own: here that is one which ends.
    """
    import torch

    _use()
    n_threads = aside(_numbers)
    if torch.get_num_threads() != n_threads:
        torch.set_num_threads(n_threads)


def aside(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a new thread, in which Ctrl-C cannot end it.

    It would between any two steps of numba that compiles, or of torch that loads a part of itself, and neither can do
    it any more in that process.
    """
    with ThreadPoolExecutor(1) as new:
        future = new.submit(function, *args, **kwargs)
        new.shutdown()  # waits; Ctrl-C in the way that a future waits may leave it locked, also for the thread
    return future.result()


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Each item with what a function makes of it; while one is used, the next is made in another thread."""
    with ThreadPoolExecutor(1) as other:
        former = None
        for item in items:
            former, latter = (item, other.submit(function, item)), former
            if latter is not None:
                yield latter[0], latter[1].result()
        if former is not None:
            yield former[0], former[1].result()


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function called by one thread at a time, with all cores to itself."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        _use()  # first: in a fork, the lock may be held by a thread that is not there
        with all_cores:
            return function(*args, **kwargs)

    return alone


def njit(**options: object) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``numba.njit``, whose code is kept on the disk where numba finds a folder for it.

    Neither the package's own nor one in the home need be such that a user of a cluster or a container may write to it.
    """

    def compile_loop(function: Callable[P, R]) -> Callable[P, R]:
        dispatcher = numba.njit(**options)(function)
        with suppress(RuntimeError):  # there is none: each process compiles
            dispatcher.enable_caching()
        return dispatcher

    return compile_loop


def compiled(**options: object) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a loop: `njit` with these options, `aside`."""

    def compile_loop(function: Callable[P, R]) -> Callable[P, R]:
        dispatcher = njit(**options)(function)

        @wraps(function)
        def loop(*args: P.args, **kwargs: P.kwargs) -> R:
            if threading.current_thread() is threading.main_thread():
                types = tuple(numba.typeof(arg) for arg in args)
                if types not in dispatcher.signatures:
                    aside(dispatcher.compile, types)
            return dispatcher(*args, **kwargs)

        return loop

    return compile_loop


def parallel(**options: object) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a loop for all cores, as `compiled` does."""

    def compile_loop(function: Callable[P, R]) -> Callable[P, R]:
        return one_at_a_time(compiled(parallel=True, **options)(function))

    return compile_loop


def _use() -> None:
    global _used
    check_process()
    _used = True


def _numbers() -> int:
    import torch

    n_threads = torch.get_num_threads()
    numba.get_num_threads()  # starts them
    return n_threads


def _after_fork() -> None:
    global _severed
    _severed = _used or _numba_has_started()


def _numba_has_started() -> bool:
    """Whether numba, for whomever, has threads that no fork survives."""
    try:
        return numba.threading_layer() == "omp"
    except ValueError:  # what it raises for "not yet"
        return False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
