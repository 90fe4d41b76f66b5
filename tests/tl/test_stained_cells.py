"""Whole cells that are found in a stain of membranes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from whole_cells import CELLS, NUCLEI, SHAPE, stain, tissue

import sslcst
from sslcst.core.nuclei import choose_cell_method
from sslcst.errors import BackendError, DataError, KeyMissingError, ParameterError
from sslcst.methods.whole.params import CellStainParams

# Cells in a stain. A stand-in for a network finds what is brighter than a half in the first channel.

MEMBRANE = np.where(CELLS > 0, 200, 10).astype(np.uint8)
DAPI = np.where(NUCLEI > 0, 90, 5).astype(np.uint8)
HOW = {"method": "stain", "params": {"nuclei": {"method": "watershed"}, "stain": {"method": "cellpose"}}}
PIECES = label(CELLS)  # the two cells that touch are one


@pytest.fixture
def seen(monkeypatch) -> list[tuple[np.ndarray, float]]:
    """What a stand-in for Cellpose was shown, and told of the diameter."""
    seen = []

    def load(params, *, device):
        def segment(image, diameter):
            seen.append((image, diameter))
            return label(image[0] > 0.5)

        return segment

    monkeypatch.setattr("sslcst.core.nuclei.cellpose.load", load)
    return seen


@pytest.mark.parametrize(
    "names",
    [
        ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"],
        ["Cellbound2", "DAPI", "Cellbound1"],
        ["membrane", "nucleus"],
        ["PanCK", "DNA", "CD45"],
        ["DAPI", "PolyT"],
    ],
)
def test_channels_are_known_by_their_names(names, seen):
    """Membranes before cytoplasm; the network sees each scaled by itself, cells first."""
    known = ("ATP1A1/CD45/E-Cadherin", "Cellbound1", "membrane", "PanCK", "PolyT")
    cells = next(name for name in known if name in names)
    shown = {cells: MEMBRANE} | {name: DAPI for name in ("DAPI", "DNA", "nucleus") if name in names}
    noise = np.arange(64 * 64, dtype=np.uint8).reshape(SHAPE)
    sdata = tissue(cells=None, nuclei=None, morphology=stain(*(shown.get(name, noise) for name in names), names=names))
    sslcst.tl.segment(sdata, **HOW)
    np.testing.assert_array_equal(sdata["sslcst_cells"].to_numpy() > 0, PIECES > 0)
    assert sdata["sslcst_table"].obs["n_nuclei"].tolist() == [1, 2, 1]
    record = sdata["sslcst_table"].uns["sslcst"]
    assert record["channels"].split("\n") == [cells, record["channel"]]
    assert record["cells_by"] == "cellpose"
    [(image, diameter)] = seen
    np.testing.assert_array_equal(image[0] > 0.5, CELLS > 0)
    np.testing.assert_array_equal(image[1] > 0.5, NUCLEI > 0)
    areas = np.bincount(label(NUCLEI).ravel())[1:]
    assert diameter == pytest.approx(2 * 2 * np.sqrt(np.median(areas) / np.pi), rel=0.3), "twice that of nuclei"


def test_channels_and_diameters_are_taken_as_they_are_told(seen):
    """By name or place; of several diameters the one whose cells cover most."""
    image = stain(DAPI, MEMBRANE, names=["r", "g"])
    for channels in (["g", "r"], (1, 0), np.array([1, 0])):
        sdata = tissue(cells=None, nuclei=None, composite=image)
        params = HOW["params"] | {"stain": {"method": "cellpose", "diameters": [15, 20]}}
        sslcst.tl.segment(sdata, method="stain", channels=channels, params=params)
        np.testing.assert_array_equal(sdata["sslcst_cells"].to_numpy() > 0, CELLS > 0)
    assert {diameter for _, diameter in seen} == {15, 20}


def test_tiles_of_a_stain_cut_no_cell(seen):
    """Cells over the borders of tiles are one, whatever the size of these; intensities are those of the whole."""
    rng = np.random.default_rng(0)
    nuclei = np.zeros((300, 300), np.uint32)
    for number, (y, x) in enumerate(np.ndindex(14, 14), start=1):
        top, left = 21 * y + rng.integers(1, 5, 1)[0], 21 * x + rng.integers(1, 5, 1)[0]
        nuclei[top + 5 : top + 11, left + 5 : left + 11] = number
    cells = ndimage.binary_dilation(nuclei > 0, iterations=4)
    names = ["DAPI", "membrane"]
    image = stain((90 * (nuclei > 0)).astype(np.uint8), (200 * cells).astype(np.uint8), names=names)
    found = {}
    for size in (64, 100, 4096):
        sdata = tissue(cells=None, nuclei=None, image=image)
        sslcst.tl.segment(sdata, method="stain", params=HOW["params"] | {"tiles": {"image_size": size}})
        found[size] = label(sdata["sslcst_cells"].to_numpy())
        table = sdata["sslcst_table"]
        assert table.n_obs == 196
        assert set(table.obs["n_nuclei"]) == {1}
        np.testing.assert_array_equal(sdata["sslcst_cells"].to_numpy() > 0, cells)
    np.testing.assert_array_equal(found[64], found[4096])


def test_nuclei_may_be_given_beside_a_stain(seen):
    sdata = tissue(cells=None, image=stain(DAPI, MEMBRANE, names=["DAPI", "membrane"]))
    sslcst.tl.segment(sdata, nuclei_key="nuclei", **HOW)
    assert sdata["sslcst_table"].obs["n_nuclei"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("nuclei", ["DAPI", "405"])
def test_a_stain_of_which_cells_are_not_known_lists_the_channels(nuclei):
    sdata = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=[nuclei, "CD20"]))
    with pytest.raises(KeyMissingError, match=f"with channels=; there are: '{nuclei}', 'CD20'"):
        sslcst.tl.segment(sdata, **HOW)


@pytest.mark.parametrize("channels", [["membrane"], ["membrane", "DAPI", "DAPI"]])
def test_channels_are_two(channels):
    sdata = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=["DAPI", "membrane"]))
    with pytest.raises(ParameterError, match="must be two"):
        sslcst.tl.segment(sdata, channels=channels, **HOW)
    with pytest.raises(ParameterError, match="channels names that of nuclei"):
        sslcst.tl.segment(sdata, channels=["membrane", "DAPI"], channel="DAPI", **HOW)


def test_no_cells_in_a_stain_are_an_error(seen, monkeypatch):
    monkeypatch.setattr(
        "sslcst.core.nuclei.cellpose.load", lambda params, device: lambda image, _: np.zeros(image.shape[1:], int)
    )
    sdata = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=["DAPI", "membrane"]))
    with pytest.raises(DataError, match="No cells were found beside the nuclei of image 'image'"):
        sslcst.tl.segment(sdata, **HOW)


def test_what_finds_cells_is_chosen_before_any_work(monkeypatch):
    """The one that is installed; where none is, the error says what to install and what else there is."""
    sdata = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=["DAPI", "membrane"]))
    monkeypatch.setattr("sslcst.core.nuclei.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"sslcst\[instanseg\].*cells_key="):
        sslcst.tl.segment(sdata, method="stain")
    with pytest.raises(ParameterError, match=r"stain.method='stardist': must be one of"):
        sslcst.tl.segment(sdata, method="stain", params={"stain": {"method": "stardist"}})
    monkeypatch.setattr("sslcst.core.nuclei.find_spec", lambda name: object() if name == "instanseg" else None)
    assert choose_cell_method(CellStainParams()).method == "instanseg"


def test_cells_of_a_stain_in_a_region(seen):
    """Those whose centroid lies there, by the intensities of the whole image."""
    names = ["DAPI", "membrane"]
    whole = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=names))
    part = tissue(cells=None, nuclei=None, image=stain(DAPI, MEMBRANE, names=names))
    params = HOW["params"] | {"stain": {"method": "cellpose", "diameters": [16]}, "cells": {"radius": 2.0}}
    sslcst.tl.segment(whole, method="stain", params=params)
    sslcst.tl.segment(part, method="stain", params=params, region=(22, 0, 64, 22))
    expected = whole["sslcst_table"].obs
    [area] = part["sslcst_table"].obs["area"]
    assert area in expected["area"].tolist()
    assert part["sslcst_table"].obs["n_nuclei"].tolist() == [2]
