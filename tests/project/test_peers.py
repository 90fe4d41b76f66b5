"""benchmarks/peers.py: adapters run as processes of their own, and what comes back is scored by the metrics."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslcst import metrics
from sslcst.core.counts import owners

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not part of this copy")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # where it finds what it shares with other benchmarks
    spec = importlib.util.spec_from_file_location("peers", BENCHMARKS / "peers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look their types up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def tissue(peers):
    """Four square cells with a nucleus each, and transcripts of two kinds of gene within them."""
    cells, nuclei = np.zeros((2, 40, 40), np.uint32)
    for number, (y, x) in enumerate([(2, 2), (2, 21), (21, 2), (21, 21)], 1):
        cells[y : y + 17, x : x + 17] = nuclei[y + 5 : y + 12, x + 5 : x + 12] = number
    rng = np.random.default_rng(0)
    yx = rng.uniform(0, 40, (4000, 2))
    gene = rng.integers(0, 10, 4000) + 10 * (owners(yx, cells) % 2)
    return peers.Tissue("squares", nuclei, yx, gene, 0.5, cells, owners(yx, cells))


def adapter(folder: Path, body: str) -> Path:
    path = folder / "run_dummy.py"
    path.write_text(f"from adapter import main\n\ndef segment(tissue, **settings):\n    {body}\n\nmain(segment)\n")
    return path


def test_labels_are_scored_as_they_are(peers, tissue, tmp_path: Path) -> None:
    """A dummy peer that gives back the nuclei, from their file, is scored as the nuclei are."""
    found = peers.run(adapter(tmp_path, "return tissue.nuclei"), sys.executable, tissue, (), tmp_path)
    assert (found.cells == tissue.nuclei).all()
    assert found.cpu_seconds > 0
    assert 0 <= found.seconds < 60
    assert 0.01 < found.peak_gib < 1
    score = peers.score(tissue, found)
    owner = owners(tissue.yx, tissue.nuclei)
    assert score.n_cells == 4
    assert score.iou == pytest.approx(49 / 289)
    assert score.f1 == 0
    assert score.right == score.right_by_place == metrics.fraction_right(tissue.reference_owner, owner)
    assert score.n_correlated == 0  # nuclei add nothing to nuclei


def test_owners_are_scored_by_transcript_and_drawn_for_their_area(peers, tissue, tmp_path: Path) -> None:
    """A peer that knows the truth, by transcript: all are right, and drawn cells come close to the true ones."""
    np.save(tmp_path / "owner.npy", tissue.reference_owner)
    body = "import numpy; return numpy.load(settings['file'])"
    found = peers.run(adapter(tmp_path, body), sys.executable, tissue, (f"file={tmp_path / 'owner.npy'}",), tmp_path)
    score = peers.score(tissue, found)
    assert score.right == 1
    assert score.f1 == 1
    assert score.iou > 0.9
    assert score.n_correlated == 4
    assert score.correlation > 0.7  # cytoplasm and nucleus of a cell are of one kind


def test_labels_and_owners_of_one_peer_count_each_for_itself(peers, tissue, tmp_path: Path) -> None:
    """As proseg gives them: outlines are scored by the labels, transcripts by the owners and by place."""
    np.save(tmp_path / "owner.npy", tissue.reference_owner)
    body = "import numpy; return tissue.nuclei, numpy.load(settings['file'])"
    found = peers.run(adapter(tmp_path, body), sys.executable, tissue, (f"file={tmp_path / 'owner.npy'}",), tmp_path)
    score = peers.score(tissue, found)
    assert score.iou == pytest.approx(49 / 289)
    assert score.right == 1 > score.right_by_place


def test_exclusive_genes_where_no_cells_are_known(peers, tissue) -> None:
    """The nuclei's own genes meet in cells that mix two; by place is a row of its own where owners differ."""
    blind = replace(tissue, reference=None, reference_owner=None)
    mixed = peers.Result(np.minimum(tissue.reference, 1), owner=tissue.reference_owner)
    lines = peers.exclusive_rows(blind, {"a": mixed, "b": peers.Result(failure="failed: no peer")})
    assert [line.split(" | ")[1] for line in lines] == ["a", "a, by place", "b"]
    assert {line.count("|") for line in [*lines, peers.EXCLUSIVE_HEADER.splitlines()[0]]} == {9}


def test_a_result_that_is_there_is_not_computed_again(peers, tissue, tmp_path: Path) -> None:
    """Of the same transcripts and settings alone."""
    path = adapter(tmp_path, "return tissue.nuclei")
    peers.run(path, sys.executable, tissue, ("a=1",), tmp_path)
    adapter(tmp_path, "return tissue.nuclei * 0 + 7")
    assert (peers.run(path, sys.executable, tissue, ("a=1",), tmp_path).cells == tissue.nuclei).all()
    assert (peers.run(path, sys.executable, tissue, ("a=2",), tmp_path).cells == 7).all()


def test_a_peer_that_fails_says_why(peers, tissue, tmp_path: Path) -> None:
    found = peers.run(adapter(tmp_path, "raise ImportError('no peer')"), sys.executable, tissue, (), tmp_path)
    assert found.cells is None
    assert found.failure == "failed: ImportError: no peer"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_peer_that_is_ended_says_by_what(peers, tissue, tmp_path: Path) -> None:
    """Not by the last line that it happened to print."""
    body = "import os, sys; print('a warning', file=sys.stderr); os.kill(os.getpid(), 9)"
    found = peers.run(adapter(tmp_path, body), sys.executable, tissue, (), tmp_path)
    assert found.failure == "failed: ended by signal 9"


