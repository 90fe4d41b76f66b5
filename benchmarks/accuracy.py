"""What sslcst reaches on a simulated tissue and on real ones, beside what growing the nuclei reaches.

    python benchmarks/accuracy.py DATA [--method NAME] [--only NAME ...] [--set section.field=value ...]

DATA is a folder that may hold ``prostate.zarr`` (labels reference_nuclei and reference_cells, points in microns),
``cosmx.zarr`` (image dapi, labels reference_cells, points), Cellpose weights ``cellpose.pt`` and a bin1 GEM
``*.gem.gz``; what is not there is left out. Reference cells serve for scoring alone. Prints two tables in Markdown: how
close the cells come, and the time and memory of each stage.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import spatialdata as sd
from skimage.segmentation import expand_labels
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Scale, Sequence, Translation

import sslcst
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.counts import owners
from sslcst.metrics import f1, fraction_right, mean_best_iou

GROWN_BY = (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6)  # micron, as are all coordinate systems chosen below
REFERENCE = {"simulated": "true_cells", "prostate": "reference_cells", "cosmx": "reference_cells"}


@dataclass
class Run:
    """One tissue, segmented stage by stage, with what each stage took."""

    sdata: sd.SpatialData
    system: str
    method: str
    params: dict
    seconds: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)  # resident memory, GiB

    @contextmanager
    def stage(self, name: str):
        """Time a stage and watch the process' resident memory."""
        process, done = psutil.Process(), threading.Event()
        high = [process.memory_info().rss]

        def watch():
            while not done.wait(0.02):
                high.append(process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start
            done.set()
            watcher.join()
            self.peak[name] = max(high) / 2**30

    def segment(self, nuclei_key: str | None = None) -> None:
        """The stages of `sslcst.tl.segment`, one by one."""
        params, system = self.params, {"coordinate_system": self.system}
        with self.stage("nuclei"):
            if nuclei_key is None:
                sslcst.pp.segment_nuclei(self.sdata, params=params, **system)
            else:
                sslcst.pp.import_nuclei(self.sdata, nuclei_key, **system)
        with self.stage("spots"):
            sslcst.pp.bin_spots(self.sdata, params=params, **system)
        with self.stage("train"):
            model = sslcst.tl.train(self.sdata, method=self.method, params=params)
        with self.stage("predict"):
            sslcst.tl.predict(self.sdata, model, params=params)
        with self.stage("track"):
            sslcst.tl.track(self.sdata, model, params=params)
        with self.stage("count"):
            sslcst.tl.aggregate(self.sdata, params=params, **system)

    def scores(self, reference_key: str) -> dict[str, tuple[int, float, float, float]]:
        """Cells, mean best IoU, F1 and transcripts right, of each way to segment."""
        reference = self.sdata.labels[reference_key].to_numpy()
        raster = raster_of(self.sdata, "sslcst_cells", self.system)
        points_key = next(iter(self.sdata.points))
        yx = read_transcripts(self.sdata, points_key, gene_key=None, count_key=None, raster=raster).yx
        if reference_key == "true_cells":
            of_reference = self.sdata.points[points_key]["cell_id"].compute().to_numpy()
        else:
            of_reference = owners(yx, reference)
        nuclei, cells = (self.sdata.labels[f"sslcst_{name}"].to_numpy() for name in ("nuclei", "cells"))
        ways = {"nuclei alone": nuclei}
        ways |= {f"{by:g} um": expand_labels(nuclei, by / raster.pixel_size) for by in GROWN_BY}
        ways["sslcst"] = cells
        return {
            way: (
                len(np.unique(labels)) - 1,
                mean_best_iou(reference, labels),
                f1(reference, labels),
                fraction_right(of_reference, owners(yx, labels)),
            )
            for way, labels in ways.items()
        }


def simulated(method: str, params: dict) -> Run:
    run = Run(sslcst.datasets.simulate(n_cells=300, seed=0), "global", method, params)
    run.segment()
    return run


def prostate(data: Path, method: str, params: dict) -> Run:
    run = Run(in_memory(data / "prostate.zarr"), "micron", method, params)
    run.segment("reference_nuclei")
    return run


def cosmx(data: Path, method: str, params: dict, weights: Path | None = None) -> Run:
    if weights is not None:
        params = params | {"nuclei": {"method": "cellpose", "model": str(weights)} | params.get("nuclei", {})}
    run = Run(in_memory(data / "cosmx.zarr"), "micron", method, params)
    run.segment()
    return run


def gem(file: Path, method: str, params: dict) -> Run:
    """Nuclei of a simulated tissue laid over the real counts: for the counts' sake, there is nothing to score."""
    sdata = sslcst.io.read_gem(file)
    spots = sdata.points["transcripts"][["x", "y"]].compute()
    corner = np.floor(spots.min().to_numpy())
    width, height = (np.ceil(spots.max().to_numpy()) - corner).astype(int)
    nuclei = sslcst.datasets.simulate(n_cells=400, pixel_size=0.5, seed=0)["true_nuclei"].to_numpy()[:height, :width]
    place = Sequence([Translation(corner, ("x", "y")), Scale([0.5, 0.5], ("x", "y"))])
    sdata.labels["nuclei"] = Labels2DModel.parse(nuclei, dims=("y", "x"), transformations={"micron": place})
    run = Run(sdata, "micron", method, params)
    run.segment("nuclei")
    return run


def in_memory(store: Path) -> sd.SpatialData:
    sdata = sd.read_zarr(store)
    return sd.SpatialData.init_from_elements({name: element for _, name, element in sdata.gen_elements()})


def accuracy_rows(name: str, method: str, scores: dict) -> list[str]:
    grown = {way: score for way, score in scores.items() if way.endswith("um")}
    best = [max(grown, key=lambda way, i=i: grown[way][i]) for i in (1, 2, 3)]
    shown = {
        "nuclei alone": [f"{x:.3f}" for x in scores["nuclei alone"][1:]],
        "grown by the best distance": [f"{grown[way][i]:.3f} ({way})" for i, way in zip((1, 2, 3), best, strict=True)],
        f"sslcst, {method}": [f"{x:.3f}" for x in scores["sslcst"][1:]],
    }
    cells = scores["sslcst"][0]
    return [f"| {name} | {way} | {cells} | {' | '.join(figures)} |" for way, figures in shown.items()]


def stage_row(name: str, run: Run) -> str:
    stages = " | ".join(f"{run.seconds[s]:.1f} s, {run.peak[s]:.2f} GiB" for s in run.seconds)
    return f"| {name} | {run.sdata.tables['sslcst_spots'].n_obs:,} | {stages} |"


def conserved(run: Run) -> str:
    """Whether every count of the file is in a cell or outside all, counted from the cell labels by themselves."""
    table, points = run.sdata.tables["sslcst_table"], run.sdata.points["transcripts"].compute()
    raster = raster_of(run.sdata, "sslcst_cells", run.system)
    transcripts = read_transcripts(run.sdata, "transcripts", gene_key=None, count_key=None, raster=raster)
    outside = owners(transcripts.yx, run.sdata.labels["sslcst_cells"].to_numpy()) == 0
    total, given, rest = int(points["count"].sum()), int(table.X.sum()), int(points["count"].to_numpy()[outside].sum())
    verdict = "all there" if given + rest == total else "COUNTS WERE LOST OR MADE"
    return f"\nGEM: {total} counts = {given} in {table.n_obs} cells + {rest} outside: {verdict}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="network", help="network, density or ssl-cst")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.FIELD=VALUE")
    args = parser.parse_args()
    params: dict = {}
    for setting in args.set:
        name, value = setting.split("=")
        section, parameter = name.split(".")
        params.setdefault(section, {})[parameter] = value if value.isidentifier() else json.loads(value)

    weights, gems = args.data / "cellpose.pt", sorted(args.data.glob("*.gem.gz"))
    tissues = {"simulated": lambda: simulated(args.method, params)}
    if (args.data / "prostate.zarr").exists():
        tissues["prostate"] = lambda: prostate(args.data, args.method, params)
    if (args.data / "cosmx.zarr").exists():
        tissues["cosmx"] = lambda: cosmx(args.data, args.method, params)
        if weights.exists():
            tissues["cosmx, Cellpose"] = lambda: cosmx(args.data, args.method, params, weights)
    if gems:
        tissues["Stereo-seq GEM"] = lambda: gem(gems[0], args.method, params)

    accuracy, stages, remarks = [], [], []
    for name in args.only or tissues:
        run = tissues[name]()
        reference = REFERENCE.get(name.split(",")[0])
        if reference is None:
            remarks.append(conserved(run))
        else:
            accuracy += accuracy_rows(name, args.method, run.scores(reference))
        stages.append(stage_row(name, run))
    print("| tissue | method | cells | mean best IoU | F1 at 0.5 | transcripts right |\n|---|---|---|---|---|---|")
    print("\n".join(accuracy), end="\n\n")
    print("| tissue | number of spots | nuclei | spots | train | predict | track | count |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(stages + remarks))


if __name__ == "__main__":
    main()
