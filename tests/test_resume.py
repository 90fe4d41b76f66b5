"""A run that is stopped, by anything, harms nothing, and goes on where it was.

``SSLCST_KILLS=50`` kills at as many random moments as that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import spatialdata as sd
from stopped_runs import PARAMS, exit_code
from tiny_chips import assert_same_cells, chip, segment

from sslcst.tiles import buckets, cells, survey
from sslcst.tl import _segment

KILLS = int(os.environ.get("SSLCST_KILLS", 4))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store that no test writes to."""
    path = tmp_path_factory.mktemp("original") / "a.zarr"
    chip(n_cells=40).write(path)
    return path


@pytest.fixture
def path(original, tmp_path):
    shutil.copytree(original, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    """The store of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    shutil.copytree(original, path)
    segment(sd.read_zarr(path), PARAMS)
    return sd.read_zarr(path)


def hashes(path: Path) -> dict[str, str]:
    """Of all files of the elements that were in the store before us."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.relative_to(path).parts[1:2] in (("stain",), ("true_nuclei",), ("transcripts",))
    }


def beside(path: Path) -> list[str]:
    """What lies beside a store."""
    return sorted(other.name for other in path.parent.iterdir() if other != path)


def assert_complete(path: Path, undisturbed: sd.SpatialData, before: dict[str, str]) -> None:
    found = sd.read_zarr(path)
    assert_same_cells(found, undisturbed)
    pd.testing.assert_frame_equal(
        found["sslcst_transcripts"].compute(), undisturbed["sslcst_transcripts"].compute(), check_categorical=False
    )
    assert found["sslcst_outlines"].geometry.equals(undisturbed["sslcst_outlines"].geometry)
    assert hashes(path) == before
    assert beside(path) == []


class Counts:
    """How many tasks of each kind ran."""

    def __init__(self, patch):
        self.of = Counter()
        for module, name in ((survey, "_survey_tile"), (cells, "_predict_tile"), (cells, "_cells_of_tile")):
            patch.setattr(module, name, self.counted(getattr(module, name)))
        for module, name in ((_segment, "fit"), (buckets, "_append")):
            patch.setattr(module, name, self.counted(getattr(module, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.of[function.__name__] += 1
            return function(*args, **kwargs)

        call.__name__ = function.__name__
        return call


STEPS = [
    ("sslcst.tiles.nuclei", "_write", 1),
    ("sslcst.tiles.nuclei", "_finish", 1),
    ("sslcst.tiles.buckets", "_append", 2),
    ("sslcst.tiles.survey", "_survey_tile", 2),
    ("sslcst.tiles.survey", "_gather", 1),
    ("sslcst.tl._segment", "write_model", 1),
    ("sslcst.tl._segment", "find", 1),
    ("sslcst.tiles.cells", "_predict_tile", 2),
    ("sslcst.tiles.cells", "_cells_of_tile", 3),
    ("sslcst.tiles.results", "read_cells", 2),
    ("sslcst.tl._segment", "commit", 1),
    ("sslcst.store", "_swap", 1),
    ("sslcst.store", "_unlist", 1),
    ("sslcst.store", "_move", 1),
    ("sslcst.store", "_add_to_group", 3),
    ("sslcst.store", "_move", 2),
    ("sslcst.store", "_consolidate", 1),
    ("sslcst.store", "_retire", 1),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[1]}-{step[2]}")
def test_killed_at_a_step(path, undisturbed, step):
    """The store opens, its elements are as they were, and the same call ends as if nothing had been."""
    was = hashes(path)
    assert exit_code(path, *step) == -9
    assert hashes(path) == was
    left = sd.read_zarr(path)
    assert {"stain", "true_nuclei", "transcripts"} <= {name for _, name, _ in left.gen_elements()}
    segment(left, PARAMS)
    assert_complete(path, undisturbed, was)
