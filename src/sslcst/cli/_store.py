"""What is done with a store that was segmented: `sslcst report` and `repair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sslcst
from sslcst.cli._console import read_store
from sslcst.cli._options import Channel, ImageKey, Key, Store


def report(
    store: Store,
    out: Annotated[Path, typer.Option(help="File to write; one of that name is replaced.", dir_okay=False)] = Path(
        "report.html"
    ),
    key: Key = "sslcst",
    image_key: ImageKey = None,
    channel: Channel = None,
    truth_key: Annotated[
        str | None, typer.Option(help="Labels or shapes of a reference to outline and to compare with.")
    ] = None,
) -> None:
    """Write what one should know of a segmentation as one HTML page.

    It warns of what is conspicuous, and shows pictures, counts, genes, sizes, quality, training and parameters. The
    page needs no other file and no network, and is light enough to mail.

    ```
    sslcst report run.zarr --out run.html
    sslcst report run.zarr --truth-key vendor_boundaries
    ```
    """
    keys = {"key": key, "image_key": image_key, "channel": channel, "truth_key": truth_key}
    sslcst.report.write_report(read_store(store), out, **keys)
    typer.echo(f"{out}: the report of {store}.")


def repair(
    store: Store, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False
) -> None:
    """Clean a store of what killed runs and failed writes left in it and beside it, and say what was done.

    Nothing else is touched. A run that was killed need not be repaired: the same `segment` goes on with it.

    ```
    sslcst repair run.zarr --dry-run
    ```
    """
    from sslcst._sdata.repair import repair as clean

    done = clean(store, dry_run=dry_run)
    typer.echo("\n".join(done) or f"{store}: nothing to repair.")
