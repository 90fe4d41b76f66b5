from __future__ import annotations

import os
from pathlib import Path

import numba
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")  # pictures without a screen
# Numba's OpenMP layer sets the threads of torch too, and threads that spin while they wait are slow on busy cores.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
numba.config.reload_config()  # or, imported before by a plugin of pytest, it finds out when its threads are running

# Several workers share the cores, so that the time of one example says little.
settings.register_profile("sslcst", deadline=None)
settings.load_profile("sslcst")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, which lies beside the repository where it was fetched."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}")
    return folder
