"""What all sections of parameters share: values are checked once, by their types and by bounds."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from numbers import Integral, Real

from sslcst.errors import ParameterError


def check(ok: bool, name: str, value: object, rule: str) -> None:
    """Raise ParameterError, with the rule that is broken, unless it is kept."""
    if not ok:
        raise ParameterError(f"{name}={value!r}: {rule}.")


_TYPES = {"int": Integral, "float": Real, "bool": bool, "str": str}


def _is(value: object, annotation: str) -> bool:
    """Whether a value is of an annotated type, where a number must be finite and a truth value is no number."""
    name = annotation.removesuffix(" | None")
    if value is None:
        return name != annotation
    if name not in _TYPES:
        return True  # a Literal, whose values are checked with the bounds
    finite = not isinstance(value, Real) or isfinite(value)
    return isinstance(value, _TYPES[name]) and isinstance(value, bool) == (name == "bool") and finite


def check_seed(seed: object) -> None:
    """Raise ParameterError unless it is a whole number from 0 that generators take and a store holds."""
    ok = _is(seed, "int") and 0 <= seed < 2**63
    check(ok, "seed", seed, "must be a whole number, not negative, and below 2^63")


class Section:
    """Base of the sections: each value is of its field's type."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type.startswith("tuple"):
                check(isinstance(value, list | tuple), each.name, value, "must be a list or tuple")
                object.__setattr__(self, each.name, tuple(value))
                item_type = each.type.removeprefix("tuple[").split(",")[0]
                right = all(_is(item, item_type) for item in value)
            else:
                right = _is(value, each.type)
            check(right, each.name, value, f"must be of type {each.type}, and finite")
        self._check_bounds()


def check_positive(section: object, *names: str) -> None:
    """Raise ParameterError unless these values are above 0, or None."""
    for name in names:
        value = getattr(section, name)
        check(value is None or value > 0, name, value, "must be above 0")


def check_share(section: object, *names: str) -> None:
    """Raise ParameterError unless these values lie between 0 and 1."""
    for name in names:
        value = getattr(section, name)
        check(0 <= value <= 1, name, value, "must lie between 0 and 1")
