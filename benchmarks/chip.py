"""Time and memory of whole chips: simulated ones of growing size, from end to end.

    python benchmarks/chip.py LYMPH_NODE [--patches 2 4] [--tiles 2048] [--workers 0] [--out FOLDER] [--nuclei]
        [--method NAME]
    python benchmarks/chip.py --rates

LYMPH_NODE is the folder with the ``nucleus_boundaries.parquet`` and ``cell_boundaries.parquet`` of a Xenium Prime lymph
node, 500 x 500 micron. A chip is made of n x n such patches, each mirrored and stained anew, of 1,000 x 1,000 spots of
0.5 micron, with 1.46 molecules a spot, as a Stereo-seq brain has on average, three times as dense in cells as outside.
Every run is a process of its own: its stages, its peak memory (with that of its workers), and, where the same chip was
segmented in several ways, whether the results are the same. ``--nuclei`` takes the patches' own nuclei instead of
finding them in the stain, ``--load`` holds the table in memory in the end, as a notebook does and ``sslcst segment``
does not. ``--rates`` measures tracking, bucketing and counting by themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import spatialdata as sd
import zarr
from scipy import ndimage
from skimage.draw import polygon
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
from spatialdata.transformations import Identity, Scale

SIDE = 1000  # spots of a patch
SPOT = 0.5  # micron
MOLECULES = 1.46  # a spot
N_GENES, N_TYPES = 5000, 8


def patch(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei and cells of one patch, uint32 (y, x)."""
    return tuple(_draw(pd.read_parquet(folder / f"{name}_boundaries.parquet")) for name in ("nucleus", "cell"))


def _draw(outlines: pd.DataFrame) -> np.ndarray:
    corner = np.floor(outlines[["vertex_y", "vertex_x"]].min().to_numpy())
    labels = np.zeros((SIDE, SIDE), np.uint32)
    for number, (_, ring) in enumerate(outlines.groupby("label_id"), 1):
        yx = (ring[["vertex_y", "vertex_x"]].to_numpy() - corner) / SPOT
        labels[polygon(*yx.T, labels.shape)] = number
    return labels


def mirrored(labels: np.ndarray, row: int, column: int) -> np.ndarray:
    """A patch as it lies in the chip, so that patches side by side meet in like tissue."""
    return labels[:: -1 if row % 2 else 1, :: -1 if column % 2 else 1]


def stain(nuclei: np.ndarray, block_info=None) -> np.ndarray:
    """One patch of the stain, uint16 (1, y, x)."""
    row, column = block_info[None]["chunk-location"][1:]
    rng = np.random.default_rng([row, column])
    light = rng.lognormal(0, 0.3, int(nuclei.max()) + 1)
    light[0] = 0.05
    image = ndimage.gaussian_filter(light[mirrored(nuclei, row, column)], 1.0)
    return np.clip(rng.poisson(150 * image) * 20 + 200, 0, 65535).astype(np.uint16)[None]


def numbered(nuclei: np.ndarray, n: int, block_info=None) -> np.ndarray:
    """One patch of the nuclei, each with a number of its own in the chip."""
    row, column = block_info[None]["chunk-location"]
    labels = mirrored(nuclei, row, column)
    return np.where(labels > 0, labels + (row * n + column) * (int(nuclei.max()) + 1), 0).astype(np.uint32)


def molecules(number: int, *, n: int, cells: np.ndarray, profiles: np.ndarray) -> pd.DataFrame:
    """One patch of the transcripts, a row each."""
    row, column = divmod(number, n)
    rng = np.random.default_rng(number)
    labels = mirrored(cells, row, column)
    rate = np.where(labels > 0, 3.0, 1.0)
    count = rng.poisson(rate * (MOLECULES / rate.mean())).ravel()
    pixel = np.repeat(np.arange(labels.size), count)
    kind = (labels.ravel()[pixel] * 7919 + 13) % N_TYPES
    gene = np.empty(len(pixel), np.int64)
    for each in range(N_TYPES):
        gene[kind == each] = np.searchsorted(profiles[each], rng.random(int((kind == each).sum())))
    y, x = np.divmod(pixel, SIDE)
    frame = pd.DataFrame({"x": x + column * SIDE + 0.5, "y": y + row * SIDE + 0.5}, dtype=np.float32)
    names = pd.Index([f"gene_{i:04}" for i in range(N_GENES)])
    return frame.assign(gene=pd.Categorical.from_codes(np.minimum(gene, N_GENES - 1), names))


