"""The command line: what reaches `tl.segment`, and what each kind of failure looks like from a shell."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import typer.main
from anndata import AnnData
from typer.testing import CliRunner, Result

import sslcst
from sslcst.cli import app
from sslcst.core.density import Levels
from sslcst.datasets import simulate
from sslcst.errors import DataError
from sslcst.methods import METHODS
from sslcst.methods.network.method import NetworkFit


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120", "TERM": "dumb"})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    sd.SpatialData().write(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def add_table(sdata: sd.SpatialData, key: str, n_cells: int) -> None:
    """Write the table of a run to a store."""
    obs = pd.DataFrame({"cell_id": np.arange(n_cells)}, index=[*map(str, range(n_cells))])
    sdata.tables[f"{key}_table"] = AnnData(np.zeros((n_cells, 1), np.float32), obs)
    sdata.write_element(f"{key}_table")


@pytest.fixture
def segmented_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options that `tl.segment` was called with; it finds three cells."""
    options = {}

    def segment(sdata: sd.SpatialData, **given: Any) -> None:
        options.update(given)
        add_table(sdata, given["key_added"], 3)

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    return options


def test_version() -> None:
    assert run("--version").stdout.strip() == sslcst.__version__


def test_help_names_commands_and_exit_codes() -> None:
    """Someone who types only `sslcst` sees where to go on."""
    for result in (run(), run("--help")):
        assert all(word in result.output for word in ("read", "segment", "report", "export", "demo", "Exit codes"))


@pytest.mark.parametrize("command", ["read", "segment", "plan", "report", "export", "repair", "demo"])
def test_help_shows_an_example_and_explains_every_option(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"sslcst {command} " in result.stdout
    (function,) = (each.callback for each in app.registered_commands if each.callback.__name__ == command)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    assert all(parameter.annotation.__metadata__[0].help for parameter in parameters)


def test_defaults_are_those_of_tl_segment(store: Path, segmented_with: dict[str, Any]) -> None:
    """A key that was not given stays open, so that `tl.segment` takes the one that the store leaves no doubt about."""
    result = run("segment", store)
    assert result.exit_code == 0, result.output
    assert "3 cells in sslcst_cells" in result.stdout
    keys = ("image_key", "channel", "points_key", "gene_key", "count_key", "nuclei_key", "coordinate_system", "device")
    keys += ("method", "channels", "cells_key", "fields")
    given = {"params": {}, "model": None, "seed": 0, "key_added": "sslcst", "overwrite": False}
    given |= {"unit": None, "pixel_size": None, "region": None, "shapes": False, "assign_points": False}
    given |= {"load_table": False}  # nobody would look at it
    assert segmented_with == {**dict.fromkeys(keys), **given}


def test_every_option_reaches_tl_segment(store: Path, segmented_with: dict[str, Any]) -> None:
    options = {
        **{
            "image_key": "dapi",
            "channel": "0",
            "points_key": "p",
            "gene_key": "g",
            "count_key": "c",
            "nuclei_key": "n",
        },
        **{"coordinate_system": "micron", "method": "ssl-cst", "device": "cpu", "seed": 7, "key_added": "mine"},
    }
    options |= {
        "unit": "micron",
        "pixel_size": 0.5,
        "region": "roi",
        "channels": "m,n",
        "cells_key": "v",
        "fields": "1, 2",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = run("segment", store, *arguments, "--shapes", "--assign-points", "--overwrite")
    assert result.exit_code == 0, result.output
    flags = {"shapes": True, "assign_points": True, "overwrite": True}
    lists = {"channels": ["m", "n"], "fields": ["1", "2"]}
    assert segmented_with == {**options, **flags, **lists, "params": {}, "model": None, "load_table": False}


def test_a_region_is_a_name_or_four_numbers(store: Path, segmented_with: dict[str, Any]) -> None:
    assert run("segment", store, "--region", "0,-1.5,20, 3e1").exit_code == 0
    assert segmented_with["region"] == (0, -1.5, 20, 30)
    for text in ("0,1,2", "0,1,2,x", "0,1,2,3,4", ","):
        assert run("segment", store, "--region", text).exit_code == 2


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("segment", sslcst.tl.segment),
        ("plan", sslcst.tl.plan),
        ("report", sslcst.report.write_report),
        ("export", sslcst.io.write_geojson),
    ],
)
def test_a_command_has_every_argument_of_its_function(command: str, function: Callable) -> None:
    """What Python can ask for, a shell can too; it has no object that a table might be added to."""
    arguments = set(inspect.signature(function).parameters) - {"sdata", "path", "load_table"}
    options = {option.name for option in typer.main.get_command(app).commands[command].params}
    assert arguments <= options


