"""From an instrument's folder to a store on the command line, whoever made it; and from a store to GeoJSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import spatialdata as sd
import tifffile
import vendor_formats as vendors
from typer.testing import CliRunner, Result

import sslcst
from sslcst.cli import _folder, app
from sslcst.errors import DataError

TISSUE = vendors.make_tissue()
QUICK = ("--set", "nuclei.method=watershed")
FOLDERS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "xenium": (lambda folder: vendors.write_xenium(folder, TISSUE), "morphology_focus", "transcripts"),
    "merscope": (lambda folder: vendors.write_merscope(folder, TISSUE), "_z3", "_transcripts"),
    "cosmx": (lambda folder: vendors.write_cosmx(folder, {1: TISSUE, 2: TISSUE}), "2_image", "2_points"),
    "seqfish": (lambda folder: vendors.write_seqfish(folder, TISSUE), "Roi1_DAPI", "Roi1_TranscriptList"),
    "stereoseq": (lambda folder: vendors.write_stereoseq(folder, TISSUE), "_regist", "bin1_genes"),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120", "TERM": "dumb"})


def write_gem(file: Path) -> None:
    rows = "\n".join(f"{gene}\t{int(x)}\t{int(y)}\t1" for (y, x), gene in zip(TISSUE.yx, TISSUE.gene, strict=True))
    text = f"#FileFormat=GEMv0.1\n#BinSize=1\ngeneID\tx\ty\tMIDCounts\n{rows}\n".encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def write_saw8(folder: Path) -> None:
    """As SAW 8 lays its output out, which spatialdata-io does not read."""
    vendors.write_stereoseq(folder.parent / "saw7", TISSUE)
    for name in ("feature_expression", "image"):
        (folder / "outs" / name).mkdir(parents=True)
    with h5py.File(folder.parent / "saw7/04.tissuecut/SS200000135TL_D1.gef", "a") as file:
        file["geneExp/bin1/expression"].attrs.update({"minX": 0, "minY": 0})
    for name in ("tissue", "raw", "cellbin"):
        content = (folder.parent / "saw7/04.tissuecut/SS200000135TL_D1.gef").read_bytes()
        (folder / f"outs/feature_expression/D1.{name}.gef").write_bytes(content)
    tifffile.imwrite(folder / "outs/image/D1_DAPI_regist.tif", TISSUE.dapi)


@pytest.mark.filterwarnings("ignore")  # of the readers; the command shows none
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_known_by_its_files(name: str, tmp_path: Path) -> None:
    write, image, points = FOLDERS[name]
    write(tmp_path / "run")
    assert _folder.recognise(tmp_path / "run") == name
    result = run("read", tmp_path / "run", tmp_path / "a.zarr")
    assert result.exit_code == 0, result.output
    assert f"is of {name}." in result.stderr
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    assert any(key.endswith(image) for key in sdata.images)
    assert any(key.endswith(points) for key in sdata.points)
    assert result.stdout.count("\n") == 1  # what the readers say goes to stderr
    assert all(key in result.stdout for key in (*sdata.images, *sdata.points, *sdata.tables))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "run"]


@pytest.mark.filterwarnings("ignore")
def test_what_was_read_is_segmented_and_exported(tmp_path: Path) -> None:
    """Without a key, in three commands."""
    vendors.write_xenium(tmp_path / "run", TISSUE)
    store, out = tmp_path / "a.zarr", tmp_path / "cells.geojson"
    for command in (("read", tmp_path / "run", store), ("segment", store, *QUICK), ("export", store, out)):
        result = run(*command)
        assert result.exit_code == 0, result.output
    features = json.loads(out.read_text(encoding="utf-8"))["features"]
    assert len(features) == sd.read_zarr(store)["sslcst_table"].n_obs > 0
    assert f"{out}: {len(features)} cells of {store}." in result.stdout


def test_export_takes_every_argument_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdata = sslcst.datasets.simulate(n_cells=20, seed=0)
    sdata.tables["mine_table"] = sdata.tables["truth"]
    del sdata.tables["truth"]
    sdata.write(tmp_path / "a.zarr")
    given = {}
    monkeypatch.setattr(sslcst.io, "write_geojson", lambda sdata, path, **options: given.update(options, path=path))
    options = {"key": "mine", "image_key": "dapi", "coordinate_system": "micron", "class_key": "leiden"}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    result = run("export", tmp_path / "a.zarr", tmp_path / "a.geojson", *words)
    assert result.exit_code == 0, result.output
    assert given == options | {"path": tmp_path / "a.geojson"}


def test_one_of_several_fields_is_exported(tmp_path: Path) -> None:
    """By its key; without it they are listed."""
    part = sslcst.datasets.simulate(n_cells=20, seed=0)
    names = {"true_nuclei": "nuclei", "transcripts": "points", "stain": "image"}
    elements = {f"{field}_{name}": part[key] for field in "12" for key, name in names.items()}
    sd.SpatialData.init_from_elements(elements).write(tmp_path / "a.zarr")
    result = run("segment", tmp_path / "a.zarr", "--fields", "all", "--nuclei-key", "nuclei", "--method", "density")
    assert "cells in sslcst_FIELD_cells and sslcst_table" in result.stdout, result.output
    result = run("export", tmp_path / "a.zarr", tmp_path / "a.geojson", "--key", "sslcst_2")
    assert result.exit_code == 0, result.output
    assert "20 cells of" in result.stdout
    result = run("export", tmp_path / "a.zarr", tmp_path / "b.geojson")
    assert result.exit_code == 1 and "choose one of them with --key, among 'sslcst_1', 'sslcst_2'" in result.stderr


def test_export_of_a_store_without_results(tmp_path: Path) -> None:
    sd.SpatialData().write(tmp_path / "a.zarr")
    result = run("export", tmp_path / "a.zarr", tmp_path / "a.geojson")
    assert result.exit_code == 1 and result.stderr.startswith("Error: ")
    assert not (tmp_path / "a.geojson").exists()


@pytest.mark.parametrize("name", ["a.gem", "a.gem.gz"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_gem_is_read_from_its_file_or_folder(name: str, whole: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_gem(tmp_path / "run" / name)
    tifffile.imwrite(tmp_path / "run/a_DAPI_regist.tif", TISSUE.dapi)
    given = tmp_path / "run" if whole else tmp_path / "run" / name
    options = [] if whole else ["--option", f"image={tmp_path / 'run/a_DAPI_regist.tif'}"]
    result = run("read", given, tmp_path / "a.zarr", *options, "--option", "spot_size=0.4")
    assert result.exit_code == 0, result.output
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    assert len(sdata["transcripts"]) == len(TISSUE.yx)
    np.testing.assert_array_equal(sdata["stain"].to_numpy()[0], TISSUE.dapi)


def test_the_folder_of_saw_8_is_read(tmp_path: Path) -> None:
    """Counts of the tissue among several, never cell bins, with the registered stain."""
    write_saw8(tmp_path / "run")
    result = run("read", tmp_path / "run", tmp_path / "a.zarr")
    assert result.exit_code == 0, result.output
    assert "D1_DAPI_regist.tif" in result.stderr
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    assert set(sdata.images) == {"stain"} and set(sdata.points) == {"transcripts"}


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_is_there_is_read_of_merscope(tmp_path: Path) -> None:
    """Without layer 3, which the reader takes, the one in the middle; or the one that is asked for."""
    vendors.write_merscope(tmp_path / "run", TISSUE, z_layers=(0, 1, 2))
    for options, layer in (((), 1), (("--option", "z_layers=2"), 2)):
        result = run("read", tmp_path / "run", tmp_path / f"{layer}.zarr", *options)
        assert result.exit_code == 0, result.output
        assert [key[-3:] for key in sd.read_zarr(tmp_path / f"{layer}.zarr").images] == [f"_z{layer}"]


def test_what_is_not_known_is_answered_by_what_is(tmp_path: Path) -> None:
    (tmp_path / "run/region_0").mkdir(parents=True)
    (tmp_path / "run/region_0/detected_transcripts.csv").touch()
    (tmp_path / "run/notes.txt").touch()
    result = run("read", tmp_path / "run", tmp_path / "a.zarr")
    assert result.exit_code == 1
    assert "its folder 'region_0' is of merscope: give that" in result.stderr
    assert all(name in result.stderr for name in (*_folder.MARKS, "experiment.xenium", "--reader"))
    result = run("read", tmp_path / "run/notes.txt", tmp_path / "a.zarr")
    assert result.exit_code == 1 and "neither a GEF nor a GEM" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_folder_of_several_readers_asks_which(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_gem(tmp_path / "run/a.gem")
    (tmp_path / "run/experiment.xenium").touch()
    result = run("read", tmp_path / "run", tmp_path / "a.zarr")
    assert result.exit_code == 1 and "choose with --reader, one of xenium, gem." in result.stderr
    result = run("read", tmp_path / "run", tmp_path / "a.zarr", "--reader", "gem")
    assert result.exit_code == 0, result.output
    assert "no stain *_regist.tif" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--reader", "xenum"], 1, "did you mean 'xenium'?"),
        (["--reader", "xenium", "--option", "cell_labels=true"], 1, "did you mean 'cells_labels'?"),
        (["--reader", "gem", "--option", "spot=0.4"], 1, "--option spot=0.4: no such argument of reader 'gem'"),
        (["--reader", "xenium"], 1, "could not be read by xenium"),
        (["--reader", "stereoseq"], 1, "could not be read by stereoseq"),
        (["--reader", "gem"], 1, "must hold one GEM file, and holds none"),
        (["--option", "spot_size"], 2, "name=value"),
    ],
)
def test_wrong_readers_and_options_are_told(options: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    result = run("read", tmp_path / "run", tmp_path / "a.zarr", *options)
    assert result.exit_code == code
    assert said in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_is_overwritten(kind: str, tmp_path: Path) -> None:
    """Neither a store nor anything else, not even a link that leads nowhere; before anything is read."""
    write_gem(tmp_path / "a.gem")
    out = tmp_path / "a.zarr"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to(tmp_path / "nowhere")}[kind]()
    result = run("read", tmp_path / "a.gem", out)
    assert result.exit_code == 1
    assert "exists, and is not written over" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gem", "a.zarr"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gem(tmp_path / "a.gem")
    result = run("read", tmp_path / "a.gem", tmp_path / "none/a.zarr")
    assert result.exit_code == 1 and "there is no folder" in result.stderr

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for error, code in ((full, 1), (_interrupt, 130)):
        monkeypatch.setattr(sd.SpatialData, "write", error)
        result = run("read", tmp_path / "a.gem", tmp_path / "a.zarr")
        assert result.exit_code == code
        assert [path.name for path in tmp_path.iterdir()] == ["a.gem"]


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert run("read", tmp_path / "run", tmp_path / "a.zarr").exit_code == 2
    with pytest.raises(DataError, match="There is no"):
        _folder.recognise(tmp_path / "run")


def test_readers_of_spatialdata_io_are_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folder, "find_spec", lambda name: None)
    (tmp_path / "experiment.xenium").touch()
    result = run("read", tmp_path, tmp_path / "a.zarr")
    assert result.exit_code == 1
    assert "pip install 'sslcst[io]'" in result.stderr
