"""What spoils a stain costs no nuclei beside it: saturation, debris, fibres, folds, holes; and doubts are said."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale

import sslcst
from sslcst.core.nuclei import segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.core.nuclei.sslcst import some_of, typical_diameter
from sslcst.params import NucleiParams, Params
from sslcst.run.stages import nuclei as tiles

FILE = Path(__file__).parents[3] / "benchmarks" / "nuclei_artefacts.py"
PERCENTILES = (1, 99.8)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    if not FILE.exists():
        pytest.skip("the benchmarks are not part of this copy")
    spec = importlib.util.spec_from_file_location("nuclei_artefacts", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stain() -> NDArray[np.float64]:
    return sslcst.datasets.simulate(n_cells=120, n_genes=5, seed=1)["stain"].to_numpy()[0].astype(float)


def look(image: NDArray[np.float64]) -> tuple[float, float]:
    """Upper end of the range, and estimated diameter, of an image of 16 bits."""
    image = np.clip(np.round(image), 0, 65535).astype(np.uint16)
    low, high = intensity_range(image, PERCENTILES)
    return high, estimate_diameter(scale_intensity(image, low, high))


@pytest.mark.parametrize("share", [0.005, 0.011, 0.02, 0.05])
@pytest.mark.parametrize(
    "spoil",
    ["saturated", "four_saturated", "bright_and_noisy", "debris", "fibres", "fold", "hot_rows", "white_margin"],
)
def test_range_and_diameter_are_those_of_the_nuclei(bench, stain, spoil: str, share: float) -> None:
    """Not of what spoils the stain, though it is up to ten times as bright, on up to a twentieth of the area."""
    high, diameter = look(stain)
    spoilt, _ = getattr(bench, spoil)(stain, share, np.random.default_rng(0))
    its_high, its_diameter = look(spoilt)
    assert 0.7 * high < its_high < 2.2 * high
    assert diameter / 1.75 < its_diameter < 2.5 * diameter  # from there the network measures what it finds


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("spoil", ["empty_part", "empty_squares", "dark_border"])
def test_what_is_empty_changes_little(bench, stain, spoil: str, share: float) -> None:
    high, diameter = look(stain)
    spoilt, _ = getattr(bench, spoil)(stain, share, np.random.default_rng(0))
    its_high, its_diameter = look(spoilt)
    assert 0.7 * high < its_high < 1.3 * high
    assert diameter / 1.3 < its_diameter < 1.3 * diameter


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.uint8])
@pytest.mark.parametrize("coverage", [0.05, 0.3, 0.75])
def test_clean_stains_keep_their_percentiles(coverage: float, kind: type) -> None:
    """Sparse nuclei are not taken for debris."""
    stain = sslcst.datasets.simulate(n_cells=40, n_genes=2, coverage=coverage, seed=2)["stain"].to_numpy()[0]
    image = (stain / 256 if kind is np.uint8 else stain).astype(kind)
    assert intensity_range(image, PERCENTILES) == tuple(np.percentile(image, PERCENTILES))


@pytest.mark.parametrize(("spoil", "share"), [("saturated", 0.05), ("white_margin", 0.05), ("empty_part", 0.5)])
def test_nuclei_beside_what_spoils_a_stain_are_found(bench, stain, spoil: str, share: float) -> None:
    """By the network of this package, to within a tenth of those that are found there in the clean stain."""
    params = NucleiParams(method="sslcst")
    clean = segment_nuclei(stain, params=params)
    spoilt, touched = getattr(bench, spoil)(stain, share, np.random.default_rng(0))
    labels = segment_nuclei(spoilt, params=params)
    expected = bench.apart(clean, touched)
    assert len(bench.apart(labels, touched)) == pytest.approx(len(expected), rel=0.1)
    assert np.mean(bench.best_iou(clean, labels)[expected] > 0.5) > 0.85


def test_the_diameter_is_told_by_several_windows() -> None:
    """That of most contrast, which may show something else, does not decide alone."""
    assert some_of(list("abcdefghi"), [8, 7, 6, 5, 4, 3, 2, 1, 0]) == ["e", "c", "a"]
    assert some_of(["a"], [1.0]) == ["a"]
    assert some_of(["a", "b"], [2.0, 1.0]) == ["a"] or some_of(["a", "b"], [2.0, 1.0]) == ["b", "a"]
    small, large = (np.kron(np.arange(n * n).reshape(n, n), np.ones((48 // n,) * 2, int)) for n in (8, 2))
    assert typical_diameter(large, small) == typical_diameter(small)


def test_a_sample_of_a_large_spoilt_stain(bench, stain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Range and diameter of an image that is cut into tiles are those of its nuclei, too."""
    monkeypatch.setattr(tiles, "_WINDOW", 96)
    params = Params.of({"nuclei": {"method": "watershed"}}).nuclei
    how = {"pixel_size": 1.0, "params": params, "device": "cpu"}
    sample = tiles.sample_stain(stain, stain.shape, params)
    spoilt, _ = bench.saturated(stain, 0.05, np.random.default_rng(0))
    other = tiles.sample_stain(spoilt, stain.shape, params)
    assert other.scale[0] == pytest.approx(sample.scale[0], rel=0.2)
    assert tiles.nucleus_diameter(other, **how) == pytest.approx(tiles.nucleus_diameter(sample, **how), rel=0.2)


def in_units(stain: NDArray[np.float64], pixel_size: float) -> SpatialData:
    step = Identity() if pixel_size == 1 else Scale([pixel_size] * 2, axes=("y", "x"))
    image = Image2DModel.parse(stain[None], dims="cyx", c_coords=["DAPI"], transformations={"global": step})
    return SpatialData(images={"slide": image})


@pytest.mark.parametrize(
    ("pixel_size", "told", "said"),
    [(1.0, 4.0, True), (1.0, 40.0, True), (0.25, 14.0, True), (1.0, 14.0, False), (0.25, 3.5, False)],
)
def test_told_diameters_that_differ_twofold_are_said(
    stain, caplog: pytest.LogCaptureFixture, pixel_size: float, told: float, said: bool
) -> None:
    """With both values, the image, its channel and the unit. Nuclei are 14 pixels wide."""
    sdata = in_units(stain, pixel_size)
    with caplog.at_level(logging.WARNING, "sslcst"):
        sslcst.pp.segment_nuclei(sdata, params={"nuclei": {"method": "watershed", "diameters": [told]}}, channel="DAPI")
    texts = [record.getMessage() for record in caplog.records if "diameters" in record.getMessage()]
    assert bool(texts) == said
    for part in (f"{told}", "'slide'", "'DAPI'", f"a pixel measures {pixel_size:g}", "microns") if said else ():
        assert part in texts[0]


def test_hardly_any_nuclei_are_said(caplog: pytest.LogCaptureFixture) -> None:
    stain = np.random.default_rng(0).normal(100, 1, (300, 300))
    stain[100:118, 100:118] += 500
    with caplog.at_level(logging.WARNING, "sslcst"):
        sslcst.pp.segment_nuclei(in_units(stain, 1.0), params={"nuclei": {"method": "watershed"}})
    assert "cover only" in caplog.text and "'slide'" in caplog.text and "channel=" in caplog.text
