"""The parameters of a simulated tissue, their bounds checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real

from sslcst.errors import ParameterError

_BOUNDS: dict[str, tuple[type, float, float]] = {
    "n_cells": (Integral, 1, 10**7),
    "pixel_size": (Real, 1e-3, 1e3),
    "cell_diameter": (Real, 1e-2, 1e4),
    "coverage": (Real, 0.05, 0.95),
    "nuclear_shift": (Real, 0, 0.5),
    "n_genes": (Integral, 1, 10**6),
    "n_types": (Integral, 1, 10**4),
    "mixing": (Real, 0, 1),
    "counts_per_cell": (Real, 1, 1e6),
    "diffusion": (Real, 0, 1e3),
    "ambient": (Real, 0, 0.9),
    "seed": (Integral, 0, 2**63 - 1),
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
        for name in (field.name for field in fields(self)):
            kind, low, high = _BOUNDS[name]
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                number = "a whole number" if kind is Integral else "a number"
                raise ParameterError(f"{name}={value!r}: must be {number} from {low:g} to {high:g}.")
        if self.cell_diameter < _MIN_PIXELS_ACROSS * self.pixel_size:
            raise ParameterError(
                f"cell_diameter={self.cell_diameter!r} is below {_MIN_PIXELS_ACROSS} pixels of {self.pixel_size!r}, "
                "too small to hold a nucleus: take a larger cell_diameter or a smaller pixel_size."
            )

    @property
    def pixels_across(self) -> float:
        """Mean cell diameter in pixels."""
        return self.cell_diameter / self.pixel_size

    @property
    def field_shape(self) -> tuple[int, int]:
        """Shape (y, x) in pixels of the square field that `n_cells` fill to the share `coverage`."""
        side = round(self.pixels_across * math.sqrt(self.n_cells * math.pi / 4 / self.coverage))
        return side, side
