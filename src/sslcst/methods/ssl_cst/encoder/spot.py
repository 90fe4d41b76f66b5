"""The paper's network: self-attention over each spot and its nearest ones, spot by spot (eq. 5-11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sslcst.methods.ssl_cst.encoder.parts import RMLP, Encoder, linear
from sslcst.methods.ssl_cst.params import EncoderParams


@dataclass(frozen=True)
class Tokens:
    """Tokens of b spots: each spot itself, first, and its k nearest."""

    spot: torch.Tensor  #: Index of each token's spot, int64 (b, 1 + k)
    position: torch.Tensor  #: Eq. 4, float32 (b, 1 + k, 2)
    distance: torch.Tensor  #: Normalised distance to the nearest centroid, float32 (b, 1 + k)
    present: torch.Tensor | None  #: Whether there is such a neighbour, bool (b, 1 + k); None if there always is


class SelfAttention(nn.Module):
    """Eq. 6-8 over the tokens of one spot, with several heads as in Algorithm 2, lines 3-5."""

    def __init__(self, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = params.heads
        self.qkv = linear(params.width, 3 * params.width, generator, bias=False)
        self.out = linear(params.width, params.width, generator)

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


class SpotBlock(nn.Module):
    """Eq. 10-11: pre-norm self-attention and RMLP, each with a residual connection."""

    def __init__(self, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(params.width)
        self.attention = SelfAttention(params, generator)
        self.norm_rmlp = nn.LayerNorm(params.width)
        self.rmlp = RMLP(params, generator)

    def forward(
        self, r: torch.Tensor, present: torch.Tensor | None, n_queries: int, noise: torch.Generator | None = None
    ) -> torch.Tensor:
        """Tokens r (b, t, width) and the keys that count (b, t) -> (b, n_queries, width) for the first tokens."""
        r = self.attention(self.norm_attention(r), present, n_queries) + r[:, :n_queries]
        return self.rmlp(self.norm_rmlp(r), noise) + r


class SpotEncoder(Encoder):
    """From each spot and its nearest spots to the direction to its nucleus, and in or out of a cell; see `Encoder`."""

    def __init__(self, n_genes: int, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__(n_genes, params, generator)
        self.position = linear(2, params.width, generator)  # W2 and the bias
        nn.init.zeros_(self.position.bias)  # so as not to drown the rest
        self.blocks = nn.ModuleList(SpotBlock(params, generator) for _ in range(params.depth))

    def forward(
        self, tokens: Tokens, expression: torch.Tensor, noise: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the 16 directions (b, 16) and of lying in a cell (b,); `expression` is g W1 of each token."""
        r = expression + self.position(tokens.position) + self.distance(tokens.distance[..., None])  # eq. 5
        for block in self.blocks[:-1]:
            r = block(r, tokens.present, r.shape[1], noise)
        # Only the spot's own token is read off, so the last block need not make the others.
        return self.read_off(self.blocks[-1](r, tokens.present, 1, noise)[:, 0])
