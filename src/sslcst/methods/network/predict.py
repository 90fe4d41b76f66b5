"""The cell network over a tissue, block by block: in a cell or not, and whose.

In a cell or not is a question of which the network alone is too sure on tissues unlike those it was trained on. So
three opinions are heard, each with a weight: that of the network, that of the density method, and that of the rule that
cells usually end 0.4 r from their nucleus (a linear opinion pool; Stone, Ann. Math. Stat. 1961).

Whose is said by the network and, where cells differ in what they express, by the transcripts as well.
"""

from __future__ import annotations

import numpy as np
import torch

from sslcst.core.density import Levels
from sslcst.core.spots import Ranges, overlap, within
from sslcst.core.threads import ahead, all_cores, settle
from sslcst.methods.network.blocks import INNER, blocks_of, cut_block
from sslcst.methods.network.expression import Expression
from sslcst.methods.network.inputs import Inputs, make_inputs
from sslcst.methods.network.network import CellNetwork, score_candidates

_END, _SOFTNESS = 0.4, 0.1  # in r: where cells usually end, and how unsure that is
_DISCOUNT = 0.5  # of the weight of profiles, learnt where it is clear whose a bin is: elsewhere they are less sure
_SURE = 3.0  # lead of the best score that nothing which profiles tell makes up for, so that they are not compared


def predict_cells(
    network: CellNetwork,
    counts: np.ndarray,
    nuclei: np.ndarray,
    levels: Levels,
    *,
    radius: float,
    trust: float = 1.0,
    expression: Expression | None = None,
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
        Transcripts in each bin in view (rows, columns): the window and what `halo_of` says around it, as far as the
        tissue goes.
    nuclei
        Nucleus labels of the bins in view.
    levels
        Of the whole tissue, measured within `REACH` * radius of the nuclei.
    radius
        Expected cell radius r in bins.
    trust
        Weight of the network's opinion of in or out, from 0 to 1; the other two share what is left. 1: it alone.
    expression
        The same transcripts by their genes, to say whose bins are. None: the network says it alone.
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
    places = np.zeros_like(nuclei) if expression is None else expression.places

    def see(block: Ranges) -> tuple[np.ndarray, np.ndarray, Inputs | None]:
        labels, counted, at = (cut_block(values, block, corner) for values in (nuclei, counts, places))
        return labels, at, make_inputs(counted, labels, levels, radius=radius) if labels.any() else None

    for block, (labels, at, inputs) in ahead(see, blocks_of(own, whole or tuple(stop for _, stop in view))):
        if inputs is None:  # no nucleus is in view that bins could be of
            continue
        likely, scores = _run(network, inputs, trust)
        likely = np.where(labels > 0, np.float32(1), likely)
        best = _best(inputs.labels, scores)
        if expression is not None:
            inside = np.where(likely >= 0.5, best, 0)
            close = scores > scores.max(axis=0) - _SURE
            candidates = np.where(close, inputs.labels, 0)
            told = expression.compare(at, labels, inside, candidates, asked=close.sum(axis=0) > 1, radius=radius)
            best = _best(candidates, np.where(close, scores + _DISCOUNT * expression.weight * told, -np.inf))
        both = overlap(own, block)
        to, out_of = within(both, own), within(both, block)
        probability[to], owner[to] = (values[INNER][out_of] for values in (likely, best))
    return probability, owner


@torch.inference_mode()
def _run(network: CellNetwork, inputs: Inputs, trust: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a block with its margin the probability of each bin outside nuclei, and the scores of its candidates."""
    device = network.mean.device
    with all_cores:
        outputs = network(torch.from_numpy(inputs.planes)[None].to(device, memory_format=torch.channels_last)).float()
    exists, distance, offset = (
        torch.from_numpy(values)[None].to(device) for values in (inputs.labels > 0, inputs.distance, inputs.offset)
    )
    scores = score_candidates(outputs, exists, distance, offset)[0].cpu().numpy()
    usual = 1 / (1 + np.exp((inputs.distance[0] - _END) / _SOFTNESS))
    probability = trust * outputs[0, 0].sigmoid().cpu().numpy() + (1 - trust) * (inputs.share + usual) / 2
    return np.where(inputs.labels[0] > 0, probability, np.float32(0)), scores


def _best(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The candidate of the highest score; the nearer of equals."""
    return np.take_along_axis(labels, scores.argmax(axis=0)[None], axis=0)[0]
