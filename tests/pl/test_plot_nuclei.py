"""`pl.nuclei`: the right outlines in the right places, counted, on the right channel."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from drawn_cells import box_of, legend
from matplotlib import pyplot as plt
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale

from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.pl import nuclei
from sslcst.pl._canvas import NUCLEI, REFERENCE

mpl.use("Agg")
HEIGHT, WIDTH = 40, 60


@pytest.fixture
def sdata() -> SpatialData:
    """Two nuclei and three of a reference on a stain of two channels, half a micron a pixel."""
    found, truth = np.zeros((2, HEIGHT, WIDTH), np.uint32)
    found[10:16, 8:18], found[20:24, 30:36] = 5, 9
    truth[10:16, 8:17], truth[20:24, 30:37], truth[30:36, 50:56] = 1, 2, 3
    stain = np.random.default_rng(0).random((2, HEIGHT, WIDTH)).astype(np.float32)
    places = {"global": Identity(), "micron": Scale([0.5, 0.5], ("y", "x"))}
    return SpatialData(
        images={
            "stain": Image2DModel.parse(
                stain, dims=("c", "y", "x"), c_coords=["RNA", "DAPI"], transformations=dict(places)
            )
        },
        labels={
            name: Labels2DModel.parse(array, dims=("y", "x"), transformations=dict(places))
            for name, array in {"sslcst_nuclei": found, "truth": truth}.items()
        },
    )


def test_outlines_lie_in_the_coordinate_system_and_are_counted(sdata: SpatialData) -> None:
    ax = nuclei(sdata, truth_key="truth", coordinate_system="micron")
    assert box_of(ax, NUCLEI) == [4, 5, 18, 12]
    assert box_of(ax, REFERENCE) == [4, 5, 28, 18]
    assert legend(ax) == ["reference (3)", "nuclei (2)"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH / 2), (HEIGHT / 2, 0))
    assert ax.get_xlabel() == "x (micron)"


def test_without_a_reference_nuclei_keep_their_colour(sdata: SpatialData) -> None:
    ax = nuclei(sdata)
    assert legend(ax) == ["nuclei (2)"]
    assert box_of(ax, NUCLEI) == [8, 10, 36, 24]


def test_region_shows_and_counts_what_is_in_it(sdata: SpatialData) -> None:
    ax = nuclei(sdata, truth_key="truth", region=(0, 0, 20, 20))
    assert ax.images[0].get_array().shape == (20, 20)
    assert legend(ax) == ["reference (1)", "nuclei (1)"]


def test_channel(sdata: SpatialData) -> None:
    assert (nuclei(sdata, channel="DAPI").images[0].get_array() == sdata.images["stain"].to_numpy()[1]).all()


def test_without_image_on_given_axes_into_a_file(sdata: SpatialData, tmp_path: Path) -> None:
    del sdata.images["stain"]
    _, ax = plt.subplots()
    assert nuclei(sdata, ax=ax, save=tmp_path / "a.png") is ax
    blue = np.array([0x56, 0xB4, 0xE9]) / 255
    assert (np.abs(plt.imread(tmp_path / "a.png")[..., :3] - blue).max(axis=-1) < 0.05).sum() > 50


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nuclei_key": "no"}, KeyMissingError, "no labels or shapes 'no'.*'sslcst_nuclei', 'truth'"),
        ({"truth_key": "no"}, KeyMissingError, "no labels or shapes 'no'"),
        ({"image_key": "no"}, KeyMissingError, "no image 'no'.*'stain'"),
        ({"channel": "GFP"}, KeyMissingError, "no channel 'GFP'"),
        ({"coordinate_system": "mm"}, KeyMissingError, "nuclei is not in .*'mm'|cells is not in .*'mm'"),
        ({"region": (5, 0, 5, 9)}, ParameterError, "region"),
        ({"region": (90, 0, 99, 9)}, DataError, "nuclei has no pixel in the region"),
    ],
)
def test_what_is_wrong_is_told_before_a_figure_is_made(
    sdata: SpatialData, arguments: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nuclei(sdata, **arguments)
    assert not plt.get_fignums()
