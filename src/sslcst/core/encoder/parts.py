"""What both networks are made of: the embedding of eq. 5, RMLP (eq. 9), and the two heads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from sslcst.core.sampling import N_DIRECTIONS
from sslcst.params import EncoderParams

if TYPE_CHECKING:
    from sslcst.core.inputs import GeneCounts


class ReparameterizedLinear(nn.Module):
    """Eq. 9: I x W, where W carries a random matrix drawn anew at each training step, and none at inference.

    Parameters
    ----------
    width_in, width_out
        Sizes of a token before and after.
    noise
        Spread of the random matrix, relative to the initial spread of the weights.
    """

    def __init__(self, width_in: int, width_out: int, noise: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)
        weight = self.linear.weight.detach()
        self.spread = 0.0 if weight.is_meta else noise * float(weight.std())  # of "meta" nothing but the shape is asked

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Tokens r (..., width_in) -> (..., width_out)."""
        weight = self.linear.weight
        if self.training and self.spread:
            weight = weight + self.spread * torch.randn_like(weight)
        return F.linear(r, weight, self.linear.bias)


class Dropout(nn.Module):
    """Dropout from 16 random bits an element: torch's own draws a float for each, and takes longer than the network."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape -> the same."""
        if not (self.training and self.share):
            return x
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = drawn >= round(2**16 * self.share) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.share))


class RMLP(nn.Module):
    """Reparameterised layers, each followed by GELU and dropout (Algorithm 2, lines 9-13)."""

    def __init__(self, params: EncoderParams) -> None:
        super().__init__()
        widths = (params.width, *params.hidden, params.width)
        self.layers = nn.ModuleList(ReparameterizedLinear(a, b, params.noise) for a, b in pairwise(widths))
        self.dropout = Dropout(params.dropout)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Tokens r (..., width) -> (..., width)."""
        for layer in self.layers:
            r = self.dropout(F.gelu(layer(r)))
        return r


class Encoder(nn.Module):
    """Base of both: reads expression and distance, gives the direction to the nucleus and in or out of a cell.

    Parameters
    ----------
    n_genes
        Genes that are read.
    params
        Widths, depth, heads, noise and dropout.
    """

    def __init__(self, n_genes: int, params: EncoderParams) -> None:
        super().__init__()
        self.expression = nn.Parameter(torch.randn(n_genes, params.width) / params.width**0.5)  # W1
        self.distance = nn.Linear(1, params.width, bias=False)  # W3
        self.norm = nn.LayerNorm(params.width)
        self.direction = nn.Linear(params.width, N_DIRECTIONS)
        self.inside = nn.Linear(params.width, 1)

    def embed_expression(self, counts: GeneCounts, rows: torch.Tensor) -> torch.Tensor:
        """The term g W1 of eq. 5 for some spots (m,) -> (m, width), from their nonzero counts alone."""
        gene, value, first = counts.rows(rows)
        return F.embedding_bag(gene, self.expression, first, mode="sum", per_sample_weights=value)

    def read_off(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens r (b, width) -> logits of the 16 directions (b, 16) and of lying in a cell (b,)."""
        r = self.norm(r)
        return self.direction(r), self.inside(r)[:, 0]
