from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import matplotlib
import matplotlib.pyplot as plt
import pytest
from hypothesis import HealthCheck, settings

matplotlib.use("agg")  # pictures without a screen
os.environ.setdefault("MPLBACKEND", "agg")  # and in the processes that tests start
# OpenMP threads that spin while they wait are slow where several workers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Several workers share the cores, so that the time of examples says little. They are the same in each run, so that none
# fails by its luck; `pytest --hypothesis-profile=search` looks for others.
settings.register_profile("search", deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("sslcst", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("sslcst")


@pytest.fixture(autouse=True)
def _no_figures() -> None:
    """What one test draws is not there in the next, so that a test can tell which figures it left open."""
    plt.close("all")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    """A store to write to, as the `original` of the module."""
    return shutil.copytree(original, tmp_path / "a.zarr")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, which lies beside the repository where it was fetched."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def cyto_weights(shared: Path) -> Path:
    """Cellpose's first "cyto" network, which Cellpose 3 reads."""
    path = shared / "models" / "cellpose_cyto_0" / "cyto_0_torch_cp3.pt"
    if not path.exists():
        pytest.skip(f"the Cellpose weights are not at {path}")
    pytest.importorskip("cellpose", reason="cellpose is not installed")
    if version("cellpose") >= "4":
        pytest.skip("the weights are of cellpose 3")
    return path


@pytest.fixture(scope="session")
def make_stores(shared: Path) -> ModuleType:
    """The script beside the real data that makes SpatialData objects of them."""
    spec = importlib.util.spec_from_file_location("make_stores", shared / "tools" / "make_stores.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prostate(shared: Path, make_stores: ModuleType):
    """The Xenium Prime prostate crop with the vendor's nuclei and cells, in memory."""
    return make_stores.prostate(shared / "data" / "xenium_prime_prostate")
