"""What all commands share: the log on stderr, failures in one line, and a store that is read."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import typer.main

from sslcst._logging import logger
from sslcst.errors import SslcstError, StoreError

if TYPE_CHECKING:
    from spatialdata import SpatialData


def on_console(command: Callable[..., None]) -> Callable[..., None]:
    """A command that logs to stderr, and whose foreseen failure is its message and exit code 1."""

    @wraps(command)
    def call(**options: Any) -> None:
        with _console(command.__name__):
            command(**options)

    return call


@contextmanager
def _console(command: str) -> Iterator[None]:
    """Log to stderr without breaking the progress bars; turn a foreseen failure into its message and exit code 1."""
    import spatialdata  # noqa: F401  (sets the levels of its loggers when it is loaded)
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.warnoptions:  # other packages' warnings are for programmers: -W or PYTHONWARNINGS shows them
        warnings.simplefilter("ignore")
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)  # warns of each labels element that it has no image above it
    handler = logging.StreamHandler()
    handler.setFormatter(_InOptions(command))
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
        typer.echo(f"Error: {_in_options(str(error), command)}", err=True)
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
    """Lines of the log in the words of a command."""

    def __init__(self, command: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        self.command = command

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _in_options(record.message, self.command)
        return super().formatMessage(record)


def _in_options(message: str, command: str) -> str:
    """A message on arguments of Python in one line and in the words of a command."""
    options = _options(command)
    for name, word in options.items():
        argument = rf"(?<![\w./'\"-]){name}"
        message = re.sub(rf"{argument}=(True\b|(?=[\s;,.:)]|$))", word, message)
        message = re.sub(rf"{argument}=", f"{word} ", message)
        if "_" in name:  # others are words of the language too
            message = re.sub(rf"{argument}(?![\w'/-])", word, message)
    if "set_" in options:
        message = re.sub(r"(?<![\w./'\"-])(\w+(?:\.\w+)+=)", r"--set \1", message)
    return " ".join(message.replace("the same call", "the same command").splitlines())


@cache
def _options(command: str) -> dict[str, str]:
    """Option of each argument of a command."""
    from sslcst.cli import app

    words = {option.name: option.opts[0] for option in typer.main.get_command(app).commands[command].params}
    return {name: word for name, word in words.items() if word.startswith("--")}  # others stand without a name


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
