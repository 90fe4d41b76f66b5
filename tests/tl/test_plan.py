"""`tl.plan` tells what a run will take, from the same arguments, and does nothing."""

from __future__ import annotations

import numpy as np
import pytest

import sslcst
from sslcst.errors import KeyMissingError, ParameterError


@pytest.fixture(scope="module")
def sdata():
    return sslcst.datasets.simulate(n_cells=40, n_genes=50, seed=3)


def test_tiles_and_transcripts_are_counted(sdata) -> None:
    """Against the points themselves; a tile without transcripts is skipped by name."""
    tiles = {"tiles": {"size": 64, "block": 64}}
    plan = sslcst.tl.plan(sdata, nuclei_key="true_nuclei", params=tiles)
    points = sdata.points["transcripts"].compute()
    index = np.floor(points[["y", "x"]].to_numpy() / plan.bin_size).astype(int) // 64
    tile, n = np.unique(index, axis=0, return_counts=True)
    assert plan.n_transcripts == len(points)
    assert (plan.n_tiles, plan.largest) == (len(tile), n.max())
    n_tiles = int(np.prod([-(-size // 64) for size in plan.bins]))
    assert plan.n_tiles + len(plan.skipped) == n_tiles
    assert f"{len(points):,} transcripts" in str(plan)


def test_the_grid_is_that_of_the_run(sdata) -> None:
    """Bins as in the run that follows."""
    whole = sslcst.datasets.simulate(n_cells=40, n_genes=50, seed=3)
    plan = sslcst.tl.plan(whole, nuclei_key="true_nuclei")
    before = set(whole.labels) | set(whole.tables)
    sslcst.tl.segment(whole, nuclei_key="true_nuclei")
    assert before == {"true_nuclei", "true_cells", "truth"}
    assert whole.tables["sslcst_table"].uns["sslcst"]["bin_size"] == plan.bin_size


def test_smaller_tiles_take_less_memory(sdata) -> None:
    """Where two of them are less than the whole; disk and transcripts stay."""
    small, large = (
        sslcst.tl.plan(sdata, nuclei_key="true_nuclei", params={"spots": {"bin_size": 0.07}, "tiles": {"size": size}})
        for size in (512, 2048)
    )
    assert small.memory < large.memory
    assert (small.disk, small.n_transcripts) == (large.disk, large.n_transcripts)
    assert small.n_tiles > large.n_tiles


def test_what_is_at_work_takes_memory(sdata) -> None:
    """An encoder of spots more than densities, a stain in which nuclei are found more than nuclei that are given."""
    density, encoder, stain = (
        sslcst.tl.plan(sdata, **how)
        for how in (
            {"nuclei_key": "true_nuclei", "method": "density"},
            {"nuclei_key": "true_nuclei", "method": "ssl-cst"},
            {"image_key": "stain", "method": "density"},
        )
    )
    assert 1 < density.memory < min(encoder.memory, stain.memory)


def test_arguments_are_checked_as_in_the_run(sdata) -> None:
    with pytest.raises(KeyMissingError, match="no labels or shapes element 'nothing'"):
        sslcst.tl.plan(sdata, nuclei_key="nothing")
    with pytest.raises(ParameterError, match="no such section"):
        sslcst.tl.plan(sdata, params={"nothing": {}})
