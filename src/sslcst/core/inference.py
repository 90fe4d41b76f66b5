"""The trained encoder over all spots, a batch at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sslcst.core.encoder import Encoder
from sslcst.core.inputs import Inputs
from sslcst.core.sampling import N_DIRECTIONS

logger = logging.getLogger("sslcst")


@torch.inference_mode()
def predict_spots(
    encoder: Encoder,
    inputs: Inputs,
    *,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda n_spots: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the directions and of lying in a cell.

    Parameters
    ----------
    encoder
        A trained encoder, on the device of `inputs`.
    inputs
        Features of n spots, for the kind of encoder.
    batch_size
        Spots at a time, by default `inputs.batch_size`; halved for as long as the device's memory does not hold them.
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
    batch_size = batch_size or inputs.batch_size
    abreast = inputs.abreast and device.type == "cpu"
    todo = torch.arange(len(inputs), device=device)
    expression = torch.cat([encoder.embed_expression(inputs.counts, rows) for rows in todo.split(1 << 16)])
    direction = torch.empty((len(inputs), N_DIRECTIONS), device=device)
    inside = torch.empty(len(inputs), device=device)
    while len(todo):
        left = torch.ones_like(todo, dtype=torch.bool)
        try:
            batches = inputs.cover(todo, batch_size)
            for places, logits in (_abreast if abreast else _one_by_one)(encoder, expression, batches):
                direction[todo[places]] = logits[0].softmax(dim=1)
                inside[todo[places]] = logits[1].sigmoid()
                left[places] = False
                on_batch(len(places))
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            logger.warning("Not enough memory on %s: going on with %d spots at a time.", device, batch_size)
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
