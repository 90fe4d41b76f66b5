"""The parameters of a simulated tissue, their bounds checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sslcst._section import Section, bounded, check

_MIN_PIXELS_ACROSS = 8


@dataclass(frozen=True, kw_only=True)
class TissueParams(Section):
    """What :func:`sslcst.datasets.simulate` is asked for, each value checked against its bounds."""

    n_cells: int = bounded(400, between=(1, 10**7))
    pixel_size: float = bounded(0.5, between=(1e-3, 1e3))
    cell_diameter: float = bounded(12.0, between=(1e-2, 1e4))
    coverage: float = bounded(0.75, between=(0.05, 0.95))
    nuclear_shift: float = bounded(0.25, between=(0, 0.5))
    n_genes: int = bounded(200, between=(1, 10**6))
    n_types: int = bounded(5, between=(1, 10**4))
    mixing: float = bounded(0.15, between=(0, 1))
    counts_per_cell: float = bounded(300.0, between=(1, 1e6))
    diffusion: float = bounded(0.5, between=(0, 1e3))
    ambient: float = bounded(0.05, between=(0, 0.9))
    seed: int = bounded(0, between=(0, 2**63 - 1))

    def _check_bounds(self) -> None:
        rule = f"must be at least {_MIN_PIXELS_ACROSS} pixels of pixel_size={self.pixel_size!r}, to hold a nucleus"
        check(self.cell_diameter >= _MIN_PIXELS_ACROSS * self.pixel_size, "cell_diameter", self.cell_diameter, rule)

    @property
    def pixels_across(self) -> float:
        """Mean cell diameter in pixels."""
        return self.cell_diameter / self.pixel_size

    @property
    def field_shape(self) -> tuple[int, int]:
        """Shape (y, x) in pixels of the square field that `n_cells` fill to the share `coverage`."""
        side = round(self.pixels_across * math.sqrt(self.n_cells * math.pi / 4 / self.coverage))
        return side, side
