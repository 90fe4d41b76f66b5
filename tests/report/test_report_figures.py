"""What a report shows and says of its tissue: doubts, close views, genes, quality, a reference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from geopandas import GeoDataFrame
from reported_tissue import HISTORY, PIXELS, SIDE, Page, five, report, section
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import PointsModel, ShapesModel
from spatialdata.transformations import get_transformation

from sslcst import tl
from sslcst.errors import KeyMissingError
from sslcst.report import write_report
from sslcst.report._pictures import close_views
from sslcst.report._result import Result
from sslcst.report._warnings import warnings_of


def change(sdata: SpatialData, what: str) -> None:
    """Make one thing conspicuous."""
    table = sdata["sslcst_table"]
    obs, about = table.obs, table.uns["sslcst"]
    if what == "few cells":
        sdata.tables["sslcst_table"] = table[20:39].copy()
        sdata["sslcst_table"].uns["sslcst"]["total_counts"] = 2000
    elif what == "few counts":
        obs["n_counts"] = 19
        about["total_counts"] = 2000
    elif what == "much outside":
        about["total_counts"] = 10 * int(obs["n_counts"].sum())
    elif what == "empty cells":
        obs["n_counts"] *= np.arange(100) >= 3
    elif what == "hardly any":
        obs["n_counts"] = np.where(np.arange(100) < 8, 9, obs["n_counts"])
    elif what == "border":
        obs["touches_border"] = np.arange(100) < 21
    elif what == "not grown":
        obs["nucleus_area"] = np.where(np.arange(100) < 31, obs["area"], 9)
    elif what == "unsure":
        obs["mean_prob"] = 0.7
    elif what == "direction":
        about["history"] = HISTORY | {"direction_accuracy": [0.9, 0.49, 0.9]}
    elif what == "inside":
        about["history"] = HISTORY | {"inside_accuracy": [0.9, 0.8, 0.9]}
    elif what == "cores":
        about |= {"n_nuclei": 100, "n_cores": 69}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", None),
        ("few cells", "only 19 cells"),
        ("few counts", "Half of the cells have 19 counts or fewer"),
        ("much outside", r"Only 10\.0 % of the counts lie in cells"),
        ("empty cells", r"3\.0 % of the cells have no counts"),
        ("hardly any", r"8\.0 % of the cells have hardly any counts, fewer than 10"),
        ("border", r"21\.0 % of the cells are cut by the border"),
        ("not grown", r"31\.0 % of the cells are no larger than their nucleus"),
        ("unsure", r"median of the cells' mean probabilities is 0\.70"),
        ("direction", r"Only 49\.0 % of the directions are right"),
        ("inside", r"Only 80\.0 % of in or out"),
        ("cores", "31 of 100 nuclei have no core"),
    ],
)
def test_warnings(sdata: SpatialData, what: str, message: str | None) -> None:
    """Each is given for its own reason alone, with advice that names something of the package's."""
    change(sdata, what)
    found = warnings_of(Result.of(sdata, "sslcst", None))
    assert len(found) == (message is not None)
    for warning in found:
        assert re.search(message, warning.what)
        assert len(warning.advice) > 50


def test_warnings_are_on_the_page(page: Page, sdata: SpatialData) -> None:
    assert "Nothing conspicuous." in page.text
    change(sdata, "border")
    text = section(sdata, "Warnings").text
    assert "21.0 % of the cells are cut by the border." in text and "touches_border" in text
    assert "Nothing conspicuous." not in text


def test_close_views(sdata: SpatialData) -> None:
    """The densest square, the median one and one drawn by the seed, all different, all within the tissue."""
    table = sdata["sslcst_table"]
    crowded = np.array([30.0, 30.0]) + np.random.default_rng(0).uniform(0, 5, (40, 2))
    table.obsm["spatial"][50:90] = crowded
    xy, views = table.obsm["spatial"], close_views(Result.of(sdata, "sslcst", None))
    inside = [((xy >= view[:2]) & (xy <= view[2:])).all(axis=1) for view in views]
    assert len(set(views)) == 3
    assert inside[0][50:90].all()
    assert all(which.any() for which in inside)
    assert np.min(views) >= xy.min() and np.max(views) <= xy.max() + 1e-9
    assert views == close_views(Result.of(sdata, "sslcst", None))


