"""Arguments and options that several commands take."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from sslcst.methods import DEFAULT, METHODS

Store = Annotated[
    Path, typer.Argument(help="A SpatialData zarr store.", exists=True, file_okay=False, show_default=False)
]
ImageKey = Annotated[str | None, typer.Option(help="The stain image.")]
Channel = Annotated[str | None, typer.Option(help="The channel of the image that shows nuclei.")]
Channels = Annotated[
    str | None,
    typer.Option(metavar="CELLS,NUCLEI", help="With --method stain: the channels that show whole cells, and nuclei."),
]
PointsKey = Annotated[str | None, typer.Option(help="The transcripts.")]
GeneKey = Annotated[str | None, typer.Option(help="The column of the transcripts that names the gene.")]
CountKey = Annotated[str | None, typer.Option(help="The column that holds counts; else each row is one.")]
NucleiKey = Annotated[
    str | None, typer.Option(help="Labels or shapes to take as the nuclei, instead of finding them in an image.")
]
CellsKey = Annotated[
    str | None, typer.Option(help="Labels or shapes to take as whole cells, and to count the transcripts in.")
]
CoordinateSystem = Annotated[str | None, typer.Option(help="Where image and transcripts meet.")]
Unit = Annotated[str | None, typer.Option(help='"micron": lengths are microns, and results lie in such a system too.')]
PixelSize = Annotated[
    float | None, typer.Option(help="Microns along a pixel, with --unit micron, where the store does not tell.")
]
RegionOfInterest = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="NAME|X0,Y0,X1,Y1",
        help="Only cells whose nuclei lie there: shapes, or a box in the coordinate system.",
    ),
]
Fields = Annotated[
    str | None,
    typer.Option(metavar="all|NAME,NAME,...", help="Fields of view, or samples, that are segmented as one."),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help=f"How cells come about: {', '.join(METHODS)}; by default {DEFAULT}, and given with --cells-key.",
        metavar="NAME",
        show_default=False,
    ),
]
Params = Annotated[Path | None, typer.Option(help="TOML or JSON file of parameters.", exists=True, dir_okay=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One parameter; wins over the file. Repeatable."),
]
Key = Annotated[str, typer.Option(help="Prefix of the results' names: the --key-added of `segment`.")]


def read_params(file: Path | None, settings: list[str] | None) -> dict[str, dict[str, Any]]:
    """Merge the sections of a TOML or JSON file with ``section.field=value`` settings, which win."""
    try:
        text = file.read_text(encoding="utf-8") if file else "{}"
        params = tomllib.loads(text) if file and file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--params") from error
    if not isinstance(params, dict) or not all(isinstance(section, dict) for section in params.values()):
        raise typer.BadParameter(f"{file} must map sections to parameters and their values", param_hint="--params")
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        section, _, field = name.partition(".")
        if not (equals and section and field):
            raise typer.BadParameter(f"{setting!r} is not section.field=value", param_hint="--set")
        params.setdefault(section, {})[field] = parse_value(value)
    return params


def read_region(text: str | None) -> str | tuple[float, ...] | None:
    """The name of shapes, or four numbers."""
    if text is None or "," not in text:
        return text
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a name nor X0,Y0,X1,Y1", param_hint="--region") from error
    return x0, y0, x1, y1


def read_fields(text: str | None) -> str | list[str] | None:
    """All, or names."""
    return text if text in (None, "all") else text.split(",")


def split_channels(text: str | None) -> list[str] | None:
    """The channels that are named with commas between."""
    return None if text is None else text.split(",")


def parse_value(text: str) -> Any:
    """Read a number, list, true, false or null as in JSON; anything else is a plain word."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
