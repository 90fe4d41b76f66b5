"""What the public functions are given, checked by the annotations of their own signatures.

An annotation is the one place that says what an argument may be. `checked` reads it and answers a value of another kind
at once, in words, whichever function it is. What the kinds cannot tell (bounds, names of elements) is checked where it
is used.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from functools import wraps
from math import inf
from numbers import Integral, Real
from textwrap import shorten
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sslcst.errors import ParameterError

P, R = ParamSpec("P"), TypeVar("R")
Region = tuple[float, float, float, float]  # x0, y0, x1, y1


def _of(*names: str) -> Callable[[Any], bool]:
    """Whether a value is of one of these classes ("package.Name") or below: none need be imported to tell."""
    wanted = [tuple(name.split(".")) for name in names]
    return lambda value: any((kind.__module__.split(".")[0], kind.__name__) in wanted for kind in type(value).__mro__)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _is_path(value: Any) -> bool:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(path, str) and path != "" and "\0" not in path


def _several(item: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Whether a value is a list, tuple or flat array of such items, of some length."""

    def test(value: Any) -> bool:
        flat = isinstance(value, np.ndarray) and value.ndim == 1
        if not (flat or (isinstance(value, Sequence) and not isinstance(value, str | bytes))):
            return False
        return length in (None, len(value)) and all(map(item, value))

    return test


def _is_array(value: Any) -> bool:
    """What numpy reads as an array: no object of elements, no table, no text."""
    if isinstance(value, list | tuple):
        try:
            return np.asarray(value).dtype != object
        except ValueError:  # ragged
            return False
    return hasattr(value, "__array__") and not _of("xarray.DataTree", "pandas.DataFrame", "dask.DataFrame")(value)


def _is_matrix(value: Any) -> bool:
    """Sparse, or an array, of two dimensions and of numbers."""
    sparse = _of("scipy.sparray", "scipy.spmatrix")(value)
    return (sparse or isinstance(value, np.ndarray)) and value.ndim == 2 and value.dtype.kind in "biuf"


# Each kind that an annotation names: what a value must be, and that in words.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "None": (lambda value: value is None, "None"),
    "SpatialData": (_of("spatialdata.SpatialData"), "a SpatialData object"),
    "AnnData": (_of("anndata.AnnData"), "an AnnData table"),
    "Model": (
        lambda value: isinstance(getattr(type(value), "method", None), str),  # its class names the method
        "a model of sslcst.tl.train or sslcst.io.read_model",
    ),
    "type[Method]": (
        lambda value: (
            isinstance(value, type) and any(each.__module__ == "sslcst.methods.base" for each in value.__mro__)
        ),
        "a class of methods",
    ),
    "Comparison": (_of("sslcst.Comparison"), "what sslcst.tl.compare returns"),
    "Params": (_of("sslcst.Params"), "sslcst.params.Params"),
    "Mapping[str, Any]": (lambda value: isinstance(value, Mapping), "a mapping of sections to parameters"),
    "Mapping[str, pd.DataFrame]": (
        lambda value: isinstance(value, Mapping) and all(map(_of("pandas.DataFrame"), value.values())),
        'frames of sslcst.tl.quality by names, {"ours": sslcst.tl.quality(sdata)}',
    ),
    "str": (_of("builtins.str"), "text"),
    "bool": (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "os.PathLike[str]": (_is_path, "a path"),
    "Path": (_is_path, "a path"),
    "Sequence[str]": (_several(_of("builtins.str")), "a list of texts"),
    "Sequence[str | int]": (
        _several(lambda value: isinstance(value, str) or _is_whole(value)),
        "a list of texts or whole numbers",
    ),
    "Sequence[float]": (_several(_is_number), "a list of numbers"),
    "tuple[float, float]": (_several(lambda value: _is_number(value) and abs(value) < inf, 2), "two finite numbers"),
    "Region": (_several(_is_number, 4), "(x0, y0, x1, y1), four numbers"),
    "Normalize": (_of("matplotlib.Normalize"), "a norm of matplotlib.colors"),
    "Axes": (_of("matplotlib.Axes"), "matplotlib axes"),
    "Sequence[Axes]": (_several(_of("matplotlib.Axes")), "a list of matplotlib axes"),
    "tuple[Axes, Axes]": (_several(_of("matplotlib.Axes"), 2), "two matplotlib axes"),
    "Collection[Hashable]": (
        lambda value: isinstance(value, Set) or _several(lambda item: isinstance(item, Hashable))(value),
        "a list or set of values",
    ),
    "ArrayLike": (_is_array, "an array"),
    "NDArray[np.integer]": (_is_array, "an array"),
    "sparse.sparray": (_is_matrix, "a sparse or dense matrix of numbers"),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A public function that answers a value of a wrong kind with ParameterError, before any work."""
    signature = inspect.signature(function)
    kinds = {name: _split(each.annotation) for name, each in signature.parameters.items()}
    tests = {name: [_KINDS[kind][0] for kind in several] for name, several in kinds.items()}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # of arguments that are missing or too many Python tells
            return function(*args, **kwargs)
        for name, value in given.items():
            if not any(test(value) for test in tests[name]):
                raise ParameterError(_answer(name, value, kinds[name]))
        return function(*args, **kwargs)

    return call


def _split(annotation: str) -> list[str]:
    """The kinds of a union; what is within brackets is part of one."""
    return re.split(r" \| (?![^\[]*\])", annotation)


def _answer(name: str, value: Any, kinds: Sequence[str]) -> str:
    words = " or ".join(dict.fromkeys(_KINDS[kind][1] for kind in kinds))
    plain = isinstance(value, bool | int | float | str | bytes | None)
    shown = f"={shorten(repr(value), 100, placeholder=' ...')}" if plain else f" is of type {type(value).__name__}"
    hint = ""
    if "SpatialData" in kinds:
        hint = "; spatialdata.read_zarr(...) reads one from its store"
    elif "ArrayLike" in kinds and _of("spatialdata.SpatialData", "xarray.DataTree")(value):
        hint = '; give the numbers of one element at one scale, sdata.labels["..."].to_numpy()'
    return f"{name}{shown}: must be {words}{hint}."
