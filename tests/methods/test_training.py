"""Training learns, stops, and comes back the same; prediction does not depend on the batch; a model reads its genes."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from skimage.draw import disk

from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Spots, take_genes
from sslcst.errors import DataError, TrainingError
from sslcst.methods.ssl_cst.encoder import Encoder, Tokens, make_encoder
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.inputs import Inputs, SpotInputs, make_inputs
from sslcst.methods.ssl_cst.model import Epoch, Model, places_of
from sslcst.methods.ssl_cst.params import EncoderParams, SamplingParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import Samples, choose_samples, relate, set_apart, survey
from sslcst.methods.ssl_cst.training import forward, losses, train_encoder

N_GENES = 17
TINY = {kind: EncoderParams(kind=kind, width=16, depth=2, hidden=(16,)) for kind in ("spot", "field")}
FAST = TrainingParams(
    learning_rate=5e-3,
    schedule="constant",
    warm_up=1,
    batch_size=64,
    crop=2.0,
    field_size=500,
    max_epochs=3,
    min_steps=20,
)


def tissue(kind: str, *, told_by: str = "gene", n_neighbors: int = 6, window: int = 2) -> tuple[Inputs, Samples]:
    """Sixteen round nuclei on a grid without gaps.

    What a spot's class is can be told by its one gene, of which there is one for each direction and one for outside;
    or, where all spots hold the same gene, by the distances of its neighbours; or by nothing: the genes are drawn.
    Where each bin is a spot, a spot's key is its index.
    """
    nuclei = np.zeros((56, 56), np.uint32)
    for number in range(16):
        nuclei[disk((7 + 14 * (number // 4), 7 + 14 * (number % 4)), 4.5)] = 1 + number
    index = np.argwhere(np.ones(nuclei.shape)).astype(np.int32)
    total = sparse.csr_matrix(np.where(nuclei.ravel(), 9, 1)[:, None])
    spots = Spots(Grid(nuclei.shape, (1.0, 1.0), 1.0), index, total)
    relations = relate(spots, nuclei, nuclei, Regions.of(nuclei))
    sampling = SamplingParams(validation=0.25)
    surveyed = survey(spots, relations, radius=6.0, params=sampling)
    samples = choose_samples(spots, relations, surveyed, radius=6.0, params=sampling)
    samples = set_apart(samples, params=sampling, whole_squares=False, seed=0)
    gene = np.full(len(index), 16)
    if told_by == "gene":
        gene[samples.key] = np.where(samples.direction < 0, 16, samples.direction)
    elif told_by == "nothing":
        gene = np.random.default_rng(0).integers(0, N_GENES, len(index))
    counts = sparse.csr_matrix((np.full(len(gene), 3), (np.arange(len(gene)), gene)), shape=(len(gene), N_GENES))
    return inputs_of(kind, spots, counts, relations.distance, n_neighbors=n_neighbors, window=window), samples


def inputs_of(kind: str, spots: Spots, counts: sparse.csr_matrix, distance: np.ndarray, **neighbors: int) -> Inputs:
    features = Features.of(spots, counts=counts, distance=distance, **neighbors)
    return make_inputs(TINY[kind], features, radius=6.0)


@pytest.fixture(scope="module", params=TINY)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def toy(kind: str) -> tuple[Inputs, Samples]:
    return tissue(kind)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sslcst")


def train(data: tuple[Inputs, Samples], **changes) -> tuple[Encoder, list[Epoch]]:
    kind = "spot" if isinstance(data[0], SpotInputs) else "field"
    changes = {"n_genes": N_GENES, "encoder_params": TINY[kind], "params": FAST, **changes}
    inputs, samples = data
    return train_encoder(inputs, samples.key, samples, **changes)


def everything(encoder: Encoder, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all spots, where a field is read in one batch."""
    every = torch.arange(len(inputs))
    parts = [(*forward(encoder, inputs.counts, batch), places) for batch, places in inputs.cover(every, 56)]
    direction, inside, places = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(places, every)
    return direction, inside


