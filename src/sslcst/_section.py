"""What all sections of parameters share: values are checked once, by their types and by bounds."""

from __future__ import annotations

import operator
from ast import literal_eval
from dataclasses import MISSING, field, fields
from inspect import formatannotation
from math import inf
from numbers import Integral, Real
from textwrap import shorten
from typing import Any, ClassVar

import numpy as np

from sslcst.errors import ParameterError


def check(ok: bool, name: str, value: object, rule: str) -> None:
    """Raise ParameterError, with the rule that is broken, unless it is kept."""
    if not ok:
        raise ParameterError(f"{name}={shorten(repr(value), 200, placeholder=' ...')}: {rule}.")


_TYPES = {"int": Integral, "float": Real, "bool": bool, "str": str}


def _is(value: object, annotation: str) -> bool:
    """Whether a value is of an annotated type, where a number must be finite and a truth value is no number."""
    name = annotation.removesuffix(" | None")
    if value is None:
        return name != annotation
    if name not in _TYPES:
        return True  # a class of ours
    finite = not isinstance(value, Real) or abs(value) < inf
    return isinstance(value, _TYPES[name]) and isinstance(value, bool) == (name == "bool") and finite


def check_seed(seed: object) -> None:
    """Raise ParameterError unless it is a whole number from 0 that generators take and a store holds."""
    ok = _is(seed, "int") and 0 <= seed < 2**63
    check(ok, "seed", seed, "must be a whole number, not negative, and below 2^63")


_BOUNDS = {
    "between": (lambda value, ends: ends[0] <= value <= ends[1], "must lie between {0[0]:g} and {0[1]:g}"),
    "above": (operator.gt, "must be above {:g}"),
    "least": (operator.ge, "must be at least {:g}"),
    "below": (operator.lt, "must be below {:g}"),
    "most": (operator.le, "must be at most {:,}"),
}


def bounded(default: Any = MISSING, **bounds: Any) -> Any:
    """A field of a section whose value, or each of them, keeps some of `_BOUNDS`; None keeps any.

    What is at most so large is mostly so that no mistake allocates a machine's memory: no sane run comes near it.
    """
    return field(default=default, metadata=bounds)


class Section:
    """Base of the sections: each value is of its field's type and within its bounds, and a plain one of Python.

    Numbers and arrays of numpy are what a store makes of plain values, so that they come back from there.
    """

    shorthand: ClassVar[str | None] = None  # the parameter that a lone text in place of the section is of

    def __post_init__(self) -> None:
        for each in fields(self):
            value, annotation = _plain(getattr(self, each.name)), _in_words(each.type)
            if annotation.startswith("tuple"):
                value = (value,) if isinstance(value, Real) else value
                check(isinstance(value, list | tuple), each.name, value, "must be a list or tuple")
                value = tuple(map(_plain, value))
                item_type = annotation.removeprefix("tuple[").split(",")[0]
                right = all(_is(item, item_type) for item in value)
            elif annotation.startswith("Literal"):
                allowed = [*literal_eval(annotation.removeprefix("Literal").removesuffix(" | None"))]
                right = value in allowed or (value is None and annotation.endswith("None"))
                check(right, each.name, value, f"must be {' or '.join(map(repr, allowed))}")
            else:
                right = _is(value, annotation)
            check(right, each.name, value, f"must be of type {annotation}, and finite")
            for name, bound in each.metadata.items():
                keeps, rule = _BOUNDS[name]
                items = value if isinstance(value, tuple) else (value,)
                check(all(item is None or keeps(item, bound) for item in items), each.name, value, rule.format(bound))
            object.__setattr__(self, each.name, value)
        self._check_bounds()

    def _check_bounds(self) -> None:
        """Check what values must keep beside `bounded`."""


def _in_words(annotation: Any) -> str:
    """An annotation as it stands in the source, where a module that does not postpone them has made it a type."""
    return annotation if isinstance(annotation, str) else formatannotation(annotation)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
