"""The cell network: the same wherever a window begins, moves with the nuclei, finds known cells, crashes on nothing."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcst.core.cells import decide
from sslcst.core.density import Levels, local_density, measure_levels
from sslcst.errors import BackendError
from sslcst.methods import choose_method
from sslcst.methods.network import load
from sslcst.methods.network.blocks import BLOCK, MARGIN, blocks_of, cut_block, halo_of
from sslcst.methods.network.inputs import N_PLANES, REACH, VECTORS, make_inputs
from sslcst.methods.network.load import load_network, read_card
from sslcst.methods.network.method import NetworkFit
from sslcst.methods.network.network import MULTIPLE, CellNetwork, score_candidates
from sslcst.methods.network.predict import predict_cells
from sslcst.metrics import mean_best_iou

RADIUS = 14.0
ROOT = Path(__file__).resolve().parents[2]


def round_cells(size: int = 240, *, spacing: int = 36, seed: int = 0, depth: float = 0.4) -> tuple[np.ndarray, ...]:
    """Discs of 14 bins around nuclei half as wide, poor in transcripts: cells, nuclei and counts."""
    rng = np.random.default_rng(seed)
    centers = np.stack(np.meshgrid(*[np.arange(spacing / 2, size, spacing)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    centers = centers + rng.uniform(-3, 3, centers.shape)
    y, x = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(y[..., None] - centers[:, 0], x[..., None] - centers[:, 1])
    nearest = (distance.argmin(axis=-1) + 1).astype(np.int32)
    cells, nuclei = (np.where(distance.min(axis=-1) <= r, nearest, 0) for r in (14, 7))
    return cells, nuclei, rng.poisson(depth * np.where(nuclei > 0, 0.6, np.where(cells > 0, 1, 0.05)))


def levels_of(counts: np.ndarray, nuclei: np.ndarray) -> Levels:
    around = local_density(counts, nuclei, radius=RADIUS, reach=REACH * RADIUS)
    return measure_levels(around, radius=RADIUS, reach=REACH * RADIUS)


@pytest.fixture(scope="module")
def network() -> CellNetwork:
    return load_network("cpu")


# --- Inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_turn_with_the_tissue() -> None:
    """Rows and columns exchanged: planes are transposed, and the vectors among them exchange their components."""
    _, nuclei, counts = round_cells(96)
    levels = levels_of(counts, nuclei)
    one, other = (make_inputs(c, n, levels, radius=RADIUS) for c, n in ((counts, nuclei), (counts.T, nuclei.T)))
    order = list(range(N_PLANES))
    for row, column in VECTORS:
        order[row], order[column] = column, row
    assert one.planes.shape == (N_PLANES, 96, 96)
    unique = (one.labels == other.labels.transpose(0, 2, 1)).all(axis=0)  # ties may go either way
    assert unique.mean() > 0.99
    assert np.allclose(one.planes[:, unique], other.planes.transpose(0, 2, 1)[order][:, unique], atol=1e-4)


def test_offsets_point_to_the_centroid() -> None:
    nuclei = np.zeros((40, 40), np.int32)
    nuclei[10:15, 20:27] = 3
    inputs = make_inputs(np.zeros((40, 40), int), nuclei, levels_of(nuclei * 0, nuclei), radius=10.0)
    assert inputs.offset[0, :, 12, 23] == pytest.approx([0, 0])
    assert inputs.offset[0, :, 2, 13] == pytest.approx([1, 1])
    assert (inputs.offset[1] == 0).all()
    assert np.isfinite(inputs.planes).all()


def test_a_candidate_that_is_not_there_never_wins() -> None:
    outputs = torch.randn(1, 5, 4, 4)
    exists = torch.tensor([True, False, False])[None, :, None, None].expand(1, 3, 4, 4)
    scores = score_candidates(outputs, exists, torch.rand(1, 3, 4, 4), torch.randn(1, 3, 2, 4, 4))
    assert (scores.argmax(dim=1) == 0).all()


# --- Blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_are_aligned_with_what_the_network_halves() -> None:
    assert BLOCK % MULTIPLE == 0
    assert MARGIN % MULTIPLE == 0


@pytest.mark.parametrize("corner", [(256, 256), (356, 259), (556, 516)])
def test_a_block_beyond_the_view_is_filled_up(corner: tuple[int, int]) -> None:
    values = np.arange(1, 200 * 300 + 1).reshape(200, 300)
    block = ((BLOCK, 2 * BLOCK), (BLOCK, 2 * BLOCK))
    cut = cut_block(values, block, corner)
    assert cut.shape == (BLOCK + 2 * MARGIN,) * 2
    for at in ((0, 0), (60, 60), (351, 351), (100, 340)):
        y, x = (a + BLOCK - MARGIN - c for a, c in zip(at, corner, strict=True))
        inside = 0 <= y < 200 and 0 <= x < 300
        assert cut[at] == (values[y, x] if inside else 0)


@pytest.mark.parametrize("at", [101, BLOCK])
@pytest.mark.parametrize("axis", [0, 1])
def test_windows_give_what_the_whole_gives(network: CellNetwork, at: int, axis: int) -> None:
    """A tissue a little longer than a block in two windows, each seen with its halo, bit by bit."""
    strip = tuple(slice(BLOCK + 24 if i == axis else 90) for i in range(2))
    _, nuclei, counts = (np.ascontiguousarray(values[strip]) for values in round_cells(BLOCK + 32))
    levels = levels_of(counts, nuclei)
    whole = predict_cells(network, counts, nuclei, levels, radius=RADIUS, trust=0.4)
    for start, stop in ((0, at), (at, BLOCK + 24)):
        own = tuple((start, stop) if i == axis else (0, 90) for i in range(2))
        halo = halo_of(at)
        view = tuple(slice(max(0, a - halo), min(n, b + halo)) for (a, b), n in zip(own, nuclei.shape, strict=True))
        where = {"corner": tuple(s.start for s in view), "own": own}
        part = predict_cells(network, counts[view], nuclei[view], levels, radius=RADIUS, trust=0.4, **where)
        for one, other in zip(part, whole, strict=True):
            assert np.array_equal(one, other[tuple(slice(*ends) for ends in own)])


def test_a_far_corner_of_a_chip_needs_only_its_halo(network: CellNetwork) -> None:
    """A window deep in a chip is predicted from what is in view alone, like the same tissue at the chip's corner."""
    _, nuclei, counts = round_cells(96)
    levels = levels_of(counts, nuclei)
    here, there = (
        predict_cells(network, counts, nuclei, levels, radius=RADIUS, corner=corner, whole=(11 * BLOCK, 9 * BLOCK))
        for corner in ((0, 0), (10 * BLOCK, 7 * BLOCK))
    )
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_blocks_of_a_window() -> None:
    first, second = (0, BLOCK), (BLOCK, 2 * BLOCK)
    assert list(blocks_of((first, (BLOCK - 1, BLOCK + 1)), (2 * BLOCK, 3 * BLOCK))) == [(first, first), (first, second)]


