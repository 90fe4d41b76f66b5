"""Runs beside others in one process: same seed, same bits; and what the process had before it has after."""

from __future__ import annotations

import logging
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from tiny_chips import assert_same_cells, chip, params_of, segment

import sslcst
from sslcst.core import threads
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.params import EncoderParams

SMALL = params_of({"tiles": {"size": 64}})


def on_a_new_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def segmented(seed: int, **kwargs):
    sdata = chip(n_cells=40)
    segment(sdata, SMALL, seed=seed, **kwargs)
    return sdata


def hash_of(sdata) -> str:
    return sdata["sslcst_table"].uns["sslcst"]["model"]["sha256"]


@pytest.mark.parametrize("kwargs", [{}, {"nuclei_key": None}], ids=["nuclei given", "nuclei found"])
def test_runs_in_threads_give_what_they_give_one_after_the_other(kwargs):
    """Seeds, both the same and others, each with its own model and cells."""
    seeds = [0, 1, 0]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: segmented(seed, **kwargs), seeds))
    alone = {seed: segmented(seed, **kwargs) for seed in set(seeds)}
    for seed, sdata in zip(seeds, together, strict=True):
        assert hash_of(sdata) == hash_of(alone[seed])
        assert_same_cells(sdata, alone[seed])
    assert hash_of(alone[0]) != hash_of(alone[1])


@pytest.mark.parametrize("kind", ["spot", "field"])
def test_steps_in_threads_give_what_they_give_one_after_the_other(kind):
    sdata = chip(n_cells=40)
    params = params_of({"encoder": {"kind": kind}})
    sslcst.pp.import_nuclei(sdata, "true_nuclei")
    sslcst.pp.bin_spots(sdata, params=params)

    def trained(seed: int) -> str:
        return sslcst.tl.train(sdata, method="ssl-cst", params=params, seed=seed).sha256()

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(trained, [0, 1, 0]))
    assert together == [trained(seed) for seed in (0, 1, 0)]


def state() -> dict[str, object]:
    """What all in a process have in common, as far as anything here could change it."""
    import matplotlib

    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch's threads": (torch.get_num_threads(), on_a_new_thread(torch.get_num_threads)),
        "numba's threads": (numba.get_num_threads(), on_a_new_thread(numba.get_num_threads)),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "type": torch.get_default_dtype(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "matplotlib": dict(matplotlib.rcParams),
        "loggers": (logging.root.level, [*logging.root.handlers], logging.getLogger("sslcst").level),
    }


@pytest.mark.parametrize("nuclei_key", ["true_nuclei", None])
def test_a_run_changes_nothing_of_the_process(nuclei_key):
    before = state()
    segmented(3, nuclei_key=nuclei_key)
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.parametrize("kind", ["spot", "field"])
def test_a_new_network_draws_nothing_from_torchs_own_generator(kind):
    before = torch.get_rng_state()
    make_encoder(5, EncoderParams(kind=kind, width=8, depth=1, hidden=(8,)))
    assert torch.equal(torch.get_rng_state(), before)


def test_torchs_threads_are_those_of_a_new_thread(monkeypatch):
    """Whatever was done in this one: numba changes their number where it starts its own."""

    def unsettled() -> tuple[int, int]:
        expected = on_a_new_thread(torch.get_num_threads)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)  # as if another package had changed it
        asked = []
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        monkeypatch.setattr(threads, "_numbers", lambda: expected)
        threads.settle()
        return asked, [expected]

    asked, expected = on_a_new_thread(unsettled)
    assert asked == expected


def test_all_parallel_loops_ask_for_the_process():
    """A loop that numba spreads over threads is compiled in one place, which looks at the process before each call."""
    src = Path(sslcst.__file__).parent
    found = {
        path.relative_to(src).as_posix()
        for path in src.rglob("*.py")
        if re.search(r"parallel=True", path.read_text(encoding="utf-8"))
    }
    assert found == {"core/threads.py"}


def test_nothing_of_the_whole_process_is_set():
    """Neither seeds nor threads: a run shares them with others."""
    src = Path(sslcst.__file__).parent
    shared = (
        r"manual_seed_all|torch\.manual_seed|fork_rng|np\.random\.(?!default_rng|Generator|SeedSequence)|rcParams\["
    )
    found = [path.name for path in src.rglob("*.py") if re.search(shared, path.read_text(encoding="utf-8"))]
    assert found == []