def test_genes(page: Page, sdata: SpatialData) -> None:
    """Those with most counts first, of the molecules even where X was normalised; none that has no count."""
    table = sdata["sslcst_table"]
    counts = table.X.toarray()
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:10]
    first = order[0]
    shown = page.tables["Most counts"]
    assert list(shown) == [str(gene) for gene in order]
    assert shown[str(first)] == [
        f"{counts[:, first].sum():,}",
        f"{100 * counts[:, first].sum() / counts.sum():.1f} %",
        f"{(counts[:, first] > 0).sum()}.0 %",
        f"{100 * table.layers['nuclear'][:, [first]].sum() / counts[:, first].sum():.1f} %",
    ]
    assert "0 of 30 genes have no count in any cell." in page.text
    counts[:, 3:] = 0
    table.layers["counts"], table.X = sparse.csr_matrix(counts), table.X / 3
    genes = section(sdata, "Genes")
    assert "27 of 30 genes have no count in any cell." in genes.text
    assert len(genes.tables["Most counts"]) == 3
    del table.layers["counts"]
    genes = section(sdata, "Genes")
    assert "unknown: Table 'sslcst_table' holds no counts but what was made of them" in genes.text
    assert not genes.tables


def with_genes(sdata: SpatialData) -> SpatialData:
    """Each transcript of one of three genes, so that quality can be measured."""
    frame = sdata.points["transcripts"].compute()
    frame = frame.assign(gene=np.random.default_rng(1).choice(["a", "b", "c"], len(frame)))
    systems = get_transformation(sdata.points["transcripts"], get_all=True)
    sdata.points["transcripts"] = PointsModel.parse(frame, feature_key="gene", transformations=systems)
    return sdata


def test_quality_is_measured(sdata: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of tl.quality, where there are transcripts for them and the tissue is not too large."""

    assert "Without a reference" not in section(sdata, "Quality").tables
    frame = tl.quality(with_genes(sdata))
    ratio = section(sdata, "Quality").tables["Without a reference"]["Density ratio"]
    assert ratio == five(frame["density_ratio"])
    assert "unknown" not in ratio
    monkeypatch.setattr("sslcst.report._sections.MOST_PIXELS", 30_000)
    large = section(sdata, "Quality")
    assert "Without a reference" not in large.tables
    assert "takes long for 40,000 pixels" in large.text


@pytest.mark.parametrize("kind", ["labels", "shapes"])
def test_a_reference_is_drawn_and_compared(sdata: SpatialData, tmp_path: Path, kind: str) -> None:
    """Of either kind, in the units of the run; on the page the figures are those of tl.compare."""
    with_genes(sdata)
    if kind == "labels":
        sdata.labels["vendor"] = sdata.labels["sslcst_nuclei"]
    else:
        step = np.arange(SIDE) * PIXELS
        squares = [shapely.box(x + 7, y + 6, x + 13, y + 12) for y in step for x in step]
        systems = get_transformation(sdata.labels["sslcst_cells"], get_all=True)
        sdata.shapes["vendor"] = ShapesModel.parse(GeoDataFrame({"geometry": squares}), transformations=systems)
    page = report(sdata, tmp_path, truth_key="vendor")
    found = tl.compare(sdata, "sslcst_cells", "vendor")
    assert page.header["Beside the reference"] == ["What", "sslcst_cells", "vendor"]
    shown = page.tables["Beside the reference"]
    assert shown["cells"] == ["100", "100"]
    assert shown["mean best IoU"] == [f"{value:.4g}" for value in found.mean_best_iou]
    assert all("vendor (white)" in image["alt"] for image in page.all("img")[:4])
    with pytest.raises(KeyMissingError, match=r"no labels or shapes element 'vendors'.*did you mean 'vendor'"):
        write_report(sdata, tmp_path / "a.html", truth_key="vendors")


def test_what_is_not_trained_says_so(sdata: SpatialData) -> None:
    del sdata["sslcst_table"].uns["sslcst"]["history"]
    sdata["sslcst_table"].uns["sslcst"]["method"] = "density"
    training = section(sdata, "Training")
    assert "Method 'density' is not trained in epochs." in training.text
    assert not training.all("img")
