"""The parameters of a simulated tissue, their bounds checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from sslcst._section import check

_MIN_PIXELS_ACROSS = 8


def _within(low: float, high: float, default: float) -> Any:
    """A field that lies between bounds."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class TissueParams:
    """What :func:`sslcst.datasets.simulate` is asked for, each value checked against its bounds."""

    n_cells: int = _within(1, 10**7, 400)
    pixel_size: float = _within(1e-3, 1e3, 0.5)
    cell_diameter: float = _within(1e-2, 1e4, 12.0)
    coverage: float = _within(0.05, 0.95, 0.75)
    nuclear_shift: float = _within(0, 0.5, 0.25)
    n_genes: int = _within(1, 10**6, 200)
    n_types: int = _within(1, 10**4, 5)
    mixing: float = _within(0, 1, 0.15)
    counts_per_cell: float = _within(1, 1e6, 300.0)
    diffusion: float = _within(0, 1e3, 0.5)
    ambient: float = _within(0, 0.9, 0.05)
    seed: int = _within(0, 2**63 - 1, 0)

    def __post_init__(self) -> None:
        for each in fields(self):
            value, low, high = getattr(self, each.name), each.metadata["low"], each.metadata["high"]
            check(low <= value <= high, each.name, value, f"must lie between {low:g} and {high:g}")
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
