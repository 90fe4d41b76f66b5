"""The cell network over a tissue, in blocks cut on one grid: the same numbers wherever a window begins or ends.

A block is predicted from itself and a margin around it, both at fixed places of the tissue, filled up with empty bins
beyond its edge. So it goes in the same shape through the same kernels, whatever window it is asked for; blocks at the
far edges, and of small tissues, are but as large as they need to be.

In a cell or not is a question of which the network alone is too sure on tissues unlike those it was trained on. So
three opinions are heard, each with a weight: that of the network, that of the density method, and that of the rule that
cells usually end 0.4 r from their nucleus (a linear opinion pool; Stone, Ann. Math. Stat. 1961).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch

from sslcst.core.density import Levels
from sslcst.core.spots import Ranges, overlap, within
from sslcst.core.threads import settle
from sslcst.methods.network.inputs import make_inputs
from sslcst.methods.network.network import MULTIPLE, CellNetwork, score_candidates

BLOCK = 512  # bins, side of a block; a multiple of what the network halves, and a part of the default tile
MARGIN = 48  # bins around it, about three expected cell radii, likewise
HALO = BLOCK - 1 + MARGIN  # bins around any window that hold all blocks which reach into it
_END, _SOFTNESS = 0.4, 0.1  # in r: where cells usually end, and how unsure that is


def predict_cells(
    network: CellNetwork,
    counts: np.ndarray,
    nuclei: np.ndarray,
    levels: Levels,
    *,
    radius: float,
    trust: float = 1.0,
    corner: tuple[int, int] = (0, 0),
    own: Ranges | None = None,
    whole: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each bin of a window to lie in a cell, and whose cell that would be.

    Parameters
    ----------
    network
        From `load_network`.
    counts
        Transcripts in each bin in view (rows, columns): the window and `HALO` around it, as far as the tissue goes.
    nuclei
        Nucleus labels of the bins in view.
    levels
        Of the whole tissue, measured within `REACH` * radius of the nuclei.
    radius
        Expected cell radius r in bins.
    trust
        Weight of the network's opinion of in or out, from 0 to 1; the other two share what is left. 1: it alone.
    corner
        First row and column in view, counted from those of the tissue.
    own
        First row of the window and the one behind its last, and its columns, counted in the same way; by default all in
        view.
    whole
        Rows and columns of the tissue; by default it ends where the view does.

    Returns
    -------
    probability
        float32, of the window (rows, columns); 1 in nuclei.
    owner
        Label of a nucleus, of the same shape and of the type of `nuclei`; 0 where none is within reach.
    """
    settle()
    view = tuple((start, start + side) for start, side in zip(corner, nuclei.shape, strict=True))
    own = own or view
    shape = [stop - start for start, stop in own]
    probability, owner = np.zeros(shape, np.float32), np.zeros(shape, nuclei.dtype)
    for block in blocks_of(own, whole or tuple(stop for _, stop in view)):
        found = predict_block(
            network,
            *(cut_block(values, block, corner) for values in (counts, nuclei)),
            levels,
            radius=radius,
            trust=trust,
        )
        both = overlap(own, block)
        to, out_of = within(both, own), within(both, block)
        probability[to], owner[to] = (values[out_of] for values in found)
    return probability, owner


def blocks_of(own: Ranges, whole: tuple[int, int]) -> Iterator[Ranges]:
    """The blocks that reach into a window of a tissue."""
    rows, columns = (
        [
            (first, min(first + BLOCK, -(-side // MULTIPLE) * MULTIPLE))
            for first in range(start // BLOCK * BLOCK, stop, BLOCK)
        ]
        for (start, stop), side in zip(own, whole, strict=True)
    )
    return product(rows, columns)


def cut_block(values: np.ndarray, block: Ranges, corner: tuple[int, int]) -> np.ndarray:
    """A block and its margin from the values in view, filled up with zeros beyond these."""
    low = [start - MARGIN - first for (start, _), first in zip(block, corner, strict=True)]
    high = [stop + MARGIN - first for (_, stop), first in zip(block, corner, strict=True)]
    inner = tuple(slice(max(0, a), max(0, b)) for a, b in zip(low, high, strict=True))
    before = [max(0, -a) for a in low]
    after = [min(b - a, max(0, b - side)) for a, b, side in zip(low, high, values.shape, strict=True)]
    return np.pad(values[inner], list(zip(before, after, strict=True)))


@torch.inference_mode()
def predict_block(
    network: CellNetwork, counts: np.ndarray, nuclei: np.ndarray, levels: Levels, *, radius: float, trust: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """As `predict_cells`, of one block: counts and nuclei with its margin in, the block alone out.

    A block without a nucleus in view has none to give bins to, and costs nothing.
    """
    inner = np.s_[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    if not nuclei.any():
        return np.zeros(nuclei[inner].shape, np.float32), np.zeros_like(nuclei[inner])
    inputs = make_inputs(counts, nuclei, levels, radius=radius)
    device = network.mean.device
    planes = torch.from_numpy(inputs.planes)[None].to(device, memory_format=torch.channels_last)
    outputs = network(planes)[inner].float()  # the scores are sums, which half precision would round
    exists, distance, offset = (
        torch.from_numpy(np.ascontiguousarray(values[inner]))[None].to(device)
        for values in (inputs.labels > 0, inputs.distance, inputs.offset)
    )
    best = score_candidates(outputs, exists, distance, offset).argmax(dim=1).cpu().numpy()
    owner = np.take_along_axis(inputs.labels[inner], best, axis=0)[0]
    usual = 1 / (1 + np.exp((inputs.distance[0][inner] - _END) / _SOFTNESS))
    others = (inputs.share[inner] + usual) / 2
    probability = trust * outputs[0, 0].sigmoid().cpu().numpy() + (1 - trust) * others
    return np.where(nuclei[inner] > 0, np.float32(1), np.where(owner > 0, probability, np.float32(0))), owner
