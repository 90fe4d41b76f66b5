"""What a page is made of, and how it becomes HTML that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("template.html")


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a caption; the first cell of each row names it. It scrolls by itself where the page is too narrow."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    caption = escape(caption)
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def picture(uri: str, alt: str, caption: str, *, chart: bool = False) -> str:
    """A picture, as a data URI, with its caption and what it shows for those who cannot see it."""
    return (
        f'<figure class="{"chart" if chart else "photo"}"><img src="{uri}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def row(blocks: Iterable[str]) -> str:
    """Blocks side by side where there is room."""
    return '<div class="row">' + "\n".join(blocks) + "</div>"


def folded(summary: str, block: str) -> str:
    """A block that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n{block}</details>"


def warning(what: str, advice: str) -> str:
    """Something conspicuous: what it is, and what to do."""
    return f'<div class="warning"><p><strong>{escape(what)}</strong></p><p>{escape(advice)}</p></div>'


def page(title: str, subtitle: str, sections: Mapping[str, Iterable[str]]) -> str:
    """The whole page, of the blocks of each section."""
    links, main = [], []
    for name, blocks in sections.items():
        anchor, name = name.lower().replace(" ", "-"), escape(name)
        links.append(f'<li><a href="#{anchor}">{name}</a></li>')
        heading = f'<section id="{anchor}" aria-labelledby="{anchor}-name">\n<h2 id="{anchor}-name">{name}</h2>'
        main.append("\n".join([heading, *blocks, "</section>"]))
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title), subtitle=escape(subtitle), links="".join(links), main="\n".join(main)
    )