@pytest.fixture
def model(tmp_path: Path) -> Path:
    levels = Levels(3.0, 2.0, 2.5, 0.25, (1.0, 0.0), 1, 2)
    sslcst.io.write_model(NetworkFit(0.5, levels), tmp_path / "a.json")
    return tmp_path / "a.json"


def test_a_model_brings_its_method(store: Path, segmented_with: dict[str, Any], model: Path) -> None:
    """Unless the command names another, which tl.segment refuses."""
    assert run("segment", store, "--model", model).exit_code == 0
    assert segmented_with["model"] == sslcst.io.read_model(model)
    assert segmented_with["method"] == "network"
    run("segment", store, "--model", model, "--method", "ssl-cst")
    assert segmented_with["method"] == "ssl-cst"


def test_a_damaged_model_is_told(store: Path, segmented_with: dict[str, Any], model: Path) -> None:
    model.write_text("{", encoding="utf-8")
    result = run("segment", store, "--model", model)
    assert result.exit_code == 1 and "a.json is no model that can be used" in result.stderr
    assert not segmented_with


def test_what_is_learnt_is_saved(tmp_path: Path) -> None:
    """As read_model gives it, for the next store."""
    simulate(n_cells=20, seed=0).write(tmp_path / "run.zarr")
    asked = ("--nuclei-key", "true_nuclei", "--save-model", tmp_path / "m.json")
    result = run("segment", tmp_path / "run.zarr", *asked)
    assert result.exit_code == 0, result.output
    saved = sslcst.io.read_model(tmp_path / "m.json")
    assert saved == sslcst.io.read_model(sd.read_zarr(tmp_path / "run.zarr"))


@pytest.mark.parametrize(
    ("options", "name", "said"),
    [
        ((), "a.json", "a.json exists"),
        ((), "new.safetensors", "must end in .json"),
        ((), "none/new.json", "there is no folder"),
        (("--method", "ssl-cst"), "a.safetensors", "a.json exists"),
    ],
)
def test_where_a_model_cannot_be_saved_is_told_before_the_work(
    options: tuple, name: str, said: str, store: Path, segmented_with: dict[str, Any], model: Path
) -> None:
    result = run("segment", store, *options, "--save-model", model.parent / name)
    assert result.exit_code == 1 and said in result.stderr
    assert not segmented_with


def test_what_ctrl_c_stopped_goes_on_with_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(n_cells=20, seed=0).write(tmp_path / "run.zarr")
    command = ("segment", tmp_path / "run.zarr", "--nuclei-key", "true_nuclei")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sslcst.run.pipeline.find_cells", stop)
        stopped = run(*command)
    assert stopped.exit_code == 130
    assert "Stopped. The data are as they were." in stopped.stderr
    assert "the same command goes on from there." in stopped.stderr
    again = run(*command)
    assert again.exit_code == 0, again.output
    assert "Going on with a run that was stopped" in again.stderr


