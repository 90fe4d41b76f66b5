"""What all commands share: the log on stderr, failures in one line, and a store that is read."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import typer.main

from sslcst._logging import logger
from sslcst.errors import SslcstError, StoreError
from sslcst.methods import section_names

if TYPE_CHECKING:
    from spatialdata import SpatialData


@contextmanager
def console() -> Iterator[None]:
    """Log to stderr without breaking the progress bars; turn a foreseen failure into its message and exit code 1."""
    import spatialdata  # noqa: F401  (sets the levels of its loggers when it is loaded)
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.warnoptions:  # other packages' warnings are for programmers: -W or PYTHONWARNINGS shows them
        warnings.simplefilter("ignore")
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)  # warns of each labels element that it has no image above it
    handler = logging.StreamHandler()
    handler.setFormatter(_InOptions("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    spatialdatas = logging.getLogger("spatialdata._logging")  # writes to stdout, which is for results
    spatialdatas.setLevel(logging.WARNING)
    spatialdatas.addFilter(_is_for_users)
    level, others = logger.level, spatialdatas.handlers
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    spatialdatas.handlers = [handler]
    try:
        with logging_redirect_tqdm([logger, spatialdatas]):
            yield
    except SslcstError as error:
        typer.echo(f"Error: {_in_options(str(error))}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        raise typer.Exit(130) from stop  # as shells say of what Ctrl-C ended
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        spatialdatas.handlers = others
        spatialdatas.removeFilter(_is_for_users)


def _is_for_users(record: logging.LogRecord) -> bool:
    """Not what spatialdata tells the authors of readers, at each run of theirs."""
    return "If you did not use PointsModel.parse() explicitly" not in record.getMessage().replace("`", "")


class _InOptions(logging.Formatter):
    """Lines of the log in the words of the command line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _in_options(record.message)
        return super().formatMessage(record)


def _in_options(message: str) -> str:
    """A message on arguments of Python in one line and in the words of the command line."""
    for name, word in _options().items():
        argument = rf"(?<![\w./'\"-]){name}"
        message = re.sub(rf"{argument}=(True\b|(?=[\s;,.:)]|$))", word, message)
        message = re.sub(rf"{argument}=", f"{word} ", message)
        if "_" in name:  # others are words of the language too
            message = re.sub(rf"{argument}(?![\w'/-])", word, message)
    message = re.sub(r"(?<![\w./'\"-])((\w+)\.\w+=)", _with_set, message)
    return " ".join(message.replace("the same call", "the same command").splitlines())


@cache
def _options() -> dict[str, str]:
    """Option of each argument, of all commands."""
    from sslcst.cli import app

    commands = typer.main.get_command(app).commands.values()
    words = [(option.name, option.opts[0]) for command in commands for option in command.params]
    return {name: word for name, word in words if word.startswith("--")}  # others are what stands without a name


def _with_set(setting: re.Match) -> str:
    return f"--set {setting[1]}" if setting[2] in section_names() else setting[1]


def read_store(store: Path) -> SpatialData:
    """The object of a store."""
    import spatialdata
    from zarr.errors import GroupNotFoundError

    try:
        return spatialdata.read_zarr(Path(os.path.realpath(store)))  # the same from wherever it is called
    except GroupNotFoundError as error:
        raise StoreError(f"{store} is not a zarr store: give the folder that `sdata.write(...)` made.") from error
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{store} cannot be read: {error}. `sslcst repair` says what is wrong with it.") from error
