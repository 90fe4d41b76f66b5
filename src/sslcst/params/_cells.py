"""How large cells are, and how a tissue is cut."""

from __future__ import annotations

from dataclasses import dataclass

from sslcst._section import Section, check, check_most, check_positive


@dataclass(frozen=True, kw_only=True)
class CellParams(Section):
    """How large cells are expected to be.

    Parameters
    ----------
    radius
        Expected cell radius r. ``None``: twice the median radius of the nuclei.
    max_distance
        How far from its nucleus a cell may reach, in units of r. ``None``: as the method has it, 1.25 with
        ``"density"`` and ``"ssl-cst"`` (paper: r + sigma, with a sigma of r / 4), and 2 with ``"network"``.
    min_counts, min_area
        Cells of fewer molecules, or of a smaller area in square units of the coordinate system, are left out of all
        results, with their nuclei. 0: none is.
    """

    radius: float | None = None
    max_distance: float | None = None
    min_counts: int = 0
    min_area: float = 0.0

    def _check_bounds(self) -> None:
        check_positive(self, "radius")
        check_most(self, radius=10**6, max_distance=10, min_counts=2**32, min_area=10**12)
        for name in ("min_counts", "min_area"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        far = self.max_distance
        check(far is None or far >= 1, "max_distance", far, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TileParams(Section):
    """How a tissue is cut. Memory depends on it, and the time a little; the result does not depend on `size`.

    Parameters
    ----------
    size
        Side of a tile in bins, rounded up to whole blocks.
    block
        Side in bins of the squares that go through a network at once; a multiple of 16. Rounding may depend on it.
    image_size
        Side in pixels of the tiles in which nuclei are segmented; an image no larger is segmented as one.
    """

    size: int = 2048
    block: int = 512
    image_size: int = 2048

    def _check_bounds(self) -> None:
        check_positive(self, "size", "block")
        check_most(self, size=2**20, block=2**16, image_size=2**20)
        check(self.block % 16 == 0, "block", self.block, "must be a multiple of 16")
        check(self.image_size >= 64, "image_size", self.image_size, "must be at least 64")
