"""From samples and the features of their spots to a trained model (paper: Algorithm 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from sslcst.methods.ssl_cst.features import Features, crop_side
from sslcst.methods.ssl_cst.inputs import make_inputs
from sslcst.methods.ssl_cst.model import Model
from sslcst.methods.ssl_cst.params import SslCstParams
from sslcst.methods.ssl_cst.sampling import Samples, set_apart
from sslcst.methods.ssl_cst.training import Epoch, train_encoder

logger = logging.getLogger("sslcst")


def square_side(params: SslCstParams, radius: float) -> int:
    """Side in bins of the squares in which samples are drawn together, where r is `radius` bins; 1: each by itself."""
    return crop_side(params.training, radius) if params.encoder.kind == "field" else 1


def fit(
    key: np.ndarray,
    features: Features,
    samples: Samples,
    *,
    genes: Sequence[str],
    bin_size: float,
    radius: float,
    params: SslCstParams,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Model:
    """Train a model on samples, from the features of the spots around them and these spots' keys, ascending.

    `genes` are the names of those whose counts the features hold; a bin measures `bin_size` in units of the coordinate
    system, and r, the expected cell radius, `radius` bins. All else is as in `train_encoder`.
    """
    samples = set_apart(samples, params=params.sampling, whole_squares=params.encoder.kind == "field", seed=seed)
    encoder, history = train_encoder(
        make_inputs(params.encoder, features, radius=radius, device=device),
        np.searchsorted(key, samples.key),
        samples,
        n_genes=len(genes),
        encoder_params=params.encoder,
        params=params.training,
        seed=seed,
        device=device,
        on_epoch=on_epoch,
    )
    best = min(history, key=lambda epoch: epoch.validation_loss)
    logger.info(
        "Trained %d epochs on %d samples (%d positive); best epoch %d: %.2f of directions, %.3f of in or out right.",
        len(history),
        len(samples),
        samples.positive.sum(),
        best.epoch + 1,
        best.direction_accuracy,
        best.inside_accuracy,
    )
    return Model(
        encoder=encoder.cpu(),
        encoder_params=params.encoder,
        genes=tuple(genes),
        bin_size=float(bin_size),
        radius=float(radius),
        n_neighbors=params.inputs.n_neighbors,
        window=params.inputs.window,
        seed=seed,
        n_samples=int((~samples.validation).sum()),
        history=tuple(history),
    )
