"""Algorithm 2: training of the encoder on the samples, with early stopping."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import cos, pi

import numpy as np
import torch
from torch.nn import functional as F

from sslcst.core.threads import aside
from sslcst.errors import TrainingError
from sslcst.methods.ssl_cst.encoder import Encoder, Field, Tokens, make_encoder
from sslcst.methods.ssl_cst.features import Features, crop_side
from sslcst.methods.ssl_cst.inputs import BLOCK, GeneCounts, Inputs, Targets, make_inputs
from sslcst.methods.ssl_cst.model import Epoch, Model
from sslcst.methods.ssl_cst.params import EncoderParams, SslCstParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import Samples, set_apart

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


def train_encoder(
    inputs: Inputs,
    spot: np.ndarray,
    samples: Samples,
    *,
    n_genes: int,
    encoder_params: EncoderParams = EncoderParams(),
    params: TrainingParams = TrainingParams(),
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Encoder, list[Epoch]]:
    """Train an encoder for `n_genes` genes; the state of the epoch with the lowest validation loss is returned.

    `inputs` are the features of the spots, on the device where to train; `spot` is the index of each sample's among
    them, int64 (m,). The seed is that of the weights, the order of the samples, the reparameterisation and the dropout:
    it gives the same weights on the same machine, whatever else the process does, and torch's own random state is
    neither read nor changed. A `TrainingError` says that the loss is not a finite number.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder = make_encoder(n_genes, encoder_params, generator).to(device)
    noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    # The first one loads torch._dynamo.
    optimizer = aside(torch.optim.Adam, encoder.parameters(), lr=params.learning_rate)
    training, validation = (_targets(spot, samples, samples.validation == held, device) for held in (False, True))
    history: list[Epoch] = []
    best = None
    for epoch in range(params.max_epochs):
        train_loss = _one_epoch(encoder, optimizer, inputs, training, params, epoch, noise)
        history.append(Epoch(epoch, train_loss, *_validate(encoder, inputs, validation)))
        on_epoch(history[-1])
        if not np.isfinite([history[-1].train_loss, history[-1].validation_loss]).all():
            raise TrainingError(
                f"The loss became {train_loss} (validation: {history[-1].validation_loss}) in epoch "
                f"{epoch}: lower training.learning_rate."
            )
        losses = [e.validation_loss for e in history]
        if best is None or losses[-1] < min(losses[:-1]):
            best = {name: value.clone() for name, value in encoder.state_dict().items()}
        if epoch - int(np.argmin(losses)) >= params.patience:
            break
    encoder.load_state_dict(best)
    return encoder.eval(), history


def losses(
    direction: torch.Tensor, inside: torch.Tensor, direction_class: torch.Tensor, is_inside: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the direction over the samples that have one, plus L_y of in or out (Algorithm 2, line 17)."""
    has_direction = (direction_class >= 0).sum().clamp_min(1)
    direction_loss = F.cross_entropy(direction, direction_class, ignore_index=-1, reduction="sum") / has_direction
    return direction_loss + F.binary_cross_entropy_with_logits(inside, is_inside)


def forward(
    encoder: Encoder, counts: GeneCounts, batch: Tokens | Field, noise: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a batch, the expression of each distinct spot among its tokens embedded once; `noise` in training."""
    if isinstance(batch, Field):  # each spot is one token
        return encoder(batch, encoder.embed_expression(counts, batch.spot), noise)
    rows, token_row = torch.unique(batch.spot, return_inverse=True)
    return encoder(batch, F.embedding(token_row, encoder.embed_expression(counts, rows)), noise)


def _targets(spot: np.ndarray, samples: Samples, which: np.ndarray, device: str) -> Targets:
    parts = spot[which], samples.direction[which], samples.inside[which].astype(np.float32)
    return Targets(*(torch.from_numpy(part).to(device) for part in parts))


def _one_epoch(encoder, optimizer, inputs, targets, params, epoch, noise) -> float:
    """One pass over the samples, or as many as make `params.min_steps` steps; the mean loss."""
    rate = params.learning_rate
    if params.schedule == "cosine":
        rate *= (1 + cos(pi * epoch / params.max_epochs)) / 2
    total, n_samples, step = torch.zeros((), device=targets.spot.device), 0, 0
    while step < params.min_steps:
        for batch, truth in inputs.training_batches(targets, params, noise):
            step += 1
            warm = 1.0 if epoch else min(1.0, step / params.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm
            loss = losses(*forward(encoder, inputs.counts, batch, noise), truth.direction, truth.inside)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(truth.spot)
            n_samples += len(truth.spot)
    return float(total / n_samples)


@torch.no_grad()
def _validate(encoder, inputs, targets) -> tuple[float, float, float]:
    """Loss, accuracy of in/out and accuracy of the direction."""
    parts = [(*forward(encoder, inputs.counts, batch), places) for batch, places in inputs.cover(targets.spot, BLOCK)]
    direction, inside, places = (torch.cat(part) for part in zip(*parts, strict=True))
    _, direction_class, is_inside = (part[places] for part in targets)
    known = direction_class >= 0
    right = direction.argmax(dim=1) == direction_class
    return (
        float(losses(direction, inside, direction_class, is_inside)),
        float(((inside > 0) == (is_inside >= 0.5)).float().mean()),
        float(right[known].float().mean()) if known.any() else float("nan"),
    )
