"""Two passes that several methods share: how densely transcripts lie in cells and outside, and how much that varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from sslcst.core.density import Levels, Rings, halo, levels_of, tally_rings, tally_spread, with_spread
from sslcst.methods.base import Part, Pass, Tissue, Window, check_scale


@dataclass(frozen=True)
class LevelsFit:
    """What the density of transcripts tells of a tissue; each method has a class of its own, which names it.

    Parameters
    ----------
    bin_size
        Side of the bins in units of the coordinate system.
    levels
        Densities in cells and outside, and how far cells reach.
    """

    bin_size: float
    levels: Levels

    def check(self, tissue: Tissue) -> None:
        """Raise `DataError` unless the bins of a tissue are as large."""
        check_scale(self.bin_size, tissue.grid)


def level_passes(kind: type[LevelsFit]) -> list[Pass]:
    """The passes that lead to a fit of this kind."""

    def found(parts: Sequence[dict], tissue: Tissue, fit: None) -> LevelsFit:
        rings = reduce(add, (Rings(**part) for part in parts))
        return kind(tissue.grid.bin_size, levels_of(rings, radius=tissue.radius))

    return [
        Pass("density of transcripts", _tally_rings, fit=found, reads=("local_density",)),
        Pass("spread of density", _tally_spread, density_halo, _with_spread, ("local_density",)),
    ]


def density_halo(tissue: Tissue, fit: LevelsFit) -> int:
    """Bins beyond a window whose local density bears on the density of its cells."""
    return halo(tissue.extent, radius=tissue.radius, max_distance=tissue.max_distance)


def _tally_rings(window: Window, fit: None) -> Part:
    return Part(vars(tally_rings(window.local_density, reach=window.tissue.max_distance, owned=window.own_bins)))


def _tally_spread(window: Window, fit: LevelsFit) -> Part:
    tally = tally_spread(window.local_density, fit.levels, radius=window.tissue.radius, owned=window.own_bins)
    return Part({"tally": tally})


def _with_spread(parts: Sequence[dict], tissue: Tissue, fit: LevelsFit) -> LevelsFit:
    return replace(fit, levels=with_spread(fit.levels, sum(part["tally"] for part in parts)))
