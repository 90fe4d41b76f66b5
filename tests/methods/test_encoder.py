"""Eq. 5-11: the whole network recomputed in numpy from its weights, and what tokens must not know of one another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import erf

from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.encoder import SpotEncoder, Tokens, make_encoder
from sslcst.methods.ssl_cst.encoder.parts import RMLP, Dropout, ReparameterizedLinear
from sslcst.methods.ssl_cst.encoder.spot import SpotBlock
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inputs import GeneCounts, SpotInputs
from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.methods.ssl_cst.training import forward

N_GENES = 11
SMALL = EncoderParams(kind="spot", width=8, depth=3, heads=1, hidden=(12, 10))


def encoder_of(params: EncoderParams, seed: int = 0) -> SpotEncoder:
    generator = torch.Generator().manual_seed(seed)
    encoder = SpotEncoder(N_GENES, params, generator)
    for parameter in encoder.parameters():  # away from the ones and zeros that norms and biases start with
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return encoder


def tokens(b: int = 5, t: int = 7, *, missing: bool = False, width: int = 8) -> tuple[Tokens, torch.Tensor]:
    """Random tokens in double precision; the spot's own, first, is always present."""
    rng = np.random.default_rng(1)
    present = rng.random((b, t)) < 0.6
    present[:, 0] = True
    position, distance, expression = rng.random((b, t, 2)), rng.random((b, t)), rng.normal(size=(b, t, width))
    position, distance, expression = map(torch.from_numpy, (position, distance, expression))
    spot = torch.zeros((b, t), dtype=torch.int64)
    return Tokens(spot, position, distance, torch.from_numpy(present) if missing else None), expression