def test_methods_are_named_by_the_help() -> None:
    for command in ("segment", "plan"):
        shown = run(command, "--help").stdout
        assert all(name in shown for name in METHODS)


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_settings_win_over_the_file(suffix: str, store: Path, segmented_with: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / f"params.{suffix}"
    params = {"training": {"max_epochs": 5, "patience": 3}}
    toml = "[training]\nmax_epochs = 5\npatience = 3\n"
    file.write_text(toml if suffix == "toml" else json.dumps(params), encoding="utf-8")
    settings = ("training.max_epochs=9", "nuclei.diameters=[8, 12.5]", "nuclei.method=cellpose", "flow.orphans=true")
    result = run("segment", store, "--params", file, *(part for setting in settings for part in ("--set", setting)))
    assert result.exit_code == 0, result.output
    assert segmented_with["params"] == {
        "training": {"max_epochs": 9, "patience": 3},
        "nuclei": {"diameters": [8, 12.5], "method": "cellpose"},
        "flow": {"orphans": True},
    }


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "[cells]\nradius = 3.0\n"), ("a.json", '{"cells": {"radius": 3.0}}')]
)
def test_a_file_of_parameters_may_begin_with_a_byte_order_mark(
    name: str, text: str, store: Path, segmented_with: dict[str, Any], tmp_path: Path
) -> None:
    """As editors on Windows write it."""
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    result = run("segment", store, "--params", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert segmented_with["params"] == {"cells": {"radius": 3.0}}


@pytest.mark.parametrize("setting", ["training", "training=1", "training.max_epochs", ".max_epochs=1", "training.=1"])
def test_malformed_setting_is_wrong_usage(setting: str, store: Path) -> None:
    result = run("segment", store, "--set", setting)
    assert result.exit_code == 2
    assert "section.field=value" in result.stderr


@pytest.mark.parametrize("text", ["{", "[1]", '{"training": 1}'])
def test_malformed_file_is_wrong_usage(text: str, store: Path, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(text, encoding="utf-8")
    result = run("segment", store, "--params", tmp_path / "params.json")
    assert result.exit_code == 2
    assert "params.json" in result.stderr


def test_absent_store_is_wrong_usage(tmp_path: Path) -> None:
    result = run("segment", tmp_path / "nothing.zarr")
    assert result.exit_code == 2
    assert "nothing.zarr" in result.stderr


def test_folder_that_is_no_store_is_named(tmp_path: Path) -> None:
    result = run("segment", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path} is not a zarr store" in result.stderr


def test_foreseen_failure_is_its_message(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and the message on stderr; no traceback, nothing on stdout."""

    def segment(sdata: sd.SpatialData, **_: Any) -> None:
        raise DataError("'transcripts' holds no transcripts: give another points_key.")

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    result = run("segment", store)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: 'transcripts' holds no transcripts: give another --points-key.\n"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "'a_cells' exists: choose another key_added, or overwrite=True.",
            "choose another --key-added, or --overwrite.",
        ),
        (
            "Several could be the image: choose with image_key=; there are: 'a'.",
            "choose with --image-key; there are: 'a'.",
        ),
        ("bring nuclei of your own with nuclei_key=.", "with --nuclei-key."),
        ("The image is 'a', unless channel= says otherwise", "unless --channel says otherwise"),
        ("There is no channel of image 'stain' 'key_added'.", "There is no channel of image 'stain' 'key_added'."),
        ("/data/key_added/run.zarr: no device.", "/data/key_added/run.zarr: no device."),
        ("seed=-1: must not be negative.", "--seed -1: must not be negative."),
        ("device='gpu': must be ...", "--device 'gpu': must be"),
        ("training.batch_size=0: must be above 0.", "--set training.batch_size=0: must be above 0."),
        ("set spots.bin_size=1.", "set --set spots.bin_size=1."),
        ("lower training.learning_rate.", "lower training.learning_rate."),
        ("first line\nsecond line", "Error: first line second line\n"),
    ],
)
def test_errors_name_options(message: str, shown: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever typed a command reads of its options, not of arguments in Python; in one line."""

    def segment(sdata: sd.SpatialData, **_: Any) -> None:
        raise DataError(message)

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    result = run("segment", store)
    assert result.exit_code == 1
    assert shown in result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--key-added", "my cells"], "--key-added"),
        (["--seed", 2**70], "--seed"),
        (["--device", "gpu"], "did you mean 'cuda'?"),
        (["--set", "nuclei.diameter=3"], "did you mean 'diameters'?"),
        (["--set", "cells.radius=0"], "--set cells.radius=0"),
        (["--set", "cell.radius=3"], "--set cell.radius=3: no such section of method 'network'; there are cells, "),
        (["--set", "cell.radius=3"], "did you mean 'cells'?"),
        (["--set", "cells.radius.x=3"], "--set cells.radius.x=3: no such parameter"),
        (["--set", "flow.threshold=0.3"], "--set flow.threshold=0.3: no such section of method 'network'"),
        (["--set", "cells.radus=3"], "--set cells.radus=3: no such parameter"),  # --cells is an option of the demo
    ],
)
def test_a_wrong_value_is_told_by_its_option(arguments: list, shown: str, store: Path) -> None:
    result = run("segment", store, *arguments)
    assert result.exit_code == 1
    assert shown in result.stderr and result.stderr.count("\n") == 1


def test_a_store_that_cannot_be_read_is_told(store: Path) -> None:
    (store / "zarr.json").write_text("{", encoding="utf-8")
    result = run("segment", store)
    assert result.exit_code == 1
    assert "run.zarr" in result.stderr and "Traceback" not in result.stderr


def test_log_goes_to_stderr_and_the_logger_is_left_as_it_was(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("sslcst")
    before = (logger.level, list(logger.handlers))

    def segment(sdata: sd.SpatialData, **_: Any) -> None:
        logger.info("looking for nuclei")
        add_table(sdata, "sslcst", 1)

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    result = run("segment", store)
    assert "looking for nuclei" in result.stderr
    assert "looking for nuclei" not in result.stdout
    assert (logger.level, logger.handlers) == before


def test_the_log_names_options_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def segment(sdata: sd.SpatialData, **_: Any) -> None:
        logging.getLogger("sslcst").info("The channel of image 'a' is %r, unless channel= says otherwise.", "DAPI")
        add_table(sdata, "sslcst", 1)

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    assert "The channel of image 'a' is 'DAPI', unless --channel says otherwise." in run("segment", store).stderr


def test_ctrl_c_ends_with_the_code_of_shells(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def segment(sdata: sd.SpatialData, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sslcst.tl, "segment", segment)
    result = run("segment", store)
    assert result.exit_code == 130
    assert "Traceback" not in result.output and result.stdout == ""


def test_every_option_reaches_the_report(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By default that of "sslcst", to report.html where one stands."""
    given = []
    monkeypatch.setattr(sslcst.report, "write_report", lambda sdata, path, **options: given.append((path, options)))
    result = run("report", store)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"report.html: the report of {store}.\n"
    asked = {"key": "mine", "image_key": "dapi", "channel": "0", "truth_key": "vendor"}
    options = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    run("report", store, "--out", tmp_path / "a.html", *options)
    assert given == [
        (Path("report.html"), {"key": "sslcst"} | dict.fromkeys(("image_key", "channel", "truth_key"))),
        (tmp_path / "a.html", asked),
    ]


def test_report_of_a_store_without_results(store: Path, tmp_path: Path) -> None:
    result = run("report", store, "--out", tmp_path / "a.html")
    assert result.exit_code == 1
    assert "no table 'sslcst_table' to report of: run sslcst.tl.segment" in result.stderr
    assert not (tmp_path / "a.html").exists()


def test_demo_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulation, segmentation, scanpy, squidpy, scores and picture; what an earlier demo left is replaced."""
    monkeypatch.setattr("sslcst._demo.PARAMS", {"spots": {"bin_size": 1.0}})
    sd.SpatialData().write(tmp_path / "demo.zarr")
    result = run("demo", "--out", tmp_path, "--cells", 30)
    assert result.exit_code == 0, result.output
    assert "spots.bin_size=1.0" in result.stdout
    assert "INFO" not in result.stdout  # squidpy's and spatialdata's loggers write there
    for way in ("nuclei alone", r"nuclei grown \*", "sslcst"):
        row = re.search(rf"^{way}((?: +[01]\.\d{{3}}(?: \([1-6] um\))?){{3}})$", result.stdout, re.MULTILINE)
        assert row, f"{way} is not in the table"
    assert str(tmp_path / "demo.png") in result.stdout and (tmp_path / "demo.png").stat().st_size > 10_000
    sdata = sd.read_zarr(tmp_path / "demo.zarr")
    assert {"true_cells", "sslcst_nuclei", "sslcst_cells"} <= set(sdata.labels)
    assert sdata.tables["sslcst_table"].n_obs > 0


def test_demo_names_the_package_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any work, with the command that mends it."""
    monkeypatch.setattr("sslcst._demo.NEEDED", ("numpy", "no_such_package"))
    result = run("demo", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no_such_package" in result.stderr and "pip install 'sslcst[demo]'" in result.stderr
    assert not (tmp_path / "out").exists()
