"""`sslcst.pl`: what is drawn lies where the coordinate system says, and no more is read than is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from drawn_cells import HEIGHT, TURNED, WIDTH, box, fills, labels, legend, outline, systems, two_cells
from geopandas import GeoDataFrame
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel

from sslcst import pl
from sslcst.errors import DataError, KeyMissingError, ParameterError, StoreError
from sslcst.pl import _canvas as module
from sslcst.pl import nuclei, segmentation
from sslcst.pl._transcripts import read_all


@pytest.fixture
def sdata() -> SpatialData:
    return two_cells()


def test_outlines_known_by_hand() -> None:
    """One line around a pixel, straight runs in one piece, and none along the rim of the array."""
    one = module.outlines(np.array([[0, 0, 0], [0, 7, 0], [0, 0, 0]]))
    assert sorted(map(np.ndarray.tolist, one)) == [
        [[1, 1], [1, 2]],
        [[1, 1], [2, 1]],
        [[1, 2], [2, 2]],
        [[2, 1], [2, 2]],
    ]
    assert module.outlines(np.array([[3, 8], [3, 8], [3, 8]])).tolist() == [[[1, 0], [1, 3]]]
    assert module.outlines(np.full((4, 5), 6)).shape == (0, 2, 2)


@given(arrays(np.uint32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_outlines_part_all_neighbours_that_differ(array: np.ndarray) -> None:
    """Cut into unit steps, the lines are exactly the edges between pixels of different labels."""
    steps = set()
    for (x0, y0), (x1, y1) in module.outlines(array).tolist():
        if x0 == x1:
            steps |= {("upright", x0, y) for y in range(y0, y1)}
        else:
            steps |= {("level", x, y0) for x in range(x0, x1)}
    rows, columns = np.nonzero(array[:, 1:] != array[:, :-1])
    expected = {("upright", x + 1, y) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)}
    rows, columns = np.nonzero(array[1:] != array[:-1])
    expected |= {("level", x, y + 1) for y, x in zip(rows.tolist(), columns.tolist(), strict=True)}
    assert steps == expected


def test_all_outlines_are_drawn(sdata: SpatialData) -> None:
    """However many there are: joined to long lines, they are the same segments."""
    array = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
    sdata.labels["sslcst_nuclei"] = labels(array)
    assert len(module.outlines(array)) > 300
    corners = outline(segmentation(sdata), "nuclei").reshape(-1, 2, 2)
    assert corners == pytest.approx(module.outlines(array))


def test_axes_are_in_the_coordinate_system(sdata: SpatialData) -> None:
    """Limits and outlines in microns, half of the pixels; y downward; each layer named in the legend."""
    ax = segmentation(sdata, coordinate_system="micron", truth_key="truth", points_key="transcripts")
    assert ax.get_xlim() == (0, WIDTH / 2)
    assert ax.get_ylim() == (HEIGHT / 2, 0)
    assert ax.get_xlabel() == "x (micron)"
    assert box(outline(ax, "cells")) == [3, 2, 18, 12]
    assert box(outline(ax, "nuclei")) == [4, 3, 11, 5]
    assert box(outline(ax, "reference")) == [3.5, 2, 18.5, 12]
    assert legend(ax) == ["transcripts", "reference", "cells", "nuclei"]


def test_any_affine(sdata: SpatialData) -> None:
    """Where axes turn and shear, outlines, transcripts and stain go through the one matrix."""
    ax = segmentation(sdata, coordinate_system="turned", points_key="transcripts")

    def moved(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array(points) @ TURNED[:2, :2].T + TURNED[:2, 2]

    corners = [(6, 4), (26, 4), (26, 14), (6, 14), (30, 20), (36, 24), (36, 20), (30, 24)]
    assert box(outline(ax, "cells")) == pytest.approx(box(moved(corners)))
    [dots] = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    assert np.asarray(dots.get_offsets()) == pytest.approx(moved([(10.5, 8.5), (20.5, 8.5), (39.5, 29.5)]))
    [stain] = ax.images
    to_axes = stain.get_transform() - ax.transData
    x0, x1, y1, y0 = stain.get_extent()
    assert to_axes.transform([(x0, y0), (x1, y1)]) == pytest.approx(moved([(0, 0), (WIDTH, HEIGHT)]))
    everything = box(moved([(0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT)]))
    assert [*ax.get_xlim(), *ax.get_ylim()] == pytest.approx([everything[i] for i in (0, 2, 3, 1)])


def test_region(sdata: SpatialData) -> None:
    """A part of the picture: only its pixels and its transcripts."""
    ax = segmentation(sdata, coordinate_system="micron", region=(2, 1, 9, 6), points_key="transcripts")
    assert (ax.get_xlim(), ax.get_ylim()) == ((2, 9), (6, 1))
    assert ax.images[0].get_array().shape == (10, 14)
    assert box(outline(ax, "cells")) == [3, 2, 9, 6]  # the rest lies outside
    [dots] = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    assert dots.get_offsets().tolist() == [[5.25, 4.25]]


def test_reads_only_what_it_shows() -> None:
    """Of an image in 100 chunks, those that the region touches are computed."""
    import dask.array as da

    read = []

    def block(block_info: dict) -> np.ndarray:
        read.append(tuple(block_info[None]["chunk-location"]))
        return np.ones((10, 10), np.uint32)

    lazy = da.map_blocks(block, chunks=((10,) * 10,) * 2, dtype=np.uint32, meta=np.empty((0, 0), np.uint32))
    element = Labels2DModel.parse(lazy, dims=("y", "x"), transformations=systems())
    read.clear()
    raster = module.read_raster(element, "micron", (11, 16, 14, 24), "cells")
    assert set(read) == {(row, 2) for row in (3, 4)}
    assert raster.pixels.shape == (16, 6)


def test_large_elements_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coarsest scale with enough pixels, else every n-th pixel; what is drawn stays where it is."""
    monkeypatch.setattr(module, "MAX_PIXELS", 50)
    full = np.repeat(np.arange(1, 401, dtype=np.uint32)[None], 200, axis=0)
    for kwargs, shape in [({"scale_factors": [2, 2]}, (25, 50)), ({}, (25, 50)), ({"scale_factors": [8]}, (25, 50))]:
        raster = module.read_raster(labels(full, **kwargs), "micron", (0, 0, 200, 100), "cells")
        assert raster.pixels.shape == shape
        left, right = (raster.to_axes[0, 0] * (np.arange(50) + side) + raster.to_axes[0, 2] for side in (0, 1))
        taken = (raster.pixels[0] - 0.5) * 0.5  # centre, in microns, of the pixel whose label was taken
        assert ((left < taken) & (taken < right)).all()
        assert (left[0], right[-1]) == (0, 200)
    close = module.read_raster(labels(full, scale_factors=[2, 2]), "micron", (50, 50, 70, 60), "cells")
    assert close.pixels.shape == (20, 40)  # the finest scale


