"""What a run warns of: said at once, and kept in its folder until the result tells it too."""

from __future__ import annotations

import json

from sslcst._logging import logger
from sslcst._sdata.scratch import Scratch

_FILE = "warnings.json"


def warn(scratch: Scratch, text: str) -> None:
    """Log a warning of one line, and keep it; a run that goes on keeps it once."""
    logger.warning("%s", text)
    kept = warnings_of(scratch)
    if text not in kept:
        scratch.write_text(_FILE, json.dumps([*kept, text]))


def warnings_of(scratch: Scratch) -> list[str]:
    """The warnings so far, also those from before a run was stopped."""
    if not scratch.has(_FILE):
        return []
    try:
        return json.loads((scratch.folder / _FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise scratch.discard(_FILE, error) from error
