"""Given the nuclei, a chip segmented by tiles is the chip segmented as a whole, to the last bit."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Scale, get_transformation, set_transformation
from tiny_chips import (
    assert_same_cells,
    assert_whole,
    chip,
    params_of,
    segment,
    segment_whole,
    with_nuclei,
    with_transcripts,
)

import sslcst
from sslcst._sdata.raster import full_scale
from sslcst.core.nuclei import segment_nuclei
from sslcst.metrics import average_precision
from sslcst.params import Params
from sslcst.run import workspace

EXAMPLES = int(os.environ.get("SSLCST_EXAMPLES", 4))

KINDS = {
    "density": ("density", {}),
    "field": ("ssl-cst", {}),
    "spot": ("ssl-cst", {"encoder": {"kind": "spot"}}),
    "network": ("network", {}),
    "network, no genes": ("network", {"network": {"expression": False}}),
    "orphans": ("ssl-cst", {"flow": {"orphans": True, "min_orphan_area": 5}, "cells": {"radius": 0.8}}),
}


def quick(kind: str, *changes: dict) -> tuple[str, dict]:
    """The method of that kind, and its quick parameters."""
    method, own = KINDS[kind]
    params = params_of(own, *changes)
    shared = {"cells", "density", "network", "spots", "tiles"}
    return method, params if method == "ssl-cst" else {name: params[name] for name in shared & set(params)}


@lru_cache(maxsize=16)
def whole(kind: str, bin_size: float | None, seed: int) -> tuple[sd.SpatialData, object]:
    sdata = chip(seed)
    method, params = quick(kind, {"spots": {"bin_size": bin_size}})
    return sdata, segment_whole(sdata, params, method)


def in_order(order):
    """One worker, and tiles in a drawn order."""

    def run(stage, task, job, items, *, unit="tile"):
        places = sorted(range(len(items)), key=lambda i: hash((order, i)))
        done = {i: task(job, items[i]) for i in places}
        return [done[i] for i in range(len(items))]

    return run


@settings(max_examples=EXAMPLES)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    bin_size=st.sampled_from([None, 0.7]),
    seed=st.integers(0, 1),
    size=st.sampled_from([32, 64, 96, 512]),
    order=st.none() | st.integers(0, 2**20),
)
@example("orphans", 0.7, 0, 96, None)  # tiles of one bin, and more samples and squares than are wanted
def test_tiles_change_nothing(kind, bin_size, seed, size, order):
    """Whatever their size and order, for all methods and encoders, bins of no whole pixels."""
    sdata = chip(seed)
    method, params = quick(kind, {"spots": {"bin_size": bin_size}, "tiles": {"size": size}})
    with pytest.MonkeyPatch.context() as patch:
        if order is not None:
            patch.setattr(workspace, "run", in_order(order))
        segment(sdata, params, method=method)
    assert_whole(sdata, *whole(kind, bin_size, seed))


@pytest.mark.parametrize("kind", ["density", "orphans"])
def test_cells_that_are_too_small_are_dropped_everywhere(kind, tmp_path):
    """From labels, table, boundaries and transcripts, with their nuclei, by tiles and by steps."""
    sdata, other, all_of_them = chip(), chip(), chip()
    method, params = quick(kind)
    segment(all_of_them, params, method=method)
    every = all_of_them["sslcst_table"].obs
    counts, area = int(every["n_counts"].quantile(0.3)), float(every["area"].quantile(0.3))
    params["cells"] = params.get("cells", {}) | {"min_counts": counts, "min_area": area}
    sdata.write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    segment(sdata, params, method=method)
    assert_whole(sdata, other, segment_whole(other, params, method))
    obs, many, large = sdata["sslcst_table"].obs, every["n_counts"] >= counts, every["area"] >= area
    kept = every[many & large]
    assert 0 < len(kept) < min(many.sum(), large.sum()) < len(every), "each drops some"
    pd.testing.assert_frame_equal(obs, kept, check_categorical=False)
    assert set(np.unique(sdata["sslcst_nuclei"].to_numpy())) - {0} == set(kept["cell_id"][kept["nucleus_area"] > 0])
    assert sdata["sslcst_table"].uns["sslcst"]["n_dropped"] == len(every) - len(kept)
    cells = all_of_them["sslcst_cells"].to_numpy()
    np.testing.assert_array_equal(sdata["sslcst_cells"], np.where(np.isin(cells, kept["cell_id"]), cells, 0))


def odd_nuclei() -> dict[str, np.ndarray]:
    """Nuclei that meet the borders of tiles, whose sides are 32 pixels, in every way."""
    known = chip()["true_nuclei"].to_numpy()
    last = known.max()
    huge, scattered, corners, few = (known.copy() for _ in range(4))
    huge[30:100, 20:75] = last + 1
    for i, (y, x) in enumerate([(3, 3), (3, 120), (120, 5), (66, 66)]):
        scattered[y : y + 5 + i, x : x + 5] = last + 1
    for number, (y, x) in enumerate(np.ndindex(4, 4), start=1):
        corners[32 * y + 26 : 32 * y + 38, 32 * x + 26 : 32 * x + 38] = last + number
    corners[32, 16] = last + 100  # one pixel
    few[:, 40:] = 0
    return {"huge": huge, "scattered": scattered, "at corners": corners, "in a part of the chip": few}


@pytest.mark.parametrize("nuclei", odd_nuclei().items(), ids=lambda item: item[0])
def test_odd_nuclei(nuclei):
    one, other = (with_nuclei(chip(), nuclei[1]) for _ in range(2))
    segment(one)
    assert_whole(one, other, segment_whole(other))


def test_partitions_tiles_without_transcripts_and_transcripts_off_the_image():
    """Empty partitions, one that lies off the image, a hole in the tissue and a nucleus in it."""

    def made():
        sdata = chip()
        nuclei = sdata["true_nuclei"].to_numpy().copy()
        nuclei[:64, :64] = 0
        nuclei[20:30, 20:30] = 1000
        frame = sdata["transcripts"].compute()
        frame = frame[(frame["x"] > 40) | (frame["y"] > 40)].sort_values("x")
        off = frame.iloc[-500:].assign(x=500.0)
        return with_nuclei(sdata, nuclei), pd.concat([frame, off])

    one, frame = made()
    with_transcripts(one, frame, npartitions=15)
    assert one["transcripts"].npartitions > 10
    one["transcripts"] = one["transcripts"][one["transcripts"]["x"] > 10]
    assert min(one["transcripts"].map_partitions(len).compute()) == 0
    other, frame = made()
    with_transcripts(other, frame[frame["x"] > 10])
    segment(one)
    model = segment_whole(other)
    assert one["sslcst_table"].uns["sslcst"]["model"]["sha256"] == model.sha256()
    assert_same_cells(one, other)
    empty = one["sslcst_table"].obs.set_index("cell_id").loc[1000]
    assert empty["n_counts"] == empty["n_spots"] == 0
    assert np.isnan(empty["mean_prob"])


def test_cells_without_a_nucleus_reach_into_tiles_without_transcripts():
    """Where spots are few, each speaks for many bins around."""

    def made():
        sdata = chip()
        nuclei = sdata["true_nuclei"].to_numpy()[:64, :64].copy()
        nuclei[16:] = 0
        frame = sdata["transcripts"].compute()
        there = frame[(frame["y"] < 15.9) & (frame["x"] < 32)].sample(20, random_state=0)
        return with_transcripts(with_nuclei(sdata, nuclei), there)

    params = params_of({"flow": {"orphans": True, "min_orphan_area": 5}})
    one, other = made(), made()
    segment(one, params)
    assert_whole(one, other, segment_whole(other, params))


def test_coordinate_systems_and_several_scales(tmp_path):
    """Pixels and transcripts meet through an affine; image and labels of several scales are read at their finest."""
    one, whole_chip = chip(), chip()
    model = segment_whole(whole_chip)
    move = Affine([[2.0, 0, 7], [0, 2.0, -50], [0, 0, 1]], ("x", "y"), ("x", "y"))
    nuclei = Labels2DModel.parse(one["true_nuclei"].to_numpy(), dims=("y", "x"), scale_factors=[2])
    image = Image2DModel.parse(one["stain"].to_numpy(), dims=("c", "y", "x"), scale_factors=[2])
    moved = sd.SpatialData.init_from_elements(
        {"stain": image, "true_nuclei": nuclei, "transcripts": one["transcripts"]}
    )
    set_transformation(moved["transcripts"], move, "tissue")
    to_micron = np.diag([0.5, 0.5, 1.0])
    set_transformation(moved["true_nuclei"], Affine(move.matrix @ to_micron, ("x", "y"), ("x", "y")), "tissue")
    set_transformation(moved["stain"], Scale([0.5, 0.5], ("x", "y")), "tissue")
    moved.write(tmp_path / "a.zarr")
    moved = sd.read_zarr(tmp_path / "a.zarr")
    segment(moved, coordinate_system="tissue", nuclei_key="true_nuclei")
    np.testing.assert_array_equal(full_scale(moved["sslcst_cells"]).to_numpy(), whole_chip["sslcst_cells"].to_numpy())
    history = moved["sslcst_table"].uns["sslcst"]["history"]["validation_loss"]
    assert np.asarray(history).tolist() == [epoch.validation_loss for epoch in model.history]
    assert (moved["sslcst_table"].X != whole_chip["sslcst_table"].X).nnz == 0
    expected = whole_chip["sslcst_table"].obsm["spatial"] * 2 + (7, -50)
    assert moved["sslcst_table"].obsm["spatial"] == pytest.approx(expected)
    assert set(get_transformation(full_scale(moved["sslcst_cells"]), get_all=True)) == {"tissue", "global"}


def test_nuclei_of_a_stain_have_no_seams():
    """Found by tiles, each nucleus of the whole image is there, once and uncut, where the diameter is told."""
    sdata = sslcst.datasets.simulate(n_cells=150, n_genes=20, cell_diameter=8, seed=1)
    params = params_of({"nuclei": {"method": "sslcst", "diameters": (5.0,)}, "tiles": {"image_size": 64}})
    image = sdata["stain"].to_numpy()[0]
    expected = segment_nuclei(
        image, pixel_size=0.5, params=Params.of({"nuclei": params["nuclei"]}).nuclei, device="cpu"
    )
    assert expected.max() > 100
    sslcst.tl.segment(sdata, image_key="stain", method="ssl-cst", params=params)
    assert average_precision(expected, sdata["sslcst_nuclei"].to_numpy(), thresholds=[0.9]) == 1
