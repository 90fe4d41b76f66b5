"""The report: its numbers are the table's, it needs nothing but itself, and a browser shows it."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from geopandas import GeoDataFrame
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from scipy import sparse
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale, get_transformation

from sslcst import tl
from sslcst.errors import DataError, KeyMissingError, StoreError
from sslcst.methods import choose_method
from sslcst.pl._canvas import CELLS
from sslcst.report import write_report
from sslcst.report._page import Section, Table, Text
from sslcst.report._page import page as page_of
from sslcst.report._pictures import COLOURS, close_views
from sslcst.report._result import Result
from sslcst.report._sections import sections
from sslcst.report._warnings import warnings_of

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


@pytest.fixture
def sdata() -> SpatialData:
    return make_tissue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    make_tissue().write(path)
    return path


@pytest.fixture(scope="module")
def file(store: Path) -> Path:
    """The report of the store."""
    write_report(read_zarr(store), store.with_name("report.html"))
    return store.with_name("report.html")


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page(file)


class Page(HTMLParser):
    """What a page holds: tables by caption, as row name -> cells; text; attributes of all tags; headings and links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, dict[str, list[str]]] = {}
        self.header: dict[str, list[str]] = {}
        self.text, self._open, self._row, self._caption = "", [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
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
    return Page(tmp_path / "report.html")


def five(values: pd.Series) -> list[str]:
    """Minimum, quartiles and maximum, by pandas."""
    return [f"{value:.4g}" for value in values.describe()[["min", "25%", "50%", "75%", "max"]]]


def test_numbers_are_the_tables(page: Page, sdata: SpatialData) -> None:
    """All numbers of the tables, computed again with pandas."""
    table = sdata["sslcst_table"]
    obs = table.obs
    inside, nuclear = obs["n_counts"].sum(), table.layers["nuclear"].toarray().sum()
    assert page.tables["Counts"] == {
        "All counts": ["12,000"],
        "Counts in cells": [f"{inside:,}"],
        "Counts in cells, of all": [f"{inside / 120:.1f} %"],
        "Counts in nuclei": [f"{nuclear:,}"],
        "Counts in nuclei, of those in cells": [f"{100 * nuclear / inside:.1f} %"],
    }
    assert page.tables["Of a cell"] == {
        "Counts": five(obs["n_counts"]),
        "Genes": five(obs["n_genes"]),
        "Spots": five(obs["n_spots"]),
    }
    assert page.tables["Area (square micron)"] == {"Cells": five(obs["area"]), "Nuclei": five(obs["nucleus_area"])}
    diameter = {
        "Cells": five((obs["area"] * 4 / np.pi) ** 0.5),
        "Nuclei": five((obs["nucleus_area"] * 4 / np.pi) ** 0.5),
    }
    assert page.tables["Diameter (micron) of a circle of that area"] == diameter
    assert page.tables["Of 100 cells"] == {
        "Cells cut by the border": ["7", "7.0 %"],
        "Cells without counts": ["0", "0.0 %"],
        "Cells without a nucleus": ["0", "0.0 %"],
        "Cells no larger than their nucleus": ["0", "0.0 %"],
    }
    assert page.tables["Probability of lying in a cell"] == {
        "Mean probability of a cell's spots": five(obs["mean_prob"])
    }
    names = ("train_loss", "validation_loss", "direction_accuracy", "inside_accuracy")
    assert page.tables["Epochs"] == {str(i + 1): [f"{HISTORY[name][i]:.4g}" for name in names] for i in range(3)}
    assert "3 epochs; the model is that of epoch 2" in page.text
    assert "71.2 % of the directions" in page.text and "97.5 % of in or out" in page.text


def test_overview(page: Page) -> None:
    """What else is known of the run is shown under its own name."""
    assert page.tables["The segmentation"] == {
        "Cells": ["100"],
        "Genes": ["30"],
        "Coordinate system": ["micron (lengths and areas are in its units)"],
        "Side of a spot": ["0.5"],
        "Expected cell radius": ["7.25"],
        "Seed": ["5"],
        "Model (SHA-256)": ["ab12" * 16],
        "Seed of the model": ["6"],
        "method": ["ssl-cst"],
        "run": ["r2d2"],
    }
    assert page.tables["Versions it was made with"] == {"sslcst": ["1.2.3"], "numpy": ["2.0.2"]}
    assert page.tables["Elements of the store"] == {
        "stain": ["images", "1 x 200 x 200"],
        "sslcst_cells": ["labels", "200 x 200"],
        "sslcst_nuclei": ["labels", "200 x 200"],
        "transcripts": ["points", "2 columns"],
        "sslcst_table": ["tables", "100 x 30"],
    }


def test_the_first_line_says_of_what_when_and_by_what(sdata: SpatialData, page: Page, tmp_path: Path) -> None:
    """As far as it is known; the version without the hash of its commit."""
    assert "100 cells in sslcst_cells and sslcst_table, by sslcst 1.2.3" in page.text
    about = sdata["sslcst_table"].uns["sslcst"]
    about |= {"image_key": "stain", "channel": "0", "points_key": "transcripts", "date": "2026-01-02T03:04+00:00"}
    about["versions"] = {"sslcst": "1.2.4.dev1+gabc123"}
    assert (
        "sslcst_table, of image 'stain', channel '0' and points 'transcripts', on 2026-01-02, by sslcst 1.2.4.dev1\n"
        in report(sdata, tmp_path).text
    )


def test_changed_parameters_come_first(page: Page) -> None:
    assert page.tables["Other than the defaults"] == {
        "nuclei.diameters": ["8.0, 9.0", "none"],
        "training.max_epochs": ["3", "6"],
    }
    same = page.tables["At their defaults"]
    assert same["encoder.width"] == ["64", "64"]
    assert same["spots.bin_size"] == ["automatic", "automatic"]
    n_params = sum(map(len, PARAMS.values()))
    assert f"{n_params - 2} parameters at their defaults" in page.text


def test_needs_nothing_but_itself(page: Page, file: Path) -> None:
    """No script, no link but to places in the page, no address but the names of XML's vocabularies; valid SVG."""
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= targets
    pictures = [image["src"] for image in page.all("img")]
    assert sum(uri.startswith("data:image/jpeg;base64,") for uri in pictures) == 4
    charts = [
        uri.removeprefix("data:image/svg+xml;base64,") for uri in pictures if uri.startswith("data:image/svg+xml")
    ]
    assert len(charts) == 4 == len(pictures) - 4
    for chart in charts:
        svg = base64.b64decode(chart).decode()
        ElementTree.fromstring(svg)
        assert all(
            place.startswith("#") for place in re.findall(r'href="(.*?)"|url\((.*?)\)', svg) for place in place if place
        )
        assert not re.findall("http", re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg))
    text = re.sub(r'src="data:.*?"', "", file.read_text(encoding="utf-8"))
    assert "http" not in text and "url(" not in text


