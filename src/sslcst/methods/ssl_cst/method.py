"""SSL-CST, the paper's method: cores, samples, encoder, training, posterior, flow (Huo, Zhang, Wang & Zhang 2026)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sslcst.core.geometry import nearest_centroid
from sslcst.core.spots import GeneMoments, Grid, Spots, in_ranges, take_genes, widened
from sslcst.methods.base import Method, Part, Pass, Tissue, Window, check_scale
from sslcst.methods.model_file import read_model, write_model
from sslcst.methods.ssl_cst.cores import MARGIN, cores_of
from sslcst.methods.ssl_cst.features import Features, Gathering, gather, join
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.inputs import make_inputs
from sslcst.methods.ssl_cst.model import Model, model_of, places_of, weights_of
from sslcst.methods.ssl_cst.params import FlowParams, SslCstParams
from sslcst.methods.ssl_cst.prior import direction_posterior, direction_prior
from sslcst.methods.ssl_cst.sampling import Samples, Survey, choose_samples, draw, relate, survey
from sslcst.methods.ssl_cst.tracking import check_ids, find_cells, halo
from sslcst.methods.ssl_cst.training import fit, square_side

logger = logging.getLogger("sslcst")

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class SslCstFit:
    """What the passes lead to, one after the other."""

    surveyed: Survey | None = None  #: What "little expression" and "far" mean in the tissue
    genes: np.ndarray | None = None  #: Indices of the genes that the encoder reads
    samples: Samples | None = None  #: Positive and negative samples
    model: Model | None = None  #: The trained encoder
    #: Where the model's genes are among those of the tissue, -1 for one that is not there
    places: np.ndarray | None = None


@dataclass(frozen=True)
class SslCst(Method):
    """Each spot's direction to its nucleus, and whether it lies in a cell, learnt from cores and from far spots."""

    name: ClassVar[str] = "ssl-cst"
    Params: ClassVar[type] = SslCstParams
    bytes_per_spot: ClassVar[int] = 750
    has_weights: ClassVar[bool] = True

    def check_grid(self, grid: Grid, first_free_id: int) -> None:
        """Cells without a nucleus need ids."""
        if self.params.flow.orphans:
            check_ids(grid, first_free_id)

    @property
    def learning(self) -> Sequence[Pass]:
        """Cores and a survey, the samples, and what is around them to learn from."""
        window = self.params.inputs.window
        return [
            Pass("cores", self._survey, lambda *_: MARGIN, self._surveyed),
            Pass("samples", self._offer, lambda *_: MARGIN, self._draw),
            Pass("training batches", self._gather, lambda *_: window, self._train),
        ]

    @property
    def anywhere(self) -> bool:
        """Cells without a nucleus, on request."""
        return self.params.flow.orphans

    @property
    def after_learning(self) -> set[str]:
        """How the directions are followed."""
        return {f"flow.{each.name}" for each in fields(FlowParams)}

    @property
    def prediction(self) -> Pass:
        """Directions and probabilities of the spots."""
        return Pass("prediction", self._predict, self._seen_by_encoder)

    def halo(self, tissue: Tissue, fit: SslCstFit) -> int:
        """As far as the flow of a cell reaches."""
        flow = self.params.flow
        return halo(tissue.extent, reach=tissue.max_distance, spacing=tissue.spacing, orphans=flow.orphans)

    def decide(self, window: Window, fit: SslCstFit) -> np.ndarray:
        """Follow the directions to the nuclei."""
        tissue = window.tissue
        return find_cells(
            window.places,
            direction=window.of_spots("direction"),
            inside=window.of_spots("probability"),
            nuclei=window.nuclei,
            reach=tissue.max_distance,
            spacing=tissue.spacing,
            first_orphan=tissue.first_free_id,
            params=self.params.flow,
        )

    def model(self, fit: SslCstFit) -> Model:
        """The trained encoder."""
        return fit.model

    def fit_of(self, model: Model, tissue: Tissue) -> SslCstFit:
        """A model for spots of the same size, most of whose genes are there."""
        check_scale(model.bin_size, tissue.grid)
        return SslCstFit(model=model, places=places_of(model.genes, tissue.genes))

    def keep(self, model: Model, folder: Path) -> None:
        """The model as a file."""
        write_model(model, folder / _MODEL)

    def recall(self, folder: Path) -> Model:
        """The model of `keep`."""
        return read_model(folder / _MODEL)

    @classmethod
    def pack(cls, model: Model) -> tuple[dict[str, Any], bytes]:
        """All of the model but its weights, and these."""
        return model.card(), weights_of(model)

    @classmethod
    def unpack(cls, card: Mapping[str, Any], weights: bytes | None) -> Model:
        """The model of `pack`."""
        return model_of(card, weights)

    def about(self, model: Model) -> dict[str, Any]:
        """The model's seed and hash, and how its training went."""
        history = [asdict(epoch) for epoch in model.history]
        return {
            "model": {"seed": model.seed, "sha256": model.sha256()},
            "history": {name: [epoch[name] for epoch in history] for name in history[0]},
        }

    def _survey(self, window: Window, fit: None) -> Part:
        tissue, spots = window.tissue, window.spots
        cores, n_small, n_irregular = cores_of(window, self.params.erosion, self.seed)
        relations = relate(spots, window.nuclei, cores, tissue.regions)
        surveyed = survey(spots, relations, radius=tissue.radius, params=self.params.sampling, owned=window.owned)
        own = Spots(tissue.grid.view(window.own), spots.index[window.owned], spots.counts[window.owned])
        statistics = vars(surveyed) | vars(GeneMoments.of(own)) | {"n_small": n_small, "n_irregular": n_irregular}
        return Part(statistics, of_spots={"core": relations.core[window.owned]})

    def _surveyed(self, parts: Sequence[dict], tissue: Tissue, fit: None) -> SslCstFit:
        n_small, n_irregular = (sum(int(part[name]) for part in parts) for name in ("n_small", "n_irregular"))
        n_nuclei = len(tissue.regions)
        logger.info(
            "%d of %d nuclei have a core to learn from; dropped: %d too small, %d too irregular.",
            n_nuclei - n_small - n_irregular,
            n_nuclei,
            n_small,
            n_irregular,
        )
        surveyed, moments = (
            reduce(add, (kind(**{each.name: part[each.name] for each in fields(kind)}) for part in parts))
            for kind in (Survey, GeneMoments)
        )
        return SslCstFit(surveyed, moments.variable(self.params.inputs.n_genes))

    def _offer(self, window: Window, fit: SslCstFit) -> Part:
        radius, spots = window.tissue.radius, window.spots
        cores = spots.on_grid(window.of_spots("core"), 0)
        samples = choose_samples(
            spots,
            relate(spots, window.nuclei, cores, window.tissue.regions),
            fit.surveyed,
            radius=radius,
            params=self.params.sampling,
            square=square_side(self.params, radius),
            seed=self.seed,
            owned=window.owned,
        )
        return Part(vars(samples))

    def _draw(self, parts: Sequence[dict], tissue: Tissue, fit: SslCstFit) -> SslCstFit:
        whole_squares = square_side(self.params, tissue.radius) > 1
        offers = [Samples(**part) for part in parts]
        samples = draw(offers, params=self.params.sampling, whole_squares=whole_squares, seed=self.seed)
        return replace(fit, samples=samples)

    def _gather(self, window: Window, fit: SslCstFit) -> Part:
        spots, radius = window.spots, window.tissue.radius
        counts, distance = take_genes(spots.counts, fit.genes), self._distance(window)
        gathered = gather(spots, fit.samples, counts, distance, radius=radius, params=self.params, owned=window.owned)
        return Part(vars(gathered))

    def _train(self, parts: Sequence[dict], tissue: Tissue, so_far: SslCstFit) -> SslCstFit:
        with self.progress("train", self.params.training.max_epochs, unit="epoch") as bar:
            model = fit(
                *join([Gathering(**part) for part in parts]),
                so_far.samples,
                genes=tissue.genes[so_far.genes].tolist(),
                bin_size=tissue.grid.bin_size,
                radius=tissue.radius,
                params=self.params,
                seed=self.seed,
                device=self.device,
                on_epoch=lambda epoch: bar and bar.update(),
            )
        return self.fit_of(model, tissue)

    def _seen_by_encoder(self, tissue: Tissue, fit: SslCstFit) -> int:
        layers = fit.model.encoder_params.depth if fit.model.encoder_params.kind == "field" else 1
        return layers * fit.model.window

    def _predict(self, window: Window, fit: SslCstFit) -> Part:
        model, spots, tissue = fit.model, window.spots, window.tissue
        features = Features.of(
            spots,
            counts=take_genes(spots.counts, fit.places),
            distance=self._distance(window),
            n_neighbors=model.n_neighbors,
            window=model.window,
        )
        inputs = make_inputs(model.encoder_params, features, radius=model.radius, device=self.device)
        encoder = model.encoder.to(self.device)
        direction, inside = predict_spots(encoder, inputs, block=tissue.block, wanted=window.owned)
        reach, centers = tissue.max_distance, tissue.centers
        near = in_ranges(centers, widened(window.own, reach + 1))
        prior = direction_prior(spots.index[window.owned] + 0.5, centers[near], reach)
        return Part(of_spots={"direction": direction_posterior(direction, prior), "probability": inside})

    def _distance(self, window: Window) -> np.ndarray:
        return nearest_centroid(window.spots.index + 0.5, window.tissue.centers)[1]
