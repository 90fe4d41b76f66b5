"""The trained encoder over all spots, a batch at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sslcst.methods.ssl_cst.encoder import Encoder
from sslcst.methods.ssl_cst.inputs import BLOCK, Inputs
from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS

logger = logging.getLogger("sslcst")


@torch.inference_mode()
def predict_spots(
    encoder: Encoder,
    inputs: Inputs,
    *,
    block: int = BLOCK,
    wanted: np.ndarray | None = None,
    on_batch: Callable[[int], None] = lambda n_spots: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the directions and of lying in a cell.

    Parameters
    ----------
    encoder
        A trained encoder, on the device of `inputs`.
    inputs
        Features of n spots, for the kind of encoder.
    block
        Side in bins of the blocks of tissue that are predicted one by one; halved for as long as the device's memory
        does not hold one.
    wanted
        The spots that are to be predicted, bool (n,); by default all.
    on_batch
        Called with the number of spots of each batch done.

    Returns
    -------
    direction
        Of the wanted spots, float32 (m, 16).
    inside
        Of the wanted spots, float32 (m,).
    """
    device = inputs.neighbors.device
    abreast = inputs.abreast and device.type == "cpu"
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
            batches = inputs.cover(spots[todo], block)
            for places, logits in (_abreast if abreast else _one_by_one)(encoder, expression, batches):
                direction[todo[places]] = logits[0].softmax(dim=1)
                inside[todo[places]] = logits[1].sigmoid()
                left[places] = False
                on_batch(len(places))
        except torch.OutOfMemoryError:
            if block == 1:
                raise
            block //= 2
            logger.warning("Not enough memory on %s: going on with blocks of %d x %d bins.", device, block, block)
        todo = todo[left]
    return direction.cpu().numpy(), inside.cpu().numpy()


def _one_by_one(encoder, expression, batches):
    for batch, places in batches:
        yield places, encoder(batch, expression[batch.spot])


def _abreast(encoder, expression, batches):
    """A batch on each core, where small ones stay in its own cache instead of being shared out at each operation."""

    def predict(batch, places):
        with torch.inference_mode():  # which holds for one thread
            return places, encoder(batch, expression[batch.spot])

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            waiting = deque()
            for batch, places in batches:
                waiting.append(pool.submit(predict, batch, places))
                if len(waiting) > 2 * n_threads:
                    yield waiting.popleft().result()
            for done in waiting:
                yield done.result()
    finally:
        torch.set_num_threads(n_threads)
