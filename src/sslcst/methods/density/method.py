"""The density method: no network. In a cell or not by the density of transcripts, whose by the nearest nucleus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sslcst.core.cells import decide
from sslcst.core.density import cell_share
from sslcst.methods.base import Part, Pass, Window
from sslcst.methods.density.params import DensityParams
from sslcst.methods.levels import LevelsFit, LevelsMethod, density_halo


@dataclass(frozen=True)
class DensityFit(LevelsFit):
    """What the density of transcripts tells of a tissue."""

    method: ClassVar[str] = "density"


@dataclass(frozen=True)
class Density(LevelsMethod):
    """In a cell or not by the density of transcripts around each bin, whose by the nearest nucleus."""

    name: ClassVar[str] = "density"
    Params: ClassVar[type] = DensityParams
    Fit: ClassVar[type] = DensityFit

    @property
    def after_learning(self) -> set[str]:
        """The threshold."""
        return {"density.threshold"}

    @property
    def prediction(self) -> Pass:
        """The probability of each bin."""
        return Pass("cell probability", _probability, density_halo)

    def decide(self, window: Window, fit: DensityFit) -> np.ndarray:
        """Each bin that is likely in a cell goes to its nearest nucleus."""
        nearest, threshold = window.local_density.nuclei[0], self.params.density.threshold
        return decide(window.of_bins("probability"), nearest, window.nuclei, threshold=threshold)


def _probability(window: Window, fit: DensityFit) -> Part:
    share = cell_share(window.local_density, fit.levels, radius=window.tissue.radius)
    return Part(of_bins={"probability": share[window.own_bins].astype(np.float32)})
