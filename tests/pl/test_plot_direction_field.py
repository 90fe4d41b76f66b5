"""`pl.direction_field`: arrows point where the predictions say, in any coordinate system; thinned, they are means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.quiver import Quiver
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Affine, Identity

from sslcst import pp
from sslcst.core.geometry import Regions
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.methods.ssl_cst.sampling import direction_class, direction_vectors, relate
from sslcst.pl import direction_field
from sslcst.pp._spots import as_spots

AXES = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
TURNED = np.array([[0.0, -2.0, 100.0], [1.0, 0.5, -10.0], [0.0, 0.0, 1.0]])  # turned, stretched and sheared
HEIGHT, WIDTH = 40, 60
BIN = 2  # pixels


@pytest.fixture
def sdata() -> SpatialData:
    """Two nuclei, and spots that all know the way to the nearest one's centroid; the farther ones lie outside cells."""
    systems = {"global": Identity(), "turned": Affine(TURNED, **AXES)}
    nuclei = np.zeros((HEIGHT, WIDTH), np.uint32)
    nuclei[10:20, 10:24], nuclei[22:30, 40:48] = 5, 9
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.uniform(0, WIDTH, 700), "y": rng.uniform(0, HEIGHT, 700), "gene": "A"})
    labels = Labels2DModel.parse(nuclei, dims=("y", "x"), transformations=dict(systems))
    stain = rng.random((1, HEIGHT, WIDTH)).astype(np.float32)
    sdata = SpatialData(
        images={"stain": Image2DModel.parse(stain, dims=("c", "y", "x"), transformations=dict(systems))},
        labels={"sslcst_nuclei": labels},
        points={
            "transcripts": PointsModel.parse(
                frame.astype({"gene": "category"}), feature_key="gene", transformations=dict(systems)
            )
        },
    )
    pp.bin_spots(sdata, params={"spots": {"bin_size": BIN}}, coordinate_system="global")
    table = sdata["sslcst_spots"]
    relations = relate(as_spots(table)[0], nuclei, nuclei, Regions.of(nuclei))
    table.obsm["to_nucleus"] = relations.offset
    table.obsm["direction"] = np.eye(16, dtype=np.float32)[direction_class(relations.offset)]
    table.obs["probability"] = np.where(relations.distance < 12, 0.9, 0.2)
    return sdata


def arrows(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Middle (n, 2) and vector (n, 2) of the arrows, x before y, in units of the axes."""
    [quiver] = [artist for artist in ax.collections if isinstance(artist, Quiver)]
    return np.stack([quiver.X, quiver.Y], axis=1), np.stack([quiver.U, quiver.V], axis=1)


@pytest.mark.parametrize("system", ["global", "turned"])
def test_arrows_lead_to_the_nearest_nucleus(sdata: SpatialData, system: str) -> None:
    """One arrow for each spot inside, at its bin, a bin long where sure; half a class off the centroid at most."""
    matrix = {"global": np.eye(3), "turned": TURNED}[system]
    ax = direction_field(sdata, coordinate_system=system)
    xy, vector = arrows(ax)
    table = sdata["sslcst_spots"]
    inside = table.obs["probability"].to_numpy() > 0.5
    places = (table.obs[["column", "row"]].to_numpy()[inside] + 0.5) * BIN
    assert xy == pytest.approx(places @ matrix[:2, :2].T + matrix[:2, 2])
    own = vector @ np.linalg.inv(matrix[:2, :2]).T  # in pixels
    to_nucleus = table.obsm["to_nucleus"][inside][:, ::-1]
    cosine = (own * to_nucleus).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(to_nucleus, axis=1)
    assert cosine.min() > np.cos(np.pi / 16) - 1e-6
    assert np.linalg.norm(own, axis=1) == pytest.approx(BIN)


def test_shading_is_the_probability(sdata: SpatialData) -> None:
    """Each spot's bin has its probability, empty bins are clear, between 0 and 1 whatever is shown."""
    ax = direction_field(sdata)
    shading = ax.images[-1]
    table = sdata["sslcst_spots"]
    values = np.full((HEIGHT // BIN, WIDTH // BIN), np.nan)
    values[table.obs["row"], table.obs["column"]] = table.obs["probability"]
    assert np.ma.filled(shading.get_array(), np.nan) == pytest.approx(values, nan_ok=True)
    assert shading.get_clim() == (0, 1)
    assert shading.get_cmap()(0.0)[3] == 0


def test_thinned_arrows_are_means(sdata: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block's spots inside, by pandas; the legend names the block."""
    monkeypatch.setattr("sslcst.pl._direction_field.MAX_ARROWS", 10)
    ax = direction_field(sdata)
    xy, vector = arrows(ax)
    obs = sdata["sslcst_spots"].obs
    frame = pd.DataFrame(sdata["sslcst_spots"].obsm["direction"] @ direction_vectors()[:, ::-1], obs.index)
    blocks = [(obs["row"] // 3).rename("row"), (obs["column"] // 3).rename("column")]
    mean = frame[obs["probability"] > 0.5].groupby(blocks).mean()
    assert vector == pytest.approx(mean.to_numpy() * 3 * BIN)
    assert xy == pytest.approx((mean.reset_index()[["column", "row"]].to_numpy() + 0.5) * 3 * BIN)
    shading = np.ma.filled(ax.images[-1].get_array(), np.nan)
    expected = obs["probability"].groupby(blocks).mean()
    assert shading[tuple(expected.index.to_frame().T.to_numpy())] == pytest.approx(expected.to_numpy())
    assert "direction\n(3 x 3 bins)" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_region_on_given_axes_into_a_file(sdata: SpatialData, tmp_path: Path) -> None:
    """Only bins that reach into the region; the legend names arrows and nuclei."""
    _, given = plt.subplots()
    ax = direction_field(sdata, region=(30, 11, 60, 40), ax=given, save=tmp_path / "a.png")
    assert ax is given
    assert (ax.get_xlim(), ax.get_ylim()) == ((30, 60), (40, 11))
    xy, _ = arrows(ax)
    assert len(xy) > 10
    assert (xy > [30 - BIN / 2, 11 - BIN / 2]).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["direction", "nuclei"]
    assert plt.imread(tmp_path / "a.png").std() > 0.1


def test_spots_without_predictions_are_told(sdata: SpatialData) -> None:
    """The error names the steps that make them, and no empty figure is left behind."""
    steps = r"pp\.bin_spots, sslcst\.tl\.train and sslcst\.tl\.predict"
    del sdata["sslcst_spots"].obsm["direction"]
    with pytest.raises(KeyMissingError, match=rf"'sslcst_spots' has no predictions.*{steps}"):
        direction_field(sdata)
    del sdata.tables["sslcst_spots"]
    with pytest.raises(KeyMissingError, match=rf"no table 'sslcst_spots'.*{steps}"):
        direction_field(sdata)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"nuclei_key": "no"}, KeyMissingError, "no labels 'no'", id="nuclei"),
        pytest.param({"coordinate_system": "mm"}, KeyMissingError, "'mm'", id="system"),
        pytest.param({"region": (0, 0, 0, 9)}, ParameterError, "region", id="area"),
        pytest.param({"region": (25, 38, 26, 39)}, DataError, "no spot in the region", id="empty"),
    ],
)
def test_what_cannot_be_drawn_is_told(sdata: SpatialData, arguments: dict, error: type, message: str) -> None:
    keep = sdata["sslcst_spots"].obs["row"] < 15
    sdata.tables["sslcst_spots"] = sdata["sslcst_spots"][keep].copy()
    with pytest.raises(error, match=message):
        direction_field(sdata, **arguments)
