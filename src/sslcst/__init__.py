"""Cell segmentation of subcellular spatial transcriptomics by self-supervised learning, on SpatialData."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcst import datasets, errors, io, metrics, params, pl, pp, report, tl

__all__ = ["datasets", "errors", "io", "metrics", "params", "pl", "pp", "report", "tl"]

try:
    __version__ = version("sslcst")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Load a subpackage when it is first used (PEP 562)."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
