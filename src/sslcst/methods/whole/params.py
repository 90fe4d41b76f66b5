"""The parameters of cells that are found in a stain; given ones have none."""

from __future__ import annotations

from dataclasses import dataclass, field

from sslcst._section import bounded, check
from sslcst.core.nuclei import CELL_BACKENDS
from sslcst.params import NucleiParams, Sections


@dataclass(frozen=True, kw_only=True)
class GivenParams(Sections):
    """Given cells have no parameters of their own."""


@dataclass(frozen=True, kw_only=True)
class CellStainParams(NucleiParams):
    """Whole cells in a stain of membranes or cytoplasm, beside one of nuclei.

    Parameters
    ----------
    method
        ``"cellpose"`` or ``"instanseg"``. ``None`` takes the one that is installed, and of both Cellpose.
    model
        What the method calls its models, or the path of weights that fit it; only with a method. ``None`` takes the
        method's default: ``"cyto2"`` with cellpose 3, ``"cpsam"`` with cellpose 4, ``"fluorescence_nuclei_and_cells"``
        of InstanSeg.
    diameters
        Expected cell diameters. With several, each is tried and the one whose cells cover most is kept; empty: twice
        that of the median nucleus.
    flow_threshold
        Cellpose: largest flow error of a cell that is kept.
    cellprob_threshold
        Cellpose: pixels above it are foreground.
    percentiles
        Intensity percentiles of the whole of each channel that become 0 and 1.
    """

    flow_threshold: float = bounded(0.4, above=0, most=1000)

    def _check_bounds(self) -> None:
        super()._check_bounds()
        check(self.method in (None, *CELL_BACKENDS), "method", self.method, f"must be one of {CELL_BACKENDS}")
        check(self.method is not None or self.model is None, "model", self.model, "say whose it is with method")


@dataclass(frozen=True, kw_only=True)
class StainParams(Sections):
    """All parameters of cells that are found in a stain."""

    stain: CellStainParams = field(default_factory=CellStainParams)
