"""The cell network: a small residual encoder and decoder, inputs to the paper's two tasks: in or out, and whose.

There are no convolutions at full resolution, where they cost most: 2 x 2 bins enter and leave as one. Normalisation is
by batch, at inference a fixed scale, so that no output depends on what is far away, and the halvings are aligned to the
blocks in which a tissue is gone through.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, softplus

from sslcst.core.nuclei.network import ConvNorm, Residual, fold
from sslcst.methods.network.inputs import N_PLANES

CHANNELS = (48, 64, 80)  # at a half, a quarter and an eighth of the resolution
MULTIPLE = 2 ** len(CHANNELS)  # of which the sides of an input must be
OUTPUTS = 5


class CellNetwork(nn.Module):
    """Whether bins lie in a cell, and what speaks for each of the nuclei near them.

    Parameters
    ----------
    channels
        Width of the network at each halving of the resolution.
    """

    def __init__(self, channels: tuple[int, int, int] = CHANNELS) -> None:
        super().__init__()
        half, quarter, eighth = channels
        self.register_buffer("mean", torch.zeros(N_PLANES))
        self.register_buffer("scale", torch.ones(N_PLANES))
        self.stem = nn.Sequential(ConvNorm(4 * N_PLANES, half), Residual(half, half))
        self.down = nn.ModuleList(
            [
                nn.Sequential(Residual(half, quarter, stride=2), Residual(quarter, quarter)),
                nn.Sequential(Residual(quarter, eighth, stride=2), Residual(eighth, eighth)),
            ]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(eighth, quarter, 1), nn.Conv2d(quarter, half, 1)])
        self.up = nn.ModuleList([Residual(quarter, quarter), Residual(half, half)])
        self.head = nn.Conv2d(half, 4 * OUTPUTS, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        """Planes of `make_inputs` (n, 21, rows, columns), sides multiples of 8, to outputs (n, 5, rows, columns).

        The first output is the logit of lying in a cell, the others are the four weights of `score_candidates`.
        """
        x = (planes - self.mean[:, None, None]) * self.scale[:, None, None]
        x = x.to(self.head.weight.dtype)
        x = self.stem(pixel_unshuffle(x, 2))  # (n, 48, rows/2, columns/2)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)  # (n, 64, rows/4, columns/4), (n, 80, rows/8, columns/8)
        for lateral, up in zip(self.lateral, self.up, strict=True):
            x = up(skips.pop() + interpolate(lateral(x), scale_factor=2, mode="nearest"))  # ... (n, 48, rows/2, ...)
        return pixel_shuffle(self.head(x), 2)

    def fold(self) -> CellNetwork:
        """Fold the batch normalisation into the convolutions, for inference, in place."""
        return fold(self)


def score_candidates(outputs: Tensor, exists: Tensor, distance: Tensor, offset: Tensor) -> Tensor:
    """Score of each candidate: ``s_k = -a d_k - b |o_k|² + w · o_k``, with a, b, w from the outputs of the bin.

    One rule for all candidates, so that the weights need not jump where two nuclei change places as the nearest: w
    points to the cell's middle. Outputs are (n, 5, rows, columns), scores, very low where no candidate exists, (n, 3,
    rows, columns); distances and offsets are those of `Inputs`, with a first axis n.
    """
    near, middle = softplus(outputs[:, 1] + 2), softplus(outputs[:, 2])
    towards = outputs[:, 3:5]
    score = (towards[:, None] * offset).sum(dim=2) - near[:, None] * distance
    score = score - middle[:, None] * (offset**2).sum(dim=2)
    return score.masked_fill(~exists, -1e4)
