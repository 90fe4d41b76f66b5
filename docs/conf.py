"""Sphinx configuration. `make docs` builds with warnings as errors and without the network."""

from __future__ import annotations

import inspect
import os
import re
import shutil
from dataclasses import fields
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from docutils.nodes import literal
from sphinx.ext import autosummary
from sphinx.ext.napoleon import NumpyDocstring
from sphinx.util.docutils import SphinxRole

from sslcst import errors
from sslcst.methods import METHODS, method_class
from sslcst.params import Params

project = "sslcst"
author = metadata(project)["Author"]
copyright = f"{datetime.now():%Y}, {author}"
release = version = metadata(project)["Version"]

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}  # generated pages take the first
templates_path = ["_templates"]
DOCS = Path(__file__).parent
shutil.rmtree(DOCS / "tutorials", ignore_errors=True)
shutil.copytree(DOCS.parent / "tutorials", DOCS / "tutorials")  # Sphinx reads nothing outside its own folder
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks; the pages show the outputs that are stored
nb_merge_streams = True

# The API pages list what a package names in __all__, each with its first sentence, which no abbreviation ends.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "Fig.", "fig.", "Sec.")
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
always_use_bars_union = True
napoleon_google_docstring = False
napoleon_use_ivar = True
default_role = "code-or-link"

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": True, "navbar_persistent": []}
html_static_path = ["_static"]
html_css_files = ["tables.css"]

# What the annotations of public functions name in other packages. Their inventories are on the network, so links to
# them are made only where SSLCST_INTERSPHINX=1 is set, as on the machine that publishes; elsewhere they stay plain.
OTHERS = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "dask": "https://docs.dask.org/en/stable/",
    "geopandas": "https://geopandas.org/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "spatialdata": "https://spatialdata.scverse.org/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}
intersphinx_mapping = (
    {name: (url, None) for name, url in OTHERS.items()} if os.environ.get("SSLCST_INTERSPHINX") else {}
)
# Of inherited fields, whose annotations it reads in the module of the class that inherits them.
suppress_warnings = ["sphinx_autodoc_typehints.forward_reference"]
nitpicky = True  # a reference that leads nowhere is a warning, and a warning an error
nitpick_ignore_regex = [
    (r"py:.*", rf"({'|'.join(OTHERS)})\..*"),
    (r"py:.*", r"(collections|contextlib|dataclasses|datetime|os|pathlib|typing)\..*"),
    (r"py:.*", r"numba\..*"),
    (r"py:data", r"Ellipsis"),
    (r"py:class", r"NDArray|(np|pd|sparse)\..*"),  # of NamedTuples, whose annotations stay as they are written
]


def _names_of_errors(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings say `KeyMissingError`; the page of it is `sslcst.errors.KeyMissingError`."""
    for i, line in enumerate(lines):
        if hasattr(errors, line):
            lines[i] = f"~sslcst.errors.{line}"


def _returns(docstring: NumpyDocstring, section: str) -> list[str]:
    """What stands under "Returns", sentences or a list of parts, is the description; types are in the annotations."""
    lines = docstring._dedent(docstring._consume_to_next_section())
    return [":returns:", *docstring._indent([line for line in lines if line != ":"], 4), ""]  # ":" is by typehints


class CodeOrLink(SphinxRole):
    """What single backticks mean: `sslcst.tl.segment` is a link, and `params`, an argument, is code."""

    def run(self) -> tuple[list[Any], list[Any]]:
        """Nodes of the text, and messages."""
        if not self.text.startswith("sslcst."):
            return [literal(self.rawtext, self.text)], []
        role = self.env.domains.python_domain.role("obj")
        return role("obj", self.rawtext, self.text, self.lineno, self.inliner, self.options, self.content)


def _links_to_code(app: Any, docname: str, source: list[str]) -> None:
    """Code that the paper map names becomes a link to its page; links to files outside docs lead to their pages."""
    source[0] = source[0].replace("(../benchmarks/RESULTS.md)", "(benchmarks.md)")
    if docname == "paper_map":
        names = r"`((?:core|pp|tl|pl|io|metrics|params)\.[\w.]+)`"
        source[0] = re.sub(names, r"{py:obj}`\1 <sslcst.\1>`", source[0])


def _parameter_table(app: Any, docname: str, source: list[str]) -> None:
    """All parameters of all sections, as their classes have them."""
    if docname != "parameter_table":
        return
    rows = ["| parameter | default | methods | what it is |", "| --- | --- | --- | --- |"]
    for methods, sections in {"all": Params, **{f'`"{name}"`': method_class(name).Params for name in METHODS}}.items():
        for section in fields(sections):
            kind = section.default_factory
            entries = re.findall(r"^([\w, ]+)\n((?:    .*\n?|\n)+)", inspect.getdoc(kind).split("-\n", 1)[1], re.M)
            told = {name: text for names, text in entries for name in names.split(", ")}
            for each in fields(kind):
                text = " ".join(told[each.name].split()).replace("``", "`").replace("|", r"\|")
                default = str(each.default).replace("|", r"\|")
                rows.append(f"| `{section.name}.{each.name}` | `{default}` | {methods} | {text} |")
    source[0] = source[0].replace("(the table)", "\n".join(rows))


def setup(app: Any) -> None:
    """Connect what is above; docstrings are read here before napoleon reads them (at 500)."""
    app.connect("autodoc-process-docstring", _names_of_errors, priority=100)
    NumpyDocstring._parse_returns_section = _returns
    NumpyDocstring._parse_attribute_docstring = NumpyDocstring._consume_to_end  # what precedes a colon is no type
    app.connect("source-read", _links_to_code)
    app.connect("source-read", _parameter_table)
    app.add_role("code-or-link", CodeOrLink())
