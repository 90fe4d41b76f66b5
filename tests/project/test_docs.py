"""What README and the pages of `docs` say of the code: their code runs, and their errors are those that it raises.

In a page, which is read from top to bottom in an empty folder that holds a small tissue, ``run.zarr``:

- A block of ``python`` runs, with the names of the blocks before it.
- ``<!-- no-run: REASON -->`` before it: it needs what a test has not, and only has to compile.
- ``<!-- hidden`` ... ``-->`` holds code that runs and that the page does not show; it may use ``monkeypatch``.
- A block of ``text`` that begins with the name of an error is what the code before it raises, ``...`` for any text.
- Lines of ``sh`` that call ``sslcst`` have arguments that it takes.
"""

from __future__ import annotations

import builtins
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import typer

from sslcst import __all__ as subpackages
from sslcst import cli, datasets, errors
from sslcst.methods.ssl_cst.params import TrainingParams

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT = {"generated", "_build", "tutorials"}  # by `make docs`
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if BUILT.isdisjoint(path.relative_to(DOCS).parts)),
]
ITEM = re.compile(
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"|^<!-- no-run: (?P<reason>[^\n]+) -->$"
    r"|^<!-- hidden\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
ERROR = re.compile(r"^(\w+Error): ")


class Block(NamedTuple):
    """A block of a page: its line, language and text, and why it is not run."""

    line: int
    language: str
    text: str
    no_run: str | None = None


def read_blocks(page: str) -> list[Block]:
    """Blocks of code of a page in Markdown, in order."""
    blocks, reason = [], None
    for match in ITEM.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        if match["reason"]:
            reason = match["reason"]
            continue
        language, text = ("python", match["hidden"]) if match["hidden"] else (match["language"], match["code"])
        blocks.append(Block(line, language, text, reason))
        reason = None
    return blocks


def expected_error(block: Block) -> str | None:
    """What a block of text quotes, if it quotes an error."""
    return block.text if block.language == "text" and ERROR.match(block.text) else None


def check_quoted(quoted: str, raised: BaseException) -> None:
    """Raise AssertionError unless the error is the quoted one; line breaks do not count."""
    said = " ".join(f"{type(raised).__name__}: {raised}".split())
    pattern = ".*".join(re.escape(part) for part in " ".join(quoted.split()).split("..."))
    assert re.fullmatch(pattern, said), f"the page says\n{quoted}\nthe code says\n{said}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tissue with the names that Xenium's reader gives."""
    path = tmp_path_factory.mktemp("docs") / "run.zarr"
    sdata = datasets.simulate(n_cells=40, n_genes=60, seed=0)
    sdata["morphology_focus"] = sdata.images["stain"]
    del sdata.images["stain"], sdata.tables["truth"]
    sdata.write(path)
    return path


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages call with the default parameters, which train for a minute: here for a second."""
    for name, value in {"max_epochs": 1, "min_steps": 2, "field_size": 1500}.items():
        monkeypatch.setitem(TrainingParams.__init__.__kwdefaults__, name, value)


@pytest.mark.filterwarnings("default")  # what other packages warn of on the way is theirs
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_of_a_page_runs_and_raises_what_it_quotes(
    page: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_training: None
) -> None:
    """A reader who copies the code gets what the page says."""
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    if any(block.language in ("python", "sh") for block in blocks):
        shutil.copytree(store, tmp_path / "run.zarr")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # which dataclasses look up by its name
    monkeypatch.setitem(sys.modules, "page", module)
    names = vars(module) | {"monkeypatch": monkeypatch}
    for block, following in zip(blocks, [*blocks[1:], Block(0, "", "")], strict=False):
        if block.language == "sh":
            check_command_lines(block.text)
        if block.language != "python":
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
        quoted = expected_error(following)
        if block.no_run is not None:
            assert quoted is None, f"{page}:{following.line} quotes an error of code that is not run"
        elif quoted is None:
            exec(code, names)
        else:
            kind = ERROR.match(quoted)[1]
            with pytest.raises(getattr(errors, kind, None) or getattr(builtins, kind)) as raised:
                exec(code, names)
            check_quoted(quoted, raised.value)


def check_command_lines(text: str) -> None:
    """Raise unless `sslcst` takes the arguments of each of its lines."""
    commands = typer.main.get_command(cli.app).commands
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["sslcst"]:
            commands[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_quoted_error_follows_code(page: Path) -> None:
    """An error of which no code is shown could go stale unseen."""
    blocks = read_blocks(page.read_text(encoding="utf-8"))
    for before, block in zip([Block(0, "", ""), *blocks], blocks, strict=False):
        if expected_error(block):
            assert before.language == "python", f"{page}:{block.line}: no code before this error"


def test_quoted_errors_are_compared() -> None:
    """A page that quotes another message, or another kind of error, does not pass."""
    raised = errors.DataError("No transcript lies in a core.")
    check_quoted("DataError: No transcript\nlies ... core.", raised)
    for wrong in ("DataError: No transcript lies in a nucleus.", "StoreError: No transcript lies in a core."):
        with pytest.raises(AssertionError):
            check_quoted(wrong, raised)


def test_blocks_are_read_with_what_stands_before_them() -> None:
    """The conventions at the head of this file are those that the pages are read by."""
    page = "<!-- no-run: a GPU -->\n\n```python\na\n```\n\n<!-- hidden\nb\n-->\n\n```text\nDataError: c\n```\n"
    blocks = read_blocks(page)
    assert [block[1:] for block in blocks] == [
        ("python", "a\n", "a GPU"),
        ("python", "b\n", None),
        ("text", "DataError: c\n", None),
    ]
    assert expected_error(blocks[2]) == "DataError: c\n"


def test_api_pages_name_everything_public() -> None:
    """A function that nobody can find in the documentation is not public."""
    listed = (DOCS / "api" / "index.md").read_text(encoding="utf-8").split()
    assert {f"sslcst.{name}" for name in subpackages} <= set(listed)
    for name in subpackages:  # the pages of a package list what stands in its __all__
        module = import_module(f"sslcst.{name}")
        assert all(inspect.getdoc(getattr(module, item)) for item in module.__all__)


def test_every_command_has_its_section() -> None:
    """A command that the page of the command line lacks."""
    page = (DOCS / "api" / "cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == list(typer.main.get_command(cli.app).commands)


def test_citation_is_of_this_version() -> None:
    """Two files hold the version; a release that forgets one would be cited wrongly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", cited, re.MULTILINE)[1] == project["version"]
    assert re.search(r"^license: (.+)$", cited, re.MULTILINE)[1] == project["license"]


def test_tables_are_copied_before_scanpy_changes_them() -> None:
    """It works in place: whoever follows a page must not lose the counts of the object."""
    files = [*PAGES, *sorted((ROOT / "tutorials").glob("*.ipynb")), *sorted((ROOT / "src").rglob("*.py"))]
    taken = re.compile(r"\w+ = \w+(?:\.tables)?\[\\?[\"'][^\"']*_table\\?[\"']\](?:\\n|\s|$)", re.MULTILINE)
    for file in files:
        text = file.read_text(encoding="utf-8")
        if "normalize_total" in text or "adata" in text:
            assert not taken.findall(text), f"{file}: `.copy()` is missing"
