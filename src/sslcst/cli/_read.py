"""`sslcst read` and `export`: from an instrument's folder to a store, and from a store to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sslcst
from sslcst.cli._console import read_store
from sslcst.cli._options import Key, Store, parse_value


def read(
    folder: Annotated[Path, typer.Argument(help="What an instrument has written; or a GEF or GEM file.", exists=True)],
    out: Annotated[Path, typer.Argument(help="The zarr store to write, where nothing is yet.")],
    reader: Annotated[
        str | None, typer.Option(help="Whose format it is, if its files leave that open.", metavar="NAME")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="One argument of the reader. Repeatable.")
    ] = None,
) -> None:
    """Read the output folder of an instrument, and write it as a SpatialData store.

    Xenium, MERSCOPE, CosMx, seqFISH and Stereo-seq are known by their files and read by spatialdata-io, for which the
    extra is needed: `pip install "sslcst[io]"`. GEF and GEM files are read by this package. Nothing is overwritten.

    ```
    sslcst read xenium_outs run.zarr
    sslcst read merscope_region run.zarr --option z_layers=2
    sslcst read chip.gem.gz run.zarr --option image=chip_regist.tif
    ```
    """
    given = {}
    for option in options or []:
        name, equals, value = option.partition("=")
        if not (equals and name):
            raise typer.BadParameter(f"{option!r} is not name=value", param_hint="--option")
        given[name] = parse_value(value)
    from sslcst.cli import _folder

    _folder.check_new(out)
    sdata = _folder.read_folder(folder, reader=reader, options=given)
    _folder.write_new(sdata, out)
    kinds = ("images", "labels", "points", "shapes", "tables")
    found = {kind: ", ".join(getattr(sdata, kind)) for kind in kinds}
    typer.echo(f"{out}: {'; '.join(f'{kind} {names}' for kind, names in found.items() if names)}.")


def export(
    store: Store,
    out: Annotated[Path, typer.Argument(help="The GeoJSON file to write; one of that name is replaced.")],
    key: Key = "sslcst",
    image_key: Annotated[
        str | None, typer.Option(help="The image in whose pixels outlines are; by default the one segmented.")
    ] = None,
    coordinate_system: Annotated[
        str | None, typer.Option(help="The one in whose units outlines are, instead of pixels.")
    ] = None,
    class_key: Annotated[
        str | None, typer.Option(help="Column of the table that becomes the cells' classification.")
    ] = None,
) -> None:
    """Write the outlines of the cells and their nuclei as GeoJSON, for QuPath and Xenium Ranger.

    ```
    sslcst export run.zarr cells.geojson --class-key leiden
    ```
    """
    from sslcst._sdata.provenance import result_table

    sdata = read_store(store)
    sslcst.io.write_geojson(
        sdata, out, key=key, image_key=image_key, coordinate_system=coordinate_system, class_key=class_key
    )
    n_cells = result_table(sdata, key).n_obs
    typer.echo(f"{out}: {n_cells} cells of {store}.")
