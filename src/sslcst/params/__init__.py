"""Parameters: one frozen dataclass for each section, bounds checked once.

Lengths are in units of the coordinate system that `tl.segment` was told to work in (microns or pixels); ``None`` means
"taken from the nuclei", so that the defaults serve every platform alike. What only one method has is declared in its
own folder: `sslcst.methods.density.params`, `sslcst.methods.ssl_cst.params`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from sslcst._section import check
from sslcst.errors import ParameterError, did_you_mean
from sslcst.params._sections import CellParams, NucleiParams, SpotParams, TileParams, TranscriptParams

__all__ = ["CellParams", "NucleiParams", "Params", "Sections", "SpotParams", "TileParams", "TranscriptParams"]


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Base of sets of parameters: sections of them by their names."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, kind = getattr(self, each.name), each.default_factory
            check(isinstance(value, kind), each.name, value, f"must be {kind.__name__}; `of` reads mappings")

    @classmethod
    def of(cls, params: Self | Mapping[str, Any] | None) -> Self:
        """Parameters from themselves, from nested mappings that name what differs from the defaults, or from nothing.

        Raises
        ------
        ParameterError
            A section or a parameter that does not exist, or a value out of bounds.
        """
        if isinstance(params, cls):
            return params
        given = {} if params is None else params
        rule = f"must be {cls.__name__}, or map sections to parameters"
        check(isinstance(given, Mapping), "params", given if isinstance(given, str) else type(given), rule)
        kinds, changed = {each.name: each.default_factory for each in fields(cls)}, {}
        check_sections(given, kinds)
        for section, values in given.items():
            kind = kinds[section]
            if isinstance(values, str) and kind.shorthand:
                values = {kind.shorthand: values}
            check(isinstance(values, Mapping), section, values, "must map parameters to values")
            for name in values:
                known = [each.name for each in fields(kind)]
                check(name in known, f"{section}.{name}", values[name], f"no such parameter; {listed(known, name)}")
            try:
                changed[section] = kind(**values)
            except ParameterError as error:
                raise ParameterError(f"{section}.{error}") from None
        return cls(**changed)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The parameters as plain nested dictionaries, which `of` reads back."""
        return asdict(self)


def check_known(what: str, where: str, name: object, known: Collection[str]) -> None:
    """Raise ParameterError unless a name is among those that are known."""
    check(name in known, where, name, f"no such {what}; {listed(known, name)}")


def check_sections(params: Mapping[str, Any], known: Collection[str], of: str = "") -> None:
    """Raise ParameterError unless all sections are known, with the first thing that an unknown one was to set."""
    for section, values in params.items():
        where, value = section, values
        if isinstance(values, Mapping) and values:
            name, value = next(iter(values.items()))
            where = f"{section}.{name}"
        check(section in known, where, value, f"no such section{of}; {listed(known, section)}")


def listed(known: Iterable[str], name: object) -> str:
    """Words for an error on a name that is none of those that are known."""
    return f"there are {', '.join(sorted(known))}{did_you_mean(name, known)}"


@dataclass(frozen=True, kw_only=True)
class Params(Sections):
    """The parameters that all methods share.

    Examples
    --------
    >>> Params.of({"cells": {"radius": 8.0}}).cells.radius
    8.0
    """

    transcripts: TranscriptParams = field(default_factory=TranscriptParams)
    nuclei: NucleiParams = field(default_factory=NucleiParams)
    spots: SpotParams = field(default_factory=SpotParams)
    cells: CellParams = field(default_factory=CellParams)
    tiles: TileParams = field(default_factory=TileParams)
