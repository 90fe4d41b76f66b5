"""The command line: what the functions do, on a store, by the same names."""

from __future__ import annotations

from typing import Annotated

import typer

import sslcst
from sslcst.cli import _demo, _read, _segment, _store
from sslcst.cli._console import on_console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    epilog="Exit codes: 0 done, 1 data or parameters do not allow it (stderr says why), 2 wrong usage, 130 stopped.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(sslcst.__version__)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Find the cells of subcellular spatial transcriptomics from a stain and the transcripts."""


for command in (_read.read, _segment.segment, _segment.plan, _read.export, _store.repair, _store.report, _demo.demo):
    app.command()(on_console(command))
