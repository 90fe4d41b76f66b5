"""The one logger and the one progress bar."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

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

    start = perf_counter()
    with tqdm(total=total, desc=stage, unit=unit) as bar:
        yield bar
        if total == 1:
            bar.update()
    logger.debug("%s: %.1f s", stage, perf_counter() - start)