def test_can_be_read_without_eyes(page: Page) -> None:
    """A language, a title, headings in order, a text for each picture, headers for each row and column of a table."""
    assert page.all("html") == [{"lang": "en"}]
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h1", *["h2"] * 9]
    assert all(len(image["alt"]) > 30 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == len(page.tables)
    assert {th["scope"] for th in page.all("th")} == {"row", "col"}
    for caption, rows in page.tables.items():
        assert {len(cells) + 1 for cells in rows.values()} == {len(page.header[caption])}


def test_same_twice(store: Path, file: Path, tmp_path: Path) -> None:
    """And no figure is left open."""
    write_report(read_zarr(store), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == file.read_bytes()
    assert not plt.get_fignums()


def test_light_enough_to_mail(sdata: SpatialData, tmp_path: Path) -> None:
    """Even of a stain that is nothing but noise, the hardest to compress."""
    noise = np.random.default_rng(0).integers(0, 255, (1, 1600, 1600)).astype(np.uint8)
    systems = {"global": Scale([0.125, 0.125], axes=("x", "y")), "micron": Scale([1 / 16, 1 / 16], axes=("x", "y"))}
    sdata.images["stain"] = Image2DModel.parse(noise, dims=("c", "y", "x"), transformations=systems)
    write_report(sdata, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_names_are_escaped() -> None:
    """Names of elements, genes or packages cannot become tags."""
    html = page_of("<a>", "&", [Section("S", [Table("<b>", ("<i>",), [["<u>", '"']]), Text("<p>")])])
    assert not re.findall("<[abiu]>", html.split("<main>")[1])
    assert "&lt;b&gt;" in html and "<title>&lt;a&gt;</title>" in html


def test_what_is_missing_is_said(sdata: SpatialData, tmp_path: Path) -> None:
    """Without provenance, columns, points or stain, each section says what it lacks, and the page is whole.

    Also where the segmentation has another name.
    """
    table = sdata.tables.pop("sslcst_table")
    del table.uns["sslcst"], table.layers["nuclear"], sdata.points["transcripts"], sdata.images["stain"]
    n_counts, table.obs = table.obs["n_counts"], table.obs[["cell_id", "region"]]
    sdata.tables["mine_table"] = table
    for name in ("cells", "nuclei"):
        sdata.labels[f"mine_{name}"] = sdata.labels.pop(f"sslcst_{name}")
    page = report(sdata, tmp_path, key="mine")
    for lack in (
        "nothing is known of how it was made",
        "Contamination and density ratio are unknown: ",
        "the share of counts in cells is unknown",
        "sizes are unknown",
        "the certainty of the cells is unknown",
        "nothing is known of the training",
        "the parameters are unknown",
        "The versions it was made with are unknown",
    ):
        assert lack in page.text
    assert page.tables["The segmentation"]["Seed"] == ["unknown"]
    assert page.tables["Of a cell"]["Counts"] == five(n_counts)  # of X
    assert page.tables["Of a cell"]["Genes"] == ["unknown"] * 5
    assert page.tables["Of 100 cells"]["Cells cut by the border"] == ["unknown", "unknown"]
    assert "a black ground" in page.all("img")[0]["alt"]


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
    html = page_of("", "", sections(Result.of(sdata, "sslcst", "stain"))[:1])
    assert "21.0 % of the cells are cut by the border." in html and "touches_border" in html
    assert "Nothing conspicuous." not in html


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "other"}, r"no table 'other_table' to report of: run sslcst\.tl\.segment.*tables: 'sslcst_table'"),
        ({"image_key": "no"}, "no image 'no'; there are: 'stain'"),
    ],
)
def test_missing_elements_are_told(sdata: SpatialData, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(KeyMissingError, match=message):
        write_report(sdata, tmp_path / "report.html", **arguments)
    assert not list(tmp_path.iterdir())


def test_table_without_cells(sdata: SpatialData, tmp_path: Path) -> None:
    table = sdata["sslcst_table"][:0].copy()
    del table.uns["spatialdata_attrs"]  # a table that annotates something has rows
    sdata.tables["sslcst_table"] = table
    with pytest.raises(DataError, match="'sslcst_table' has no cells"):
        write_report(sdata, tmp_path / "report.html")


def test_what_is_not_a_number_is_unknown(sdata: SpatialData) -> None:
    """No direction to validate on, no spot in any cell: no warning, and no "nan" on the page."""
    table = sdata["sslcst_table"]
    table.obs["mean_prob"] = np.nan
    table.uns["sslcst"]["history"] = HISTORY | {"direction_accuracy": [float("nan")] * 3}
    result = Result.of(sdata, "sslcst", None)
    assert not warnings_of(result)
    html = page_of("", "", [section for section in sections(result) if section.name in ("Quality", "Training")])
    assert "nan" not in re.sub(r'src="data:.*?"', "", html.split("<main>")[1])


def test_folder_that_is_not_there(sdata: SpatialData, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no/a\.html could not be written: there is no folder"):
        write_report(sdata, tmp_path / "no" / "a.html")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[object]:
    """Takes pictures of a page with Chromium, as wide as asked for."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium to look at the page with")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --hide-scrollbars"

    def shoot(page: Path, width: int, *, dark: bool) -> np.ndarray:
        picture = tmp_path / f"{width}.png"
        options = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},5000", f"--screenshot={picture}"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        subprocess.run([program, *flags.split(), *options, page.as_uri()], check=True, capture_output=True, timeout=120)
        return plt.imread(picture)[..., :3]

    return shoot


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)])
def test_in_a_browser(file: Path, browser, width: int, dark: bool) -> None:
    """Ground and text follow the scheme, pictures and charts are drawn, and nothing runs over the page's edge."""
    picture = browser(file, width, dark=dark)
    assert picture.shape[1] == width
    ground = to_rgb("#14161a" if dark else "#ffffff")

    def share(colour: tuple[float, ...], part: np.ndarray) -> float:
        return (np.abs(part - np.array(colour)).max(axis=-1) < 0.02).mean()

    assert share(ground, picture) > 0.3
    assert share(ground, picture[:, -10:]) == 1
    assert share(to_rgb("#e7e9ed" if dark else "#1c1f24"), picture) > 0.001
    assert share(to_rgb(COLOURS[0]), picture) > 0.005
    orange = np.abs(picture - np.array(to_rgb(CELLS))).max(axis=-1) < 0.15
    assert orange.sum() > 500


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
    [text, genes] = section(sdata, "Genes").blocks
    assert text.text == "27 of 30 genes have no count in any cell."
    assert len(genes.rows) == 3
    del table.layers["counts"]
    [text] = section(sdata, "Genes").blocks
    assert "unknown: Table 'sslcst_table' holds no counts but what was made of them" in text.text


def section(sdata: SpatialData, name: str, **kwargs) -> Section:
    return next(part for part in sections(Result.of(sdata, "sslcst", None, **kwargs)) if part.name == name)


def with_genes(sdata: SpatialData) -> SpatialData:
    """Each transcript of one of three genes, so that quality can be measured."""
    frame = sdata.points["transcripts"].compute()
    frame = frame.assign(gene=np.random.default_rng(1).choice(["a", "b", "c"], len(frame)))
    systems = get_transformation(sdata.points["transcripts"], get_all=True)
    sdata.points["transcripts"] = PointsModel.parse(frame, feature_key="gene", transformations=systems)
    return sdata


def test_quality_is_measured(sdata: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of tl.quality, where there are transcripts for them and the tissue is not too large."""

    def measured() -> dict[str, list[str]]:
        tables = [block for block in section(sdata, "Quality").blocks if isinstance(block, Table)]
        return {row[0]: row[1:] for table in tables if table.caption == "Without a reference" for row in table.rows}

    assert not measured()
    frame = tl.quality(with_genes(sdata))
    ratio = measured()["Density ratio"]
    assert ratio == five(frame["density_ratio"])
    assert "unknown" not in ratio
    monkeypatch.setattr("sslcst.report._sections.MOST_PIXELS", 30_000)
    assert not measured()
    assert any(
        "takes long for 40,000 pixels" in getattr(block, "text", "") for block in section(sdata, "Quality").blocks
    )


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
    assert [block.text for block in section(sdata, "Training").blocks] == ["Method 'density' is not trained in epochs."]
