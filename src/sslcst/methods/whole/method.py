"""Whole cells as they are: what the transcripts say changes none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sslcst.core.nuclei import choose_cell_method
from sslcst.methods.base import Fit, Method, Part, Pass, Tissue, Window
from sslcst.methods.whole.params import GivenParams, StainParams
from sslcst.params import NucleiParams


@dataclass(frozen=True)
class Given(Method):
    """Cells that others made."""

    name: ClassVar[str] = "given"
    Params: ClassVar[type] = GivenParams
    whole_cells: ClassVar[bool] = True

    def reach(self, max_distance: float | None, radius: float) -> float:
        """No farther than they do."""
        return 0.0

    @property
    def learning(self) -> Sequence[Pass]:
        """Nothing is."""
        return ()

    @property
    def prediction(self) -> Pass:
        """A bin whose middle lies in a cell surely lies in one."""
        return Pass("cell probability", self._inside)

    def halo(self, tissue: Tissue, fit: Fit) -> int:
        """A cell whose centroid lies in a window ends within its own length of it."""
        return tissue.extent + 1

    def decide(self, window: Window, fit: Fit) -> np.ndarray:
        """The cell in the middle of each bin."""
        return window.grid.from_raster(window.source.whole_cells(window.grid.pixels()))

    def label_pixels(self, window: Window, fit: Fit, nuclei: np.ndarray) -> np.ndarray:
        """The cells to the pixel, of which bins may be wider."""
        return window.source.whole_cells(window.grid.pixels())

    def _inside(self, window: Window, fit: Fit) -> Part:
        return Part(of_bins={"probability": (self.decide(window, fit) > 0)[window.own_bins].astype(np.float32)})


@dataclass(frozen=True)
class Stain(Given):
    """Cells that a network finds in a stain of membranes or cytoplasm."""

    name: ClassVar[str] = "stain"
    Params: ClassVar[type] = StainParams

    @property
    def cell_params(self) -> NucleiParams:
        """How, with the network named."""
        return choose_cell_method(self.params.stain)

    def about(self, model: None) -> dict[str, str]:
        """Which network it was."""
        return {"cells_by": self.cell_params.method}
