"""Other methods beside sslcst, each run on the same nuclei and transcripts, in an environment of its own.

    python benchmarks/peers.py [--data ../shared] [--methods NAME ...] [--peer NAME=PYTHON[,SETTING=VALUE ...] ...]
        [--proseg BINARY] [--only TISSUE ...] [--keep FOLDER]

Tissues are those of cells.py, by the beginnings of their names, with the same nuclei; and a small one for SCS. The
adapters are in ``benchmarks/peers/``: nuclei alone, nuclei grown, watershed, the --methods of sslcst and that of proseg
run in this Python, others in the one that --peer names:

    --peer comseg=envs/comseg/bin/python pciseq=envs/pciseq/bin/python
    scs=envs/scs/bin/python,repository=SCS,epochs=100

These environments (Python 3.11) are made by

    pip install comseg
    pip install pciSeq "pandas<2.3" "numpy<2"
    pip install "tensorflow-cpu==2.15.*" "tensorflow-addons==0.23.*" "numpy<2" "scanpy<1.11" scikit-misc

and SCS is the repository chenhcs/SCS; proseg is made by ``cargo install proseg --version 3.2.0 --root FOLDER``. Prints
tables in Markdown: where cells are known, how close each method comes; where they are not, how often genes meet that
exclude each other in nuclei. With --keep, inputs and results are kept, and a result that is there already is not
computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spatialdata as sd
from cells import Field, counts_of, fields, meetings, simulated
from scipy import sparse
from spatialdata.models import Image2DModel, PointsModel

import sslcst
from sslcst.core.counts import owners
from sslcst.metrics import correlation, exclusive_pairs, f1, fraction_right, mean_best_iou, n_cells

ADAPTERS = Path(__file__).parent / "peers"
DISTANCES = ("0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "5", "6")  # microns
MIN_COUNTS = 50  # in each part that is correlated
MIN_PAIRS = 10  # of which a mean is worth printing
TISSUES = ("embryo a05", "embryo a24", "prostate", "cosmx", "simulated usual", "simulated sparse", "breast")
SMALL = "simulated, small"
SLOW = {"scs": (SMALL,)}  # run there alone: it takes most of an hour for 200 cells
ABSENT = {
    "Baysor": "could not be had here; SSL-CST's paper: mean IoU 0.495 on seqFISH+",
    "JSTA": "could not be had here; SSL-CST's paper: mean IoU 0.496 on seqFISH+",
}
HEADER = (
    "| tissue | method | cells | mean best IoU | F1 at 0.5 | transcripts right, by owner | by place "
    "| correlation with nuclei (pairs) | s | CPU, s | peak, GiB |\n|---|---|---|---|---|---|---|---|---|---|---|"
)
EXCLUSIVE_HEADER = (
    "| tissue | method | cells | share kept | exclusive genes meet | s | CPU, s | peak, GiB |\n"
    "|---|---|---|---|---|---|---|---|"
)
PAIR_HEADER = (
    "| tissue | sslcst | other | pairs | what sslcst alone has of a cell | what the other alone has |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Tissue:
    """What the peers are given, and what they are scored by, where that is known."""

    name: str
    nuclei: np.ndarray
    yx: np.ndarray
    gene: np.ndarray
    pixel_size: float
    reference: np.ndarray | None
    reference_owner: np.ndarray | None
    image: np.ndarray | None = None

    @property
    def given(self) -> dict[str, np.ndarray]:
        arrays = {"nuclei": self.nuclei, "yx": self.yx, "gene": self.gene, "pixel_size": np.array(self.pixel_size)}
        return arrays if self.image is None else arrays | {"image": self.image}

    def digest(self) -> str:
        parts = (np.ascontiguousarray(array).tobytes() for array in self.given.values())
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


@dataclass(frozen=True)
class Result:
    """What a peer found and took, or why it found nothing; the owner of each transcript, where that is not by place."""

    cells: np.ndarray | None = None
    owner: np.ndarray | None = None
    seconds: float = np.nan
    cpu_seconds: float = np.nan
    peak_gib: float = np.nan
    failure: str = ""


@dataclass(frozen=True)
class Score:
    n_cells: int
    iou: float
    f1: float
    right: float
    right_by_place: float
    correlation: float
    n_correlated: int


def tissue_of(field: Field) -> Tissue:
    on = ((field.yx >= 0) & (field.yx < field.nuclei.shape)).all(axis=1)  # peers know no place off the raster
    owner = None if field.owner is None else field.owner[on]
    return Tissue(field.name, field.nuclei, field.yx[on], field.gene[on], field.pixel_size, field.cells, owner)


def run(adapter: Path, python: str, tissue: Tissue, settings: tuple[str, ...], folder: Path) -> Result:
    """Run an adapter, unless the folder holds its result on these very data."""
    name = "-".join([tissue.digest(), adapter.stem, *(setting.replace(os.sep, "_") for setting in settings)])
    source, target = folder / f"{tissue.digest()}.npz", folder / f"{name}.npz"
    if not target.exists():
        np.savez(source, **tissue.given)
        paths = os.pathsep.join(filter(None, [str(ADAPTERS), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [python, str(adapter), str(source.resolve()), str(target.resolve()), *settings]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode < 0:  # as where memory ran out
            return Result(failure=f"failed: ended by signal {-done.returncode}")
        if done.returncode:
            return Result(failure=f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    with np.load(target) as data:
        took = {name: float(data[name]) for name in ("seconds", "cpu_seconds", "peak_gib")}
        return Result(data["cells"], data.get("owner"), **took)


def score(tissue: Tissue, result: Result) -> Score:
    """Labels are scored as they are; owners by themselves and, where area counts, as `pp.import_cells` draws them."""
    owner = owner_of(tissue, result)
    labels = drawn(tissue, owner) if result.cells.ndim == 1 else result.cells.astype(np.int64)
    with_nuclei = correlation(owners(tissue.yx, tissue.nuclei), owner, tissue.gene, min_counts=MIN_COUNTS)
    added = with_nuclei.pairs["correlation_b"].dropna()
    return Score(
        n_cells(owner),
        mean_best_iou(tissue.reference, labels),
        f1(tissue.reference, labels),
        fraction_right(tissue.reference_owner, owner),
        fraction_right(tissue.reference_owner, owners(tissue.yx, labels)),
        float(added.mean()),
        len(added),
    )


def drawn(tissue: Tissue, owner: np.ndarray) -> np.ndarray:
    import pandas as pd

    frame = pd.DataFrame({"x": tissue.yx[:, 1], "y": tissue.yx[:, 0], "cell": owner})
    grid = Image2DModel.parse(np.zeros((1, *tissue.nuclei.shape), np.uint8), dims=("c", "y", "x"))
    sdata = sd.SpatialData(images={"grid": grid}, points={"transcripts": PointsModel.parse(frame)})
    sslcst.pp.import_cells(sdata, "transcripts")
    return sdata.labels["imported_cells"].to_numpy()


def owner_of(tissue: Tissue, result: Result) -> np.ndarray:
    owner = result.cells if result.owner is None else result.owner
    return owner.astype(np.int64) if owner.ndim == 1 else owners(tissue.yx, owner.astype(np.int64))


def run_all(tissue: Tissue, methods: list[str], peers: dict[str, tuple[str, ...]], folder: Path) -> dict[str, Result]:
    """What each method finds; of a peer that is not installed, how to name it."""
    own = (sys.executable,)
    calls = {"nuclei alone": ("grown", (*own, "distance=0"))}
    calls |= {f"grown by {by} um": ("grown", (*own, f"distance={by}")) for by in DISTANCES}
    calls["watershed on density"] = ("watershed", own)
    for name, label in (("comseg", "ComSeg"), ("pciseq", "pciSeq"), ("proseg", "proseg"), ("scs", "SCS")):
        if tissue.name in SLOW.get(name, (tissue.name,)):
            told = [
                setting for setting in peers.get(name, ())[1:] if not setting.startswith(("repository=", "binary="))
            ]
            calls[f"{label}, {', '.join(told)}" if told else label] = (name, peers.get(name))
    calls |= {f"sslcst, {method}": ("sslcst", (*own, f"method={method}")) for method in methods}
    return {
        method: Result(
            failure=f"not installed here: give {'--proseg BINARY' if name == 'proseg' else f'--peer {name}=PYTHON'}"
        )
        if call is None
        else run(ADAPTERS / f"run_{name}.py", call[0], tissue, call[1:], folder)
        for method, (name, call) in calls.items()
    }


def rows(tissue: Tissue, results: dict[str, Result]) -> list[str]:
    """One row for each method and two for the reference; that of a peer without result says why."""
    scores = {method: score(tissue, result) for method, result in results.items() if not result.failure}
    grown = {method: scores.pop(method) for method in list(scores) if method.startswith("grown by")}
    known = {"the reference itself": tissue.reference, "its transcripts, drawn as cells": tissue.reference_owner}
    lines = [row(tissue.name, method, score(tissue, Result(cells)), Result()) for method, cells in known.items()]
    for method, result in results.items():
        if method in scores:
            lines.append(row(tissue.name, method, scores[method], result))
        elif method not in grown:
            lines.append(remark(tissue.name, method, result.failure))
    if grown:
        lines.insert(len(known) + 1, best_row(tissue.name, grown, [results[method] for method in grown]))
    return lines


def row(tissue: str, method: str, score: Score, result: Result) -> str:
    figures = f"{score.n_cells} | {score.iou:.3f} | {score.f1:.3f} | {score.right:.3f} | {score.right_by_place:.3f}"
    corr = f"{score.correlation:.3f} ({score.n_correlated})" if score.n_correlated else "-"
    return f"| {tissue} | {method} | {figures} | {corr} | {cost(result)} |"


def cost(result: Result) -> str:
    if not result.cpu_seconds > 0:
        return "- | - | -"
    return f"{result.seconds:.1f} | {result.cpu_seconds:.1f} | {result.peak_gib:.2f}"


def remark(tissue: str, method: str, why: str, empty: int = 8) -> str:
    return f"| {tissue} | {method} | {why} |{' |' * empty}"


def best_row(tissue: str, grown: dict[str, Score], results: list[Result]) -> str:
    """Nuclei grown by the best of all distances, for each figure by itself."""

    def best(figure: str) -> str:
        values = {method: getattr(score, figure) for method, score in grown.items()}
        method = max(values, key=lambda method: np.nan_to_num(values[method], nan=-1))
        return f"{values[method]:.3f} ({method.removeprefix('grown by ')})" if np.isfinite(values[method]) else "-"

    figures = " | ".join(best(figure) for figure in ("iou", "f1", "right", "right_by_place", "correlation"))
    dearest = max(results, key=lambda result: result.cpu_seconds)
    cells = next(iter(grown.values())).n_cells
    return f"| {tissue} | nuclei grown by the best distance | {cells} | {figures} | {cost(dearest)} |"


def exclusive_rows(tissue: Tissue, results: dict[str, Result]) -> list[str]:
    """Where no cells are known: how much each method keeps, and how often genes meet that exclude each other."""
    in_nuclei = owners(tissue.yx, tissue.nuclei)
    pairs = exclusive_pairs(sparse.csr_array(counts_of(tissue.gene, in_nuclei)))
    lines = []
    for method, result in results.items():
        if result.failure:
            lines.append(remark(tissue.name, method, result.failure, empty=5))
            continue
        ways = {method: owner_of(tissue, result)}
        if result.owner is not None:
            ways[f"{method}, by place"] = owners(tissue.yx, result.cells)
        for way, owner in ways.items():
            kept, meet = meetings(tissue.gene, owner, pairs)
            lines.append(f"| {tissue.name} | {way} | {n_cells(owner)} | {kept:.3f} | {meet:.4f} | {cost(result)} |")
    return lines


def pair_rows(tissue: Tissue, ours: str, results: dict[str, Result]) -> list[str]:
    """Correlation of what two methods each have alone of a cell with what they share (paper: fig. 8)."""
    found = {method: owner_of(tissue, result) for method, result in results.items() if not result.failure}
    if ours not in found:
        return []
    owner = found.pop(ours)
    lines = []
    for method, other in found.items():
        pair = correlation(owner, other, tissue.gene, min_counts=MIN_COUNTS)
        if pair.n_pairs >= MIN_PAIRS:
            lines.append(f"| {tissue.name} | {ours} | {method} | {pair.n_pairs} | {pair.a:.3f} | {pair.b:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--methods", nargs="*", default=["network", "density"], help="network, density, ssl-cst")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=PYTHON[,SETTING=VALUE]")
    parser.add_argument("--proseg", type=Path, metavar="BINARY")
    parser.add_argument("--only", nargs="*", default=[*TISSUES, SMALL])
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    peers = {name: tuple(call.split(",")) for name, call in (peer.split("=", 1) for peer in args.peer)}
    if args.proseg:
        peers["proseg"] = (sys.executable, f"binary={args.proseg.resolve()}")

    print(HEADER)
    pairs, exclusive = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for field in chosen(args.data, args.only):
            tissue = tissue_of(field)
            results = run_all(tissue, args.methods, peers, folder)
            if tissue.reference is None:
                exclusive += exclusive_rows(tissue, results)
                continue
            for line in rows(tissue, results):
                print(line, flush=True)
            for method in args.methods:
                pairs += pair_rows(tissue, f"sslcst, {method}", results)
    for method, why in ABSENT.items():
        print(remark("-", method, why))
    for header, lines in ((PAIR_HEADER, pairs), (EXCLUSIVE_HEADER, exclusive)):
        if lines:
            print("", header, *lines, sep="\n")


def chosen(data: Path, only: list[str]) -> Iterator[Field]:
    if of_cells := [name for name in only if name != SMALL]:
        yield from fields(data, of_cells)
    if SMALL in only:
        yield simulated(SMALL, n_cells=40, coverage=0.5, seed=0)


if __name__ == "__main__":
    main()
