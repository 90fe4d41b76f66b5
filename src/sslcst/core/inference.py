"""The trained encoder over all spots, a batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from sslcst.core.encoder import SpotEncoder
from sslcst.core.inputs import Inputs

logger = logging.getLogger("sslcst")


@torch.inference_mode()
def predict_spots(
    encoder: SpotEncoder,
    inputs: Inputs,
    *,
    batch_size: int = 512,
    on_batch: Callable[[int], None] = lambda n_spots: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the directions and of lying in a cell.

    Parameters
    ----------
    encoder
        A trained encoder, on the device of `inputs`.
    inputs
        Features of n spots.
    batch_size
        Spots at a time; halved for as long as the device's memory does not hold them.
    on_batch
        Called with the number of spots of each batch done.

    Returns
    -------
    direction
        float32 (n, 16).
    inside
        float32 (n,).
    """
    device = inputs.neighbors.device
    everyone = torch.arange(len(inputs), device=device)
    expression = torch.cat([encoder.embed_expression(inputs.counts, rows) for rows in everyone.split(1 << 16)])
    direction, inside = [], []
    start = 0
    while start < len(inputs):
        try:
            batch = inputs.batch(everyone[start : start + batch_size])
            logits = encoder(batch, expression[batch.spot])
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            logger.warning("Not enough memory on %s: going on with %d spots at a time.", device, batch_size)
            continue
        direction.append(logits[0].softmax(dim=1))
        inside.append(logits[1].sigmoid())
        start += len(logits[1])
        on_batch(len(logits[1]))
    return torch.cat(direction).cpu().numpy(), torch.cat(inside).cpu().numpy()
