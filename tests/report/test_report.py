"""The report: its numbers are the table's, it needs nothing but itself, and a browser shows it."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from patience import PATIENCE
from reported_tissue import HISTORY, PARAMS, Page, five, report, section
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

from sslcst.errors import DataError, KeyMissingError, StoreError
from sslcst.pl._canvas import CELLS
from sslcst.report import write_report
from sslcst.report._page import page as page_of
from sslcst.report._page import table, text
from sslcst.report._pictures import COLOURS
from sslcst.report._result import Result
from sslcst.report._warnings import warnings_of


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
    html = page_of("<a>", "&", {"S": [table("<b>", ("<i>",), [["<u>", '"']]), text("<p>")]})
    assert not re.findall("<[abiu]>", html.split("<main>")[1])
    assert "&lt;b&gt;" in html and "<title>&lt;a&gt;</title>" in html


def test_what_is_missing_is_said(sdata: SpatialData, tmp_path: Path) -> None:
    """Without provenance, columns, points or stain, each section says what it lacks, and the page is whole.

    Also where the segmentation has another name.
    """
    table = sdata.tables.pop("sslcst_table")
    del table.uns["sslcst"], table.layers["nuclear"], sdata.points["transcripts"], sdata.images["stain"]
    n_counts, table.obs = table.obs["n_counts"], table.obs[["cell_id", "region"]]
    del table.obsm["spatial"]
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
    assert "All of it." in page.text and "Where cells are densest" not in page.text


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
    assert not warnings_of(Result.of(sdata, "sslcst", None))
    for name in ("Quality", "Training"):
        page = section(sdata, name)
        assert "nan" not in page.text + str([image["alt"] for image in page.all("img")])


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
        subprocess.run(
            [program, *flags.split(), *options, page.as_uri()], check=True, capture_output=True, timeout=PATIENCE
        )
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
