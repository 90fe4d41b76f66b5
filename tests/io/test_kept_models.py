"""What a run has learnt can be had afterwards, kept, and given to another run; whatever else is there is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
from tiny_chips import QUICK, assert_same_cells, with_transcripts
from tiny_chips import chip as chip_of

import sslcst
from sslcst.errors import DataError, KeyMissingError, ParameterError, StoreError
from sslcst.io import read_model, write_model
from sslcst.methods.density.method import Density
from sslcst.methods.network.method import NetworkFit

ONE_TILE = {name: values for name, values in QUICK.items() if name != "tiles"}
RUNS: dict[str, dict[str, Any]] = {
    "density": {"method": "density"},
    "network": {"method": "network"},
    "ssl-cst": {"method": "ssl-cst", "params": ONE_TILE},
}


def chip(seed: int = 0) -> sd.SpatialData:
    return chip_of(seed, n_cells=40)


def segment(sdata: sd.SpatialData, name: str, **kwargs: Any) -> None:
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", **RUNS[name] | kwargs)


@pytest.fixture
def learns_nothing(monkeypatch: pytest.MonkeyPatch):
    """From when it is called on, learning is an error."""

    def learn(*_: object) -> None:
        raise AssertionError("learnt")

    return lambda: monkeypatch.setattr("sslcst.run.pipeline.learn", learn)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_keeps_what_it_learnt(name: str, tmp_path: Path, learns_nothing) -> None:
    """In the object, in the store, in a file; whichever is taken, the same cells come of it, and nothing is learnt."""
    sdata = chip()
    segment(sdata, name)
    sdata.write(tmp_path / "a.zarr")
    write_model(read_model(sdata), tmp_path / "a.json")
    models = read_model(sdata), read_model(sd.read_zarr(tmp_path / "a.zarr")), read_model(tmp_path / "a.json")
    assert len({model.sha256() for model in models}) == 1
    learns_nothing()
    for model in models:
        other = chip()
        segment(other, name, model=model)
        assert_same_cells(other, sdata)


@pytest.mark.parametrize("name", RUNS)
def test_what_comes_after_learning_changes_without_learning(name: str, learns_nothing) -> None:
    """The threshold, with the model of the run before."""
    sdata = chip()
    segment(sdata, name)
    before = sdata["sslcst_cells"].to_numpy()
    section = {"network": "network", "ssl-cst": "flow"}.get(name, "density")
    params = dict(RUNS[name].get("params", {}))
    params[section] = params.get(section, {}) | {"threshold": 0.9}
    learns_nothing()
    segment(sdata, name, model=read_model(sdata), params=params, overwrite=True)
    after = sdata["sslcst_cells"].to_numpy()
    assert np.count_nonzero(after) < np.count_nonzero(before)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("density", {"density": {"threshold": 0.9}}),
        ("network", {"network": {"threshold": 0.9, "trust": 0.8}}),
        ("ssl-cst", {"flow": {"threshold": 0.9, "orphans": True}}),
        ("ssl-cst", {"cells": {"min_counts": 9}}),
    ],
)
def test_a_run_that_is_replaced_has_learnt_for_the_next(
    name: str, change: dict, stored: bool, tmp_path: Path, learns_nothing
) -> None:
    """Where only what comes after learning differs, and without being asked: the cells are those of a run from new."""
    sdata, anew = chip(), chip()
    if stored:
        sdata.write(tmp_path / "a.zarr")
        sdata = sd.read_zarr(tmp_path / "a.zarr")
    params = RUNS[name].get("params", {})
    segment(sdata, name)
    segment(anew, name, params=params | change)
    if stored:
        sdata = sd.read_zarr(tmp_path / "a.zarr")
    learns_nothing()
    segment(sdata, name, params=params | change, overwrite=True)
    assert_same_cells(sdata, anew)
    segment(sdata, name, overwrite=True)  # and back, since what was learnt is handed on
    with pytest.raises(AssertionError, match="learnt"):
        segment(sdata, name, params=params | {"cells": {"max_distance": 1.5}}, overwrite=True)
    with pytest.raises(AssertionError, match="learnt"):
        segment(sdata, name, seed=1, overwrite=True)


def test_other_input_is_learnt_from_anew(learns_nothing) -> None:
    """Transcripts, nuclei, their place: none of them may have changed."""
    sdata = chip()
    segment(sdata, "density")
    frame = sdata["transcripts"].compute()
    sdata = with_transcripts(sdata, frame.iloc[1:])
    learns_nothing()
    with pytest.raises(AssertionError, match="learnt"):
        segment(sdata, "density", overwrite=True)


def test_a_model_from_elsewhere_is_not_taken_for_what_was_learnt_here(learns_nothing) -> None:
    first, second = chip(), chip(1)
    segment(first, "density")
    segment(second, "density", model=read_model(first))
    learns_nothing()
    with pytest.raises(AssertionError, match="learnt"):
        segment(second, "density", params={"density": {"threshold": 0.9}}, overwrite=True)


def test_a_damaged_model_is_learnt_anew(caplog: pytest.LogCaptureFixture) -> None:
    sdata, anew = chip(), chip()
    segment(sdata, "density")
    sdata["sslcst_table"].uns["sslcst"]["model"]["card"] = "{"
    change = {"density": {"threshold": 0.9}}
    segment(anew, "density", params=change)
    segment(sdata, "density", params=change, overwrite=True)
    assert "It is learnt anew." in caplog.text
    assert_same_cells(sdata, anew)


@pytest.mark.parametrize("name", RUNS)
def test_one_model_for_many_sections(name: str, tmp_path: Path, learns_nothing) -> None:
    """The model of the first serves the second, whose table then tells of it."""
    first, second = chip(), chip(1)
    segment(first, name, key_added="first")
    model = read_model(first, key="first")
    learns_nothing()
    segment(second, name, model=model)
    assert read_model(second).sha256() == model.sha256() == second["sslcst_table"].uns["sslcst"]["model"]["sha256"]
    assert second["sslcst_table"].n_obs > 0


def test_of_steps_the_model_is_what_train_returns() -> None:
    sdata = chip()
    segment(sdata, "density")
    kept = read_model(sdata)
    sslcst.pp.import_nuclei(sdata, "true_nuclei", key_added="again_nuclei")
    sslcst.pp.bin_spots(sdata, nuclei_key="again_nuclei", key_added="again_spots")
    assert sslcst.tl.train(sdata, spots_key="again_spots", method="density") == kept


def test_a_model_of_another_method_says_which() -> None:
    sdata = chip()
    segment(sdata, "network")
    with pytest.raises(ParameterError, match="the model is of method 'network': give that"):
        segment(sdata, "density", model=read_model(sdata), key_added="b")


@pytest.mark.parametrize("uns", [{}, {"sslcst": {}}, {"sslcst": {"model": {"seed": 0}}}, {"sslcst": {"model": "a"}}])
def test_a_table_without_a_model_says_so(uns: dict) -> None:
    sdata = chip()
    segment(sdata, "density")
    sdata["sslcst_table"].uns = uns
    with pytest.raises(KeyMissingError, match="holds no model"):
        read_model(sdata)


def test_a_key_that_is_not_there_is_answered_by_those_that_are() -> None:
    sdata = chip()
    segment(sdata, "density")
    with pytest.raises(KeyMissingError, match="'sslcst_table'"):
        read_model(sdata, key="other")


def test_what_was_changed_in_a_table_is_refused() -> None:
    sdata = chip()
    segment(sdata, "ssl-cst")
    kept = sdata["sslcst_table"].uns["sslcst"]["model"]
    sound = dict(kept)
    weights = kept["weights"].copy()
    weights[-1] ^= 1
    changes = [
        {"weights": weights},
        {"weights": kept["weights"][:100]},
        {"weights": None},
        {"card": kept["card"].replace("sslcst", "").replace('"seed": 0', '"seed": 1')},
        {"card": ""},
        {"card": "[]"},
    ]
    for change in changes:
        sdata["sslcst_table"].uns["sslcst"]["model"] = sound | change
        with pytest.raises(DataError, match="What table 'sslcst_table' keeps is no model that can be used"):
            read_model(sdata)


LEVELS = {"nucleus": 3.0, "close": 2.0, "cell": 2.5, "background": 0.25, "share": [1, 0.5, 0.0], "near": 1, "far": 2}
CARD = {"bin_size": 0.5, "levels": LEVELS | {"spread": [0.1, 0.0]}, "profiles": 0.5}
NAN = float("nan")
WRONG = [
    *(("bin_size", value) for value in (-1, NAN, "1", None, True, [1])),
    *(("profiles", value) for value in (-1, NAN, "1", None)),
    *(("levels", value) for value in (None, [], {}, LEVELS)),
    *(("levels", LEVELS | {"spread": value}) for value in ([0.1], [0.1, 0, 0], [NAN, 0], 0.1, None)),
    *(("levels", LEVELS | {"spread": [0, 0], "share": value}) for value in ([], 1, ["1"], [1, -1], [1, None])),
    *(("levels", LEVELS | {"spread": [0, 0], name: "1"}) for name in LEVELS if name != "share"),
    *(("levels", LEVELS | {"spread": [0, 0], name: 1.5}) for name in ("near", "far")),
    ("method", "no such"),
    ("method", None),
    ("method", "density"),
    ("method", "ssl-cst"),
    ("format", 2),
    ("sha256", "0" * 64),
    ("colour", "blue"),
]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    write_model(NetworkFit.of(CARD), tmp_path / "a.json")
    return tmp_path / "a.json"


def test_levels_come_back_from_their_card(card: Path) -> None:
    model = read_model(card)
    assert isinstance(model, NetworkFit)
    assert model == NetworkFit.of(CARD)
    assert model.profiles == 0.5 and model.levels.share == (1, 0.5, 0.0)
    assert replace(model, profiles=0.25).sha256() != model.sha256()


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_field_of_levels_is_refused(card: Path, name: str, value: object) -> None:
    about = json.loads(card.read_text(encoding="utf-8"))
    card.write_text(json.dumps(about | {name: value}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json is no model that can be used"):
        read_model(card)


def test_names_of_files_are_those_of_the_kind(tmp_path: Path) -> None:
    """Levels have no weights: a name that promises some is refused before anything is written."""
    with pytest.raises(StoreError, match=r"must end in \.json"):
        write_model(NetworkFit.of(CARD), tmp_path / "a.safetensors")
    with pytest.raises(StoreError, match=r"must end in \.json or, with weights, \.safetensors"):
        write_model(NetworkFit.of(CARD), tmp_path / "a.txt")
    sd.SpatialData().write(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="of a store, read it and give the object"):
        read_model(tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_method_of_ones_own_keeps_nothing() -> None:
    """It runs all the same; who asks for its model is told that there is none."""

    class Mine(Density):
        name = "mine"

        @classmethod
        def pack(cls, model: object) -> None:
            return None

    sdata = chip()
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", method=Mine)
    with pytest.raises(KeyMissingError, match="a method of your own"):
        read_model(sdata)

    class Learnt:
        method = "mine"

    with pytest.raises(ParameterError, match="'mine' is none of this package's"):
        write_model(Learnt(), "a.json")


def test_a_stopped_run_of_levels_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was learnt is noted, and learnt again only where it was not kept."""
    chip().write(tmp_path / "a.zarr")
    sdata, whole = sd.read_zarr(tmp_path / "a.zarr"), chip()
    segment(whole, "network")
    with monkeypatch.context() as patch:
        patch.setattr("sslcst.run.pipeline.predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            segment(sdata, "network")
    segment(sdata, "network")
    assert_same_cells(sdata, whole)
