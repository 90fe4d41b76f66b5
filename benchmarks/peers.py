"""Other methods beside sslcst, each run on the same nuclei and transcripts, in an environment of its own.

    python benchmarks/peers.py DATA [--methods NAME ...] [--peer NAME=PYTHON[,SETTING=VALUE ...] ...]
        [--only TISSUE ...] [--keep FOLDER]

DATA may hold ``prostate.zarr`` and ``cosmx.zarr``, as for accuracy.py. The adapters are in ``benchmarks/peers/``:
nuclei alone, nuclei grown, watershed and the --methods of sslcst run in this Python, others in the one that --peer
names:

    --peer comseg=envs/comseg/bin/python pciseq=envs/pciseq/bin/python
    scs=envs/scs/bin/python,repository=SCS,epochs=100

These environments (Python 3.11) are made by

    pip install comseg
    pip install pciSeq "pandas<2.3" "numpy<2"
    pip install "tensorflow-cpu==2.15.*" "tensorflow-addons==0.23.*" "numpy<2" "scanpy<1.11" scikit-misc

and SCS is the repository chenhcs/SCS. Prints a table in Markdown. With --keep, inputs and results are kept, and a
result that is there already is not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spatialdata as sd
from spatialdata.models import Image2DModel, PointsModel

import sslcst
from sslcst._sdata.elements import read_nuclei
from sslcst._sdata.raster import labels_on, raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.counts import owners
from sslcst.metrics import correlation, f1, fraction_right, mean_best_iou, n_cells

ADAPTERS = Path(__file__).parent / "peers"
DISTANCES = ("0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "5", "6")  # microns
MIN_COUNTS = 50  # in each part that is correlated
MIN_PAIRS = 10  # of which a mean is worth printing
SLOW = {"scs": ("simulated, small",)}  # run there alone: it takes most of an hour for 200 cells
ABSENT = {
    "Baysor": "could not be had here; SSL-CST's paper: mean IoU 0.495 on seqFISH+",
    "JSTA": "could not be had here; SSL-CST's paper: mean IoU 0.496 on seqFISH+",
    "proseg": "could not be had here; not in SSL-CST's paper",
}
HEADER = (
    "| tissue | method | cells | mean best IoU | F1 at 0.5 | transcripts right | correlation with nuclei (pairs) "
    "| CPU, s | peak, GiB |\n|---|---|---|---|---|---|---|---|---|"
)
PAIR_HEADER = (
    "| tissue | sslcst | other | pairs | what sslcst alone has of a cell | what the other alone has |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Tissue:
    """What the peers are given, and what they are scored by."""

    name: str
    nuclei: np.ndarray
    yx: np.ndarray
    gene: np.ndarray
    pixel_size: float
    reference: np.ndarray
    reference_owner: np.ndarray

    def save(self, path: Path) -> None:
        np.savez(path, nuclei=self.nuclei, yx=self.yx, gene=self.gene, pixel_size=self.pixel_size)

    def digest(self) -> str:
        arrays = (self.nuclei, self.yx, self.gene, np.array(self.pixel_size))
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:12]


@dataclass(frozen=True)
class Result:
    """What a peer found and took, or why it found nothing."""

    cells: np.ndarray | None = None
    cpu_seconds: float = np.nan
    peak_gib: float = np.nan
    failure: str = ""


@dataclass(frozen=True)
class Score:
    n_cells: int
    iou: float
    f1: float
    right: float
    correlation: float
    n_correlated: int


def tissue_of(
    name: str, sdata: sd.SpatialData, system: str, reference_key: str, nuclei_key: str | None = None
) -> Tissue:
    """Arrays of a tissue whose nuclei are given, or found by the network that comes with sslcst."""
    if nuclei_key is None:
        sslcst.pp.segment_nuclei(sdata, coordinate_system=system)
        nuclei_key = "sslcst_nuclei"
    raster, own = (raster_of(sdata, key, system) for key in (nuclei_key, reference_key))
    nuclei = read_nuclei(sdata, nuclei_key, raster)
    reference = labels_on(read_nuclei(sdata, reference_key, own), own, raster)
    points_key = next(iter(sdata.points))
    transcripts = read_transcripts(sdata, points_key, gene_key=None, count_key=None, raster=raster)
    on = ((transcripts.yx >= 0) & (transcripts.yx < nuclei.shape)).all(axis=1)  # peers know no place off the raster
    yx, gene = transcripts.yx[on], transcripts.gene[on]
    known = reference_key == "true_cells"
    reference_owner = sslcst.pp.read_owners(sdata).owner[on] if known else owners(yx, reference)
    return Tissue(name, nuclei, yx, gene, raster.pixel_size, reference, reference_owner)


def run(adapter: Path, python: str, tissue: Tissue, settings: tuple[str, ...], folder: Path) -> Result:
    """Run an adapter, unless the folder holds its result on these very data."""
    name = "-".join([tissue.digest(), adapter.stem, *(setting.replace(os.sep, "_") for setting in settings)])
    source, target = folder / f"{tissue.digest()}.npz", folder / f"{name}.npz"
    if not target.exists():
        tissue.save(source)
        paths = os.pathsep.join(filter(None, [str(ADAPTERS), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [python, str(adapter), str(source.resolve()), str(target.resolve()), *settings]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return Result(failure=f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    with np.load(target) as data:
        return Result(data["cells"], float(data["cpu_seconds"]), float(data["peak_gib"]))


def score(tissue: Tissue, cells: np.ndarray) -> Score:
    """Labels are scored as they are; owners by themselves and, where area counts, as `pp.import_cells` draws them."""
    owner = owner_of(tissue, cells)
    labels = drawn(tissue, owner) if cells.ndim == 1 else cells.astype(np.int64)
    with_nuclei = correlation(owners(tissue.yx, tissue.nuclei), owner, tissue.gene, min_counts=MIN_COUNTS)
    added = with_nuclei.pairs["correlation_b"].dropna()
    return Score(
        n_cells(owner),
        mean_best_iou(tissue.reference, labels),
        f1(tissue.reference, labels),
        fraction_right(tissue.reference_owner, owner),
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


def owner_of(tissue: Tissue, cells: np.ndarray) -> np.ndarray:
    return cells.astype(np.int64) if cells.ndim == 1 else owners(tissue.yx, cells.astype(np.int64))


def run_all(tissue: Tissue, methods: list[str], peers: dict[str, tuple[str, ...]], folder: Path) -> dict[str, Result]:
    """What each method finds; of a peer that is not installed, how to name it."""
    own = (sys.executable,)
    calls = {"nuclei alone": ("grown", (*own, "distance=0"))}
    calls |= {f"grown by {by} um": ("grown", (*own, f"distance={by}")) for by in DISTANCES}
    calls["watershed on density"] = ("watershed", own)
    for name, label in (("comseg", "ComSeg"), ("pciseq", "pciSeq"), ("scs", "SCS")):
        if tissue.name in SLOW.get(name, (tissue.name,)):
            told = [setting for setting in peers.get(name, ())[1:] if not setting.startswith("repository=")]
            calls[f"{label}, {', '.join(told)}" if told else label] = (name, peers.get(name))
    calls |= {f"sslcst, {method}": ("sslcst", (*own, f"method={method}")) for method in methods}
    return {
        method: Result(failure=f"not installed here: give --peer {name}=PYTHON")
        if call is None
        else run(ADAPTERS / f"run_{name}.py", call[0], tissue, call[1:], folder)
        for method, (name, call) in calls.items()
    }


def rows(tissue: Tissue, results: dict[str, Result]) -> list[str]:
    """One row for each method and two for the reference; that of a peer without result says why."""
    scores = {method: score(tissue, result.cells) for method, result in results.items() if not result.failure}
    grown = {method: scores.pop(method) for method in list(scores) if method.startswith("grown by")}
    known = {"the reference itself": tissue.reference, "its transcripts, drawn as cells": tissue.reference_owner}
    lines = [row(tissue.name, method, score(tissue, cells), Result()) for method, cells in known.items()]
    for method, result in results.items():
        if method in scores:
            lines.append(row(tissue.name, method, scores[method], result))
        elif method not in grown:
            lines.append(remark(tissue.name, method, result.failure))
    if grown:
        lines.insert(len(known) + 1, best_row(tissue.name, grown, [results[method] for method in grown]))
    return lines


def row(tissue: str, method: str, score: Score, result: Result) -> str:
    figures = f"{score.n_cells} | {score.iou:.3f} | {score.f1:.3f} | {score.right:.3f}"
    corr = f"{score.correlation:.3f} ({score.n_correlated})" if score.n_correlated else "-"
    cost = f"{result.cpu_seconds:.1f} | {result.peak_gib:.2f}" if result.cpu_seconds > 0 else "- | -"
    return f"| {tissue} | {method} | {figures} | {corr} | {cost} |"


def remark(tissue: str, method: str, why: str) -> str:
    return f"| {tissue} | {method} | {why} | | | | | | |"


def best_row(tissue: str, grown: dict[str, Score], results: list[Result]) -> str:
    """Nuclei grown by the best of all distances, for each figure by itself."""

    def best(figure: str) -> str:
        values = {method: getattr(score, figure) for method, score in grown.items()}
        method = max(values, key=lambda method: np.nan_to_num(values[method], nan=-1))
        return f"{values[method]:.3f} ({method.removeprefix('grown by ')})" if np.isfinite(values[method]) else "-"

    figures = " | ".join(best(figure) for figure in ("iou", "f1", "right", "correlation"))
    cpu, peak = (max(getattr(result, what) for result in results) for what in ("cpu_seconds", "peak_gib"))
    cells = next(iter(grown.values())).n_cells
    return f"| {tissue} | nuclei grown by the best distance | {cells} | {figures} | {cpu:.1f} | {peak:.2f} |"


def pair_rows(tissue: Tissue, ours: str, results: dict[str, Result]) -> list[str]:
    """Correlation of what two methods each have alone of a cell with what they share (paper: fig. 8)."""
    found = {method: result.cells for method, result in results.items() if not result.failure}
    if ours not in found:
        return []
    owner = owner_of(tissue, found.pop(ours))
    lines = []
    for method, cells in found.items():
        pair = correlation(owner, owner_of(tissue, cells), tissue.gene, min_counts=MIN_COUNTS)
        if pair.n_pairs >= MIN_PAIRS:
            lines.append(f"| {tissue.name} | {ours} | {method} | {pair.n_pairs} | {pair.a:.3f} | {pair.b:.3f} |")
    return lines


def in_memory(store: Path) -> sd.SpatialData:
    sdata = sd.read_zarr(store)
    return sd.SpatialData.init_from_elements({name: element for _, name, element in sdata.gen_elements()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="*", default=["density", "network"], help="density, network, ssl-cst")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=PYTHON[,SETTING=VALUE]")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    peers = {name: tuple(call.split(",")) for name, call in (peer.split("=", 1) for peer in args.peer)}

    simulate, data = sslcst.datasets.simulate, args.data
    tissues = {
        "simulated": lambda name: tissue_of(name, simulate(n_cells=300, seed=0), "global", "true_cells"),
        "prostate": lambda name: tissue_of(
            name, in_memory(data / "prostate.zarr"), "micron", "reference_cells", "reference_nuclei"
        ),
        "cosmx": lambda name: tissue_of(name, in_memory(data / "cosmx.zarr"), "micron", "reference_cells"),
        "simulated, small": lambda name: tissue_of(
            name, simulate(n_cells=40, coverage=0.5, seed=0), "global", "true_cells"
        ),
    }
    print(HEADER)
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only or tissues:
            tissue = tissues[name](name)
            results = run_all(tissue, args.methods, peers, folder)
            for line in rows(tissue, results):
                print(line, flush=True)
            for method in args.methods:
                pairs += pair_rows(tissue, f"sslcst, {method}", results)
    for method, why in ABSENT.items():
        print(remark("-", method, why))
    print("", PAIR_HEADER, *pairs, sep="\n")


if __name__ == "__main__":
    main()
