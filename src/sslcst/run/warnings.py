"""What a run warns of: said at once, and kept in its folder until the result tells it too."""

from __future__ import annotations

import json

from sslcst._logging import logger
from sslcst._sdata.scratch import Scratch
from sslcst.errors import DataError

_FILE = "warnings.json"


def warn(scratch: Scratch, text: str) -> None:
    """Log a warning of one line, and keep it; a run that goes on keeps it once."""
    logger.warning("%s", text)
    kept = warnings_of(scratch)
    if text not in kept:
        scratch.write_text(_FILE, json.dumps([*kept, text]))


def warnings_of(scratch: Scratch) -> list[str]:
    """The warnings so far, also those from before a run was stopped."""
    text = (scratch.folder / _FILE).read_text(encoding="utf-8") if scratch.has(_FILE) else ""
    try:
        return json.loads(text or "[]")
    except ValueError as error:
        raise scratch.discard(_FILE, error) from error


def check_on_image(n_on: int, n: int, pair: str, *, of_gem: bool, part: bool = False) -> str | None:
    """Say how many of the transcripts lie off the image: a warning where most do, an error where all do.

    `pair` is `Raster.pair`; with `part` it is a part of an image that counts, and only the transcripts there.
    """
    check = f"Check the transformations of {pair}, their units, and whether they are of one section."
    if of_gem:
        check += " For a GEM or GEF that keeps the chip's numbers, give image_offset= where its image was cut."
    if part and not n_on:
        raise DataError(f"No transcript lies in the region or around it. {check}")
    if not n_on:
        raise DataError(f"None of the {n} transcripts lies on the image. {check}")
    off = f"{n - n_on} of {n} transcripts lie off the image and belong to no cell"
    if 2 * n_on < n:
        return f"{off}. {check}"
    if n > n_on:
        logger.info("%s.", off)
    return None