def make_store(path: Path, folder: Path, n: int) -> None:
    """Write a chip of n x n patches."""
    nuclei, cells = patch(folder)
    rng = np.random.default_rng(0)
    profiles = np.tile(rng.lognormal(0, 1.5, N_GENES), (N_TYPES, 1)) * rng.choice(
        [1, 10], (N_TYPES, N_GENES), p=[0.9, 0.1]
    )
    profiles = np.cumsum(profiles, axis=1) / profiles.sum(axis=1, keepdims=True)
    chunks = ((SIDE,) * n, (SIDE,) * n)
    points = dd.from_map(partial(molecules, n=n, cells=cells, profiles=profiles), range(n * n))
    both = {"global": Identity(), "micron": Scale([SPOT, SPOT], axes=("x", "y"))}
    image = da.map_blocks(stain, nuclei, chunks=((1,), *chunks), dtype=np.uint16, meta=np.zeros((0, 0, 0), np.uint16))
    labels = da.map_blocks(numbered, nuclei, n, chunks=chunks, dtype=np.uint32, meta=np.zeros((0, 0), np.uint32))
    sd.SpatialData(
        images={
            "stain": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["DAPI"], transformations=dict(both))
        },
        labels={"nuclei": Labels2DModel.parse(labels, dims=("y", "x"), transformations=dict(both))},
        points={"transcripts": PointsModel.parse(points, feature_key="gene", transformations=dict(both))},
    ).write(path)


def one_run(store: Path, tile: int, workers: int, *, nuclei: bool, method: str, load: bool) -> None:
    """Segment a chip and print, as JSON, what it took."""
    import sslcst

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("sslcst").addHandler(handler)
    logging.getLogger("sslcst").setLevel(logging.INFO)
    peak = [0.0, 0.0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    cluster = _cluster(workers) if workers else None
    sdata = sd.read_zarr(store, selection=("images", "labels", "points"))  # no table of a run before
    start = time.perf_counter()
    sslcst.tl.segment(
        sdata,
        image_key=None if nuclei else "stain",
        nuclei_key="nuclei" if nuclei else None,
        method=method,
        params={"nuclei": {"method": "sslcst"}, "tiles": {"size": tile}},
        key_added=f"t{tile}w{workers}",
        load_table=load,
        overwrite=True,
    )
    seconds, most = time.perf_counter() - start, list(peak)
    if cluster is not None:
        cluster.close()
    labels = sdata.labels[f"t{tile}w{workers}_cells"].data
    digest = hashlib.sha256()
    for band in range(0, labels.shape[0], SIDE):
        digest.update(labels[band : band + SIDE].compute().tobytes())
    table = zarr.open_group(store, mode="r")[f"tables/t{tile}w{workers}_table"]
    for values in (table["X/data"], table["X/indices"]):
        for first in range(0, values.shape[0], 2**24):
            digest.update(values[first : first + 2**24])
    [done] = (line for line in lines if line.startswith("Done in "))
    stages = re.findall(r"([a-z ]+) ([\d.]+) s", done.split(": ", 1)[1])
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": most[0],
                "own": most[1],
                "stages": {name.strip(): float(took) for name, took in stages},
                "cells": table["obs/cell_id"].shape[0],
                "digest": digest.hexdigest()[:12],
            }
        )
    )


def _watch(peak: list[float]) -> None:
    """Follow the resident memory of this process and its children, GiB: all, and without pages of files."""
    process = psutil.Process()
    while True:
        held = [process.memory_info()]
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                held.append(child.memory_info())
        peak[0] = max(peak[0], sum(each.rss for each in held) / 2**30)
        peak[1] = max(peak[1], sum(each.rss - each.shared for each in held) / 2**30)
        time.sleep(0.05)


def _cluster(workers: int):
    from distributed import Client, LocalCluster

    return Client(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0))


