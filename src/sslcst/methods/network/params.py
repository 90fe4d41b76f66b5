"""The parameters of the cell network."""

from __future__ import annotations

from dataclasses import dataclass, field

from sslcst._section import Section, check_share
from sslcst.params import Sections


@dataclass(frozen=True, kw_only=True)
class NetworkRuleParams(Section):
    """From the network's predictions to cells.

    Parameters
    ----------
    threshold
        Bins with at least this probability belong to a cell.
    model
        Path of other weights that `benchmarks/train_cells.py` made. ``None``: those that come with the package.
    """

    threshold: float = 0.5
    model: str | None = None

    def _check_bounds(self) -> None:
        check_share(self, "threshold")


@dataclass(frozen=True, kw_only=True)
class NetworkParams(Sections):
    """All parameters of the cell network."""

    network: NetworkRuleParams = field(default_factory=NetworkRuleParams)
