"""A tissue as a run leaves it, and what a report of it holds."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, TableModel
from spatialdata.transformations import Identity, Scale

from sslcst.methods import choose_method
from sslcst.report import write_report
from sslcst.report._page import page
from sslcst.report._result import Result
from sslcst.report._sections import sections

SHARED, METHOD = choose_method("ssl-cst", {"training": {"max_epochs": 3}, "nuclei": {"diameters": [8.0, 9.0]}})
PARAMS = SHARED.to_dict() | METHOD.params.to_dict()

SIDE = 10  # cells along each side of the tissue
PIXELS = 20  # of a cell and what is around it
HISTORY = {
    "epoch": [0, 1, 2],
    "train_loss": [2.0, 1.0, 0.8],
    "validation_loss": [1.9, 0.9123, 1.1],
    "inside_accuracy": [0.5, 0.975, 0.94],
    "direction_accuracy": [0.2, 0.7125, 0.7],
}


def make_tissue() -> SpatialData:
    """A hundred cells, half a micron a pixel, with nothing conspicuous about them, as `tl.segment` leaves them."""
    rng = np.random.default_rng(0)
    cell, nucleus = np.zeros((2, PIXELS, PIXELS), bool)
    cell[2:18, 3:17], nucleus[6:12, 7:13] = True, True
    ids = np.arange(1, SIDE**2 + 1, dtype=np.uint32).reshape(SIDE, SIDE)
    cells, nuclei = (np.kron(ids, part) for part in (cell, nucleus))
    counts = sparse.csr_matrix(rng.poisson(3, (len(ids.flat), 30)))
    layers = {"nuclear": sparse.csr_matrix(np.minimum(counts.toarray(), 1))}
    obs = pd.DataFrame(
        {
            "cell_id": ids.ravel(),
            "region": pd.Categorical(["sslcst_cells"] * ids.size),
            "area": cell.sum() / 4 + rng.integers(0, 9, ids.size),
            "nucleus_area": nucleus.sum() / 4,
            "n_counts": np.asarray(counts.sum(axis=1)).ravel(),
            "n_genes": np.diff(counts.indptr),
            "n_spots": rng.integers(20, 40, ids.size),
            "mean_prob": rng.uniform(0.9, 1, ids.size),
            "touches_border": np.arange(ids.size) < 7,
        },
        index=ids.ravel().astype(str),
    )
    about = {
        "method": "ssl-cst",
        "params": PARAMS,
        "versions": {"sslcst": "1.2.3", "numpy": "2.0.2"},
        "seed": 5,
        "model": {"seed": 6, "sha256": "ab12" * 16},
        "history": HISTORY,
        "total_counts": 12_000,
        "coordinate_system": "micron",
        "bin_size": 0.5,
        "radius": 7.25,
        "run": "r2d2",
    }
    about["params"] = {
        section: {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }
        for section, values in about["params"].items()
    }
    spatial = np.stack(np.divmod(np.arange(ids.size), SIDE)[::-1], axis=1) * PIXELS / 2 + PIXELS / 4
    table = AnnData(counts, obs=obs, layers=layers, obsm={"spatial": spatial}, uns={"sslcst": about})
    systems = {"global": Identity(), "micron": Scale([0.5, 0.5], axes=("x", "y"))}
    points = pd.DataFrame(rng.uniform(0, SIDE * PIXELS, (12_000, 2)), columns=["x", "y"])
    stain = (rng.integers(0, 90, cells.shape) + 100 * (nuclei > 0)).astype(np.uint8)[None]
    return SpatialData(
        images={"stain": Image2DModel.parse(stain, dims=("c", "y", "x"), transformations=dict(systems))},
        labels={
            f"sslcst_{name}": Labels2DModel.parse(
                array.astype(np.uint32), dims=("y", "x"), transformations=dict(systems)
            )
            for name, array in {"cells": cells, "nuclei": nuclei}.items()
        },
        points={"transcripts": PointsModel.parse(points, transformations=dict(systems))},
        tables={
            "sslcst_table": TableModel.parse(table, region="sslcst_cells", region_key="region", instance_key="cell_id")
        },
    )


class Page(HTMLParser):
    """What a page holds: tables by caption, as row name -> cells; text; attributes of all tags; headings and links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, dict[str, list[str]]] = {}
        self.header: dict[str, list[str]] = {}
        self.text, self._open, self._row, self._caption = "", [], [], ""
        self.feed(html)
        assert not self._open, "tags that nothing closes"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "tr" and "thead" in self._open:
            self.header[self._caption] = self._row
        elif tag == "tr":
            self.tables[self._caption][self._row[0]] = self._row[1:]

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] == "style":
            return
        self.text += data
        if self._open[-1] == "caption":
            self._caption = data
            self.tables[data] = {}
        if self._open[-1] in ("td", "th"):
            self._row[-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(sdata: SpatialData, tmp_path: Path, **kwargs: object) -> Page:
    write_report(sdata, tmp_path / "report.html", **kwargs)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def section(sdata: SpatialData, name: str, **kwargs: object) -> Page:
    """A section of the report, alone."""
    return Page(page("", "", {name: sections(Result.of(sdata, "sslcst", None, **kwargs))[name]}))


def five(values: pd.Series) -> list[str]:
    """Minimum, quartiles and maximum, by pandas."""
    return [f"{value:.4g}" for value in values.describe()[["min", "25%", "50%", "75%", "max"]]]
