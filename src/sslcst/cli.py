"""The command line: `sslcst segment`, `plan`, `repair`, `report` and `demo`."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

import sslcst
from sslcst._logging import logger
from sslcst.errors import SslcstError, StoreError
from sslcst.methods import DEFAULT, section_names

if TYPE_CHECKING:
    from spatialdata import SpatialData

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    epilog="Exit codes: 0 done, 1 the data or a parameter do not allow it (stderr says why), 2 wrong usage.",
)


@contextmanager
def _console() -> Iterator[None]:
    """Log to stderr without breaking the progress bars; turn a foreseen failure into its message and exit code 1."""
    import spatialdata  # noqa: F401  (sets the levels of its loggers when it is loaded)
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.warnoptions:  # other packages' warnings are for programmers: -W or PYTHONWARNINGS shows them
        warnings.simplefilter("ignore")
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)  # warns of each labels element that it has no image above it
    logging.getLogger("spatialdata._logging").setLevel(logging.WARNING)  # writes to stdout, which is for results
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([logger]):
            yield
    except SslcstError as error:
        typer.echo(f"Error: {_in_options(str(error))}", err=True)
        raise typer.Exit(1) from error
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _in_options(message: str) -> str:
    """A message on arguments of Python in one line and in the words of the command line."""
    commands = typer.main.get_command(app).commands.values()
    options = {option.name: option.opts[0] for command in commands for option in command.params}
    for name, word in options.items():
        if not word.startswith("--"):
            continue
        argument = rf"(?<![\w./'\"-]){name}"
        message = re.sub(rf"{argument}=(True\b|(?=[\s;,.:)]|$))", word, message)
        message = re.sub(rf"{argument}=", f"{word} ", message)
        if "_" in name:  # others are words of the language too
            message = re.sub(rf"{argument}(?![\w'/-])", word, message)
    sections = "|".join(section_names())
    message = re.sub(rf"(?<![\w./'\"-])(({sections})\.\w+=)", r"--set \1", message)
    return " ".join(message.splitlines())


def _read_params(file: Path | None, settings: list[str]) -> dict[str, dict[str, Any]]:
    """Merge the sections of a TOML or JSON file with ``section.field=value`` settings, which win."""
    try:
        text = file.read_text(encoding="utf-8") if file else "{}"
        params = tomllib.loads(text) if file and file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--params") from error
    if not isinstance(params, dict) or not all(isinstance(section, dict) for section in params.values()):
        raise typer.BadParameter(f"{file} must map sections to parameters and their values", param_hint="--params")
    for setting in settings:
        name, equals, value = setting.partition("=")
        section, _, field = name.partition(".")
        if not (equals and section and field):
            raise typer.BadParameter(f"{setting!r} is not section.field=value", param_hint="--set")
        params.setdefault(section, {})[field] = _parse_value(value)
    return params


def _parse_value(text: str) -> Any:
    """Read a number, list, true, false or null as in JSON; anything else is a plain word."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_store(store: Path) -> SpatialData:
    import spatialdata
    from zarr.errors import GroupNotFoundError

    try:
        return spatialdata.read_zarr(Path(os.path.realpath(store)))  # the same from wherever it is called
    except GroupNotFoundError as error:
        raise StoreError(f"{store} is not a zarr store: give the folder that `sdata.write(...)` made.") from error
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{store} cannot be read: {error}. `sslcst repair` says what is wrong with it.") from error


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


