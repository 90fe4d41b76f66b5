"""What both networks are made of: the embedding of eq. 5, RMLP (eq. 9), and the two heads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS

if TYPE_CHECKING:
    from sslcst.methods.ssl_cst.inputs import GeneCounts


def linear(width_in: int, width_out: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A layer whose weights are drawn as torch draws them, but by a generator: torch's own is the whole process's."""
    here = torch.empty(0).device  # where `with torch.device` says; get_default_device of torch 2.5 does not know of it
    layer = skip_init(nn.Linear, width_in, width_out, bias=bias, device=here)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(width_in**-0.5), width_in**-0.5, generator=generator)
    return layer


class ReparameterizedLinear(nn.Module):
    """Eq. 9: I x W, where W carries a random matrix drawn anew at each training step, and none at inference.

    The spread of that matrix is `noise` times the initial spread of the weights.
    """

    def __init__(self, width_in: int, width_out: int, noise: float, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear(width_in, width_out, generator)
        weight = self.linear.weight.detach()
        self.spread = 0.0 if weight.is_meta else noise * float(weight.std())  # of "meta" nothing but the shape is asked

    def forward(self, r: torch.Tensor, noise: torch.Generator | None = None) -> torch.Tensor:
        """Tokens r (..., width_in) -> (..., width_out); `noise` draws the random matrix."""
        weight = self.linear.weight
        if noise is not None and self.spread:
            weight = weight + torch.empty_like(weight).normal_(0, self.spread, generator=noise)
        return F.linear(r, weight, self.linear.bias)


class Dropout(nn.Module):
    """Dropout from 16 random bits an element: torch's own draws a float for each, and takes longer than the network."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor, noise: torch.Generator | None = None) -> torch.Tensor:
        """Any shape -> the same; `noise` draws what is dropped."""
        if noise is None or not self.share:
            return x
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        bits.random_(-(2**63), None, generator=noise)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = drawn >= round(2**16 * self.share) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.share))


class RMLP(nn.Module):
    """Reparameterised layers, each followed by GELU and dropout (Algorithm 2, lines 9-13)."""

    def __init__(self, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__()
        widths = (params.width, *params.hidden, params.width)
        self.layers = nn.ModuleList(ReparameterizedLinear(a, b, params.noise, generator) for a, b in pairwise(widths))
        self.dropout = Dropout(params.dropout)

    def forward(self, r: torch.Tensor, noise: torch.Generator | None = None) -> torch.Tensor:
        """Tokens r (..., width) -> (..., width)."""
        for layer in self.layers:
            r = self.dropout(F.gelu(layer(r, noise)), noise)
        return r


class Encoder(nn.Module):
    """Base of both: reads expression and distance, gives the direction to the nucleus and in or out of a cell.

    Whoever trains it gives each call a generator `noise`, on its device, for the random matrices and the dropout of the
    RMLP; without one, as at inference, there are none. Nothing is drawn from torch's own generators, so that runs in
    several threads of a process do not draw from one another's; the first weights are drawn by a generator on the CPU.
    """

    def __init__(self, n_genes: int, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__()
        self.expression = nn.Parameter(torch.empty(n_genes, params.width))  # W1
        nn.init.normal_(self.expression, std=params.width**-0.5, generator=generator)
        self.distance = linear(1, params.width, generator, bias=False)  # W3
        self.norm = nn.LayerNorm(params.width)
        self.direction = linear(params.width, N_DIRECTIONS, generator)
        self.inside = linear(params.width, 1, generator)

    def embed_expression(self, counts: GeneCounts, rows: torch.Tensor) -> torch.Tensor:
        """The term g W1 of eq. 5 for some spots (m,) -> (m, width), from their nonzero counts alone."""
        gene, value, first = counts.rows(rows)
        return F.embedding_bag(gene, self.expression, first, mode="sum", per_sample_weights=value)

    def read_off(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens r (b, width) -> logits of the 16 directions (b, 16) and of lying in a cell (b,)."""
        r = self.norm(r)
        return self.direction(r), self.inside(r)[:, 0]