def same(a: Encoder, b: Encoder) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_the_genes_tell_is_learnt(toy: tuple[Inputs, Samples]) -> None:
    """On nuclei set apart, where guessing is right on one direction of sixteen.

    A field is turned at random while it is learnt from, so that no gene can stand for a direction.
    """
    _, history = train(toy, params=replace(FAST, max_epochs=6))
    assert history[-1].inside_accuracy > 0.98
    if isinstance(toy[0], SpotInputs):
        assert history[-1].direction_accuracy > 0.9


def test_what_the_neighbours_tell_is_learnt(kind: str) -> None:
    """All spots express alike: only positions and distances of the neighbours point to the nucleus."""
    _, history = train(tissue(kind, told_by="distance"), params=replace(FAST, max_epochs=12))
    assert max(epoch.direction_accuracy for epoch in history) > 0.5


def test_the_seed_fixes_the_weights(toy: tuple[Inputs, Samples]) -> None:
    (a, of_a), (b, of_b), (c, _) = (train(toy, seed=seed, params=replace(FAST, max_epochs=2)) for seed in (1, 1, 2))
    assert same(a, b)
    assert of_a == of_b
    assert not same(a, c)


def test_the_callers_random_state_is_left_alone_and_does_not_matter(toy: tuple[Inputs, Samples]) -> None:
    short = replace(FAST, max_epochs=1)
    torch.manual_seed(7)
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    a, _ = train(toy, params=short)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], of_numpy)
    torch.manual_seed(8)
    assert same(a, train(toy, params=short)[0])