def test_a_strip_narrower_than_the_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an element, or a region, so long that pixels are left out along it, and only some pixels wide."""
    monkeypatch.setattr(module, "MAX_PIXELS", 20)
    full = np.repeat(np.arange(1, 401)[None], 3, axis=0)
    for array, shape in ((full, (1, 20)), (full.T, (20, 1)), (full[:1], (1, 20))):
        height, width = array.shape
        raster = module.read_raster(labels(array), "global", (0, 0, width, height), "cells")
        assert raster.pixels.shape == shape
        assert np.unique(np.diff(raster.pixels.ravel().astype(int))).tolist() == [20]


def test_many_transcripts_are_thinned(sdata: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the legend says so."""
    monkeypatch.setattr("sslcst.pl._transcripts.MAX_DOTS", 2)
    ax = segmentation(sdata, points_key="transcripts")
    assert legend(ax)[0] == "transcripts (1 in 2)"


def test_of_many_transcripts_no_more_are_kept_than_are_drawn(
    sdata: SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the partitions, they are every n-th of all, and the legend says which."""
    monkeypatch.setattr("sslcst.pl._transcripts.MAX_DOTS", 10)
    frame = pd.DataFrame({"x": np.arange(100) % WIDTH, "y": np.arange(100) / 4})
    for n_partitions in (1, 7, 100):
        sdata.points["many"] = PointsModel.parse(frame, npartitions=n_partitions, transformations=systems())
        dots = read_all(sdata.points["many"], "global", (0, 0, WIDTH, HEIGHT))
        assert len(dots.xy) <= 20
        assert (dots.xy == frame.to_numpy()[:: dots.step]).all()
        ax = segmentation(sdata, points_key="many", coordinate_system="global")
        [artist] = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
        n = int(legend(ax)[0].removeprefix("transcripts (1 in ").removesuffix(")"))
        assert len(artist.get_offsets()) <= 10
        assert (artist.get_offsets() == frame.to_numpy()[::n]).all()


def test_transcripts_may_all_lie_elsewhere(sdata: SpatialData) -> None:
    ax = segmentation(sdata, points_key="transcripts", region=(0, 0, 9, 9))
    assert legend(ax)[0] == "transcripts"


@pytest.mark.parametrize(("color", "names"), [("kind", ["B", "T"]), ("touches_border", ["False", "True"])])
def test_color_by_category(sdata: SpatialData, color: str, names: list[str]) -> None:
    """Cells take the colour of their category by id, not by row; a cell that the table lacks stays clear."""
    ax = segmentation(sdata, color=color)
    shown = fills(ax)
    patches = dict(zip(legend(ax), [to_hex(h.get_facecolor()) for h in ax.get_legend().get_patches()], strict=False))
    expected = dict(
        zip(sdata["sslcst_table"].obs["cell_id"], sdata["sslcst_table"].obs[color].astype(str), strict=True)
    )
    assert legend(ax)[:2] == names
    assert {cell: patches[name] for cell, name in expected.items()} == {cell: shown[cell] for cell in (9, 5)}
    assert shown[12] is None
    assert shown[0] is None


def test_color_of_the_table(sdata: SpatialData) -> None:
    """The colours that scanpy keeps for a column are used."""
    sdata["sslcst_table"].uns["kind_colors"] = ["#ff0000", "#00ff00"]
    assert fills(segmentation(sdata, color="kind")) == {5: "#ff0000", 9: "#00ff00", 12: None, 0: None}


def test_color_by_gene(sdata: SpatialData) -> None:
    """The lowest and the highest count are the ends of the colour bar; only outlines are in the legend."""
    ax = segmentation(sdata, color="Cd3e")
    viridis = plt.get_cmap("viridis")
    assert fills(ax) == {5: to_hex(viridis(1.0)), 9: to_hex(viridis(0.0)), 12: None, 0: None}
    [bar] = [other for other in ax.figure.axes if other is not ax]
    assert (bar.get_xlim(), bar.get_xlabel()) == ((0, 7), "Cd3e")
    assert legend(ax) == ["cells", "nuclei"]


def test_cells_without_a_value_are_clear(sdata: SpatialData) -> None:
    shown = fills(segmentation(sdata, color="area"))
    assert shown[5] is None
    assert shown[9] is not None


def test_channel(sdata: SpatialData) -> None:
    """By name or place; without one, what a stain of nuclei is named, else the first, which is said."""
    stain = sdata.images["stain"].to_numpy()
    for channel, expected in ((None, stain[1]), ("DAPI", stain[1]), ("RNA", stain[0]), (0, stain[0])):
        ax = segmentation(sdata, channel=channel)
        assert (ax.images[0].get_array() == expected).all()


def test_without_image_on_given_axes_into_a_file(sdata: SpatialData, tmp_path: Path) -> None:
    """A constant or absent stain is drawn too; the picture is not black: outlines are in it."""
    sdata.images["stain"] = Image2DModel.parse(
        np.full((1, HEIGHT, WIDTH), 7, np.uint8), dims=("c", "y", "x"), transformations=systems()
    )
    segmentation(sdata)
    del sdata.images["stain"]
    _, (left, right) = plt.subplots(1, 2)
    assert segmentation(sdata, ax=right, save=tmp_path / "a.png") is right
    assert not left.collections
    picture = plt.imread(tmp_path / "a.png")
    orange = np.array([0xE6, 0x9F, 0]) / 255
    assert (np.abs(picture[..., :3] - orange).max(axis=-1) < 0.05).sum() > 50


@pytest.mark.parametrize("kind", ["bool", "nan", "inf", "all nan", "two channels"])
def test_a_stain_of_any_values(sdata: SpatialData, kind: str) -> None:
    """A mask has two levels, and a pixel that is missing leaves the others as they are."""
    stain = np.random.default_rng(0).random((2, HEIGHT, WIDTH))
    stain = stain > 0.5 if kind == "bool" else stain
    if kind in ("nan", "inf"):
        stain[:, 3, 3] = float(kind)
    if kind == "all nan":
        stain[:] = np.nan
    sdata.images["stain"] = Image2DModel.parse(stain, dims=("c", "y", "x"), transformations=systems())
    if kind == "two channels":
        sdata["sslcst_table"].uns["sslcst"] = {"image_key": "stain", "channel": "0\n1"}
    ax = segmentation(sdata)
    low, high = ax.images[0].get_clim()
    assert 0 <= low < 0.2 and 0.9 < high < 1.1
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda save: segmentation(SpatialData(), save=save),
        lambda save: nuclei(SpatialData(), save=save),
        lambda save: pl.direction_field(SpatialData(), save=save),
        lambda save: pl.compare(SpatialData(), "a", "b", save=save),
        lambda save: pl.training(SpatialData(), save=save),
        lambda save: pl.quality({}, save=save),
    ],
)
def test_where_a_picture_cannot_be_saved_is_told_before_the_work(draw: Callable, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a.png could not be written: there is no folder"):
        draw(tmp_path / "none" / "a.png")
    with pytest.raises(ParameterError, match=r"save='.*a.foo': must end in one of .*png"):
        draw(tmp_path / "a.foo")


def test_a_picture_that_the_disk_does_not_take(sdata: SpatialData, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(StoreError, match=r"a.png could not be written: .*Is a directory"):
        segmentation(sdata, save=tmp_path / "a.png")


def test_circles_are_seen_to_their_edge(sdata: SpatialData) -> None:
    """Also a single one, whose middle has no extent."""
    for middles, box_ in ([(10, 8)], [7, 5, 13, 11]), ([(10, 8), (30, 20)], [7, 5, 33, 23]):
        geometry = [shapely.Point(place) for place in middles]
        frame = GeoDataFrame({"geometry": geometry, "radius": 3.0})
        sdata.shapes["circles"] = ShapesModel.parse(frame, transformations=systems())
        ax = nuclei(sdata, nuclei_key="circles", coordinate_system="global")
        assert [*ax.get_xlim(), *ax.get_ylim()] == pytest.approx([box_[i] for i in (0, 2, 3, 1)])
        assert legend(ax) == [f"nuclei ({len(middles)})"]


def test_small_nuclei_may_lie_between_the_pixels_that_are_drawn(
    sdata: SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The legend gives their number as the least, where pixels or the finest scale were left out."""
    array = np.zeros((HEIGHT, WIDTH), int)
    array[::2, ::2] = np.arange(1, 301).reshape(15, 20)
    for kwargs in ({}, {"scale_factors": [2]}):
        sdata.labels["sslcst_nuclei"] = labels(array, **kwargs)
        assert legend(nuclei(sdata)) == ["nuclei (300)"]
        with monkeypatch.context() as patch:
            patch.setattr(module, "MAX_PIXELS", 20)
            [name] = legend(nuclei(sdata))
            assert name.startswith("nuclei (at least ")


def test_axes_of_a_subfigure_into_a_file(sdata: SpatialData, tmp_path: Path) -> None:
    figure = plt.figure()
    ax = figure.subfigures(1, 2)[0].subplots()
    segmentation(sdata, color="Actb", ax=ax, save=tmp_path / "a.png")
    assert plt.imread(tmp_path / "a.png").std() > 0.05


def test_from_a_store(sdata: SpatialData, tmp_path: Path) -> None:
    """Elements on disk, with scales, look the same."""
    for name in ("sslcst_cells", "sslcst_nuclei"):
        sdata.labels[name] = labels(sdata.labels[name].to_numpy(), scale_factors=[2])
    sdata.write(tmp_path / "a.zarr")
    ax = segmentation(read_zarr(tmp_path / "a.zarr"), color="kind", points_key="transcripts", truth_key="truth")
    assert box(outline(ax, "cells")) == [6, 4, 36, 24]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"key": "other"}, r"no labels 'other_nuclei'.*'sslcst_nuclei', 'truth'", id="key"),
        pytest.param({"truth_key": "no"}, r"no labels or shapes 'no'.*'truth'", id="truth"),
        pytest.param({"image_key": "no"}, r"no image 'no'.*'stain'", id="image"),
        pytest.param({"points_key": "no"}, r"no points 'no'.*'transcripts'", id="points"),
        pytest.param({"channel": "GFP"}, r"no channel 'GFP'.*'RNA', 'DAPI'", id="channel"),
        pytest.param({"color": "Cd4"}, r"'Cd4'.* 2 genes .*'kind'", id="color"),
        pytest.param({"coordinate_system": "mm"}, r"cells is not in .*'mm' but in \['global', 'micron'", id="system"),
    ],
)
def test_missing_names_are_told(sdata: SpatialData, arguments: dict, message: str) -> None:
    """The error names what there is instead, and no empty figure is left behind."""
    with pytest.raises(KeyMissingError, match=message):
        segmentation(sdata, **arguments)
    assert not plt.get_fignums()


def test_several_images(sdata: SpatialData) -> None:
    sdata.images["other"] = sdata.images["stain"]
    with pytest.raises(KeyMissingError, match=r"choose with image_key=; there are: 'stain', 'other'"):
        segmentation(sdata)
    segmentation(sdata, image_key="other")


@pytest.mark.parametrize("region", [(5, 0, 5, 9), (0, 9, 5, 2), (0, 0, float("inf"), 5)])
def test_region_without_area(sdata: SpatialData, region: tuple) -> None:
    with pytest.raises(ParameterError, match="region"):
        segmentation(sdata, region=region)


def test_region_elsewhere(sdata: SpatialData) -> None:
    with pytest.raises(DataError, match=r"nuclei has no pixel in the region \(90, 0, 99, 9\)"):
        segmentation(sdata, region=(90, 0, 99, 9))