def test_blocks_end_with_the_tissue() -> None:
    """A chip whose sides are no multiples: the last blocks are as large as the network can halve."""
    [*_, last] = blocks_of(((0, BLOCK + 9), (0, 20)), (BLOCK + 9, 20))
    assert last == ((BLOCK, BLOCK + 16), (0, 24))


def test_three_opinions_are_weighed(network: CellNetwork) -> None:
    """The network's by trust, density and the usual reach by half of the rest; owners are the network's."""
    _, nuclei, counts = round_cells(96)
    levels = levels_of(counts, nuclei)
    (alone, owner), (none, same), (mixed, _) = (
        predict_cells(network, counts, nuclei, levels, radius=RADIUS, trust=trust) for trust in (1.0, 0.0, 0.25)
    )
    inputs = make_inputs(
        *(cut_block(each, ((0, BLOCK), (0, BLOCK)), (0, 0)) for each in (counts, nuclei)), levels, radius=RADIUS
    )
    own = np.s_[MARGIN : MARGIN + 96, MARGIN : MARGIN + 96]
    usual = 1 / (1 + np.exp((inputs.distance[0] - 0.4) / 0.1))
    expected = np.where(nuclei > 0, 1, np.where(owner > 0, (inputs.share + usual)[own] / 2, 0))
    assert np.array_equal(owner, same)
    assert none == pytest.approx(expected, abs=1e-6)
    assert mixed == pytest.approx(alone / 4 + none * 3 / 4, abs=1e-6)


# --- What it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "least"), [(0.15, 0.65), (1.0, 0.8)])
def test_round_cells_are_found(network: CellNetwork, depth: float, least: float) -> None:
    cells, nuclei, counts = round_cells(240, depth=depth)
    probability, owner = predict_cells(network, counts, nuclei, levels_of(counts, nuclei), radius=RADIUS)
    found = decide(probability, owner, nuclei)
    assert mean_best_iou(cells, found) > least
    assert mean_best_iou(cells, found) > mean_best_iou(cells, nuclei) + 0.3


