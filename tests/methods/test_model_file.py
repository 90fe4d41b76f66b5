"""Models as files: what was written comes back, and whatever else lies there is refused in words, at once."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sslcst.errors import DataError, ParameterError, StoreError
from sslcst.io import read_model, write_model
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.model import Epoch, Model
from sslcst.methods.ssl_cst.params import EncoderParams

TINY = EncoderParams(width=8, depth=1, hidden=(8,))


def make_model(**changed: Any) -> Model:
    genes = ("actb", "gapdh", "µ-gene")
    history = (Epoch(0, 0.7, 0.8, 0.5, float("nan")), Epoch(1, 0.6, 0.7, 0.6, 0.2))
    fields = {"encoder": make_encoder(len(genes), TINY).eval(), "encoder_params": TINY, "genes": genes}
    fields |= {"bin_size": 0.5, "radius": 7.3, "n_neighbors": 6, "window": 4, "seed": 0, "n_samples": 90}
    return Model(**fields | {"history": history} | changed)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_model(make_model(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    model = make_model()
    write_model(model, tmp_path / "a.safetensors")
    again = read_model(tmp_path / "a.safetensors")
    assert again.sha256() == model.sha256()
    assert repr(again.card()) == repr(model.card())  # NaN is unequal to itself
    state = again.encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.encoder.state_dict().items())


def test_the_hash_covers_the_card() -> None:
    """Two models of the same weights are two runs, if they read spots in another way."""
    model = make_model()
    for changed in ({"radius": 7.4}, {"genes": ("gapdh", "actb", "µ-gene")}, {"window": 5}, {"seed": 1}):
        assert replace(model, **changed).sha256() != model.sha256()


def test_numbers_of_numpy_are_written_as_plain_ones(tmp_path: Path) -> None:
    model = make_model(radius=np.float64(7.5), seed=np.int64(3), genes=np.array(["a", "b", "c"]))
    write_model(model, tmp_path / "a.safetensors")
    assert read_model(tmp_path / "a.safetensors").sha256() == model.sha256()


# --- Cards -----------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[str, Any]] = [
    *(("bin_size", value) for value in (0, -1, NAN, INF, "1", True, None, 10**400, [1])),
    *(("radius", value) for value in (0, -7.3, NAN, INF, "7", True, None, 1e9)),
    *(("n_neighbors", value) for value in (0, -1, 6.0, "6", True, None, 10**6)),
    *(("window", value) for value in (0, -1, 4.5, "4", True, None, 10**6)),
    *(("seed", value) for value in (-1, 2**63, 0.5, "0", True, None)),
    *(("n_samples", value) for value in (-1, 0.5, "0", True, None, 10**30)),
    ("genes", []),
    ("genes", ["a", "a", "b"]),
    ("genes", ["a", "", "b"]),
    ("genes", ["a", 3, "b"]),
    ("genes", ["a", None, "b"]),
    ("genes", "abc"),
    ("genes", {"a": 1, "b": 2, "c": 3}),
    ("genes", 3),
    ("genes", ["a", "b"]),
    ("genes", ["a", "b", "c", "d"]),
    ("history", []),
    ("history", None),
    ("history", 3),
    ("history", [3]),
    ("history", [{"epoch": 0}]),
    ("encoder_params", None),
    ("encoder_params", []),
    ("format", 2),
    ("format", 99),
    ("format", None),
    ("sha256", "0" * 64),
    ("sha256", None),
]
WRONG_ENCODER = [
    *(("depth", value) for value in (0, -1, 2, 10**7, 1.0, True, None)),
    *(("width", value) for value in (0, -8, 16, 10**9, 8.0, "8")),
    *(("heads", value) for value in (0, 3, 4, 10**9)),
    *(("hidden", value) for value in ([], [0], [16], [8] * 100, [10**9], 8.5, "8", [NAN])),
    *(("noise", value) for value in (-1, NAN, INF, 0.5, "0")),
    *(("dropout", value) for value in (-1, 1, NAN, 0.5)),
    *(("kind", value) for value in ("spot", "both", 3, None)),
    ("distance", 1),
    ("position", False),
]


def refuse(weights: Path, change: Callable[[dict], object], error: type[Exception] = DataError) -> str:
    """The words in which a changed card is refused."""
    file = weights.with_suffix(".json")
    card = json.loads(file.read_text(encoding="utf-8"))
    change(card)
    file.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(error, match=r"a\.safetensors with its card a\.json") as caught:
        read_model(weights)
    return str(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_field_of_the_card_is_refused(weights: Path, name: str, value: object) -> None:
    refuse(weights, lambda card: card.update({name: value}))


@pytest.mark.parametrize(("name", "value"), WRONG_ENCODER)
def test_a_wrong_encoder_of_the_card_is_refused(weights: Path, name: str, value: object) -> None:
    """Before anything of its size is made."""
    refuse(weights, lambda card: card["encoder_params"].update({name: value}))


def test_a_wrong_number_is_named(weights: Path) -> None:
    assert "radius=nan" in refuse(weights, lambda card: card.update(radius=NAN))


@pytest.mark.parametrize("name", ["train_loss", "validation_loss", "inside_accuracy", "direction_accuracy", "epoch"])
@pytest.mark.parametrize("value", ["0", None, True, [0]])
def test_a_wrong_epoch_is_refused(weights: Path, name: str, value: object) -> None:
    refuse(weights, lambda card: card["history"][0].update({name: value}))


def test_a_card_of_fields_that_are_right_but_others_is_refused(weights: Path) -> None:
    """Sound in themselves, and not what was trained."""
    assert "changed" in refuse(weights, lambda card: card.update(radius=7.4))


@pytest.mark.parametrize("where", ["card", "encoder_params", "history"])
@pytest.mark.parametrize("what", ["missing", "unknown"])
def test_fields_are_those_of_the_format_and_no_others(weights: Path, where: str, what: str) -> None:
    def change(card: dict) -> None:
        part = {"card": card, "encoder_params": card["encoder_params"], "history": card["history"][1]}[where]
        if what == "missing":
            part.pop({"card": "window", "encoder_params": "width", "history": "epoch"}[where])
        else:
            part["colour"] = "blue"

    assert ("colour" in refuse(weights, change)) == (what == "unknown")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"a"',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": 3, "format": 3}',
    ],
)
def test_what_is_no_card_is_refused(weights: Path, content: bytes) -> None:
    weights.with_suffix(".json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json"):
        read_model(weights)


def test_a_field_that_is_named_twice_is_refused(weights: Path) -> None:
    """Which of the two would count, readers do not agree on."""
    file = weights.with_suffix(".json")
    file.write_text(file.read_text(encoding="utf-8").replace('"window": 4', '"window": 4, "window": 4'), "utf-8")
    with pytest.raises(DataError, match="twice"):
        read_model(weights)


def test_a_card_without_end_is_refused_unread(weights: Path) -> None:
    with weights.with_suffix(".json").open("ab") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    with pytest.raises(DataError, match="larger than"):
        read_model(weights)


# --- Weights ---------------------------------------------------------------------------------------------------------


def spoil(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def write(weights: Path) -> None:
        state = load_file(weights)
        change(state)
        save_file(state, weights)

    return write


def nan(state: dict) -> None:
    state["inside.bias"][0] = NAN


def infinity(state: dict) -> None:
    state["expression"][0, 0] = -INF


def other(state: dict) -> None:
    state["inside.bias"] += 1


def halves(state: dict) -> None:
    state.update({name: value.half() for name, value in state.items()})


def doubles(state: dict) -> None:
    state["inside.bias"] = state["inside.bias"].double()


def other_shape(state: dict) -> None:
    state["expression"] = state["expression"].T.contiguous()


def missing(state: dict) -> None:
    del state["inside.bias"]


def unknown(state: dict) -> None:
    state["more"] = torch.zeros(1)


@pytest.mark.parametrize("change", [nan, infinity, other, halves, doubles, other_shape, missing, unknown])
def test_weights_that_are_not_those_of_the_card_are_refused(weights: Path, change: Callable[[dict], object]) -> None:
    spoil(change)(weights)
    with pytest.raises(DataError, match=r"a\.safetensors with its card a\.json"):
        read_model(weights)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xff",
    ],
)
def test_what_is_no_weights_is_refused(weights: Path, content: bytes) -> None:
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors with its card a\.json"):
        read_model(weights)


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_file_that_is_not_there_is_named(weights: Path, suffix: str) -> None:
    weights.with_suffix(suffix).unlink()
    with pytest.raises(StoreError, match=r"a\.safetensors with its card a\.json cannot be read"):
        read_model(weights)


def test_a_model_is_not_written_over_another(weights: Path) -> None:
    before = weights.read_bytes()
    with pytest.raises(StoreError, match=r"a\.safetensors exists"):
        write_model(make_model(), weights)
    assert weights.read_bytes() == before


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not be written"):
        write_model(make_model(), tmp_path / "none" / "a.safetensors")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as on a full disk: a part is written
    try:
        with pytest.raises(StoreError, match="could not be written"):
            write_model(make_model(), tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("radius", NAN), ("radius", 0), ("n_neighbors", -1), ("window", 0), ("genes", ("a", "a", "b")), ("bin_size", "1")],
)
def test_a_model_in_memory_is_checked_alike(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=name):
        make_model(**{name: value})
