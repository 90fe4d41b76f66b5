"""The parameters of the density method."""

from __future__ import annotations

from dataclasses import dataclass, field

from sslcst._section import Section, bounded
from sslcst.params import Sections


@dataclass(frozen=True, kw_only=True)
class DensityRuleParams(Section):
    """From the density of transcripts to cells.

    Parameters
    ----------
    threshold
        Bins with at least this probability belong to a cell.
    """

    threshold: float = bounded(0.5, between=(0, 1))


@dataclass(frozen=True, kw_only=True)
class DensityParams(Sections):
    """All parameters of the density method."""

    density: DensityRuleParams = field(default_factory=DensityRuleParams)