def test_training_stops_early_and_keeps_the_best_state(kind: str) -> None:
    """Where nothing can be learnt, the validation loss soon rises; the state returned is that of its lowest point."""
    inputs, samples = tissue(kind, told_by="nothing")
    params = replace(FAST, learning_rate=2e-2, max_epochs=40, patience=2)
    random = np.random.default_rng(0).integers(0, 16, len(samples))
    samples = replace(samples, direction=np.where(samples.inside, random, -1))
    seen: list[Epoch] = []
    encoder, history = train((inputs, samples), params=params, on_epoch=seen.append)
    validation_loss = [epoch.validation_loss for epoch in history]
    best = int(np.argmin(validation_loss))
    assert len(history) == best + 1 + params.patience < params.max_epochs
    assert seen == history
    assert [epoch.epoch for epoch in history] == list(range(len(history)))

    held = torch.from_numpy(samples.key[samples.validation])
    truth = (
        torch.from_numpy(samples.direction[samples.validation]),
        torch.from_numpy(samples.inside[samples.validation]),
    )
    assert not encoder.training
    with torch.no_grad():
        direction, inside = everything(encoder, inputs)
        direction, inside = direction[held], inside[held]
    assert float(losses(direction, inside, truth[0], truth[1].float())) == pytest.approx(
        validation_loss[best], rel=1e-4
    )
    known = truth[0] >= 0
    right = (direction.argmax(dim=1) == truth[0])[known].float().mean()
    assert history[best].direction_accuracy == pytest.approx(float(right), abs=1e-6)
    assert history[best].inside_accuracy == pytest.approx(float(((inside > 0) == truth[1]).float().mean()), abs=1e-6)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_break_torch_while_it_loads_what_an_optimizer_needs(
    toy: tuple[Inputs, Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, adam = threading.Event(), torch.optim.Adam

    def pressed(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        optimizer = adam(*args, **kwargs)
        made.set()
        return optimizer

    monkeypatch.setattr(torch.optim, "Adam", pressed)
    with pytest.raises(KeyboardInterrupt):
        train(toy)
    assert made.wait(60)  # stopped while it started the thread, it has not waited for it


def test_training_ends_after_the_last_epoch(toy: tuple[Inputs, Samples]) -> None:
    assert len(train(toy, params=replace(FAST, max_epochs=2))[1]) == 2


@pytest.mark.parametrize("cause", ["learning rate", "features"])
def test_a_loss_that_is_not_a_number_ends_the_training(kind: str, cause: str) -> None:
    data, rate = tissue(kind), FAST.learning_rate
    if cause == "features":
        data[0].distance[:] = float("nan")
    else:
        rate = 1e30
    with pytest.raises(TrainingError, match=r"loss became .* \(validation: .*\) in epoch \d.*learning_rate"):
        train(data, params=replace(FAST, learning_rate=rate))


def test_training_goes_without_neighbours_and_directions(kind: str) -> None:
    """Single spots far from one another, and positives that all lie on their centroid."""
    counts = sparse.csr_matrix(np.eye(8, N_GENES))
    spots = Spots(Grid((80, 80), (1.0, 1.0), 1.0), np.stack([10 * np.arange(8)] * 2, axis=1).astype(np.int32), counts)
    inputs = inputs_of(kind, spots, counts, np.arange(8.0), n_neighbors=4, window=2)
    each = np.arange(8)
    samples = Samples(each, each % 2 == 0, np.full(8, -1), square=each, nearest=each, validation=each >= 6)
    _, history = train((inputs, samples), params=replace(FAST, max_epochs=2))
    assert np.isfinite([epoch.validation_loss for epoch in history]).all()
    assert np.isnan(history[0].direction_accuracy)


def by_hand(direction: np.ndarray, inside: np.ndarray, classes: np.ndarray, is_inside: np.ndarray) -> float:
    """Cross-entropy of the direction over samples that have one, and L_y = -y log p - (1 - y) log(1 - p) over all."""
    of_direction = [
        -log(exp(row[c]) / sum(exp(x) for x in row)) for row, c in zip(direction, classes, strict=True) if c >= 0
    ]
    of_inside = []
    for x, y in zip(inside, is_inside, strict=True):
        p = 1 / (1 + exp(-x))
        of_inside.append(-y * log(p) - (1 - y) * log(1 - p))
    return sum(of_direction) / max(len(of_direction), 1) + sum(of_inside) / len(of_inside)


@pytest.mark.parametrize("classes", [[3, -1, 0, 15, -1], [-1] * 5, [1, 2, 3, 4, 5]])
def test_the_loss_is_that_of_algorithm_2(classes: list[int]) -> None:
    rng = np.random.default_rng(0)
    direction, inside = rng.normal(size=(5, 16)), rng.normal(size=5)
    classes, is_inside = np.array(classes), np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    loss = losses(*map(torch.from_numpy, (direction, inside, classes, is_inside)))
    assert float(loss) == pytest.approx(by_hand(direction, inside, classes, is_inside))


# --- Inference -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(toy: tuple[Inputs, Samples]) -> Encoder:
    return train(toy, params=replace(FAST, max_epochs=1))[0]


def test_prediction_is_that_of_the_network(toy: tuple[Inputs, Samples], trained: Encoder) -> None:
    inputs, _ = toy
    direction, inside = predict_spots(trained, inputs)
    with torch.no_grad():
        logits, own = (x.double().numpy() for x in everything(trained, inputs))
    assert direction.shape == (len(inputs), 16)
    assert direction.dtype == inside.dtype == np.float32
    assert direction == pytest.approx(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), abs=1e-5)
    assert inside == pytest.approx(1 / (1 + np.exp(-own)), abs=1e-5)


class Holding:
    """An encoder on a device that holds so many predictions at a time; it keeps how many each batch had."""

    def __init__(self, encoder: Encoder, most: int) -> None:
        self.encoder, self.most, self.embed_expression = encoder, most, encoder.embed_expression
        self.done: list[int] = []

    def __call__(self, batch, expression):
        n = len(batch.distance) if isinstance(batch, Tokens) else len(batch.wanted)
        if n > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.done.append(n)
        return self.encoder(batch, expression)


@pytest.mark.parametrize("block", [1, 5, 16])
def test_the_size_of_blocks_does_not_change_the_prediction(kind: str, trained: Encoder, block: int) -> None:
    index = np.argwhere(np.random.default_rng(0).random((16, 16)) < 0.3).astype(np.int32)
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(0.3, (len(index), N_GENES)))
    spots = Spots(Grid((16, 16), (1.0, 1.0), 1.0), index, counts)
    inputs = inputs_of(kind, spots, counts, np.ones(len(index)), n_neighbors=6, window=2)
    holding = Holding(trained, block**2)
    for a, b in zip(predict_spots(holding, inputs, block=block), predict_spots(trained, inputs), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert sum(holding.done) == len(inputs)


def test_blocks_too_large_are_halved(
    toy: tuple[Inputs, Samples], trained: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    holding = Holding(trained, 50)
    for a, b in zip(predict_spots(holding, toy[0], block=56), predict_spots(trained, toy[0]), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert sum(holding.done) == len(toy[0])
    assert max(holding.done) > 32
    assert caplog.text.count("Not enough memory") == 3  # 28, 14, 7


def test_a_device_that_does_not_hold_one_spot_is_an_error(toy: tuple[Inputs, Samples], trained: Encoder) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        predict_spots(Holding(trained, 0), toy[0])


# --- A trained model -------------------------------------------------------------------------------------------------


def model_of(*genes: str, encoder: Encoder | None = None) -> Model:
    encoder = encoder or make_encoder(len(genes), TINY["field"])
    return Model(
        encoder,
        TINY["field"],
        genes,
        bin_size=1.0,
        radius=6.0,
        n_neighbors=6,
        window=2,
        seed=0,
        history=(),
        n_samples=0,
    )


def read(model: Model, counts: sparse.csr_matrix, genes: list[str]) -> sparse.csr_matrix:
    return take_genes(counts, places_of(model.genes, genes))


def test_counts_are_read_in_the_models_order(caplog: pytest.LogCaptureFixture) -> None:
    model, genes = model_of("d", "a", "c"), ["a", "b", "c", "d"]
    assert places_of(model.genes, genes).tolist() == [3, 0, 2]
    found = read(model, sparse.csr_matrix(np.arange(8).reshape(2, 4)), genes)
    assert found.toarray().tolist() == [[3, 0, 2], [7, 4, 6]]
    assert sparse.isspmatrix_csr(found)
    assert not caplog.text


def test_a_missing_gene_counts_0_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("x", "b", "a")
    assert places_of(model.genes, ["a", "b"]).tolist() == [-1, 1, 0]
    counts = sparse.csr_matrix(np.array([[1, 70_000]]))
    assert read(model, counts, ["a", "b"]).toarray().tolist() == [[0, 70_000, 1]]
    assert "1 of the model's 3 genes" in caplog.text


def test_data_with_half_the_genes_are_read_and_with_fewer_are_an_error() -> None:
    counts = sparse.csr_matrix(np.ones((1, 2)))
    assert read(model_of("a", "b", "x", "y"), counts, ["a", "b"]).shape == (1, 4)
    with pytest.raises(DataError, match="Only 2 of the 5 genes"):
        places_of(model_of("a", "b", "x", "y", "z").genes, ["a", "b"])
    with pytest.raises(DataError, match="Only 0 of the 1 genes"):
        places_of(model_of("a").genes, ["b", "c"])


@given(
    counts=arrays(np.int64, (5, 6), elements=st.integers(0, 3)),
    places=st.lists(st.integers(-1, 5), min_size=1, max_size=9),
)
@settings(max_examples=40)
def test_taken_genes_are_columns_of_the_dense_counts(counts: np.ndarray, places: list[int]) -> None:
    """A part of a chip may hold no spot, and the same gene may be asked for twice."""
    dense = np.append(counts, np.zeros((5, 1), int), axis=1)
    assert np.array_equal(take_genes(sparse.csr_matrix(counts), np.array(places)).toarray(), dense[:, places])
    assert take_genes(sparse.csr_matrix((0, 6)), np.array(places)).shape == (0, len(places))


def test_the_hash_names_the_weights() -> None:
    model, twin = model_of("a"), model_of("a")
    twin.encoder.load_state_dict(model.encoder.state_dict())
    assert model.sha256() == twin.sha256()
    with torch.no_grad():
        twin.encoder.inside.bias += 1e-6
    assert model.sha256() != twin.sha256()
