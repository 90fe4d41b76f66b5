"""Algorithm 2: training of the encoder on the samples, with early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch.nn import functional as F

from sslcst.errors import TrainingError
from sslcst.methods.ssl_cst.encoder import Encoder, Field, Tokens, make_encoder
from sslcst.methods.ssl_cst.inputs import BLOCK, GeneCounts, Inputs, Targets
from sslcst.methods.ssl_cst.params import EncoderParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import Samples


@dataclass(frozen=True)
class Epoch:
    """How training stood after an epoch; accuracies are of the validation samples."""

    epoch: int
    train_loss: float
    validation_loss: float
    inside_accuracy: float
    direction_accuracy: float


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
    """Train an encoder; the state of the epoch with the lowest validation loss is returned.

    Parameters
    ----------
    inputs
        Features of the spots, on `device`, for the kind of encoder.
    spot
        Index of each sample's spot among those of `inputs`, int64 (m,).
    samples
        What the m samples teach.
    n_genes
        Genes that `inputs` reads.
    encoder_params, params
        The network, and the optimiser's settings.
    seed
        Of the weights, the order of the samples, the reparameterisation and the dropout. The same seed gives the same
        weights on the same machine, whatever else the process does; torch's own random state is neither read nor
        changed.
    device
        Where to train.
    on_epoch
        Called after each epoch.

    Raises
    ------
    TrainingError
        The loss is not a finite number.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder = make_encoder(n_genes, encoder_params, generator).to(device)
    noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=params.learning_rate)
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
