"""`sslcst demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the store and the picture; those of an earlier demo go.")
    ] = Path("sslcst-demo"),
    cells: Annotated[int, typer.Option(help="Number of cells to simulate.", min=10)] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same tissue and cells.")] = 0,
) -> None:
    """Segment a simulated tissue with known cells, and show how close the result comes.

    Simulates a stain and transcripts, runs sslcst, then scanpy and squidpy, and compares the cells with the true ones
    beside the nuclei alone and the nuclei grown by the best distance. Needs the extra: `pip install "sslcst[demo]"`.

    ```
    sslcst demo --out somewhere --cells 500
    ```
    """
    from sslcst._demo import run_demo

    result = run_demo(out, n_cells=cells, seed=seed)
    typer.echo(result)
