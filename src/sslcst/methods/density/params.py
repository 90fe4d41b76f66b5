"""The parameters of the density method."""

from __future__ import annotations

from dataclasses import dataclass, field

from sslcst._section import Section, check_share
from sslcst.params import Sections


@dataclass(frozen=True, kw_only=True)
class DensityRuleParams(Section):
    """From the density of transcripts to cells.

    Parameters
    ----------
    threshold
        Bins with at least this probability belong to a cell.
    expression
        Whether a bin between several nuclei goes to the one whose expression profile fits its transcripts, rather than
        to the nearest. Makes cells purer where types interleave, and less right where neighbours are alike.
    """

    threshold: float = 0.5
    expression: bool = False

    def _check_bounds(self) -> None:
        check_share(self, "threshold")


@dataclass(frozen=True, kw_only=True)
class DensityParams(Sections):
    """All parameters of the density method."""

    density: DensityRuleParams = field(default_factory=DensityRuleParams)
