"""How long tests wait for what should come: so long that, on the slowest machine, only what never comes is given up."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300  # seconds


def wait_until(ready: Callable[[], object]) -> None:
    """Wait for something that another thread or process does."""
    since = time.monotonic()
    while not ready():
        assert time.monotonic() - since < PATIENCE, "it waits for ever"
        time.sleep(0.01)
