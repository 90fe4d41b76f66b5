"""Attention of each spot to its nearest ones (eq. 7-8), where every spot is one token that its neighbours share.

With q_i, k_j, v_j the query, key and value of spots i and j, and g_ij where j lies as seen from i,

    s_ij = q_i . k_j + a_i . g_ij        w_ij = softmax_j(s_ij)        o_i = sum_j w_ij (v_j, g_ij)

The products and the sums are each other's derivatives: three loops, compiled for the CPU, serve the way there and back.
Elsewhere torch gathers the neighbours.
"""

from __future__ import annotations

from functools import cached_property

import numba
import numpy as np
import torch
from scipy import sparse

from sslcst.core.threads import parallel

_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}  # sums in any order, so that they are vectorised; infinities stay


class Neighborhood:
    """Who the neighbours of n spots are, and where they lie as seen from them.

    Neighbours are tokens, int32 (n, k), -1 where there is none; places float32 (n, k, 3), any number where there is
    none.
    """

    def __init__(self, neighbors: torch.Tensor, place: torch.Tensor) -> None:
        self.neighbors = neighbors
        self.place = place

    @cached_property
    def incoming(self) -> tuple[np.ndarray, np.ndarray]:
        """For each token its first entry, (n + 1,), among the pairs i * k + j in which it is the neighbour.

        Only of all n spots, whose neighbours are among themselves.
        """
        token = self.neighbors.numpy().ravel()
        pairs = np.flatnonzero(token >= 0)
        shape = (len(self.neighbors), len(token))
        turned = sparse.csr_array((np.ones(len(pairs), bool), (token[pairs], pairs)), shape=shape)
        return turned.indptr, turned.indices

    def __getitem__(self, rows: slice) -> Neighborhood:
        return Neighborhood(self.neighbors[rows], self.place[rows])


def attend(
    query: torch.Tensor, look: torch.Tensor, key: torch.Tensor, value: torch.Tensor, around: Neighborhood
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to the neighbours of m spots: means of values (m, heads, d) and places (m, heads, 3) by the weights.

    `query` (m, heads, d) and `look` (m, heads, 3), what each head gives for the neighbours' places, are of the m spots;
    `key` and `value` (n, heads, d) of all tokens that may be neighbours.
    """
    if query.device.type == "cpu":
        weights = _Products.apply(query.float(), look.float(), key.float(), around).softmax(dim=-1)
        return _Sums.apply(weights, value.float(), around)
    there = around.neighbors >= 0
    neighbors = around.neighbors.clamp_min(0).long()
    place = around.place.to(query.dtype)
    scores = torch.einsum("mhd,mkhd->mhk", query, key[neighbors]) + torch.einsum("mhc,mkc->mhk", look, place)
    weights = scores.masked_fill(~there[:, None], -torch.inf).softmax(dim=-1).to(value.dtype)
    return torch.einsum("mhk,mkhd->mhd", weights, value[neighbors]), torch.einsum("mhk,mkc->mhc", weights, place)


class _Products(torch.autograd.Function):
    """Scores s_ij (m, heads, k), minus infinity where there is no neighbour."""

    @staticmethod
    def forward(ctx, query, look, key, around):
        query, look, key = query.contiguous(), look.contiguous(), key.contiguous()
        ctx.save_for_backward(query, key)
        ctx.around = around
        return _products(query, look, key, around, absent=-np.inf)

    @staticmethod
    def backward(ctx, of_scores):
        query, key = ctx.saved_tensors
        of_scores = of_scores.contiguous()
        return *_sums(of_scores, key, ctx.around), _spread(of_scores, query, ctx.around), None


class _Sums(torch.autograd.Function):
    """Sums over the neighbours of the weights (m, heads, k) times values (m, heads, d) and places (m, heads, 3)."""

    @staticmethod
    def forward(ctx, weights, value, around):
        weights, value = weights.contiguous(), value.contiguous()
        ctx.save_for_backward(weights, value)
        ctx.around = around
        return _sums(weights, value, around)

    @staticmethod
    def backward(ctx, of_value, of_place):
        weights, value = ctx.saved_tensors
        of_value, of_place = of_value.contiguous(), of_place.contiguous()
        of_weights = _products(of_value, of_place, value, ctx.around, absent=0.0)
        return of_weights, _spread(weights, of_value, ctx.around), None


def _products(query, look, key, around, *, absent: float) -> torch.Tensor:
    out = query.new_empty((*query.shape[:2], around.neighbors.shape[1]))
    arrays = (query, look, key, around.neighbors, around.place, out)
    _multiply(*(x.detach().numpy() for x in arrays), np.float32(absent))
    return out


def _sums(weights, value, around) -> tuple[torch.Tensor, torch.Tensor]:
    out = value.new_empty((len(weights), *value.shape[1:]))
    place = value.new_empty((*out.shape[:2], 3))
    _sum_up(*(x.detach().numpy() for x in (weights, value, around.neighbors, around.place, out, place)))
    return out, place


def _spread(weights, of_spot, around) -> torch.Tensor:
    out = torch.empty_like(of_spot)
    _sum_incoming(*(x.detach().numpy() for x in (weights, of_spot)), *around.incoming, out.numpy())
    return out


@parallel(fastmath=_FAST)
def _multiply(query, look, key, neighbors, place, out, absent):  # pragma: no cover (compiled)
    m, n_heads, d = query.shape
    for i in numba.prange(m):
        for h in range(n_heads):
            q = query[i, h]
            a0, a1, a2 = look[i, h, 0], look[i, h, 1], look[i, h, 2]
            for j in range(neighbors.shape[1]):
                other = neighbors[i, j]
                if other < 0:
                    out[i, h, j] = absent
                    continue
                k = key[other, h]
                product = np.float32(0)
                for c in range(d):
                    product += q[c] * k[c]
                out[i, h, j] = product + a0 * place[i, j, 0] + a1 * place[i, j, 1] + a2 * place[i, j, 2]


@parallel(fastmath=_FAST)
def _sum_up(weights, value, neighbors, place, out, out_place):  # pragma: no cover (compiled)
    m, n_heads, d = out.shape
    for i in numba.prange(m):
        for h in range(n_heads):
            total = out[i, h]
            total[:] = 0
            out_place[i, h] = 0
            for j in range(neighbors.shape[1]):
                other = neighbors[i, j]
                if other >= 0:
                    w, v = weights[i, h, j], value[other, h]
                    for c in range(d):
                        total[c] += w * v[c]
                    for c in range(3):
                        out_place[i, h, c] += w * place[i, j, c]


@parallel(fastmath=_FAST)
def _sum_incoming(weights, of_spot, first, pairs, out):  # pragma: no cover (compiled)
    """What each token gets back from the spots whose neighbour it is, in an order that no thread changes."""
    n, n_heads, d = out.shape
    k = weights.shape[2]
    for token in numba.prange(n):
        for h in range(n_heads):
            total = out[token, h]
            total[:] = 0
            for pair in pairs[first[token] : first[token + 1]]:
                i = pair // k
                w, x = weights[i, h, pair - i * k], of_spot[i, h]
                for c in range(d):
                    total[c] += w * x[c]