@app.command()
def segment(
    store: Annotated[
        Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
    ],
    image_key: Annotated[str | None, typer.Option(help="The stain image.")] = None,
    channel: Annotated[str | None, typer.Option(help="The channel of the image that shows nuclei.")] = None,
    points_key: Annotated[str | None, typer.Option(help="The transcripts.")] = None,
    gene_key: Annotated[str | None, typer.Option(help="The column of the transcripts that names the gene.")] = None,
    count_key: Annotated[str | None, typer.Option(help="The column that holds counts; else each row is one.")] = None,
    nuclei_key: Annotated[
        str | None, typer.Option(help="Labels or shapes to take as the nuclei, instead of finding them in an image.")
    ] = None,
    coordinate_system: Annotated[str | None, typer.Option(help="Where image and transcripts meet.")] = None,
    method: Annotated[str, typer.Option(help="How cells come about: density, or ssl-cst.")] = DEFAULT,
    params: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of parameters.", exists=True, dir_okay=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One parameter; wins over the file. Repeatable."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cells.")] = 0,
    key_added: Annotated[str, typer.Option(help="Prefix of the results' names.")] = "sslcst",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of that name.")] = False,
) -> None:
    """Segment the cells of a SpatialData store, and write them into it.

    Adds KEY_nuclei and KEY_cells (labels) and KEY_table (cells x genes), KEY being --key-added. Nothing that was in the
    store changes. Names may be left out where the store leaves no doubt; where it does, the candidates are listed.

    ```
    sslcst segment run.zarr --image-key morphology_focus --set cells.radius=6
    ```
    """
    chosen = _read_params(params, set_ or [])
    with _console():
        sdata = _read_store(store)
        sslcst.tl.segment(
            sdata,
            image_key=image_key,
            channel=channel,
            points_key=points_key,
            gene_key=gene_key,
            count_key=count_key,
            nuclei_key=nuclei_key,
            coordinate_system=coordinate_system,
            method=method,
            params=chosen,
            device=device,
            seed=seed,
            key_added=key_added,
            overwrite=overwrite,
        )
    typer.echo(f"{store}: {sdata.tables[f'{key_added}_table'].n_obs} cells in {key_added}_cells and {key_added}_table.")


@app.command()
def plan(
    store: Annotated[
        Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
    ],
    image_key: Annotated[str | None, typer.Option(help="The stain image.")] = None,
    channel: Annotated[str | None, typer.Option(help="The channel of the image that shows nuclei.")] = None,
    points_key: Annotated[str | None, typer.Option(help="The transcripts.")] = None,
    nuclei_key: Annotated[str | None, typer.Option(help="Labels or shapes to take as the nuclei.")] = None,
    coordinate_system: Annotated[str | None, typer.Option(help="Where image and transcripts meet.")] = None,
    method: Annotated[str, typer.Option(help="How cells come about: density, or ssl-cst.")] = DEFAULT,
    params: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of parameters.", exists=True, dir_okay=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One parameter. Repeatable.")
    ] = None,
) -> None:
    """Say what `segment` will take: tiles, memory and disk.

    The transcripts are read, and a part of the stain; nothing is written.

    ```
    sslcst plan run.zarr --image-key dapi
    ```
    """
    with _console():
        result = sslcst.tl.plan(
            _read_store(store),
            image_key=image_key,
            channel=channel,
            points_key=points_key,
            nuclei_key=nuclei_key,
            coordinate_system=coordinate_system,
            method=method,
            params=_read_params(params, set_ or []),
        )
    typer.echo(result)


@app.command()
def repair(
    store: Annotated[
        Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Clean a store of what killed runs and failed writes left in it and beside it, and say what was done.

    Nothing else is touched. A run that was killed need not be repaired: the same `segment` goes on with it.

    ```
    sslcst repair run.zarr --dry-run
    ```
    """
    with _console():
        from sslcst._sdata.repair import repair as clean

        done = clean(store, dry_run=dry_run)
    typer.echo("\n".join(done) or f"{store}: nothing to repair.")


@app.command()
def report(
    store: Annotated[
        Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="File to write; one of that name is replaced.", dir_okay=False)] = Path(
        "report.html"
    ),
    key: Annotated[str, typer.Option(help="Prefix of the results' names: the --key-added of `segment`.")] = "sslcst",
    image_key: Annotated[str | None, typer.Option(help="The stain image of the pictures.")] = None,
) -> None:
    """Write what one should know of a segmentation as one HTML page.

    It warns of what is conspicuous, and shows counts, sizes, quality, training, parameters and pictures. The page needs
    no other file and no network, and is light enough to mail.

    ```
    sslcst report run.zarr --out run.html
    ```
    """
    with _console():
        sslcst.report.write_report(_read_store(store), out, key=key, image_key=image_key)
    typer.echo(f"{out}: the report of {store}.")


@app.command()
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
    with _console():
        from sslcst._demo import run_demo

        result = run_demo(out, n_cells=cells, seed=seed)
    typer.echo(result.report())
