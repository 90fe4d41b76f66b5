"""The one logger and the one progress bar."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING

try:
    import resource
except ImportError:  # Windows
    resource = None

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger("sslcst")


@contextmanager
def progress(stage: str, total: int = 1, *, unit: str = "step") -> Iterator[tqdm]:
    """A progress bar for one stage; a stage of a single step is done when the block ends.

    Parameters
    ----------
    stage
        Name of the stage, written before the bar.
    total
        Number of steps, told to the bar by ``bar.update(n)``.
    unit
        What a step is.
    """
    from tqdm.auto import tqdm

    start, stages = perf_counter(), _stages.get()
    with tqdm(total=total, desc=stage, unit=unit) as bar:
        yield bar
        if total == 1 and not bar.n:
            bar.update()
    if stages is not None:
        stages.note(stage, perf_counter() - start)


class Stages:
    """Seconds of each stage of a run, and the most memory that this process had taken by its end.

    Attributes
    ----------
    rows
        Stage, seconds and peak memory in GiB, of those that have ended.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    def note(self, stage: str, seconds: float) -> None:
        """Note a stage that has ended."""
        self.rows.append((stage, seconds, peak_memory()))

    def __str__(self) -> str:
        total = sum(seconds for _, seconds, _ in self.rows)
        rows = [f"{stage} {seconds:.1f} s ({peak:.2f} GiB)" for stage, seconds, peak in self.rows]
        return f"Done in {total:.1f} s; seconds of each stage, and peak memory by its end: {', '.join(rows)}."


_stages: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def collect_stages() -> Iterator[Stages]:
    """Note all stages that end within the block."""
    stages = Stages()
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)


def peak_memory() -> float:
    """The most memory in GiB that this process has taken so far; 0 where the system does not tell."""
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
