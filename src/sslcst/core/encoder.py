"""The network: embedding, self-attention, RMLP, two heads (paper: eq. 5-11, fig. 1c, Algorithm 2)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from sslcst.core.inputs import Batch, GeneCounts
from sslcst.core.sampling import N_DIRECTIONS
from sslcst.params import EncoderParams


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
        self.spread = noise * float(self.linear.weight.detach().std())

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Tokens r (..., width_in) -> (..., width_out)."""
        weight = self.linear.weight
        if self.training and self.spread:
            weight = weight + self.spread * torch.randn_like(weight)
        return F.linear(r, weight, self.linear.bias)


class RMLP(nn.Module):
    """Reparameterised layers, each followed by GELU and dropout (Algorithm 2, lines 9-13)."""

    def __init__(self, params: EncoderParams) -> None:
        super().__init__()
        widths = (params.width, *params.hidden, params.width)
        self.layers = nn.ModuleList(ReparameterizedLinear(a, b, params.noise) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Tokens r (..., width) -> (..., width)."""
        for layer in self.layers:
            r = self.dropout(F.gelu(layer(r)))
        return r


class SelfAttention(nn.Module):
    """Eq. 6-8 over the tokens of one spot, with several heads as in Algorithm 2, lines 3-5."""

    def __init__(self, params: EncoderParams) -> None:
        super().__init__()
        self.heads = params.heads
        self.qkv = nn.Linear(params.width, 3 * params.width, bias=False)
        self.out = nn.Linear(params.width, params.width)

    def forward(self, r: torch.Tensor, present: torch.Tensor | None, n_queries: int) -> torch.Tensor:
        """Tokens r (b, t, width) and the keys that count (b, t) -> (b, n_queries, width) for the first tokens."""
        w_query, w_key_value = self.qkv.weight.split([r.shape[-1], 2 * r.shape[-1]])
        q = self._split(F.linear(r[:, :n_queries], w_query))
        k, v = (self._split(x) for x in F.linear(r, w_key_value).chunk(2, dim=-1))
        mask = None if present is None else present[:, None, None, :]
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (b, heads, n_queries, width / heads)
        return self.out(a.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Eq. 10-11: pre-norm self-attention and RMLP, each with a residual connection."""

    def __init__(self, params: EncoderParams) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(params.width)
        self.attention = SelfAttention(params)
        self.norm_rmlp = nn.LayerNorm(params.width)
        self.rmlp = RMLP(params)

    def forward(self, r: torch.Tensor, present: torch.Tensor | None, n_queries: int) -> torch.Tensor:
        """Tokens r (b, t, width) and the keys that count (b, t) -> (b, n_queries, width) for the first tokens."""
        r = self.attention(self.norm_attention(r), present, n_queries) + r[:, :n_queries]
        return self.rmlp(self.norm_rmlp(r)) + r


class SpotEncoder(nn.Module):
    """The paper's network: from a spot and its nearest spots to the direction to its nucleus, and in or out of a cell.

    Parameters
    ----------
    n_genes
        Genes that are read.
    params
        Widths, depth, heads, noise and dropout.
    """

    def __init__(self, n_genes: int, params: EncoderParams = EncoderParams()) -> None:
        super().__init__()
        self.expression = nn.Parameter(torch.randn(n_genes, params.width) / params.width**0.5)  # W1
        self.position = nn.Linear(2, params.width)  # W2 and the bias, which starts at 0 so as not to drown the rest
        nn.init.zeros_(self.position.bias)
        self.distance = nn.Linear(1, params.width, bias=False)  # W3
        self.blocks = nn.ModuleList(Block(params) for _ in range(params.depth))
        self.norm = nn.LayerNorm(params.width)
        self.direction = nn.Linear(params.width, N_DIRECTIONS)
        self.inside = nn.Linear(params.width, 1)

    def embed_expression(self, counts: GeneCounts, rows: torch.Tensor) -> torch.Tensor:
        """The term g W1 of eq. 5 for some spots (m,) -> (m, width), from their nonzero counts alone."""
        gene, value, first = counts.rows(rows)
        return F.embedding_bag(gene, self.expression, first, mode="sum", per_sample_weights=value)

    def forward(self, batch: Batch, expression: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the 16 directions (b, 16) and of lying in a cell (b,); `expression` is g W1 of each token."""
        r = expression + self.position(batch.position) + self.distance(batch.distance[..., None])  # eq. 5
        for block in self.blocks[:-1]:
            r = block(r, batch.present, r.shape[1])
        # Only the spot's own token is read off, so the last block need not make the others.
        r = self.norm(self.blocks[-1](r, batch.present, 1)[:, 0])
        return self.direction(r), self.inside(r)[:, 0]
