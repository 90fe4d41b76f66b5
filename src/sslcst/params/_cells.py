"""From predictions to cells: prior, decoding and tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sslcst._section import Section, check, check_most, check_positive, check_share


@dataclass(frozen=True, kw_only=True)
class PriorParams(Section):
    """The expected cell radius and what follows from it (paper: eq. 13-15).

    Parameters
    ----------
    radius
        Expected cell radius r. ``None``: twice the median radius of the nuclei.
    sigma
        Tolerance, in units of r (paper: a quarter).
    direction
        Whether a spot's direction must be one in which a nucleus lies within r + sigma (eq. 13-15).
    density
        Weight, beside the network's, of what the density of transcripts tells of a spot's probability to lie in a
        cell. 0: the paper's, the network alone.
    """

    radius: float | None = None
    sigma: float = 0.25
    direction: bool = True
    density: float = 0.75

    def _check_bounds(self) -> None:
        check_positive(self, "radius")
        check(self.sigma >= 0, "sigma", self.sigma, "must not be negative")
        check_share(self, "density")
        check_most(self, radius=10**6, sigma=10)


@dataclass(frozen=True, kw_only=True)
class FlowParams(Section):
    """From predictions to cells: by the nuclei near each bin, or by smoothing and gradient flow tracking.

    Parameters
    ----------
    decoding
        ``"nuclei"``: each bin in a cell goes to one of the nuclei near it, by distance and by its transcripts.
        ``"flow"``: the paper's, the predicted directions are followed to a nucleus.
    smoothing
        Of the flow. ``"confidence"``: a spot's prediction gives way to its neighbours' as far as it is unsure.
        ``"mean"``: the paper's mean over the 3 x 3 bins around.
    threshold
        Spots with at least this probability belong to a cell.
    step
        Bins that one step of the tracking goes.
    orphans
        Keep cells that the flow forms around no nucleus, under ids of their own; only with ``decoding="flow"``.
    min_orphan_area
        Orphans of fewer bins are dropped.
    """

    decoding: Literal["nuclei", "flow"] = "nuclei"
    smoothing: Literal["confidence", "mean"] = "confidence"
    threshold: float = 0.5
    step: float = 2.0
    orphans: bool = False
    min_orphan_area: int = 50

    def _check_bounds(self) -> None:
        check(self.decoding in ("nuclei", "flow"), "decoding", self.decoding, "must be 'nuclei' or 'flow'")
        check(self.decoding == "flow" or not self.orphans, "orphans", self.orphans, 'needs flow.decoding="flow"')
        check(self.smoothing in ("confidence", "mean"), "smoothing", self.smoothing, "must be 'confidence' or 'mean'")
        check_share(self, "threshold")
        check(self.step >= 1, "step", self.step, "must be at least 1")
        check(self.min_orphan_area >= 1, "min_orphan_area", self.min_orphan_area, "must be at least 1")
        check_most(self, step=1000, min_orphan_area=10**9)


@dataclass(frozen=True, kw_only=True)
class TileParams(Section):
    """How a chip is cut. Memory depends on it, and the time a little; the result does not depend on `size`.

    Parameters
    ----------
    size
        Side of a tile in bins, rounded up to whole blocks.
    block
        Side in bins of the squares that go through the encoder at once; a multiple of 16. Rounding may depend on it.
    image_size
        Side in pixels of the tiles in which nuclei are segmented; an image no larger is segmented as one.
    """

    size: int = 2048
    block: int = 512
    image_size: int = 4096

    def _check_bounds(self) -> None:
        check_positive(self, "size", "block")
        check_most(self, size=2**20, block=2**16, image_size=2**20)
        check(self.block % 16 == 0, "block", self.block, "must be a multiple of 16")
        check(self.image_size >= 64, "image_size", self.image_size, "must be at least 64")
