"""Whatever happens to a store, it opens, others' elements stay, and results are old or new as a whole.

``SSLCST_FUZZ=5000`` takes as many steps as that. Processes are really killed in ``test_store.py`` and
``test_resume.py``; here the end of one is an exception after which no file is touched, which is quick and can be
repeated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
import spatialdata as sd
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from quick_runs import KINDS, result, results_in, segment, tissue, without_work
from store_files import files_of

from sslcst._sdata import durable, store
from sslcst._sdata.repair import repair
from sslcst._sdata.scratch import Scratch
from sslcst.errors import SslcstError

STEPS = int(os.environ.get("SSLCST_FUZZ", 200))
LENGTH = 20  # steps from one new store to the next
KEYS = ("a", "b")
OTHERS = {"u": "labels", "v": "points", "A_CELLS": "shapes", "b_boundaries": "shapes", "a_transcripts": "points"}
ERRORS = [OSError, KeyboardInterrupt]
MAKES = st.fixed_dictionaries({"shapes": st.booleans(), "assign_points": st.booleans()})


class Killed(BaseException):
    """The end of the process."""


class Machine(RuleBasedStateMachine):
    """A store, what others have in it, and what results of each key may be found."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        without_work(self.patch)
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.path = self.folder / "s.zarr"
        tissue().write(self.path)
        self.others = {f"{kind}/{name}": self.hash(f"{kind}/{name}") for kind, name, _ in self.read().gen_elements()}
        self.may_be = {key: [{}] for key in KEYS}
        self.torn = False  # another tool listed what a killed run had begun to publish
        self.seed = 0

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    def read(self) -> sd.SpatialData:
        return sd.read_zarr(self.path)

    def hash(self, place: str) -> dict[str, str]:
        return files_of(self.path / place)

    def half_published(self) -> bool:
        return any(self.folder.glob(".s.zarr.sslcst-*/whole.json"))

    def run(self, key: str, overwrite: bool, makes: dict) -> None:
        """One run; if it ends otherwise than refused, what is left is new."""
        self.seed += 1
        segment(self.read(), self.seed, key_added=key, overwrite=overwrite, **makes)
        self.may_be[key] = [self.wanted(makes)]

    def wanted(self, makes: dict) -> dict[str, int]:
        """What the latest run makes."""
        left_out = {"boundaries": not makes["shapes"], "transcripts": not makes["assign_points"]}
        return {ending: self.seed for ending in KINDS if not left_out.get(ending)}

    def found(self, sdata: sd.SpatialData, key: str) -> dict[str, int]:
        held = {place.split("/")[1] for place in self.others}
        return {ending: seed for ending, seed in results_in(sdata, key).items() if f"{key}_{ending}" not in held}

    def settled(self) -> None:
        """A run or a repair came by: what had been begun is finished or given up."""
        self.torn = self.torn and self.half_published()
        if not self.half_published():
            for key, known in self.may_be.items():
                self.may_be[key] = [whole for whole in known if whole is not None]

    @rule(name=st.sampled_from(sorted(OTHERS)))
    def another_tool_writes(self, name: str) -> None:
        kind = OTHERS[name]
        sdata = self.read()
        there = {each.lower() for _, each, _ in sdata.gen_elements()} | {
            folder.name.lower() for folder in self.path.glob("*/*/")
        }
        if name.lower() in there or "half" in there:  # which spatialdata, when it writes, would list
            return
        self.torn = self.torn or self.half_published()
        sdata[name] = result(kind, 99)
        sdata.write_element(name)
        self.others[f"{kind}/{name}"] = self.hash(f"{kind}/{name}")

    @rule(kind=st.sampled_from(["images", "labels", "points", "shapes", "tables"]))
    def another_tool_stops_half_way(self, kind: str) -> None:
        place = f"{kind}/half"
        if not (self.path / place).exists():
            (self.path / place / "s0").mkdir(parents=True)
            (self.path / place / "zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
            (self.path / place / "s0" / "0").write_bytes(b"pixels")
            self.others[place] = self.hash(place)

    @rule(key=st.sampled_from(KEYS), overwrite=st.booleans(), makes=MAKES)
    def run_ends(self, key: str, overwrite: bool, makes: dict) -> None:
        in_the_way = any(place.split("/")[1].lower().startswith(f"{key}_") for place in self.others)
        try:
            self.run(key, overwrite, makes)
        except SslcstError:
            assert in_the_way or not overwrite or self.torn
        self.settled()

    @rule(key=st.sampled_from(KEYS), overwrite=st.booleans(), makes=MAKES, step=st.integers(1, 90))
    def run_is_killed(self, key: str, overwrite: bool, makes: dict, step: int) -> None:
        before = [whole for whole in self.may_be[key] if whole is not None]
        with pytest.MonkeyPatch.context() as patch:
            dies_at(step, patch)
            try:
                self.run(key, overwrite, makes)
            except SslcstError:
                return
            except Killed:
                self.may_be[key] = [*before, self.wanted(makes), None]
                for other in KEYS:  # which it may have been about to finish
                    self.may_be[other] = [*self.may_be[other], None]

    @rule(
        key=st.sampled_from(KEYS),
        makes=MAKES,
        step=st.integers(1, 60),
        error=st.sampled_from(ERRORS),
    )
    def run_fails(self, key: str, makes: dict, step: int, error: type) -> None:
        """An error at a file step: unless it comes too late, all is as before."""
        with pytest.MonkeyPatch.context() as patch:
            fails_at(step, error, patch)
            try:
                self.run(key, True, makes)
            except (SslcstError, KeyboardInterrupt):
                self.may_be[key] = [*self.may_be[key], self.wanted(makes)]

    @precondition(lambda self: self.half_published())
    @rule(length=st.integers(0, 20))
    def the_journal_is_cut_short(self, length: int) -> None:
        for mark in self.folder.glob(".s.zarr.sslcst-*/whole.json"):
            mark.write_bytes(mark.read_bytes()[:length])

    @rule()
    def it_is_repaired(self) -> None:
        held = files_of(self.folder)
        planned = repair(self.path, dry_run=True)
        assert files_of(self.folder) == held
        assert repair(self.path) == planned
        self.settled()

    @invariant()
    def others_are_as_they_were(self) -> None:
        for place, hashes in self.others.items():
            assert self.hash(place) == hashes, place

    @invariant()
    def it_opens_and_results_are_whole(self) -> None:
        sdata = self.read()
        names = {name for _, name, _ in sdata.gen_elements()}
        assert names >= {place.split("/")[1] for place in self.others if not place.endswith("/half")}
        if not self.torn:
            for key in KEYS:
                known = [{} if whole is None else whole for whole in self.may_be[key]]
                assert self.found(sdata, key) in known, (key, self.found(sdata, key), known)


def file_steps(patch: pytest.MonkeyPatch, action) -> None:
    """Do something before each step of publishing that touches files."""
    for owner, name in ((durable, "flush"), (durable, "move"), (durable, "write_text"), (Scratch, "write_text")):
        function = getattr(owner, name)

        def hooked(*args, function=function, **kwargs):
            action()
            return function(*args, **kwargs)

        patch.setattr(owner, name, hooked)


def dies_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """From the n-th step on no file is touched any more."""
    left = [step]

    def die() -> None:
        left[0] -= 1
        if left[0] <= 0:
            patch.setattr(store, "_clear", lambda *_: None)
            patch.setattr(Scratch, "remove", lambda *_: None)
            raise Killed

    file_steps(patch, die)


def fails_at(step: int, error: type, patch: pytest.MonkeyPatch) -> None:
    """The n-th step fails, and no other."""
    left = [step]

    def fail() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error("at a step")

    file_steps(patch, fail)


def test_whatever_happens_the_store_opens() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tables whose labels are those of a run in the midst of being replaced
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=max(1, STEPS // LENGTH),
                stateful_step_count=LENGTH,
                derandomize=True,
                database=None,
                report_multiple_bugs=False,
                phases=[Phase.generate],
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
