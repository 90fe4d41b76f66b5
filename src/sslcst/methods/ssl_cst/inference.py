"""The trained encoder over all spots, a batch at a time."""

from __future__ import annotations

import logging

import numpy as np
import torch

from sslcst.core.threads import one_at_a_time
from sslcst.methods.ssl_cst.encoder import Encoder
from sslcst.methods.ssl_cst.inputs import BLOCK, Inputs
from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS

logger = logging.getLogger("sslcst")


@one_at_a_time
@torch.inference_mode()
def predict_spots(
    encoder: Encoder, inputs: Inputs, *, block: int = BLOCK, wanted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the directions (m, 16) and of lying in a cell (m,), float32, of the spots that are wanted.

    `block` is the side in bins of the blocks of tissue that are predicted one by one; it is halved for as long as the
    device's memory does not hold one.
    """
    device = inputs.neighbors.device
    spots = torch.arange(len(inputs), device=device)
    expression = torch.cat([encoder.embed_expression(inputs.counts, rows) for rows in spots.split(1 << 16)])
    if wanted is not None:
        spots = spots[torch.from_numpy(wanted).to(device)]
    direction = torch.empty((len(spots), N_DIRECTIONS), device=device)
    inside = torch.empty(len(spots), device=device)
    todo = torch.arange(len(spots), device=device)
    while len(todo):
        left = torch.ones_like(todo, dtype=torch.bool)
        try:
            for batch, places in inputs.cover(spots[todo], block):
                of_direction, of_inside = encoder(batch, expression[batch.spot])
                direction[todo[places]] = of_direction.float().softmax(dim=1)
                inside[todo[places]] = of_inside.float().sigmoid()
                left[places] = False
        except torch.OutOfMemoryError:
            if block == 1:
                raise
            block //= 2
            logger.warning("Not enough memory on %s: going on with blocks of %d x %d bins.", device, block, block)
        todo = todo[left]
    return direction.cpu().numpy(), inside.cpu().numpy()
