"""A tissue, its store, and the report of that."""

from __future__ import annotations

from pathlib import Path

import pytest
from reported_tissue import Page, make_tissue
from spatialdata import SpatialData, read_zarr

from sslcst.report import write_report


@pytest.fixture
def sdata() -> SpatialData:
    return make_tissue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    make_tissue().write(path)
    return path


@pytest.fixture(scope="module")
def file(store: Path) -> Path:
    """The report of the store."""
    write_report(read_zarr(store), store.with_name("report.html"))
    return store.with_name("report.html")


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))
