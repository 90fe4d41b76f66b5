"""What `sslcst` raises. Each message says what is wrong, with which element, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BackendError",
    "ClusterError",
    "DataError",
    "KeyMissingError",
    "ParameterError",
    "ProcessError",
    "SslcstError",
    "StoreError",
    "TrainingError",
]


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Words for a message on a name that is not known: which of the known ones it is close to, if any."""
    spelt = {str(each).lower(): each for each in known}
    close = get_close_matches(str(name).lower(), spelt, n=1)
    return f" (did you mean {spelt[close[0]]!r}?)" if close else ""


class SslcstError(Exception):
    """Any failure that `sslcst` foresaw; catch this to catch all of them."""


class ParameterError(SslcstError, ValueError):
    """A parameter out of its bounds, or of the wrong type."""


class DataError(SslcstError, ValueError):
    """The data cannot be segmented as they are: empty, not finite, no nuclei, too few samples."""


class KeyMissingError(SslcstError, KeyError):
    """An element, column, channel or coordinate system that is not there, or one of several that must be chosen."""

    __str__ = Exception.__str__  # KeyError would show the message's repr


class StoreError(SslcstError, OSError):
    """The store cannot be written, or already holds what would be written."""


class BackendError(SslcstError, RuntimeError):
    """A nucleus model or an optional package that was asked for cannot be had."""


class TrainingError(SslcstError, RuntimeError):
    """Training failed: the loss is not finite."""


class ProcessError(SslcstError, RuntimeError):
    """A process cannot compute: it was made by fork from one that has computed before."""


class ClusterError(SslcstError):
    """The workers of a cluster have too little memory, or are lost again and again."""
