"""What a page is made of, and how it becomes HTML that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Protocol

TEMPLATE = Path(__file__).with_name("template.html")


class Block(Protocol):
    """A part of a section."""

    def html(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def html(self) -> str:
        return f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Table:
    """Rows under a caption; the first cell of each row names it. It scrolls by itself where the page is too narrow."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "\n".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        caption = escape(self.caption)
        return (
            f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        )


@dataclass(frozen=True)
class Picture:
    """A picture, as a data URI, with its caption and what it shows for those who cannot see it."""

    uri: str
    alt: str
    caption: str
    chart: bool = False

    def html(self) -> str:
        kind = "chart" if self.chart else "photo"
        return (
            f'<figure class="{kind}"><img src="{self.uri}" alt="{escape(self.alt)}">'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Row:
    """Blocks side by side where there is room."""

    blocks: Sequence[Block]

    def html(self) -> str:
        return '<div class="row">' + "\n".join(block.html() for block in self.blocks) + "</div>"


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown on demand."""

    summary: str
    blocks: Sequence[Block]

    def html(self) -> str:
        inner = "\n".join(block.html() for block in self.blocks)
        return f"<details><summary>{escape(self.summary)}</summary>\n{inner}</details>"


@dataclass(frozen=True)
class Warn:
    """Something conspicuous: what it is, and what to do."""

    what: str
    advice: str

    def html(self) -> str:
        return f'<div class="warning"><p><strong>{escape(self.what)}</strong></p><p>{escape(self.advice)}</p></div>'


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        return self.name.lower().replace(" ", "-")

    def html(self) -> str:
        inner = "\n".join(block.html() for block in self.blocks)
        return f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-name">\n<h2 id="{self.anchor}-name">' + (
            f"{escape(self.name)}</h2>\n{inner}\n</section>"
        )


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.name)}</a></li>' for section in sections)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        links=links,
        main="\n".join(section.html() for section in sections),
    )
