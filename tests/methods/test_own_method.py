"""A method of one's own, by the rules of `docs/write_a_method.md`: it is heard, or told what is wrong with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from tiny_chips import chip

import sslcst
from sslcst.errors import ParameterError
from sslcst.methods import choose_method
from sslcst.methods.base import Method, Part, Pass
from sslcst.params import Sections

TILES = {"tiles": {"size": 64, "block": 64}}


@dataclass(frozen=True, kw_only=True)
class NoParams(Sections):
    """None."""


@dataclass(frozen=True)
class Near(Method):
    """Each bin within two of a nucleus is its cell's."""

    name: ClassVar[str] = "near"
    Params: ClassVar[type] = NoParams
    passes: ClassVar[tuple[str, str]] = ("sizes", "distance")

    @property
    def learning(self):
        return [Pass(self.passes[0], self.look_around, fit=lambda parts, tissue, fit: len(parts))]

    @property
    def prediction(self):
        return Pass(self.passes[1], self.reach_out)

    def halo(self, tissue, fit):
        return int(np.ceil(tissue.extent + 2 * tissue.max_distance)) + 2

    def decide(self, window, fit):
        return np.where(window.of_bins("probability") > 0, window.local_density.nuclei[0], 0)

    def look_around(self, window, fit):
        return Part({"n": 1})

    def reach_out(self, window, fit):
        near = window.local_density.distance[0] <= 2
        return Part(of_bins={"probability": near[window.own_bins].astype(np.float32)} | self.more(window))

    def more(self, window):
        return {}


def segment(method: type[Method], **kwargs) -> np.ndarray:
    sdata = chip()
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", method=method, params=TILES, **kwargs)
    return sdata["sslcst_cells"].to_numpy()


def test_values_may_have_any_name() -> None:
    """Also those of what the run itself notes of the bins."""

    class Named(Near):
        def more(self, window):
            shape = window.grid.view(window.own).shape
            return {name: np.full(shape, 3) for name in ("nuclei", "distance", "counts", "density", "wide")}

    np.testing.assert_array_equal(segment(Named), segment(Near))


def test_values_come_back_as_they_were_given() -> None:
    """Of their type too, so that one may calculate with them: 1 - 2 is no large number."""
    values = [-1, 1, 200, -(2**40), 0.5, True]

    class Noted(Near):
        def more(self, window):
            return {f"v{i}": np.full(window.grid.view(window.own).shape, value) for i, value in enumerate(values)}

        def decide(self, window, fit):
            for i, value in enumerate(values):
                noted = window.of_bins(f"v{i}")
                assert noted.dtype == np.array(value).dtype
                assert (noted == value).all()
            return super().decide(window, fit)

    segment(Noted)


@pytest.mark.parametrize(
    "passes",
    [("spots", "distance"), ("sizes", "cells"), ("fit", "b"), ("a", "a"), ("a/b", "c"), ("..", "c"), ("", "c")],
)
def test_passes_have_names_of_their_own(passes: tuple[str, str]) -> None:
    """They name files: with those of the run itself, or of one another, a pass would be taken for done."""
    with pytest.raises(ParameterError, match="name of a pass"):
        choose_method(type("Named", (Near,), {"passes": passes}), None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"look_around": lambda self, window, fit: Part({"n": None})}, "sizes: n=None: statistics"),
        ({"look_around": lambda self, window, fit: Part({"a.b": 1})}, "'a.b'"),
        ({"more": lambda self, window: {"a/b": window.nuclei}}, "'a/b'"),
        ({"more": lambda self, window: {"all": np.zeros((3, 3))}}, "distance: all.*own bins"),
        ({"look_around": lambda self, window, fit: Part(of_spots={"x": np.zeros(1)})}, "sizes: x.*own spots"),
        ({"decide": lambda self, window, fit: window.nuclei[window.own_bins][1:]}, "decide.*in view"),
    ],
)
def test_what_a_pass_must_not_give_is_said(changed: dict, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        segment(type("Wrong", (Near,), changed))


def test_what_it_has_learnt_is_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever that is: here a number, which is kept in the table as it says by `pack` and `unpack`."""

    class Kept(Near):
        @classmethod
        def pack(cls, model):
            return {"n": model}, None

        @classmethod
        def unpack(cls, card, weights):
            return card["n"]

    caplog.set_level(logging.INFO, "sslcst")
    sdata = chip()
    for changes in ({}, {"cells": {"min_counts": 5}}):
        asked = {"nuclei_key": "true_nuclei", "method": Kept, "overwrite": True, "params": TILES | changes}
        sslcst.tl.segment(sdata, **asked)
    assert "Nothing is learnt anew" in caplog.text
    assert len(sdata["sslcst_table"].uns["sslcst"]["model"]["sha256"]) == 64
