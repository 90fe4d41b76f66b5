"""The one logger, seen without being set up, and the one progress bar."""

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
_LEVEL = logging.INFO - 1  # not INFO itself, which someone may have set


def _others_listen() -> bool:
    """Whether someone has set up logging: then nothing but that is heard."""
    return any(not isinstance(each, _Shown) for each in (*logger.handlers, *logging.getLogger().handlers))


class _Shown(logging.Handler):
    """Lines on stderr, above the progress bars, for whoever has not set up logging."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _others_listen():
            from tqdm import tqdm

            level = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
            tqdm.write(level + self.format(record), file=sys.stderr)


def _is_asked_for(record: logging.LogRecord) -> bool:
    """Where logging was set up and nothing said of this logger, it is the root's level that counts."""
    of_root = logger.level == _LEVEL and _others_listen()
    return not of_root or record.levelno >= logging.getLogger().level


if logger.level == logging.NOTSET:
    logger.setLevel(_LEVEL)
logger.addHandler(_Shown())
logger.addFilter(_is_asked_for)


@contextmanager
def progress(stage: str, total: int = 1, *, unit: str = "step") -> Iterator[tqdm]:
    """A progress bar for one stage, which goes when it ends; a stage of a single step is done when the block ends.

    Steps are told to the bar by ``bar.update(n)``.
    """
    from tqdm.auto import tqdm

    start, stages = perf_counter(), _stages.get()
    with tqdm(total=total, desc=stage, unit=unit, leave=False) as bar:
        yield bar
        if total == 1 and not bar.n:
            bar.update()
    if stages is not None:
        stages.append((stage, perf_counter() - start))


class Stages(list[tuple[str, float]]):
    """Stages of a run that have ended, and their seconds."""

    def __str__(self) -> str:
        total = sum(seconds for _, seconds in self)
        rows = [f"{stage} {seconds:.1f} s" for stage, seconds in self]
        return f"Done in {total:.1f} s, with at most {peak_memory():.2f} GiB of memory: {', '.join(rows)}."


@contextmanager
def warnings_only(*, on: bool = True) -> Iterator[None]:
    """Say nothing within the block but warnings."""

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    if on:
        logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)


_stages: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def collect_stages() -> Iterator[Stages]:
    """Note all stages that end within the block."""
    token = _stages.set(Stages())
    try:
        yield _stages.get()
    finally:
        _stages.reset(token)


def peak_memory() -> float:
    """The most memory in GiB that this process has taken so far; 0 where the system does not tell."""
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