def test_cells_move_with_the_nuclei(network: CellNetwork) -> None:
    """Moved by what the network halves, within one block, the same cells come out."""
    _, nuclei, counts = round_cells(100)
    levels, by = levels_of(counts, nuclei), 2 * MULTIPLE
    still = decide(*predict_cells(network, counts, nuclei, levels, radius=RADIUS), nuclei)
    moved = np.pad(nuclei, ((by, 0), (by, 0)))
    after = decide(*predict_cells(network, np.pad(counts, ((by, 0), (by, 0))), moved, levels, radius=RADIUS), moved)
    inner = np.s_[MARGIN // 2 :, MARGIN // 2 :]  # an empty border before the tissue is as empty as no tissue
    assert (after[by:, by:][inner] == still[inner]).mean() > 0.999
    assert (after[by:, by:] == still).mean() > 0.99


@pytest.mark.parametrize(
    ("nuclei", "counts"),
    [
        pytest.param(np.zeros((50, 60), np.uint32), np.ones((50, 60), int), id="no nucleus"),
        pytest.param(np.pad(np.full((12, 12), 7, np.uint32), 20), np.zeros((52, 52), int), id="no transcript"),
        pytest.param(np.pad(np.full((12, 12), 7, np.uint32), 20), np.ones((52, 52), int), id="one nucleus"),
        pytest.param(np.full((30, 30), 7, np.uint32), np.ones((30, 30), int), id="all nucleus"),
        pytest.param(np.ones((1, 1), np.uint32), np.ones((1, 1), int), id="one bin"),
    ],
)
def test_odd_tissues_give_their_nuclei_at_least(network: CellNetwork, nuclei: np.ndarray, counts: np.ndarray) -> None:
    probability, owner = predict_cells(network, counts, nuclei, levels_of(counts, nuclei), radius=RADIUS)
    cells = decide(probability, owner, nuclei)
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()
    assert cells.dtype == owner.dtype == nuclei.dtype
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
    assert set(np.unique(cells)) <= {0, *np.unique(nuclei)}


def test_cells_are_whole_around_their_nucleus() -> None:
    nuclei = np.zeros((40, 40), np.int32)
    nuclei[10:14, 10:14] = 2
    owner = np.full((40, 40), 2, np.int32)
    probability = np.zeros((40, 40), np.float32)
    probability[8:16, 8:16] = 1
    probability[9, 9] = 0.1  # a hole
    probability[30:33, 30:33] = 1  # a piece elsewhere
    cells = decide(probability, owner, nuclei)
    assert cells[9, 9] == 2
    assert cells[31, 31] == 0
    assert (cells > 0).sum() == 64


# --- Weights ---------------------------------------------------------------------------------------------------------


def test_the_card_tells_of_the_weights() -> None:
    card = read_card()
    assert {"data", "licence", "steps", "seed", "sha256", "format"} <= card.keys()
    assert load._BUNDLED.stat().st_size < 1.5e6
    assert load_network("cpu") is load_network("cpu")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.with_suffix(".json").unlink(), "card"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "damaged"),
        (lambda file: file.with_suffix(".json").write_text("[]"), "card"),
        (lambda file: file.with_suffix(".json").write_bytes(b"\xff"), "card"),
        (lambda file: change_card(file, format=0), "another version"),
        (lambda file: with_hash(file, b"no weights"), "does not hold weights"),
        (lambda file: spoil(file), "not finite"),
    ],
)
def test_bad_weights_are_an_error_that_says_what_to_do(tmp_path: Path, harm, said: str) -> None:
    file = tmp_path / "cells.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(load._BUNDLED.with_suffix(suffix), file.with_suffix(suffix))
    load_network("cpu", file)
    harm(file)
    with pytest.raises(BackendError, match=said):
        load_network("cpu", file)


@pytest.mark.parametrize("model", ["nowhere.safetensors", "", "a\0b"])
def test_weights_that_are_not_there_are_an_error_before_any_work(model: str) -> None:
    with pytest.raises(BackendError, match="card"):
        choose_method("network", {"network": {"model": model}})


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(load._BUNDLED.with_suffix(suffix), (tmp_path / "cells").with_suffix(suffix))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    _, method = choose_method("network", {"network": {"model": "~/cells.safetensors"}})
    assert method.about(NetworkFit(1.0, Levels(1, 1, 1, 0, (1.0,), 1, 1)))["network"]["sha256"]


def test_weights_that_are_written_anew_are_read_anew(tmp_path: Path) -> None:
    """By the same process, in which a network is trained; and the table tells of those that were used."""
    from safetensors.torch import load_file, save

    file = tmp_path / "cells.safetensors"
    for suffix in (".safetensors", ".json"):
        shutil.copy(load._BUNDLED.with_suffix(suffix), file.with_suffix(suffix))
    before = load_network("cpu", file)
    weights = load_file(file)
    weights["head.bias"] += 1
    with_hash(file, save(weights))
    assert not torch.equal(load_network("cpu", file).head.bias, before.head.bias)


def change_card(file: Path, **changes: object) -> None:
    card = file.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def with_hash(file: Path, content: bytes) -> None:
    from hashlib import sha256

    file.write_bytes(content)
    change_card(file, sha256=sha256(content).hexdigest())


def spoil(file: Path) -> None:
    from safetensors.torch import load_file, save

    weights = load_file(file)
    weights["head.bias"][0] = torch.nan
    with_hash(file, save(weights))


# --- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are not part of a source distribution")
def test_training_writes_weights_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on a simulated tissue alone, which needs no data."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    out = tmp_path / "cells.safetensors"
    options = ["--steps", "2", "--batch", "1", "--pool", "1", "--fields", "0", "--simulated", "1"]
    importlib.import_module("train_cells").main(["--out", str(out), *options])
    assert load_network("cpu", out).head.out_channels == 20
    assert read_card(out)["steps"] == 2