def test_a_row_for_each_method(peers, tissue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for those that are not installed; sslcst's own, which takes its time, stands in by the nuclei."""
    real = peers.run

    def quick(path, python, *rest):
        return real(path if path.stem != "run_sslcst" else adapter(tmp_path, "return tissue.nuclei"), python, *rest)

    monkeypatch.setattr(peers, "run", quick)
    monkeypatch.setattr(peers, "DISTANCES", ("1", "2.5"))
    lines = peers.rows(tissue, peers.run_all(tissue, ["density"], {}, tmp_path))
    assert [line.split(" | ")[1] for line in lines] == [
        "the reference itself",
        "its transcripts, drawn as cells",
        "nuclei alone",
        "nuclei grown by the best distance",
        "watershed on density",
        "ComSeg",
        "pciSeq",
        "proseg",
        "sslcst, density",
    ]
    assert {line.count("|") for line in [*lines, peers.HEADER.splitlines()[0]]} == {12}
    assert "| 4 | 1.000 | 1.000 | 1.000 | 1.000 |" in lines[0]
    assert "not installed here: give --peer comseg=PYTHON" in lines[5]
    assert "not installed here: give --proseg BINARY" in lines[7]
    assert "2.5 um" in lines[3]  # of five pixels that a square's border is away from its nucleus


def test_pairs_with_sslcst(peers, tissue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added rightly correlates with what is shared, what is added wrongly less; failures are left out."""
    monkeypatch.setattr(peers, "MIN_PAIRS", 1)
    right, wrong = tissue.reference, np.roll(tissue.reference, 8, axis=1)
    results = {"wrong": peers.Result(wrong), "none": peers.Result(failure="failed"), "sslcst": peers.Result(right)}
    [line] = peers.pair_rows(tissue, "sslcst", results)
    method, n, ours, theirs = line.strip("| ").split(" | ")[2:]
    assert (method, n) == ("wrong", "4")
    assert float(ours) > float(theirs) + 0.3


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "peers").glob("run_*.py")), ids=lambda path: path.stem)
def test_adapters_load_where_their_peer_is_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They import the peer when they segment, so that numpy alone loads them."""
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.segment)


@pytest.fixture
def run_proseg(monkeypatch: pytest.MonkeyPatch):
    if sys.platform == "win32":
        pytest.skip("proseg's stand-in is a shell script")
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    return importlib.import_module("run_proseg")


def given(run_proseg, tissue):
    return run_proseg.Tissue(tissue.nuclei, tissue.yx, tissue.gene, tissue.pixel_size)


def test_what_proseg_writes_is_read(run_proseg, tissue, tmp_path: Path) -> None:
    """A stand-in that writes two squares, the small one drawn into a hole that the format leaves out of the large one.

    Its cells are numbered by itself, and named by the nuclei; what it takes for background is in no cell.
    """

    def square(low: float, high: float) -> list:
        return [[[[low, low], [high, low], [high, high], [low, high], [low, low]]]]

    parts = [(0, square(4, 6)), (1, square(1, 10))]
    features = [{"properties": {"cell": n}, "geometry": {"coordinates": polygons}} for n, polygons in parts]
    with gzip.open(tmp_path / "cells.geojson.gz", "wt", encoding="utf-8") as file:
        json.dump({"features": features}, file)
    (tmp_path / "cells.csv").write_text("cell,original_cell_id\n0,2\n1,1\n")
    (tmp_path / "owners.csv").write_text(
        "transcript_id,assignment,background\n3,0,false\n1,1,false\n2,1,true\n0,,true\n"
    )
    (tmp_path / "proseg").write_text(
        f"#!/bin/sh\ncp transcripts.csv {tmp_path}/given.csv; cp {tmp_path}/*.gz {tmp_path}/*s.csv .\n"
    )
    (tmp_path / "proseg").chmod(0o755)
    labels, owner = run_proseg.segment(given(run_proseg, tissue), str(tmp_path / "proseg"))

    assert owner[:5].tolist() == [0, 1, 0, 2, 0]
    assert (labels[8:12, 8:12] == 2).all()  # 4 to 6 micron
    assert np.count_nonzero(labels == 2) == 16
    assert np.count_nonzero(labels == 1) == 18**2 - 16
    lines = (tmp_path / "given.csv").read_text().splitlines()
    assert len(lines) == 1 + len(tissue.yx)
    y, x = tissue.yx[0] * 0.5
    nucleus = owners(tissue.yx[:1], tissue.nuclei)[0]
    assert lines[1] == f"0,{x:.4f},{y:.4f},0,g{tissue.gene[0]},{nucleus},{int(nucleus > 0)}"


def test_a_proseg_that_ends_with_an_error_says_so(run_proseg, tissue, tmp_path: Path) -> None:
    (tmp_path / "proseg").write_text("#!/bin/sh\necho no cells >&2; exit 3\n")
    (tmp_path / "proseg").chmod(0o755)
    with pytest.raises(RuntimeError, match="proseg ended with 3: no cells"):
        run_proseg.segment(given(run_proseg, tissue), str(tmp_path / "proseg"))
