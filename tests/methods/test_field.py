"""The field encoder: its attention against plain matrices, what may not matter to it, and how fields are cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.encoder import FieldEncoder, field
from sslcst.methods.ssl_cst.encoder.neighborhood import Neighborhood, attend
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inputs import N_TURNS, FieldInputs, Targets, make_inputs, turn_matrices, turned_classes
from sslcst.methods.ssl_cst.params import EncoderParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import direction_class
from sslcst.methods.ssl_cst.training import forward

N_GENES = 9
SMALL = EncoderParams(kind="field", width=8, depth=3, heads=2, hidden=(12,))


def encoder_of(params: EncoderParams = SMALL, seed: int = 0) -> FieldEncoder:
    generator = torch.Generator().manual_seed(seed)
    encoder = FieldEncoder(N_GENES, params, generator)
    for parameter in encoder.parameters():  # away from the ones and zeros that norms and biases start with
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return encoder


def tissue(side: int = 24, share: float = 0.5, seed: int = 0) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Occupied bins, their counts and distances."""
    rng = np.random.default_rng(seed)
    index = np.argwhere(rng.random((side, side)) < share).astype(np.int32)
    counts = sparse.csr_matrix(rng.poisson(0.4, (len(index), N_GENES)))
    return index, counts, rng.uniform(0, 12, len(index))


def inputs_of(
    index: np.ndarray, counts: sparse.csr_matrix, distance: np.ndarray, *, n_neighbors: int = 5, window: int = 3
) -> FieldInputs:
    spots = Spots(Grid((90, 90), (1.0, 1.0), 1.0), index, counts)
    features = Features.of(spots, counts=counts, distance=distance, n_neighbors=n_neighbors, window=window)
    return make_inputs(SMALL, features, radius=6.0)


@torch.no_grad()
def predict(encoder: FieldEncoder, inputs: FieldInputs, spots: np.ndarray | None = None, block: int = 100):
    """Logits (m, 16) and (m,) of some or all spots, in their order."""
    wanted = torch.arange(len(inputs)) if spots is None else torch.from_numpy(spots)
    direction, inside = torch.empty(len(wanted), 16), torch.empty(len(wanted))
    for batch, places in inputs.cover(wanted, block):
        direction[places], inside[places] = forward(encoder, inputs.counts, batch)
    return direction.numpy(), inside.numpy()


# --- Attention -------------------------------------------------------------------------------------------------------


def neighborhood(n: int = 13, k: int = 6, *, missing: bool = True) -> Neighborhood:
    """Each spot is its own first neighbour; some of the others are missing, some occur twice."""
    rng = np.random.default_rng(0)
    neighbors = rng.integers(0, n, (n, k)).astype(np.int32)
    neighbors[:, 0] = np.arange(n)
    if missing:
        neighbors[:, 1:][rng.random((n, k - 1)) < 0.3] = -1
    place = rng.normal(size=(n, k, 3)).astype(np.float32)
    return Neighborhood(torch.from_numpy(neighbors), torch.from_numpy(place))


