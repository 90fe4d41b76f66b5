"""Colours, scales and words of a picture, and its transcripts by gene."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import shapely
from drawn_cells import TURNED, box, draw_boxes, fills, labels, legend, outline, systems, two_cells
from geopandas import GeoDataFrame
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LogNorm, PowerNorm, to_hex, to_rgb
from skimage.color import rgb2lab
from spatialdata import SpatialData
from spatialdata.models import PointsModel, ShapesModel

from sslcst import pl
from sslcst.errors import KeyMissingError, ParameterError
from sslcst.pl import _canvas as module
from sslcst.pl import segmentation


@pytest.fixture
def sdata() -> SpatialData:
    return two_cells()


def test_a_bar_tells_the_scale_where_microns_are_known(sdata: SpatialData) -> None:
    """Of a round length, at most a quarter of the picture; none where the unit is not known."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    def bars(ax: Axes) -> list[str]:
        return [each.txt_label.get_text() for each in ax.get_children() if isinstance(each, AnchoredSizeBar)]

    assert bars(segmentation(sdata, coordinate_system="micron")) == ["5 \u00b5m"]  # of 20
    assert bars(segmentation(sdata, coordinate_system="micron", region=(0, 0, 1, 1))) == ["0.2 \u00b5m"]
    assert not bars(segmentation(sdata, coordinate_system="global"))
    below_4_mm = np.nextafter(4000, 0)  # the logarithm of whose quarter is that of 1 mm
    assert bars(segmentation(sdata, coordinate_system="micron", region=(0, 0, below_4_mm, 10))) == ["500 \u00b5m"]


def test_colours_end_where_asked(sdata: SpatialData) -> None:
    """Values beyond share the colour of the end; an end alone may lie beyond all values."""

    def ends(**kwargs: float) -> tuple[float, float]:
        bar = segmentation(sdata, color="Actb", **kwargs).figure.axes[-1]
        return bar.get_xlim()

    assert ends() == (1, 3)
    assert ends(vmin=0, vmax=10) == (0, 10)
    assert ends(vmax=2) == (1, 2)
    assert ends(vmin=7)[0] <= 7
    assert ends(vmax=-2)[0] <= -2
    with pytest.raises(ParameterError, match="vmin=3: must be below vmax=2"):
        segmentation(sdata, color="Actb", vmin=3, vmax=2)


def test_a_picture_without_values_says_so(sdata: SpatialData) -> None:
    sdata["sslcst_table"].obs["area"] = np.nan
    ax = segmentation(sdata, color="area")
    assert "no cell has a value of area" in [text.get_text() for text in ax.texts]


