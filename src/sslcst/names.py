"""Names that users give to what is added: checked before any work, by the rule of spatialdata."""

from __future__ import annotations

from sslcst.errors import ParameterError

_LONGEST = 100  # bytes: with what is put before and after it, a name still is one of a file
_RULE = (
    "a name is made of letters, digits, '_', '-' and '.', begins neither with '.' nor with '__', "
    f"and takes {_LONGEST} bytes at most"
)


def check_name(name: object, *, results: tuple[str, ...] = ()) -> None:
    """See that elements can be named so, or by this prefix and the endings of several results."""
    if not isinstance(name, str):
        raise ParameterError(f"key_added={name!r} is no text, but {type(name).__name__}: {_RULE}.")
    if not is_valid(name) or len(name.encode()) > _LONGEST:
        shown = name if len(name) <= _LONGEST else f"{name[:20]}..."
        raise ParameterError(f"key_added={shown!r} cannot name an element: {_RULE}.")
    for ending in results:
        if not is_valid(f"{name}_{ending}"):
            raise ParameterError(f"key_added={name!r} would make {f'{name}_{ending}'!r}: {_RULE}.")


def is_valid(name: str) -> bool:
    """Spatialdata's rule; it also reads no element whose name begins with a dot."""
    return bool(name) and not name.startswith((".", "__")) and all(c.isalnum() or c in "_-." for c in name)
