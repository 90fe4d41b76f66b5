"""The density method: no network. In a cell or not by the density of transcripts, whose by the nearest nucleus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from sslcst.core.cells import fill_holes, keep_attached
from sslcst.core.density import cell_share
from sslcst.core.spots import GeneMoments, Spots, take_genes
from sslcst.errors import DataError
from sslcst.methods.base import Part, Pass, Tissue, Window, gene_places, places_of
from sslcst.methods.density import composition
from sslcst.methods.density.params import DensityParams
from sslcst.methods.levels import LevelsFit, LevelsMethod, density_halo, number
from sslcst.methods.model_file import check_names


@dataclass(frozen=True)
class DensityFit(LevelsFit):
    """What the density of transcripts tells of a tissue."""

    method: ClassVar[str] = "density"

    #: Names of the genes by which neighbours are told apart; only with ``expression``
    genes: tuple[str, ...] | None = None
    trust: float = 0.0  #: How far these tell neighbours apart, see `composition.trust_of`

    def card(self) -> dict[str, Any]:
        """See `LevelsFit.card`."""
        return super().card() | {"genes": self.genes, "trust": self.trust}

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> DensityFit:
        """See `LevelsFit.of`."""
        check_names("the card", card, cls)
        levels = LevelsFit.of({name: card[name] for name in ("bin_size", "levels")})
        genes, trust = card["genes"], number("trust", card["trust"])
        if not (genes is None or (isinstance(genes, list) and genes and all(isinstance(name, str) for name in genes))):
            raise DataError("genes must be a list of names, or null.")
        return cls(**vars(levels), genes=None if genes is None else tuple(genes), trust=trust)


@dataclass(frozen=True)
class Density(LevelsMethod):
    """In a cell or not by the density of transcripts around each bin, whose by the nearest nucleus."""

    name: ClassVar[str] = "density"
    Params: ClassVar[type] = DensityParams
    Fit: ClassVar[type] = DensityFit

    @property
    def n_nearest(self) -> int:
        """The nearest nucleus, and with ``expression`` those that may be meant instead."""
        return 3 if self.params.density.expression else 1

    @property
    def learning(self) -> list[Pass]:
        """How densely transcripts lie, how much that varies, and with ``expression`` what genes tell."""
        if not self.params.density.expression:
            return super().learning
        return [
            *super().learning,
            Pass("variable genes", self._gene_moments, fit=self._variable_genes, reads=("spots",)),
            Pass("expression", self._ratios, self._expression_halo, self._trust, ("spots", "local_density")),
        ]

    @property
    def after_learning(self) -> set[str]:
        """The threshold, unless genes are learnt within it."""
        return set() if self.params.density.expression else {"density.threshold"}

    @property
    def prediction(self) -> Pass:
        """The probability of each bin."""
        return Pass("cell probability", self._probability, density_halo, reads=("local_density",))

    def halo(self, tissue: Tissue, fit: DensityFit) -> int:
        """A cell spans its nucleus, and the largest distance on either side."""
        own = int(np.ceil(tissue.extent + 2 * tissue.max_distance)) + 2
        return own + (self._expression_halo(tissue, fit) if self.params.density.expression else 0)

    def decide(self, window: Window, fit: DensityFit) -> np.ndarray:
        """Each bin that is likely in a cell goes to its nearest nucleus, or the one that its transcripts speak for."""
        around = window.local_density
        inside = self._inside(window)
        owner = around.nuclei[0]
        if self.params.density.expression:
            likelihood = self._compare(window, fit, inside)
            owner = composition.assign_bins(around, likelihood, fit.trust, radius=window.tissue.radius)
        return fill_holes(keep_attached(np.where(inside, owner, 0), window.nuclei))

    def fit_of(self, model: DensityFit, tissue: Tissue) -> DensityFit:
        """The levels of a tissue whose bins are as large and, with ``expression``, that has most of the genes."""
        super().fit_of(model, tissue)
        if self.params.density.expression:
            if model.genes is None:
                raise DataError("The model was learnt without density.expression: learn it with that, or leave it off.")
            places_of(model.genes, tissue.genes)
        return model

    def about(self, model: DensityFit) -> dict[str, Any]:
        """The levels and, with ``expression``, the trust in genes."""
        return super().about(model) | ({"trust": model.trust} if self.params.density.expression else {})

    def _probability(self, window: Window, fit: DensityFit) -> Part:
        share = cell_share(window.local_density, fit.levels, radius=window.tissue.radius)
        return Part(of_bins={"probability": share[window.own_bins].astype(np.float32)})

    def _gene_moments(self, window: Window, fit: DensityFit) -> Part:
        return Part(vars(GeneMoments.of(window.spots)))

    def _variable_genes(self, parts: Sequence[dict], tissue: Tissue, fit: DensityFit) -> DensityFit:
        moments = reduce(add, (GeneMoments(int(p["n_blocks"]), p["total"], p["squares"]) for p in parts))
        return replace(fit, genes=tuple(map(str, tissue.genes[moments.variable(composition.N_GENES)])))

    def _ratios(self, window: Window, fit: DensityFit) -> Part:
        radius = window.tissue.radius
        share = cell_share(window.local_density, fit.levels, radius=radius)
        inside = (share >= self.params.density.threshold) | (window.nuclei > 0)
        likelihood = self._compare(window, fit, inside)
        ratios = composition.tally_ratios(
            window.local_density, likelihood, inside, radius=radius, owned=window.own_bins
        )
        return Part({"ratios": ratios})

    def _trust(self, parts: Sequence[dict], tissue: Tissue, fit: DensityFit) -> DensityFit:
        return replace(fit, trust=composition.trust_of(sum(part["ratios"] for part in parts)))

    def _inside(self, window: Window) -> np.ndarray:
        return (window.of_bins("probability") >= self.params.density.threshold) | (window.nuclei > 0)

    def _compare(self, window: Window, fit: DensityFit, inside: np.ndarray) -> np.ndarray:
        spots, tissue = window.spots, window.tissue
        places = gene_places(fit.genes, tissue.genes)
        genes = places[places >= 0]
        chosen = Spots(spots.grid, spots.index, take_genes(spots.counts, genes))
        total = tissue.gene_total[genes]
        return composition.compare_profiles(
            window.local_density, chosen, inside, gene_total=total, radius=window.tissue.radius
        )

    def _expression_halo(self, tissue: Tissue, fit: DensityFit) -> int:
        return composition.halo(tissue.extent, radius=tissue.radius, reach=tissue.max_distance)