def rates() -> None:
    """Tracking (of ssl-cst), bucketing and counting by themselves, on one thread, by CPU time."""
    import numba

    from sslcst._sdata.scratch import Scratch
    from sslcst._sdata.transcripts import Transcripts
    from sslcst.core.measure import measure
    from sslcst.core.spots import Grid
    from sslcst.methods.ssl_cst.flow import Field, track
    from sslcst.params import TileParams
    from sslcst.run.stages.transcripts import _append

    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    side, pitch = 4000, 24
    nuclei = np.zeros((side, side), np.uint32)
    yx = np.indices(nuclei.shape).reshape(2, -1).T
    center = (yx // pitch + 0.5) * pitch - 0.5
    offset = center - yx
    distance = np.hypot(*offset.T)
    number = (yx[:, 0] // pitch) * (side // pitch + 1) + yx[:, 1] // pitch + 1
    nuclei.ravel()[distance < 5] = number[distance < 5]
    vector = (offset / np.maximum(distance, 1)[:, None]).reshape(side, side, 2)
    field = Field(vector, np.ones((side, side)))
    for _ in range(2):  # the first call compiles
        start = time.process_time()
        cells, _ = track(field, nuclei, threshold=0.5, step=2.0, reach=20.0)
        tracked = time.process_time() - start
    n = 4_000_000
    pixel = rng.integers(0, side, (n, 2))
    gene = rng.integers(0, N_GENES, n)
    part = Transcripts(pixel + 0.5, gene, None, pd.Index([]), np.arange(n))
    grid = Grid((side, side), (1.0, 1.0), 1.0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        _append(part, grid, Scratch(Path(folder)), TileParams().block)
        bucketed = time.process_time() - start
    start = time.process_time()
    measure(
        cells,
        nuclei,
        raster_shape=(side, side),
        pixel=pixel,
        gene=gene,
        count=None,
        n_genes=N_GENES,
        spot=pixel[:1],
        inside=np.ones(1),
    )
    counted = time.process_time() - start
    print("| step | rate of one core |\n|---|---|")
    print(f"| tracking | {side * side / tracked / 1e6:.1f} million pixels/s |")
    print(f"| bucketing | {n / bucketed / 1e6:.1f} million transcripts/s |")
    print(f"| counting, and measuring the cells | {n / counted / 1e6:.1f} million transcripts/s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--patches", type=int, nargs="+", default=[2, 4], help="patches along a side of each chip")
    parser.add_argument("--tiles", type=int, nargs="+", default=[2048], help="sides of the tiles in bins")
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="worker processes; 0: threads")
    parser.add_argument("--out", type=Path, help="where the stores are made, and kept")
    parser.add_argument("--nuclei", action="store_true")
    parser.add_argument("--load", action="store_true", help="hold the table in memory in the end")
    parser.add_argument("--method", default="network", help="network, density or ssl-cst")
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)  # one run, in a process of its own
    args = parser.parse_args()
    if args.rates:
        rates()
        return
    if args.run:
        how = {"nuclei": args.nuclei, "method": args.method, "load": args.load}
        one_run(Path(args.run[0]), int(args.run[1]), int(args.run[2]), **how)
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        print(
            "| spots of the grid | tile | workers | cells | seconds | peak GiB | without files | stages, s | result |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for n in args.patches:
            store = out / f"chip{n}.zarr"
            if not store.exists():
                make_store(store, args.data, n)
            for tile in args.tiles:
                for workers in args.workers:
                    print(
                        row(store, n, tile, workers, nuclei=args.nuclei, method=args.method, load=args.load), flush=True
                    )


def row(store: Path, n: int, tile: int, workers: int, *, nuclei: bool, method: str, load: bool) -> str:
    command = [sys.executable, __file__, "--run", str(store), str(tile), str(workers), "--method", method]
    command += ["--nuclei"] * nuclei + ["--load"] * load
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    took = json.loads(done.stdout.splitlines()[-1])
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in took["stages"].items())
    return (
        f"| {n * SIDE:,} x {n * SIDE:,} | {tile} | {workers or 'threads'} | {took['cells']:,} | "
        f"{took['seconds']:.0f} | {took['peak']:.2f} | {took['own']:.2f} | {stages} | {took['digest']} |"
    )


if __name__ == "__main__":
    main()
