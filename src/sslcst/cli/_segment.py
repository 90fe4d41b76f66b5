"""`sslcst segment` and `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import sslcst
from sslcst.cli._console import read_store
from sslcst.cli._options import Store, asks
from sslcst.methods import default_method, method_class


@asks
def segment(
    store: Store,
    asked: dict[str, Any],
    model: Annotated[
        Path | None,
        typer.Option(
            help="File of a model to take as it is, with its method, instead of learning one.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    save_model: Annotated[
        Path | None, typer.Option(help="File for what is learnt, ending in .json, which --model takes.", dir_okay=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cells.")] = 0,
    key_added: Annotated[str, typer.Option(help="Prefix of the results' names.")] = "sslcst",
    shapes: Annotated[bool, typer.Option("--shapes", help="Add the cells' boundaries as KEY_boundaries.")] = False,
    assign_points: Annotated[
        bool, typer.Option("--assign-points", help="Add the transcripts with the cell of each as KEY_transcripts.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of that name.")] = False,
) -> None:
    """Segment the cells of a SpatialData store, and write them into it.

    Adds KEY_nuclei and KEY_cells (labels) and KEY_table (cells x genes), KEY being --key-added. Nothing that was in the
    store changes. Names may be left out where the store leaves no doubt; where it does, the candidates are listed.
    What Ctrl-C or anything else stops goes on where it was with the same command.

    ```
    sslcst segment run.zarr --image-key morphology_focus --set cells.radius=6
    sslcst segment cosmx.zarr --fields all
    sslcst segment one.zarr --method ssl-cst --save-model model.json
    sslcst segment two.zarr --model model.json
    ```
    """
    from sslcst._sdata.store import n_rows

    learnt = None if model is None else sslcst.io.read_model(model)
    if asked["method"] is None and learnt is not None:
        asked["method"] = learnt.method
    if save_model is not None:  # before a run of hours, not behind it
        from sslcst.methods.model_file import new_files

        new_files(method_class(asked["method"] or default_method(asked["cells_key"])), save_model)
    sdata = read_store(store)
    sslcst.tl.segment(
        sdata,
        **asked,
        model=learnt,
        device=device,
        seed=seed,
        key_added=key_added,
        shapes=shapes,
        assign_points=assign_points,
        load_table=save_model is not None,
        overwrite=overwrite,
    )
    if save_model is not None:
        sslcst.io.write_model(sslcst.io.read_model(sdata, key=key_added), save_model)
    labels = f"{key_added}_cells" if asked["fields"] is None else f"{key_added}_FIELD_cells"
    typer.echo(f"{store}: {n_rows(store, f'{key_added}_table')} cells in {labels} and {key_added}_table.")


@asks
def plan(store: Store, asked: dict[str, Any]) -> None:
    """Say what `segment` will take: tiles, memory and disk.

    The transcripts are read, and a part of the stain; nothing is written.

    ```
    sslcst plan run.zarr --image-key dapi
    ```
    """
    result = sslcst.tl.plan(read_store(store), **asked, load_table=False)
    typer.echo(result)