def arguments(n: int = 13, heads: int = 2, d: int = 4) -> list[torch.Tensor]:
    """Query, look, key and value."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(n, heads, size, generator=draw).requires_grad_() for size in (d, 3, d, d)]


def by_matrices(query, look, key, value, around: Neighborhood) -> tuple[torch.Tensor, torch.Tensor]:
    """The same sums spot by spot and head by head."""
    found, places = torch.zeros_like(query), torch.zeros_like(look)
    for i, neighbors in enumerate(around.neighbors.tolist()):
        there = [j for j, other in enumerate(neighbors) if other >= 0]
        others, place = [neighbors[j] for j in there], around.place[i, there]
        for h in range(query.shape[1]):
            weights = (key[others, h] @ query[i, h] + place @ look[i, h]).softmax(0)
            found[i, h], places[i, h] = weights @ value[others, h], weights @ place
    return found, places


@pytest.mark.parametrize("missing", [False, True])
def test_attention_and_its_gradients_are_those_of_plain_matrices(missing: bool) -> None:
    around, given_ = neighborhood(missing=missing), arguments()
    found, expected = attend(*given_, around), by_matrices(*given_, around)
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=draw) for x in expected]
    gradients = [
        torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, pair, strict=True)), given_)
        for pair in (found, expected)
    ]
    for a, b in [*zip(found, expected, strict=True), *zip(*gradients, strict=True)]:
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_attention_on_a_gpu_is_that_on_the_cpu() -> None:
    """The gathered form, which runs where tensors say that they lie elsewhere."""
    around, given_ = neighborhood(), [x.detach() for x in arguments()]
    expected = attend(*given_, around)

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    found = attend(given_[0].as_subclass(Elsewhere), *given_[1:], around)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(torch.Tensor(a), b, rtol=1e-4, atol=1e-5)


def test_some_rows_attend_as_among_all() -> None:
    """Rows are computed a part at a time at inference."""
    around, (query, look, key, value) = neighborhood(), [x.detach() for x in arguments()]
    every = attend(query, look, key, value, around)
    for rows in (slice(0, 5), slice(5, 13)):
        for a, b in zip(attend(query[rows], look[rows], key, value, around[rows]), every, strict=True):
            assert torch.equal(a, b[rows])


# --- What may not matter ---------------------------------------------------------------------------------------------


@given(dy=st.integers(0, 40), dx=st.integers(0, 40))
def test_moving_the_tissue_changes_nothing(dy: int, dx: int) -> None:
    index, counts, distance = tissue(12)
    here = predict(encoder_of(), inputs_of(index, counts, distance))
    there = predict(encoder_of(), inputs_of(index + np.array([dy, dx], np.int32), counts, distance))
    for a, b in zip(here, there, strict=True):
        assert np.array_equal(a, b)


def turned(encoder: FieldEncoder, turn: int) -> FieldEncoder:
    """The encoder whose weights see the tissue turned: only what reads or tells a place or a direction changes."""
    matrix = torch.eye(3)
    matrix[:2, :2] = torch.from_numpy(turn_matrices()[turn])
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    heads, width = SMALL.heads, SMALL.width
    for layer in range(SMALL.depth):
        for name in (f"blocks.{layer}.look.weight", f"blocks.{layer}.look.bias"):
            state[name] = (matrix @ state[name].reshape(heads, 3, -1)).reshape(state[name].shape)
        out = state[f"blocks.{layer}.out.weight"]
        out[:, width:] = (out[:, width:].reshape(width, heads, 3) @ matrix.T).flatten(1)
    classes = turned_classes()[turn, :16]
    for name in ("direction.weight", "direction.bias"):
        state[name][classes] = state[name].clone()
    other = encoder_of()
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("turn", range(N_TURNS))
def test_turning_tissue_and_weights_alike_turns_the_directions(turn: int) -> None:
    """No axis is treated otherwise than another. The neighbours are so many that ties at the last one do not arise."""
    index, counts, distance = tissue(7)
    moved = (index - 3) @ turn_matrices()[turn].astype(int).T + 10
    features = {"n_neighbors": len(index) - 1, "window": 8}
    here, there = (inputs_of(i.astype(np.int32), counts, distance, **features) for i in (index, moved))
    direction, inside = predict(encoder_of(), here)
    turned_direction, turned_inside = predict(turned(encoder_of(), turn), there)
    assert turned_inside == pytest.approx(inside, abs=1e-4)
    assert turned_direction[:, turned_classes()[turn, :16]] == pytest.approx(direction, abs=1e-4)


@pytest.mark.parametrize("turn", range(N_TURNS))
def test_classes_turn_as_their_offsets_do(turn: int) -> None:
    offset = np.random.default_rng(0).normal(size=(500, 2))
    classes = turned_classes()[turn, direction_class(offset)]
    assert np.array_equal(classes, direction_class(offset @ turn_matrices()[turn].T))
    assert turned_classes()[turn, -1] == -1


def test_empty_bins_do_not_matter() -> None:
    """Around the tissue or between its spots: what is not there has no token."""
    index, counts, distance = tissue()
    before = predict(encoder_of(), inputs_of(index, counts, distance))
    keep = np.random.default_rng(1).random(len(index)) < 0.8
    thinned = predict(encoder_of(), inputs_of(index[keep], counts[keep], distance[keep]))
    far = np.concatenate([index, [[88, 88]]]).astype(np.int32)
    more = inputs_of(far, sparse.vstack([counts, counts[:1]]).tocsr(), np.append(distance, 3.0))
    after = predict(encoder_of(), more)
    for a, b, c in zip(before, after, thinned, strict=True):
        assert a == pytest.approx(b[:-1], abs=1e-5)
        assert np.abs(a[keep] - c).max() > 1e-2  # whereas a spot that goes is missed


@given(block=st.sampled_from([1, 6, 12, 17]), seed=st.integers(0, 3))
def test_a_part_of_the_field_is_predicted_as_within_the_whole(block: int, seed: int) -> None:
    """The halo: all spots that bear on a prediction, through every layer, are read with it."""
    inputs = inputs_of(*tissue(seed=seed))
    whole = predict(encoder_of(), inputs)
    for a, b in zip(predict(encoder_of(), inputs, block=block), whole, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_halo_one_layer_short_would_be_noticed() -> None:
    inputs = inputs_of(*tissue())
    whole = predict(encoder_of(), inputs)
    inputs.depth -= 1
    assert np.abs(predict(encoder_of(), inputs, block=6)[0] - whole[0]).max() > 1e-3


def test_some_spots_are_predicted_as_among_all() -> None:
    inputs = inputs_of(*tissue())
    some = np.array([200, 3, 77, 150])
    for a, b in zip(predict(encoder_of(), inputs, some), predict(encoder_of(), inputs), strict=True):
        assert a == pytest.approx(b[some], abs=1e-5)


@torch.no_grad()
def test_many_spots_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(*tissue())
    whole = predict(encoder_of(), inputs)
    monkeypatch.setitem(field._ROWS, "cpu", 50)
    for a, b in zip(predict(encoder_of(), inputs), whole, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@torch.no_grad()
def test_each_input_is_read() -> None:
    """Expression and distance of a neighbour, and its place."""
    index, counts, distance = tissue()
    before = predict(encoder_of(), inputs_of(index, counts, distance))[0]
    assert np.abs(predict(encoder_of(), inputs_of(index, counts * 2, distance))[0] - before).max() > 1e-3
    assert np.abs(predict(encoder_of(), inputs_of(index, counts, distance + 1))[0] - before).max() > 1e-3
    stretched = predict(encoder_of(), inputs_of(index * np.array([2, 1], np.int32), counts, distance, window=7))[0]
    assert np.abs(stretched - before).max() > 1e-3


# --- Lessons ---------------------------------------------------------------------------------------------------------


def training_batches(size: int = 60, crop: float = 1.5):
    index, counts, distance = tissue()
    inputs = inputs_of(index, counts, distance)
    rng = np.random.default_rng(0)
    spot = rng.permutation(len(index))[:120]
    offset = rng.normal(size=(120, 2))
    targets = Targets(
        torch.from_numpy(spot),
        torch.from_numpy(np.where(np.arange(120) % 3, direction_class(offset), -1)),
        torch.from_numpy((np.arange(120) % 3 > 0).astype(np.float32)),
    )
    draw = torch.Generator().manual_seed(0)
    batches = list(inputs.training_batches(targets, TrainingParams(crop=crop, field_size=size), draw))
    return index, inputs, targets, batches


def test_an_epoch_teaches_every_sample_once() -> None:
    """In and out go with the spot they belong to; a spot is read in at most one batch."""
    _, _, targets, batches = training_batches()
    taught = torch.cat([field.spot[field.wanted] for field, _ in batches])
    assert torch.equal(taught, torch.cat([truth.spot for _, truth in batches]))
    assert torch.equal(taught.sort().values, targets.spot.sort().values)
    inside = dict(zip(targets.spot.tolist(), targets.inside.tolist(), strict=True))
    for _, truth in batches:
        assert truth.inside.tolist() == [inside[spot] for spot in truth.spot.tolist()]
    read = torch.cat([field.spot for field, _ in batches])
    assert len(read.unique()) == len(read)
    assert 3 < len(batches) < 12


def test_a_lesson_is_the_tissue_turned_square_by_square() -> None:
    """Places and directions turn alike; distances between neighbours stay, and squares do not see one another."""
    index, inputs, targets, batches = training_batches()
    matrices, classes = torch.from_numpy(turn_matrices()), torch.from_numpy(turned_classes())
    direction = torch.full((len(index),), -1).scatter_(0, targets.spot, targets.direction)
    used = set()
    for batch, truth in batches:
        expected = 4 * inputs.offsets(batch.spot)
        there = batch.around.neighbors >= 0
        assert there[:, 0].all()
        own = batch.around.neighbors[there]
        assert torch.equal(batch.spot[own], inputs.neighbors[batch.spot][there].long())
        for row in range(len(batch.spot)):
            seen = there[row]
            fits = [
                bool(torch.allclose(batch.around.place[row, seen, :2], expected[row, seen] @ m.T)) for m in matrices
            ]
            assert any(fits)
            if row in batch.wanted.tolist():
                told = truth.direction[batch.wanted.tolist().index(row)]
                before = direction[batch.spot[row]]
                possible = {int(classes[turn, before]) for turn in range(N_TURNS) if fits[turn]}
                assert int(told) in possible
                used |= possible if len(possible) == 1 else set()
        squared = (batch.around.place[..., :2] ** 2).sum(-1)
        assert torch.allclose(batch.around.place[..., 2], squared, atol=1e-6)
    assert len(used) > 8


def test_training_batches_differ_from_epoch_to_epoch_and_come_again_with_the_generators_state() -> None:
    _, inputs, targets, first = training_batches()
    again = training_batches()[3]
    for (a, _), (b, _) in zip(first, again, strict=True):
        assert torch.equal(a.spot, b.spot)
    later = list(
        inputs.training_batches(targets, TrainingParams(crop=1.5, field_size=60), torch.Generator().manual_seed(1))
    )
    assert not all(torch.equal(a.spot, b.spot) for (a, _), (b, _) in zip(first, later, strict=False))


def test_depth_and_heads_are_parameters() -> None:
    encoder = encoder_of(replace(SMALL, depth=1, heads=4))
    assert len(encoder.blocks) == 1
    assert encoder.blocks[0].look.out_features == 12
