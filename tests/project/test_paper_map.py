"""The map from the paper to the code is whole, and every place that it names exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

MAP = Path(__file__).parents[2] / "docs" / "paper_map.md"


def rows() -> list[list[str]]:
    """Cells of the table's rows below its head."""
    lines = [line for line in MAP.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


ENTRIES = sorted({name for row in rows() for name in re.findall(r"`([^`]+)`", row[1])})


def resolve(entry: str) -> object:
    """What a dotted name below `sslcst` stands for: the longest module in it, then attributes."""
    *parents, name = f"sslcst.{entry}".split(".")
    try:
        home = import_module(".".join(parents))
    except ModuleNotFoundError:
        home = resolve(".".join(parents[1:]))
    return getattr(home, name)


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_exists(entry: str) -> None:
    assert callable(resolve(entry))


def test_a_name_that_is_not_there_would_be_found_out() -> None:
    with pytest.raises(AttributeError):
        resolve("core.geometry.nothing")
    with pytest.raises(AttributeError):
        resolve("core.encoder.SpotEncoder.nothing")


def test_every_equation_has_a_place() -> None:
    places: dict[int, str] = {}
    for paper, code, _ in rows():
        if match := re.fullmatch(r"Eq\. (\d+)(?:-(\d+))?", paper):
            first, last = int(match[1]), int(match[2] or match[1])
            places |= dict.fromkeys(range(first, last + 1), code)
    assert sorted(places) == list(range(1, 16))
    assert all("`" in code for code in places.values())


@pytest.mark.parametrize(
    "part",
    [
        *(
            "Nuclei segmentation",
            "Algorithm 1",
            "Positive samples",
            "Negative samples",
            "Algorithm 2",
            "Experimental setup",
        ),
        *("Smoothing", "Gradient flow tracking", "Figure 7: IoU"),
    ],
)
def test_every_part_has_a_place(part: str) -> None:
    assert any(paper == part and "`" in code for paper, code, _ in rows())


def test_every_figure_is_named() -> None:
    numbers = {int(n) for paper, *_ in rows() if paper.startswith("Figure") for n in re.findall(r"\d+", paper)}
    assert numbers == set(range(1, 10))


def test_every_row_has_its_place_or_says_that_it_has_none_yet() -> None:
    for paper, code, departure in rows():
        assert code == "not yet" or ("`" in code and departure), paper