def test_a_logarithmic_scale(sdata: SpatialData) -> None:
    """As matplotlib has it; what has no logarithm stays clear, and a norm that was given is not changed."""
    ax = segmentation(sdata, color="Cd3e", norm="log")
    assert fills(ax)[9] is None
    assert fills(ax)[5] is not None
    assert ax.figure.axes[-1].get_xscale() == "log"
    norm = LogNorm()
    assert segmentation(sdata, color="Actb", norm=norm).figure.axes[-1].get_xlim() == pytest.approx((1, 3))
    assert norm.vmin is None
    ends = segmentation(sdata, color="Actb", norm=PowerNorm(0.5, vmin=0, vmax=9)).figure.axes[-1].get_xlim()
    assert ends == pytest.approx((0, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "logarithm"}, "norm='logarithm': must be one of linear, log, or of matplotlib.colors"),
        ({"norm": 3}, "norm=3: must be text or a norm of matplotlib.colors or None"),
        ({"norm": LogNorm(), "vmax": 9}, "vmax=9: norm has ends of its own"),
        ({"norm": "log", "vmin": 0}, "vmin=0: must be above 0 where norm is 'log'"),
        ({"norm": LogNorm(vmin=-1, vmax=9)}, "cannot show the values of Actb"),
        ({"genes": []}, "must name one at least"),
    ],
)
def test_what_does_not_go_together_is_told(sdata: SpatialData, arguments: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        segmentation(sdata, color="Actb", **arguments)
    assert not plt.get_fignums()


def lightness_and_colour(colours: list[str]) -> np.ndarray:
    return rgb2lab([to_rgb(colour) for colour in colours])


def test_categories_look_like_no_outline_and_like_no_other() -> None:
    """Far apart in the colours of the eye (CIELAB), where steps of 2 are just seen."""
    lines = lightness_and_colour([module.CELLS, module.NUCLEI, module.REFERENCE, module.TRANSCRIPTS, "#000000"])
    fill = lightness_and_colour(list(module.CATEGORIES))
    assert np.linalg.norm(fill[:, None] - lines, axis=-1).min() > 25
    assert np.linalg.norm(fill[:, None] - fill, axis=-1)[~np.eye(len(fill), dtype=bool)].min() > 25
    assert len(module.category_colours(50, None)) == 50


@pytest.fixture
def with_genes(sdata: SpatialData) -> SpatialData:
    """Transcripts of three genes, of which one is of low quality; and a control probe."""
    rows = [(10.5, 8.5, "Actb", 40), (20.5, 8.5, "Actb", 40), (39.5, 29.5, "Cd3e", 40), (1.5, 1.5, "Cd3e", 3)]
    frame = pd.DataFrame([*rows, (5.5, 5.5, "NegControlProbe_1", 40)], columns=["x", "y", "gene", "qv"])
    sdata.points["transcripts"] = PointsModel.parse(frame, feature_key="gene", npartitions=2, transformations=systems())
    return sdata


def dots(ax: Axes) -> dict[str, list[list[float]]]:
    """Places of the dots, by the legend's name of their colour."""
    names = {to_hex(line.get_color()): line.get_label() for line in ax.get_legend().get_lines()}
    return {
        names[to_hex(artist.get_facecolor()[0])]: np.asarray(artist.get_offsets()).tolist()
        for artist in ax.collections
        if isinstance(artist, PathCollection)
    }


def test_transcripts_by_gene(with_genes: SpatialData) -> None:
    """Each in its colour, under the outlines, counted in the legend; only what is good enough to be segmented."""
    ax = segmentation(with_genes, genes=["Cd3e", "Actb", "Cd3e"], coordinate_system="micron")
    assert dots(ax) == {"Actb (2)": [[5.25, 4.25], [10.25, 4.25]], "Cd3e (1)": [[19.75, 14.75]]}
    assert legend(ax)[:2] == ["Cd3e (1)", "Actb (2)"]
    lines = [artist.get_zorder() for artist in ax.collections if isinstance(artist, LineCollection)]
    assert all(artist.get_zorder() < min(lines) for artist in ax.collections if isinstance(artist, PathCollection))
    close = segmentation(with_genes, genes="Actb", region=(15, 0, 30, 20), coordinate_system="global")
    assert dots(close) == {"Actb (1)": [[20.5, 8.5]]}
    turned = segmentation(with_genes, genes="Cd3e", coordinate_system="turned")
    assert np.array(dots(turned)["Cd3e (1)"][0]) == pytest.approx((TURNED @ [39.5, 29.5, 1])[:2])


def test_genes_of_binned_transcripts_are_counted_by_their_counts(with_genes: SpatialData) -> None:
    frame = with_genes.points["transcripts"].compute().assign(count=[2, 3, 1, 1, 1])
    with_genes.points["transcripts"] = PointsModel.parse(frame, feature_key="gene", transformations=systems())
    assert legend(segmentation(with_genes, genes="Actb"))[0] == "Actb (5)"


def test_a_gene_that_is_not_there(with_genes: SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"no gene 'Actn' among the 2 .*'transcripts' .did you mean 'Actb'"):
        segmentation(with_genes, genes=["Cd3e", "Actn"])
    with pytest.raises(KeyMissingError, match="'symbol'"):
        segmentation(with_genes, genes="Actb", gene_key="symbol")
    assert not plt.get_fignums()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_what_is_empty_says_why(with_genes: SpatialData) -> None:
    """No cell, no transcript, no value here: each in words, none where there is something."""
    corner = {"region": (0, 0, 3, 3), "coordinate_system": "global"}
    assert texts(segmentation(with_genes, **corner)) == ["no cells and no nuclei here"]
    assert "no transcripts here" not in texts(segmentation(with_genes, points_key="transcripts", **corner))
    empty = segmentation(with_genes, genes="Actb", color="Actb", truth_key="truth", **corner)
    assert texts(empty) == [
        "no cell here has a value of Actb",
        "no transcripts here of these genes",
        "no reference and no cells and no nuclei here",
    ]
    assert not texts(segmentation(with_genes, genes="Actb", color="Actb"))
    with_genes["sslcst_table"].obs["area"] = 0.0
    assert texts(segmentation(with_genes, color="area", norm="log")) == ["no cell has a value of area above 0"]
    assert texts(pl.nuclei(with_genes, **corner)) == ["no nuclei here"]
    assert texts(pl.compare(with_genes, "sslcst_cells", "truth", **corner)[0]) == ["no sslcst_cells and no truth here"]


def test_a_reference_may_be_shapes(with_genes: SpatialData) -> None:
    """Drawn on the pixels of the cells, they are what labels of the same cells are, in any coordinate system."""
    sdata, squares = with_genes, [(6, 4, 26, 14), (30, 20, 36, 24), (4, 14, 9, 16)]
    sdata.labels["truth"] = labels(draw_boxes(squares))
    sdata.shapes["outlines"] = ShapesModel.parse(
        GeoDataFrame({"geometry": [shapely.box(*square) for square in squares]}), transformations=systems()
    )
    for system in ("global", "micron", "turned"):
        for draw in (segmentation, pl.nuclei):
            one, other = (draw(sdata, truth_key=key, coordinate_system=system) for key in ("truth", "outlines"))
            assert (outline(one, "reference") == outline(other, "reference")).all()
            assert legend(one) == legend(other)
        (one, bars), (other, same) = (
            pl.compare(sdata, "sslcst_cells", key, coordinate_system=system) for key in ("truth", "outlines")
        )
        assert (one.images[-1].get_array() == other.images[-1].get_array()).all()
        assert [bar.get_width() for bar in bars.patches] == [bar.get_width() for bar in same.patches]
    part = segmentation(sdata, truth_key="outlines", region=(5, 3, 20, 15), coordinate_system="global")
    assert box(outline(part, "reference")) == [5, 4, 20, 15]
    assert legend(pl.nuclei(sdata, nuclei_key="outlines"))[0] == "nuclei (3)"
