"""Parameters: one frozen dataclass for each section, bounds checked once.

Lengths are in units of the coordinate system that `tl.segment` was told to work in (microns or pixels); ``None`` means
"taken from the nuclei", so that the defaults serve every platform alike. What only one method has is declared in its
own folder: `sslcst.methods.density.params`, `sslcst.methods.ssl_cst.params`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from sslcst._section import check
from sslcst.params._cells import CellParams, TileParams
from sslcst.params._tissue import NucleiParams, SpotParams, TranscriptParams

__all__ = ["CellParams", "NucleiParams", "Params", "Sections", "SpotParams", "TileParams", "TranscriptParams"]


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Base of sets of parameters: sections of them by their names."""

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
        check(params is None or isinstance(params, Mapping), "params", params, "must map sections to parameters")
        sections, changed = {each.name: getattr(cls(), each.name) for each in fields(cls)}, {}
        for section, values in (params or {}).items():
            check(section in sections, "params", section, f"no such section; there are {', '.join(sorted(sections))}")
            kind = type(sections[section])
            if isinstance(values, str) and kind.shorthand:
                values = {kind.shorthand: values}
            check(isinstance(values, Mapping), section, values, "must map parameters to values")
            names = {each.name for each in fields(kind)}
            for name in values:
                check(name in names, section, name, f"no such parameter; there are {', '.join(sorted(names))}")
            changed[section] = kind(**values)
        return cls(**changed)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The parameters as plain nested dictionaries, which `of` reads back."""
        return asdict(self)


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
