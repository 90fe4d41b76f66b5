from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")  # pictures without a screen
# OpenMP threads that spin while they wait are slow where several workers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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
