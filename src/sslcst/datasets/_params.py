"""The parameters of a simulated tissue, their bounds checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sslcst._section import check

_BOUNDS: dict[str, tuple[float, float]] = {
    "n_cells": (1, 10**7),
    "pixel_size": (1e-3, 1e3),
    "cell_diameter": (1e-2, 1e4),
    "coverage": (0.05, 0.95),
    "nuclear_shift": (0, 0.5),
    "n_genes": (1, 10**6),
    "n_types": (1, 10**4),
    "mixing": (0, 1),
    "counts_per_cell": (1, 1e6),
    "diffusion": (0, 1e3),
    "ambient": (0, 0.9),
    "seed": (0, 2**63 - 1),
}
_MIN_PIXELS_ACROSS = 8


@dataclass(frozen=True, kw_only=True)
class TissueParams:
    """What :func:`sslcst.datasets.simulate` is asked for, each value checked against its bounds."""

    n_cells: int = 400
    pixel_size: float = 0.5
    cell_diameter: float = 12.0
    coverage: float = 0.75
    nuclear_shift: float = 0.25
    n_genes: int = 200
    n_types: int = 5
    mixing: float = 0.15
    counts_per_cell: float = 300.0
    diffusion: float = 0.5
    ambient: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            check(low <= value <= high, name, value, f"must lie between {low:g} and {high:g}")
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
