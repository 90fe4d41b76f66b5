"""Names that users give are checked first of all, by spatialdata's rule."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import spatialdata as sd
from hypothesis import given
from hypothesis import strategies as st
from spatialdata._core.validation import check_valid_name
from tiny_chips import chip

import sslcst
from sslcst.errors import ParameterError
from sslcst.names import check_name
from sslcst.tl import _segment


class Learnt:
    """What a method might have learnt."""

    method = "density"


WRONG = ["my cells", "run/1", "__x", ".hidden", "../x", "", ".", "..", "x ", "x\n", "a\\b", "x" * 300, "ä" * 90]
WRONG += [None, 3, b"x", ["x"]]


VALID = {"SpatialData": sd.SpatialData(), "Model": Learnt(), "str": "x"}  # of each kind of required argument


def named(module) -> list[str]:
    """Functions of a module that add an element of a given name."""
    return [name for name in module.__all__ if "key_added" in inspect.signature(getattr(module, name)).parameters]


ADDING = [getattr(module, name) for module in (sslcst.pp, sslcst.tl) for name in named(module)]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("function", ADDING, ids=lambda function: function.__name__)
def test_a_wrong_name_is_refused_before_any_work(function, name):
    """Even before the object is searched; the argument is named, and so is the rule."""
    required = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
    rule = " letters, digits" if isinstance(name, str) else ": must be text"
    with pytest.raises(ParameterError, match=rf"^key_added(=| is).*{rule}"):
        function(*(VALID[each.annotation] for each in required), key_added=name)


@pytest.mark.parametrize("name", ["_", *WRONG])
def test_a_refused_run_leaves_nothing(name, tmp_path, monkeypatch):
    """ "_" is a name itself, but would make "__cells"."""
    monkeypatch.setattr(_segment, "choose_input", None)
    chip(n_cells=40).write(tmp_path / "a.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ParameterError, match="key_added"):
        sslcst.tl.segment(sd.read_zarr(tmp_path / "a.zarr"), key_added=name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["sslcst", "a.b-c_1", "Zelle_ä", "3", np.str_("x"), "x" * 100])
def test_a_right_name_is_taken(name):
    check_name(name, results=("cells",))


@given(st.text(max_size=12))
def test_what_is_taken_is_taken_by_spatialdata(name):
    """And what spatialdata refuses is refused; of its names, only those it would not read again are refused too."""
    try:
        check_valid_name(name)
        valid = not name.startswith(".")
    except ValueError:
        valid = False
    try:
        check_name(name)
    except ParameterError:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize("seed", [2**63, 2**70, -1, 0.5, True, "1", None])
def test_a_seed_that_generators_do_not_take_is_refused_before_any_work(seed, monkeypatch):
    monkeypatch.setattr(_segment, "choose_input", None)
    with pytest.raises(ParameterError, match=r"^seed=.*(below 2\^63|must be a whole number)"):
        sslcst.tl.segment(chip(n_cells=40), seed=seed)
