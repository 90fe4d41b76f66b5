"""`tl.compare` and `tl.quality`: the metrics' own figures, whatever grids the labels lie on."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
import shapely
from geopandas import GeoDataFrame
from skimage.segmentation import expand_labels
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

import sslcst
from sslcst import metrics
from sslcst.core.counts import owners
from sslcst.core.polygons import polygons
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.tl import compare, quality


def labels(array: np.ndarray, place) -> object:
    return Labels2DModel.parse(array.astype(np.uint32), dims=("y", "x"), transformations={"global": place})


@pytest.fixture(scope="module")
def tissue() -> SpatialData:
    """Simulated cells, and their nuclei grown by 3 pixels, shifted so that each has a part alone."""
    sdata = sslcst.datasets.simulate(n_cells=60, counts_per_cell=900, seed=0)
    grown = np.roll(expand_labels(sdata.labels["true_nuclei"].to_numpy(), 4), (3, 2), axis=(0, 1))
    sdata.labels["grown"] = labels(grown, Scale([0.5, 0.5], ("x", "y")))
    return sdata


def test_figures_are_those_of_the_metrics(tissue: SpatialData) -> None:
    found = compare(tissue, "true_cells", "grown")
    a, b = (tissue.labels[key].to_numpy() for key in ("true_cells", "grown"))
    frame = tissue.points["transcripts"].compute()
    owner = [owners(frame[["y", "x"]].to_numpy() * 2, of) for of in (a, b)]
    scores = metrics.correlation(*owner, frame["gene"].cat.codes.to_numpy().astype(int), n_genes=200)
    assert (found.a, found.b) == ("true_cells", "grown")
    assert found.n_cells == (60, 60)
    assert found.n_pairs == len(metrics.match(a, b))
    assert found.mean_best_iou == (metrics.mean_best_iou(a, b), metrics.mean_best_iou(b, a))
    assert found.average_precision == tuple(metrics.average_precision(a, b))
    assert (found.splits, found.merges) == metrics.splits_merges(a, b)
    assert found.diameter == pytest.approx([np.median(metrics.diameters(of, pixel_size=0.5)) for of in (a, b)])
    assert found.share_in_cells == tuple(np.mean(of > 0) for of in owner)
    assert found.transcripts_alike == metrics.fraction_right(*owner)
    assert found.correlation == (scores.a, scores.b)
    assert found.n_correlated == scores.n_pairs > 20
    with pytest.raises(FrozenInstanceError):
        found.n_pairs = 3


def test_frame_has_a_column_for_each(tissue: SpatialData) -> None:
    found = compare(tissue, "true_cells", "grown")
    frame = found.to_frame()
    assert frame.columns.tolist() == ["true_cells", "grown"]
    assert tuple(frame.loc["mean best IoU"]) == found.mean_best_iou
    assert tuple(frame.loc["transcripts alike"]) == (found.transcripts_alike,) * 2


def test_exchanging_exchanges(tissue: SpatialData) -> None:
    one, other = compare(tissue, "true_cells", "grown"), compare(tissue, "grown", "true_cells")
    assert one.mean_best_iou == other.mean_best_iou[::-1]
    assert (one.splits, one.merges) == (other.merges, other.splits)
    assert one.transcripts_alike == other.transcripts_alike
    assert one.correlation == pytest.approx(other.correlation[::-1])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        pytest.param(lambda a: np.kron(a, np.ones((2, 2), int)), Scale([0.25, 0.25], ("x", "y")), id="finer"),
        pytest.param(
            lambda a: np.pad(a, ((4, 0), (6, 1))),
            Sequence([Scale([0.5, 0.5], ("x", "y")), Translation([-3, -2], ("x", "y"))]),
            id="wider, with another origin",
        ),
        pytest.param(
            lambda a: a.T[::-1],
            Affine(np.array([[0, -0.5, 10], [0.5, 0, 0], [0, 0, 1.0]]), ("x", "y"), ("x", "y")),
            id="turned",
        ),
    ],
)
def test_another_grid_changes_nothing(change, place) -> None:
    """The same cells on a finer, a wider and a turned grid are the same cells, and hold the same transcripts."""
    cells = np.zeros((16, 20), int)
    cells[2:7, 3:9], cells[9:14, 2:12], cells[3:12, 14:18] = 4, 2, 9
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.uniform(0, 10, 500), "y": rng.uniform(0, 8, 500), "gene": rng.choice(list("abc"), 500)}
    )
    sdata = SpatialData(
        labels={"a": labels(cells, Scale([0.5, 0.5], ("x", "y"))), "b": labels(change(cells), place)},
        points={"transcripts": PointsModel.parse(frame, feature_key="gene", transformations={"global": Identity()})},
    )
    for pair in (("a", "b"), ("b", "a")):
        found = compare(sdata, *pair)
        assert found.mean_best_iou == (1, 1)
        assert found.diameter[0] == pytest.approx(found.diameter[1])
        assert found.transcripts_alike == 1
        assert found.share_in_cells[0] == found.share_in_cells[1]


@pytest.fixture(scope="module")
def outlined(tissue: SpatialData) -> SpatialData:
    """The same cells and nuclei as shapes too, in microns of which a pixel is half a one."""
    sdata = SpatialData(labels=dict(tissue.labels), points=dict(tissue.points))
    for key in ("true_cells", "true_nuclei"):
        rings = polygons(sdata.labels[key].to_numpy())
        shapes = GeoDataFrame(
            {"geometry": [shapely.Polygon(ring[:, ::-1] / 2) for ring in rings.values()]}, index=rings
        )
        sdata.shapes[f"{key}_outlines"] = ShapesModel.parse(shapes, transformations={"global": Identity()})
    return sdata


def test_shapes_are_compared_as_labels_of_the_same_cells(outlined: SpatialData) -> None:
    """Whichever of the two they are, or both: then on a grid of their own, whose pixels are others."""
    expected = compare(outlined, "true_cells", "true_nuclei").to_frame().to_numpy()
    for pair in (("true_cells", "true_nuclei_outlines"), ("true_cells_outlines", "true_nuclei")):
        assert compare(outlined, *pair).to_frame().to_numpy() == pytest.approx(expected, nan_ok=True)
    both = compare(outlined, "true_cells_outlines", "true_nuclei_outlines")
    assert both.to_frame().to_numpy() == pytest.approx(expected, rel=0.05, nan_ok=True)
    assert (both.a, both.n_cells) == ("true_cells_outlines", (60, 60))


def test_quality_of_shapes_is_that_of_labels_of_the_same_cells(outlined: SpatialData) -> None:
    expected = quality(outlined, cells_key="true_cells", nuclei_key="true_nuclei")
    for cells, nuclei in (("_outlines", ""), ("", "_outlines")):
        found = quality(outlined, cells_key=f"true_cells{cells}", nuclei_key=f"true_nuclei{nuclei}")
        pd.testing.assert_frame_equal(found, expected)


def test_shapes_on_other_ground_are_told(outlined: SpatialData) -> None:
    sdata = SpatialData(labels=dict(outlined.labels))
    far = GeoDataFrame({"geometry": [shapely.box(900, 900, 910, 910)]})
    sdata.shapes["far"] = ShapesModel.parse(far, transformations={"global": Identity()})
    with pytest.raises(DataError, match="'far': none of the 1 shapes is seen on the raster: 1 off the image"):
        compare(sdata, "true_cells", "far")


def test_without_transcripts_geometry_alone(tissue: SpatialData) -> None:
    bare = SpatialData(labels={key: tissue.labels[key] for key in ("true_cells", "grown")})
    found, full = compare(bare, "true_cells", "grown"), compare(tissue, "true_cells", "grown")
    assert found.mean_best_iou == full.mean_best_iou
    assert np.isnan(found.transcripts_alike)
    assert np.isnan(found.correlation).all()


def test_cells_on_other_ground_are_told(tissue: SpatialData) -> None:
    sdata = SpatialData(labels=dict(tissue.labels), points=dict(tissue.points))
    sdata.labels["far"] = labels(np.ones((4, 4)), Translation([900, 900], ("x", "y")))
    with pytest.raises(DataError, match="No cell of 'far' lies on 'grown'"):
        compare(sdata, "grown", "far")
    sdata.labels["near"] = labels(np.ones((4, 4)), Translation([901, 901], ("x", "y")))
    with pytest.raises(DataError, match="No transcript of 'transcripts' lies in a cell of 'far'"):
        compare(sdata, "far", "near")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a_key": "no"}, KeyMissingError, "no labels or shapes element 'no'.*'true_cells'"),
        ({"b_key": "transcripts"}, KeyMissingError, "no labels or shapes element 'transcripts'"),
        ({"points_key": "no"}, KeyMissingError, "no points element 'no'"),
        ({"gene_key": "no"}, KeyMissingError, "'no'"),
        ({"coordinate_system": "mm"}, KeyMissingError, "'mm'"),
        ({"min_counts": 0}, ParameterError, "min_counts=0"),
    ],
)
def test_compare_refuses(tissue: SpatialData, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(tissue, **({"a_key": "true_cells", "b_key": "grown"} | arguments))


def test_quality_is_that_of_the_metrics(tissue: SpatialData) -> None:
    """In units of the coordinate system, with nuclei of another grid too."""
    keys = {"cells_key": "true_cells", "nuclei_key": "true_nuclei"}
    found = quality(tissue, **keys, ring=1.5)
    cells, nuclei = (tissue.labels[key].to_numpy() for key in keys.values())
    frame = tissue.points["transcripts"].compute()
    yx, gene = frame[["y", "x"]].to_numpy(float) * 2, frame["gene"].cat.codes.to_numpy().astype(int)
    pd.testing.assert_frame_equal(found, metrics.quality(cells, nuclei, yx, gene, pixel_size=0.5, ring=1.5))
    sdata = SpatialData(labels=dict(tissue.labels), points=dict(tissue.points))
    sdata.labels["fine"] = labels(np.kron(nuclei, np.ones((2, 2), int)), Scale([0.25, 0.25], ("x", "y")))
    pd.testing.assert_frame_equal(found, quality(sdata, **keys | {"nuclei_key": "fine"}, ring=1.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cells_key": "no"}, KeyMissingError, "no labels or shapes element 'no'"),
        ({"nuclei_key": "no"}, KeyMissingError, "no labels or shapes element 'no'"),
        ({"ring": -1}, ParameterError, "ring=-1"),
    ],
)
def test_quality_refuses(tissue: SpatialData, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quality(tissue, **({"cells_key": "true_cells", "nuclei_key": "true_nuclei"} | arguments))


def test_the_real_prostate(prostate: SpatialData) -> None:
    """The vendor's nuclei lie in its cells: 396 pairs, and a mean best IoU known before this package."""
    found = compare(prostate, "reference_cells", "reference_nuclei", coordinate_system="micron")
    assert found.n_pairs == found.n_cells[1] == 396
    assert found.mean_best_iou[0] == pytest.approx(0.401, abs=0.001)
    assert found.transcripts_alike == pytest.approx(0.613, abs=0.001)
    assert 5 < found.diameter[1] < found.diameter[0] < 10  # microns
