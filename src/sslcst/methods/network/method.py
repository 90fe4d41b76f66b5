"""The cell network: trained once on real cells, it reads nuclei, distances and densities, and no genes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sslcst.methods.base import Part, Pass, Tissue, Window
from sslcst.methods.levels import LevelsFit, LevelsMethod
from sslcst.methods.network.cells import decide, halo
from sslcst.methods.network.inputs import REACH
from sslcst.methods.network.load import load_network, read_card
from sslcst.methods.network.params import NetworkParams
from sslcst.methods.network.predict import HALO, predict_cells


@dataclass(frozen=True)
class NetworkFit(LevelsFit):
    """What the network is told of a tissue as a whole."""

    method: ClassVar[str] = "network"


@dataclass(frozen=True)
class Network(LevelsMethod):
    """In a cell or not, and whose, by a network that was trained on real cells of other tissues."""

    name: ClassVar[str] = "network"
    Params: ClassVar[type] = NetworkParams
    Fit: ClassVar[type] = NetworkFit
    max_distance: ClassVar[float] = REACH

    @property
    def after_learning(self) -> set[str]:
        """All but what the densities are measured with."""
        return {"network.threshold", "network.trust", "network.model"}

    @property
    def prediction(self) -> Pass:
        """The probability of each bin, and whose it would be."""
        return Pass("cell probability", self._predict, lambda *_: HALO, reads=("local_density",))

    def halo(self, tissue: Tissue, fit: NetworkFit) -> int:
        """A cell spans its nucleus, and the largest distance on either side."""
        return halo(tissue.extent, reach=tissue.max_distance)

    def decide(self, window: Window, fit: NetworkFit) -> np.ndarray:
        """Each bin that is likely in a cell goes to the nucleus that the network prefers."""
        probability, owner = window.of_bins("probability"), window.of_bins("owner").astype(np.uint32)
        return decide(probability, owner, window.nuclei, threshold=self.params.network.threshold)

    def about(self, model: NetworkFit) -> dict[str, Any]:
        """The levels, and which weights."""
        card = read_card(self._weights)
        return super().about(model) | {"network": {"format": card["format"], "sha256": card["sha256"]}}

    @property
    def _weights(self) -> Path | None:
        model = self.params.network.model
        return None if model is None else Path(model)

    def _predict(self, window: Window, fit: NetworkFit) -> Part:
        around, tissue = window.local_density, window.tissue
        probability, owner = predict_cells(
            load_network(self.device, self._weights),
            around.counts,
            window.nuclei,
            fit.levels,
            radius=tissue.radius,
            trust=self.params.network.trust,
            corner=tuple(start for start, _ in window.ranges),
            own=window.own,
            whole=tissue.grid.whole_shape,
        )
        near = around.distance[0][window.own_bins] <= tissue.max_distance
        return Part(of_bins={"probability": np.where(near, probability, np.float32(0)), "owner": owner})
