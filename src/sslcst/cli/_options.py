"""Arguments and options that several commands take."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from sslcst.methods import DEFAULT, METHODS

Store = Annotated[
    Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
]
ImageKey = Annotated[str | None, typer.Option(help="The stain image.")]
Channel = Annotated[str | None, typer.Option(help="The channel of the image that shows nuclei.")]
Key = Annotated[str, typer.Option(help="Prefix of the results' names: the --key-added of `segment`.")]


def _asked(
    image_key: ImageKey = None,
    channel: Channel = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="CELLS,NUCLEI", help="With --method stain: the channels that show whole cells, and nuclei."
        ),
    ] = None,
    points_key: Annotated[str | None, typer.Option(help="The transcripts.")] = None,
    gene_key: Annotated[str | None, typer.Option(help="The column of the transcripts that names the gene.")] = None,
    count_key: Annotated[str | None, typer.Option(help="The column that holds counts; else each row is one.")] = None,
    nuclei_key: Annotated[
        str | None, typer.Option(help="Labels or shapes to take as the nuclei, instead of finding them in an image.")
    ] = None,
    cells_key: Annotated[
        str | None, typer.Option(help="Labels or shapes to take as whole cells, and to count the transcripts in.")
    ] = None,
    coordinate_system: Annotated[str | None, typer.Option(help="Where image and transcripts meet.")] = None,
    unit: Annotated[
        str | None, typer.Option(help='"micron": lengths are microns, and results lie in such a system too.')
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Microns along a pixel, with --unit micron, where the store does not tell.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|X0,Y0,X1,Y1",
            help="Only cells whose nuclei lie there: shapes, or a box in the coordinate system.",
        ),
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(metavar="all|NAME,NAME,...", help="Fields of view, or samples, that are segmented as one."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How cells come about: {', '.join(METHODS)}; by default {DEFAULT}, and given with --cells-key.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of parameters.", exists=True, dir_okay=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One parameter; wins over the file. Repeatable."),
    ] = None,
) -> dict[str, Any]:
    """What `segment` and `plan` are both asked, as the functions take it."""
    asked = dict(locals())
    settings = asked.pop("set_")
    return asked | {
        "channels": None if channels is None else _several(channels),
        "region": _read_region(region),
        "fields": fields if fields in (None, "all") else _several(fields),
        "params": _read_params(params, settings),
    }


def _several(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `_asked` behind the store, whose `asked` is what comes of them."""
    own, shared = (inspect.signature(function, eval_str=True).parameters for function in (command, _asked))
    store, _, *others = own.values()

    @wraps(command)
    def call(store: Path, **options: Any) -> None:
        command(store, _asked(**{name: options.pop(name) for name in shared}), **options)

    call.__signature__ = inspect.Signature([store, *shared.values(), *others])
    return call


def _read_params(file: Path | None, settings: list[str] | None) -> dict[str, dict[str, Any]]:
    """Merge the sections of a TOML or JSON file with ``section.field=value`` settings, which win."""
    try:
        text = file.read_text(encoding="utf-8-sig") if file else "{}"
        params = tomllib.loads(text) if file and file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} cannot be read as TOML or JSON: {error}", param_hint="--params") from error
    if not isinstance(params, dict) or not all(isinstance(section, dict) for section in params.values()):
        raise typer.BadParameter(f"{file} must map sections to parameters and their values", param_hint="--params")
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        section, _, field = name.partition(".")
        if not (equals and section and field):
            raise typer.BadParameter(f"{setting!r} is not section.field=value", param_hint="--set")
        params.setdefault(section, {})[field] = parse_value(value)
    return params


def _read_region(text: str | None) -> str | tuple[float, ...] | None:
    """The name of shapes, or four numbers."""
    if text is None or "," not in text:
        return text
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a name nor X0,Y0,X1,Y1", param_hint="--region") from error
    return x0, y0, x1, y1


def parse_value(text: str) -> Any:
    """Read a number, list, true, false or null as in JSON; anything else is a plain word."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
