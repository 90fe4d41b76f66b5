"""`pl.compare` and `pl.quality`: outlines and disagreement where they belong, bars and curves of the right values."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_cells import box_of, legend
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale

from sslcst import pl, tl
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.pl._canvas import CELLS, NUCLEI, TRANSCRIPTS


@pytest.fixture
def sdata() -> SpatialData:
    """A cell that both have, of which b has two rows less, and one of a alone; b on pixels half as large."""
    a, b = np.zeros((20, 30), np.uint32), np.zeros((40, 60), np.uint32)
    a[4:10, 5:12], a[14:18, 20:26] = 3, 2**32 - 1
    b[8:16, 10:24] = 1
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.uniform(0, 30, 900), "y": rng.uniform(0, 20, 900), "gene": rng.choice(list("abcd"), 900)}
    )
    half = Scale([0.5, 0.5], ("x", "y"))
    return SpatialData(
        images={"stain": Image2DModel.parse(rng.random((1, 20, 30)), dims=("c", "y", "x"))},
        labels={
            "a": Labels2DModel.parse(a, dims=("y", "x"), transformations={"global": Identity()}),
            "b": Labels2DModel.parse(b, dims=("y", "x"), transformations={"global": half}),
        },
        points={"transcripts": PointsModel.parse(frame, feature_key="gene")},
    )


def test_outlines_and_disagreement(sdata: SpatialData) -> None:
    ground, _ = pl.compare(sdata, "a", "b")
    assert box_of(ground, CELLS) == [5, 4, 26, 18]
    assert box_of(ground, NUCLEI) == [5, 4, 12, 8]
    colour = ground.images[-1].get_array()
    expected = np.zeros((20, 30), bool)
    expected[8:10, 5:12] = expected[14:18, 20:26] = True
    assert ((colour[..., 3] > 0) == expected).all()
    assert colour[8, 5, :3].tolist() == pytest.approx(to_rgb(TRANSCRIPTS))
    assert legend(ground) == ["a", "b", "disagreement"]


def test_bars_are_the_figures_of_the_comparison(sdata: SpatialData) -> None:
    comparison = tl.compare(sdata, "a", "b", min_counts=5)
    _, bars = pl.compare(sdata, "a", "b", comparison=comparison)
    heights = {(to_hex(bar.get_facecolor()), round(bar.get_width(), 9)) for bar in bars.patches}
    for figure in (comparison.mean_best_iou, comparison.share_in_cells):
        assert {(CELLS, round(figure[0], 9)), (NUCLEI, round(figure[1], 9))} <= heights
    assert (TRANSCRIPTS, round(comparison.transcripts_alike, 9)) in heights
    assert (TRANSCRIPTS, round(comparison.average_precision[0], 9)) in heights
    assert "a: 2 cells" in bars.get_title(loc="left")


def test_region_on_given_axes_into_a_file(sdata: SpatialData, tmp_path: Path) -> None:
    _, axes = plt.subplots(1, 2)
    ground, bars = pl.compare(sdata, "a", "b", region=(0, 0, 15, 12), axes=axes, save=tmp_path / "a.png")
    assert (ground, bars) == tuple(axes)
    assert (ground.get_xlim(), ground.get_ylim()) == ((0, 15), (12, 0))
    assert ground.images[-1].get_array().shape == (12, 15, 4)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_without_transcripts_their_bars_are_left_out(sdata: SpatialData) -> None:
    del sdata.points["transcripts"]
    _, bars = pl.compare(sdata, "a", "b")
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["mean best IoU", "average precision at 0.5"]
    assert bars.get_xlabel() == (
        "unknown, for want of transcripts in cells: counts in cells, correlation, transcripts alike"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a_key": "no"}, KeyMissingError, "no labels or shapes 'no'"),
        ({"image_key": "no"}, KeyMissingError, "no image 'no'"),
        ({"coordinate_system": "mm"}, KeyMissingError, "'mm'"),
        ({"region": (5, 5, 5, 9)}, ParameterError, "region"),
        ({"region": (90, 0, 99, 9)}, DataError, "no pixel in the region"),
        ({"axes": [Figure().subplots()]}, ParameterError, "axes hold 1"),
    ],
)
def test_compare_refuses_before_a_figure_is_made(sdata: SpatialData, arguments: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        pl.compare(sdata, **({"a_key": "a", "b_key": "b"} | arguments))
    assert not plt.get_fignums()


def test_the_comparison_must_be_of_these_labels(sdata: SpatialData) -> None:
    with pytest.raises(KeyMissingError, match="comparison is of 'b' and 'a', not of 'a' and 'b'"):
        pl.compare(sdata, "a", "b", comparison=tl.compare(sdata, "b", "a"))


def frame(**columns) -> pd.DataFrame:
    names = ("n_counts", "n_genes", "share", "diameter", "contamination", "density_ratio")
    return pd.DataFrame({name: [0.1, 0.2, 0.3, 0.4] for name in names} | columns)


def test_quality_curves_are_the_cumulative_shares(tmp_path: Path) -> None:
    frames = {"ours": frame(n_counts=[4, 2, 0, 8]), "theirs": frame(density_ratio=[np.nan, 3, np.inf, 1])}
    axes = pl.quality(frames, save=tmp_path / "q.png")
    assert len(axes) == 5
    counts, ratio = axes[0].lines[0], axes[4].lines[1]
    assert counts.get_xdata().tolist()[1:] == [2, 4, 8]  # the one without counts has no place on a logarithmic axis
    assert counts.get_ydata().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert ratio.get_xdata().tolist()[1:] == [1, 3]
    assert axes[0].lines[0].get_color() != axes[0].lines[1].get_color()
    assert axes[0].lines[0].get_linestyle() != axes[0].lines[1].get_linestyle()
    assert axes[-1].get_legend().get_texts()[0].get_text() == "ours (4 cells, 100% of counts)"
    assert (tmp_path / "q.png").exists()


@pytest.mark.parametrize("counts", [[60, 100, 300, 900], [3, 3, 3, 3], [210, 220, 250, 280], [1, 10, 500, 40_000]])
def test_labels_of_a_logarithmic_axis_stand_apart(counts: list[int]) -> None:
    """However few decades it spans, there are some, and none lies on another."""
    [ax] = pl.quality({"ours": frame(n_counts=counts)}, columns=["n_counts"])
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    labels = [tick.label1 for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels += [label for label in ax.get_xticklabels(minor=True) if label.get_text()]
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box_: box_.x0)
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_each_curve_of_quality_stands_out_from_its_ground(style: str) -> None:
    with plt.style.context(style):
        [ax] = pl.quality({str(i): frame() for i in range(6)}, columns=["diameter"])
    ground = np.array(to_rgb(ax.get_facecolor()))
    assert min(np.abs(np.array(to_rgb(line.get_color())) - ground).max() for line in ax.lines) > 0.3


def test_quality_without_values_and_on_given_axes() -> None:
    """No exclusive genes, no contamination: the legend still names the segmentation."""
    _, ax = plt.subplots()
    drawn = pl.quality({"ours": frame(contamination=np.nan)}, columns=["contamination"], axes=[ax])
    assert drawn.tolist() == [ax]
    assert len(ax.get_legend().get_texts()) == 1
    assert [text.get_text() for text in ax.texts] == ["no cell has a value"]


@pytest.mark.parametrize(
    ("frames", "arguments", "error", "message"),
    [
        ({}, {}, ParameterError, "nothing to draw"),
        ({"a": frame().drop(columns="share")}, {}, KeyMissingError, r"'a' has no column \['share'\]"),
        ({"a": frame()}, {"columns": ["size"]}, KeyMissingError, "size"),
        ({"a": frame()}, {"axes": [Figure().subplots()]}, ParameterError, "axes hold 1 for 5"),
    ],
)
def test_quality_refuses_before_a_figure_is_made(frames: dict, arguments: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        pl.quality(frames, **arguments)
    assert not plt.get_fignums()
