"""The parameters of the cell network."""

from __future__ import annotations

from dataclasses import dataclass, field

from sslcst._section import Section, bounded
from sslcst.params import Sections


@dataclass(frozen=True, kw_only=True)
class NetworkRuleParams(Section):
    """From the network's predictions to cells.

    Parameters
    ----------
    threshold
        Bins with at least this probability belong to a cell.
    trust
        Weight of the network in the probability. The density of transcripts and the usual reach of cells, 0.4 times the
        diameter of a nucleus, share what is left. 1: the network alone, best where tissue is like that which it was
        trained on.
    expression
        Whether transcripts say by their genes, too, whose a bin is, as far as expression profiles tell neighbours apart
        in this tissue. Makes cells purer where types interleave. False saves time.
    model
        Path of other weights that `benchmarks/train_cells.py` made. ``None``: those that come with the package.
    """

    threshold: float = bounded(0.5, between=(0, 1))
    trust: float = bounded(1 / 3, between=(0, 1))
    expression: bool = True
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkParams(Sections):
    """All parameters of the cell network."""

    network: NetworkRuleParams = field(default_factory=NetworkRuleParams)
