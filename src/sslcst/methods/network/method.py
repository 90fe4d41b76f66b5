"""The cell network: trained once on real cells, it reads nuclei, distances and densities; genes are heard beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sslcst.core.cells import decide
from sslcst.methods.base import Part, Pass, Tissue, Window
from sslcst.methods.levels import LevelsFit, LevelsMethod
from sslcst.methods.network.blocks import MARGIN, halo_of
from sslcst.methods.network.expression import NO_RATIOS, Expression, draw_blocks, tally_ratios, weight_of
from sslcst.methods.network.inputs import REACH
from sslcst.methods.network.load import load_network, read_card
from sslcst.methods.network.params import NetworkParams
from sslcst.methods.network.predict import predict_cells


@dataclass(frozen=True)
class NetworkFit(LevelsFit):
    """What the network is told of a tissue as a whole."""

    method: ClassVar[str] = "network"

    profiles: float = 0.0  #: How far expression profiles tell neighbours apart, see `expression.weight_of`


@dataclass(frozen=True)
class Network(LevelsMethod):
    """In a cell or not, and whose, by a network that was trained on real cells of other tissues."""

    name: ClassVar[str] = "network"
    Params: ClassVar[type] = NetworkParams
    Fit: ClassVar[type] = NetworkFit
    max_distance: ClassVar[float] = REACH

    def __post_init__(self) -> None:
        if self._weights is not None:
            load_network(self.device, self._weights)  # what is missing is known before any work

    @property
    def learning(self) -> list[Pass]:
        """What the density of transcripts tells, and how far expression profiles tell neighbours apart."""
        return [*super().learning, Pass("expression profiles", self._tally_ratios, _halo, _with_profiles)]

    @property
    def after_learning(self) -> set[str]:
        """All: what is measured depends on none."""
        return {f"network.{name}" for name in vars(self.params.network)}

    @property
    def prediction(self) -> Pass:
        """The probability of each bin, and whose it would be."""
        return Pass("cell probability", self._predict, _halo)

    def decide(self, window: Window, fit: NetworkFit) -> np.ndarray:
        """Each bin that is likely in a cell goes to the nucleus that the network prefers."""
        probability, owner = window.of_bins("probability"), window.of_bins("owner").astype(np.uint32)
        return decide(probability, owner, window.nuclei, threshold=self.params.network.threshold)

    def about(self, model: NetworkFit) -> dict[str, Any]:
        """The levels, what expression profiles tell, and which weights."""
        network = {name: read_card(self._weights)[name] for name in ("format", "sha256")}
        return super().about(model) | {"profiles": model.profiles, "network": network}

    @property
    def _weights(self) -> Path | None:
        model = self.params.network.model
        return None if model is None else Path(model).expanduser()

    def _tally_ratios(self, window: Window, fit: NetworkFit) -> Part:
        tissue, ratios = window.tissue, NO_RATIOS
        for block in draw_blocks(window.own, tissue.grid.whole_shape, tissue.centers, seed=self.seed):
            part = window.part(block, MARGIN)
            seen = Expression(part.spots, tissue.gene_total), part.local_density.counts, part.nuclei
            place = {"radius": tissue.radius, "corner": part.corner, "own": window.own}
            ratios = ratios + tally_ratios(*seen, fit.levels, block, **place)
        return Part({"ratios": ratios})

    def _predict(self, window: Window, fit: NetworkFit) -> Part:
        around, expression = window.local_density, None
        if self.params.network.expression and fit.profiles > 0:
            expression = Expression(window.spots, window.tissue.gene_total, fit.profiles)
        probability, owner = predict_cells(
            load_network(self.device, self._weights),
            around.counts,
            window.nuclei,
            fit.levels,
            trust=self.params.network.trust,
            expression=expression,
            radius=window.tissue.radius,
            corner=window.corner,
            own=window.own,
            whole=window.tissue.grid.whole_shape,
        )
        near = around.distance[0][window.own_bins] <= window.tissue.max_distance
        return Part(of_bins={"probability": np.where(near, probability, np.float32(0)), "owner": owner})


def _halo(tissue: Tissue, fit: NetworkFit) -> int:
    return halo_of(tissue.block)


def _with_profiles(parts: Sequence[dict], tissue: Tissue, fit: NetworkFit) -> NetworkFit:
    return replace(fit, profiles=weight_of(sum(part["ratios"] for part in parts)))
