"""Names that users give to what is added: checked before any work, by the rule of spatialdata."""

from __future__ import annotations

from sslcst.errors import ParameterError

_LONGEST = 100  # bytes: with what is put before and after it, a name still is one of a file
_RULE = (
    "a name is made of letters, digits, '_', '-' and '.', begins neither with '.' nor with '__', "
    f"and takes {_LONGEST} bytes at most"
)


def check_name(name: object, argument: str = "key_added", *, results: tuple[str, ...] = ()) -> None:
    """See that elements can be named so.

    Parameters
    ----------
    name
        The name, or the prefix of the names of several results.
    argument
        Who gave it.
    results
        Endings of the results' names, where it is a prefix.

    Raises
    ------
    ParameterError
        It is no text, or spatialdata would refuse or overlook an element of such a name.
    """
    if not isinstance(name, str):
        raise ParameterError(f"{argument}={name!r} is no text, but {type(name).__name__}: {_RULE}.")
    if not is_valid(name) or len(name.encode()) > _LONGEST:
        shown = name if len(name) <= _LONGEST else f"{name[:20]}..."
        raise ParameterError(f"{argument}={shown!r} cannot name an element: {_RULE}.")
    for ending in results:
        if not is_valid(f"{name}_{ending}"):
            raise ParameterError(f"{argument}={name!r} would make {f'{name}_{ending}'!r}: {_RULE}.")


def is_valid(name: str) -> bool:
    """Spatialdata's rule; it also reads no element whose name begins with a dot."""
    return bool(name) and not name.startswith((".", "__")) and all(c.isalnum() or c in "_-." for c in name)