def by_formula(
    encoder: SpotEncoder, heads: int, expression: np.ndarray, position: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of one spot from its tokens (t, width), (t, 2), (t,), all of them present."""
    w = {name: value.double().numpy() for name, value in encoder.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return centred / np.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    r = expression + linear(position, "position") + linear(distance[:, None], "distance")  # eq. 5
    width = r.shape[1]
    for i in range(len(encoder.blocks)):
        x = norm(r, f"blocks.{i}.norm_attention")
        q, k, v = np.split(linear(x, f"blocks.{i}.attention.qkv"), 3, axis=1)  # eq. 6
        results = []
        for head in np.split(np.arange(width), heads):
            score = q[:, head] @ k[:, head].T / np.sqrt(width / heads)
            a = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)  # eq. 7
            results.append(a @ v[:, head])  # eq. 8
        r = linear(np.concatenate(results, axis=1), f"blocks.{i}.attention.out") + r  # eq. 10
        x = norm(r, f"blocks.{i}.norm_rmlp")
        for layer in range(len(encoder.blocks[i].rmlp.layers)):
            x = linear(x, f"blocks.{i}.rmlp.layers.{layer}.linear")  # eq. 9
            x = 0.5 * x * (1 + erf(x / np.sqrt(2)))  # Algorithm 2, line 11
        r = x + r  # eq. 11
    own = norm(r[0], "norm")
    return linear(own, "direction"), linear(own, "inside")[0]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_network_is_the_papers(heads: int, missing: bool) -> None:
    """Token by token; a missing neighbour must count as if it were not there at all."""
    encoder = encoder_of(replace(SMALL, heads=heads)).double()
    batch, expression = tokens(missing=missing)
    direction, inside = encoder(batch, expression)
    assert direction.shape == (5, 16)
    assert inside.shape == (5,)
    for i in range(5):
        there = batch.present[i].numpy() if missing else np.ones(7, bool)
        one = (x[i].numpy()[there] for x in (expression, batch.position, batch.distance))
        expected = by_formula(encoder, heads, *one)
        assert direction[i].numpy() == pytest.approx(expected[0], rel=1e-9, abs=1e-9)
        assert float(inside[i]) == pytest.approx(expected[1], rel=1e-9, abs=1e-9)


def test_sizes_are_those_of_the_paper() -> None:
    """W1 is N x D, W2 2 x D and W3 D; eight blocks; 16 directions and in or out."""
    encoder = make_encoder(30, EncoderParams(kind="spot", width=16, hidden=(24,)))
    assert encoder.expression.shape == (30, 16)
    assert encoder.position.weight.T.shape == (2, 16)
    assert encoder.distance.weight[:, 0].shape == (16,)
    assert len(encoder.blocks) == 8
    assert (encoder.direction.out_features, encoder.inside.out_features) == (16, 1)


def test_the_bias_of_the_tokens_starts_at_0() -> None:
    """Drawn at random it would be the same in every token, and larger than what tells them apart."""
    encoder = make_encoder(N_GENES, SMALL)
    assert not encoder.position.bias.any()
    assert encoder.position.weight.all()
    assert encoder.position.bias.requires_grad


@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_a_block_makes_the_asked_for_tokens_alone(missing: bool) -> None:
    """The last block's short cut gives the tokens that the whole computation gives."""
    block = encoder_of(replace(SMALL, heads=2)).blocks[0].double()
    batch, r = tokens(missing=missing)
    every = block(r, batch.present, 7)
    for n in (1, 3):
        assert torch.allclose(block(r, batch.present, n), every[:, :n], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_order_of_the_neighbours_does_not_matter() -> None:
    encoder = encoder_of(SMALL).double()
    batch, expression = tokens(missing=True)
    order = torch.tensor([0, 4, 2, 6, 1, 3, 5])
    fields = (batch.spot, batch.position, batch.distance, batch.present)
    turned = Tokens(*(field[:, order] for field in fields))
    for a, b in zip(encoder(batch, expression), encoder(turned, expression[:, order]), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_each_input_is_read() -> None:
    """Expression, position and distance of a neighbour all bear on the spot's prediction."""
    encoder = encoder_of(SMALL).double()
    batch, expression = tokens()
    direction, inside = encoder(batch, expression)
    changed = torch.zeros_like(batch.distance)
    changed[:, 3] = 0.5
    for other, g in (
        (batch, expression * (1 + changed[..., None])),
        (replace(batch, position=batch.position + changed[..., None]), expression),
        (replace(batch, distance=batch.distance + changed), expression),
    ):
        assert (encoder(other, g)[0] - direction).abs().min() > 1e-9
        assert (encoder(other, g)[1] - inside).abs().min() > 1e-9


@torch.no_grad()
def test_a_missing_neighbours_content_does_not_leak() -> None:
    encoder = encoder_of(replace(SMALL, heads=2)).double()
    batch, expression = tokens(missing=True)
    noise = 1e4 * (~batch.present).double()
    other = replace(batch, position=batch.position + noise[..., None], distance=batch.distance - noise)
    for a, b in zip(encoder(batch, expression), encoder(other, expression - noise[..., None]), strict=True):
        assert torch.equal(a, b)


def drawing() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plain(**changes: object) -> EncoderParams:
    return replace(EncoderParams(width=6, depth=2, hidden=(5,), dropout=0.0), **changes)


def test_the_reparameterisation_is_drawn_anew_in_training_and_never_at_inference() -> None:
    draw = drawing()
    rmlp, r = RMLP(plain(noise=0.1), draw), torch.randn(4, 6, generator=draw)
    steps = [rmlp(r, draw) for _ in range(3)]
    assert not any(torch.equal(a, b) for a, b in zip(steps, steps[1:] + steps[:1], strict=True))
    assert torch.equal(rmlp(r), rmlp(r))


def test_without_noise_an_rmlp_is_plain() -> None:
    draw = drawing()
    rmlp, r = RMLP(plain(noise=0.0), draw), torch.randn(4, 6, generator=draw)
    x = r
    for layer in rmlp.layers:
        x = torch.nn.functional.gelu(layer.linear(x))
    assert torch.equal(rmlp(r, draw), x)
    assert torch.equal(rmlp(r), x)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_the_noise_has_the_asked_for_spread(noise: float) -> None:
    """Relative to the weights it is added to; without a trend, and new from step to step."""
    draw = drawing()
    layer = ReparameterizedLinear(200, 300, noise, draw)
    unit, weight = torch.eye(200), layer.linear.weight.detach()
    with torch.no_grad():
        first, second = (layer(unit, draw) - layer.linear.bias - weight.T for _ in range(2))
    assert float(first.std()) == pytest.approx(noise * float(weight.std()), rel=0.02)
    assert abs(float(first.mean())) < 4 * float(first.std()) / 60_000**0.5
    assert abs(np.corrcoef(first.numpy().ravel(), second.numpy().ravel())[0, 1]) < 0.02


def test_the_weights_learn_through_the_noise() -> None:
    layer = ReparameterizedLinear(3, 2, 0.5, drawing())
    layer(torch.ones(1, 3), drawing()).sum().backward()
    assert torch.equal(layer.linear.weight.grad, torch.ones(2, 3))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_at_random_and_keeps_the_mean(share: float) -> None:
    dropout, x, draw = Dropout(share), torch.ones(1001, 333), drawing()
    first, second = dropout(x, draw), dropout(x, draw)
    for out in (first, second):
        assert out.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
        assert float((out == 0).float().mean()) == pytest.approx(share, abs=0.005)
        of_rows = (out == 0).float().mean(dim=1)  # no stripes: rows differ as independent draws do
        assert float(of_rows.std()) == pytest.approx((share * (1 - share) / 333) ** 0.5, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.01
    assert torch.equal(dropout(x), x)


def test_dropout_acts_in_training_alone() -> None:
    draw = drawing()
    block, r = SpotBlock(plain(noise=0.0, dropout=0.5), draw), torch.randn(2, 4, 6, generator=draw)
    assert not torch.equal(block(r, None, 4, draw), block(r, None, 4, draw))
    assert torch.equal(block(r, None, 4), block(r, None, 4))


# --- What the network reads of the spots -----------------------------------------------------------------------------


def sparse_counts(n: int = 20, seed: int = 0) -> sparse.csr_matrix:
    """Counts up to 70,000; row 3 is empty."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 70_001, (n, N_GENES)) * (rng.random((n, N_GENES)) < 0.4)
    counts[3] = 0
    return sparse.csr_matrix(counts)


@pytest.mark.parametrize("rows", [[0, 1, 2], [7, 3, 7, 0, 19], [3], [3, 3], list(range(20))])
def test_rows_of_counts_are_those_of_the_dense_matrix(rows: list[int]) -> None:
    counts = sparse_counts()
    gene, value, first = GeneCounts(counts.astype(np.float32)).rows(torch.tensor(rows))
    bounds = [*first.tolist(), len(gene)]
    dense = np.zeros((len(rows), N_GENES))
    for i, (start, stop) in enumerate(pairwise(bounds)):
        np.add.at(dense[i], gene[start:stop].numpy(), value[start:stop].numpy())
    assert dense == pytest.approx(np.log1p(counts.toarray()[rows]), rel=1e-6)


@torch.no_grad()
def test_embedded_expression_is_the_dense_product() -> None:
    """The term g W1 of eq. 5; a spot of none of the genes is at 0, and no count is too large."""
    encoder, counts = encoder_of(SMALL), sparse_counts()
    rows = torch.tensor([5, 3, 0, 5, 19])
    embedded = encoder.embed_expression(GeneCounts(counts.astype(np.float32)), rows).numpy()
    dense = np.log1p(counts.toarray()[rows]) @ encoder.expression.numpy()
    assert embedded == pytest.approx(dense, rel=1e-5, abs=1e-4)
    assert not embedded[1].any()


@torch.no_grad()
def test_spots_without_any_of_the_genes_are_embedded() -> None:
    empty = GeneCounts(sparse.csr_matrix((4, N_GENES), dtype=np.float32))
    assert not encoder_of(SMALL).embed_expression(empty, torch.arange(4)).any()


RADIUS = 8.0


def inputs_of(
    index: list[tuple[int, int]], counts: sparse.csr_matrix, *, n_neighbors: int = 3, window: int = 2
) -> SpotInputs:
    spots = Spots(Grid((30, 30), (1.0, 1.0), 1.0), np.array(index, np.int32), counts)
    distance = np.linspace(0, 12, len(index))
    features = Features.of(spots, counts=counts, distance=distance, n_neighbors=n_neighbors, window=window)
    return SpotInputs(features, EncoderParams(kind="spot"), radius=RADIUS)


def logits(encoder: SpotEncoder, inputs: SpotInputs, spots: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return forward(encoder, inputs.counts, inputs.tokens(torch.tensor(spots)))


SQUARE = [(10, 10), (10, 11), (11, 10), (11, 11)]
LINE = [(20, 5), (20, 7)]


def test_a_batch_holds_the_spot_first_and_at_the_origin() -> None:
    inputs = inputs_of(SQUARE, sparse_counts(4))
    batch = inputs.tokens(torch.tensor([3, 0]))
    assert batch.present is None
    assert batch.spot.tolist() == [[3, 1, 2, 0], [0, 1, 2, 3]]
    assert batch.position.tolist() == [
        [[0, 0], [-0.125, 0], [0, -0.125], [-0.125, -0.125]],
        [[0, 0], [0, 0.125], [0.125, 0], [0.125, 0.125]],
    ]
    assert batch.distance.numpy() == pytest.approx(np.exp(-np.array([[12, 4, 8, 0], [0, 4, 8, 12]]) / RADIUS))


def test_a_batch_tells_which_neighbours_are_missing() -> None:
    inputs = inputs_of(SQUARE + LINE, sparse_counts(6))
    batch = inputs.tokens(torch.tensor([0, 5]))
    assert len(inputs) == 6
    assert batch.present.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.spot[1, :2].tolist() == [5, 4]
    assert inputs.tokens(torch.tensor([0, 3])).present is None, "by the batch, whatever else is in view"


@torch.no_grad()
def test_network_on_real_inputs_is_the_papers() -> None:
    """From counts and places to logits, in single precision, neighbours missing; spots in any order, one twice."""
    params = replace(SMALL, heads=2)
    encoder, counts = encoder_of(params), sparse_counts(6)
    inputs = inputs_of(SQUARE + LINE, counts)
    spots = [4, 0, 4, 5]
    direction, inside = logits(encoder, inputs, spots)
    place, distance = np.array(SQUARE + LINE), np.exp(-np.linspace(0, 12, 6) / RADIUS)
    expression = np.log1p(counts.toarray()) @ encoder.expression.double().numpy()
    for i, spot in enumerate(spots):
        group = np.arange(4) if spot < 4 else np.array([spot, 9 - spot])
        position = (place[group] - place[spot]) / RADIUS
        expected = by_formula(encoder, 2, expression[group], position, distance[group])
        assert direction[i].numpy() == pytest.approx(expected[0], rel=1e-3, abs=1e-3)
        assert float(inside[i]) == pytest.approx(expected[1], rel=1e-3, abs=1e-3)


@torch.no_grad()
def test_a_spot_is_not_moved_by_spots_that_are_not_its_neighbours() -> None:
    """A missing neighbour stands for no spot, in particular not for the first one."""
    encoder, counts = encoder_of(SMALL), sparse_counts(6).tolil()
    before = logits(encoder, inputs_of(SQUARE + LINE, counts.tocsr()), [4, 5])
    counts[0] = 999
    after = logits(encoder, inputs_of(SQUARE + LINE, counts.tocsr()), [4, 5])
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_spot_is_read_alike_wherever_it_lies() -> None:
    encoder, counts = encoder_of(SMALL), sparse_counts(4)
    here = logits(encoder, inputs_of(SQUARE, counts), [0, 1, 2, 3])
    there = logits(encoder, inputs_of([(y + 9, x - 7) for y, x in SQUARE], counts), [0, 1, 2, 3])
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b)
