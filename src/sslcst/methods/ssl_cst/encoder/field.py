"""The fast network: every spot is one token, which attends to its nearest spots at each layer (eq. 5-11, shared).

The paper's network makes 50 tokens anew for each spot and reads one of them. Here a spot's token serves itself and all
that have it for a neighbour, and sees farther with each layer. Positions are relative, so they enter not the tokens but
the attention: where a spot looks (a bias of its query by place) and what it finds (the mean place it attends to).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sslcst.methods.ssl_cst.encoder.neighborhood import Neighborhood, attend
from sslcst.methods.ssl_cst.encoder.parts import RMLP, Encoder, linear
from sslcst.methods.ssl_cst.params import EncoderParams

# Spots at a time, within a layer of inference: what stays in the cache, or fits a GPU's memory with all neighbours.
_ROWS = {"cpu": 1 << 12}
_MORE_ROWS = 1 << 16


@dataclass(frozen=True)
class Field:
    """Spots that are read together."""

    spot: torch.Tensor  #: Index of each token's spot, int64 (n,)
    distance: torch.Tensor  #: Normalised distance to the nearest centroid, float32 (n,)
    #: The neighbours of each among the n, and where they lie: (dy, dx, dy^2 + dx^2) in units of r / 4
    around: Neighborhood
    wanted: torch.Tensor  #: The tokens, int64 (m,), that predictions are asked for


class FieldBlock(nn.Module):
    """Eq. 6-11: pre-norm attention to the nearest spots and RMLP, each with a residual connection.

    Heads start by looking each another way, by turns of a right angle from layer to layer.
    """

    def __init__(self, params: EncoderParams, layer: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = params.heads
        width = params.width
        self.norm_attention = nn.LayerNorm(width)
        self.query, self.key, self.value = (linear(width, width, generator, bias=False) for _ in range(3))
        self.look = linear(width, 3 * params.heads, generator)
        self.out = linear(width + 3 * params.heads, width, generator)
        self.norm_rmlp = nn.LayerNorm(width)
        self.rmlp = RMLP(params, generator)
        angle = 2 * torch.pi * torch.arange(params.heads) / params.heads + layer * torch.pi / 2
        with torch.no_grad():  # a direction, and near rather than far
            self.look.bias.copy_(torch.stack([angle.sin(), angle.cos(), -torch.ones_like(angle)], dim=1).flatten())

    def forward(self, r: torch.Tensor, around: Neighborhood, noise: torch.Generator | None = None) -> torch.Tensor:
        """Tokens r (n, width) -> (n, width)."""
        seen = self.norm_attention(r)
        key, value = self._split(self.key(seen)), self._split(self.value(seen))
        if torch.is_grad_enabled():
            return self._rows(r, seen, key, value, around, noise)
        size = _ROWS.get(r.device.type, _MORE_ROWS)
        parts = [slice(start, start + size) for start in range(0, len(r), size)]
        return torch.cat([self._rows(r[part], seen[part], key, value, around[part], noise) for part in parts])

    def _rows(self, r, seen, key, value, around, noise) -> torch.Tensor:
        query = self._split(self.query(seen)) / key.shape[-1] ** 0.5
        found, place = attend(query, self._split(self.look(seen)), key, value, around)
        r = self.out(torch.cat([found.flatten(1), place.flatten(1)], dim=1)) + r
        return self.rmlp(self.norm_rmlp(r), noise) + r

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1))


class FieldEncoder(Encoder):
    """From all spots of a field to the directions to their nuclei, and in or out of a cell; see `Encoder`."""

    def __init__(self, n_genes: int, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__(n_genes, params, generator)
        self.blocks = nn.ModuleList(FieldBlock(params, layer, generator) for layer in range(params.depth))

    def forward(
        self, field: Field, expression: torch.Tensor, noise: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the 16 directions (m, 16) and of lying in a cell (m,) of the spots that are wanted.

        `expression` is g W1 of each token, (n, width).
        """
        r = expression + self.distance(field.distance[:, None])
        for block in self.blocks:
            r = block(r, field.around, noise)
        return self.read_off(r[field.wanted])
