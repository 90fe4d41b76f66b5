"""All ways to find nuclei that run here, side by side (paper: Fig. 3 and 4).

    python benchmarks/nuclei.py DATA ... [--cellpose WEIGHTS] [--picture FILE] [--only METHOD ...] [--limit N]

Each DATA is a folder: the DSB2018 images (``NAME_img.tif`` and ``NAME_lab.tif``, of which those that dsb2018_split.txt
sets apart are taken), a CosMx field (``CellComposite_F*.jpg``, DAPI in blue), or others' stains (``*.tif``). Without a
truth, nuclei are compared with those of Cellpose. No method is told the size of nuclei, but where its name says so: the
median of the truth, image by image. Each method runs in a process of its own, whose peak memory is given; one whose
package or weights are not here is left out, with the reason. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from skimage.io import imread

from sslcst.core.nuclei import BACKENDS, load_backend
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.core.nuclei.sslcst import typical_diameter
from sslcst.errors import SslcstError
from sslcst.metrics import average_precision, f1, splits_merges
from sslcst.params import NucleiParams
from sslcst.pl._canvas import NUCLEI, outlines

SPLIT = Path(__file__).with_name("dsb2018_split.txt")
TOLD = ", sizes told"
CROP = 300  # pixels of a side of what the picture shows
FAILED = 3  # exit status of a worker whose method cannot be had


@dataclass(frozen=True)
class Stain:
    """An image, the set it belongs to, and its true nuclei where they are known."""

    name: str
    kind: str
    image: NDArray[np.generic]
    truth: NDArray[np.integer] | None = None


def read_stains(folder: Path, limit: int | None) -> list[Stain]:
    if any(folder.glob("*_img.tif")):
        names = SPLIT.read_text(encoding="utf-8").split()[:limit]
        pairs = {name: [imread(folder / f"{name}_{part}.tif") for part in ("img", "lab")] for name in names}
        return [Stain(name, "DSB2018", image, truth) for name, (image, truth) in pairs.items()]
    if composites := sorted(folder.glob("CellComposite_F*.jpg")):
        return [Stain(file.stem, "CosMx DAPI", imread(file)[..., 2]) for file in composites]
    return [Stain(file.stem, "ssDNA", imread(file)) for file in sorted(folder.glob("*.tif"))]


# --- one method, in a process of its own


def work(method: str, weights: str | None, folders: list[Path], limit: int | None, out: Path) -> None:
    """Segment all images; write labels, seconds, pixels and peak memory."""
    model = weights if method.startswith("cellpose") else None
    params = NucleiParams(method=method.removesuffix(TOLD), model=model)
    try:
        segment = load_backend(params)
    except SslcstError as error:
        print(error)
        raise SystemExit(FAILED) from error
    segment(np.random.default_rng(0).random((64, 64), np.float32), 16.0)  # what is compiled is compiled now
    results, seconds, n_pixels = {}, 0.0, 0
    for stain in (stain for folder in folders for stain in read_stains(folder, limit)):
        if method.endswith(TOLD) and stain.truth is None:
            continue
        diameter = typical_diameter(stain.truth) if method.endswith(TOLD) else None
        start = time.perf_counter()
        scaled = scale_intensity(stain.image, *intensity_range(stain.image, params.percentiles))
        results[stain.name] = segment(scaled, diameter)
        seconds += time.perf_counter() - start
        n_pixels += stain.image.size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB, of KiB
    np.savez_compressed(out, **results, _cost=[1e6 * seconds / n_pixels, peak])


def run(method: str, args: argparse.Namespace, folder: Path) -> dict[str, NDArray] | None:
    """Results of a method, or None if it cannot be had here."""
    out = folder / f"{method}.npz"
    command = [sys.executable, __file__, *map(str, args.data), "--worker", method, str(out)]
    command += ["--cellpose", args.cellpose] if args.cellpose else []
    command += ["--limit", str(args.limit)] if args.limit else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == FAILED:
        print(f"{method} is left out: {done.stdout.strip()}\n")
        return None
    if done.returncode:
        raise SystemExit(f"{method} failed:\n{done.stderr}")
    with np.load(out) as results:
        return dict(results)


# --- scores


def scores(stains: list[Stain], results: dict[str, NDArray]) -> list[str]:
    """Mean AP at 0.5 and 0.7, nuclei found of the true ones, splits and merges, over the images with a truth."""
    true = [stain for stain in stains if stain.truth is not None and stain.truth.any()]
    if not true:
        return ["-"] * 4
    found = [results[stain.name] for stain in true]
    precision = [
        average_precision(stain.truth, labels, thresholds=(0.5, 0.7)) for stain, labels in zip(true, found, strict=True)
    ]
    broken = np.sum(
        [splits_merges(stain.truth, labels) for stain, labels in zip(true, found, strict=True)],
        axis=0,
    )
    total = f"{sum(map(count, found))} of {sum(count(stain.truth) for stain in true)}"
    return [*(f"{value:.3f}" for value in np.mean(precision, axis=0)), total, "{} / {}".format(*broken)]


def compared(stain: Stain, results: dict[str, NDArray], reference: dict[str, NDArray] | None) -> str:
    """Nuclei in an image without a truth; how many more or less than Cellpose's, and F1 with them."""
    if stain.name not in results:
        return "-"
    labels = results[stain.name]
    if reference is None or reference is results or not reference[stain.name].any():
        return f"{count(labels)}"
    theirs = reference[stain.name]
    return f"{count(labels)} ({count(labels) / count(theirs) - 1:+.0%}, F1 {f1(theirs, labels):.2f})"


def count(labels: NDArray[np.integer]) -> int:
    return int(np.count_nonzero(np.unique(labels)))


def table(stains: list[Stain], results: dict[str, dict[str, NDArray]]) -> str:
    others = [stain for stain in stains if stain.truth is None]
    head = ["method", "AP@0.5", "AP@0.7", "nuclei", "splits / merges"]
    head += [f"{stain.kind}: nuclei (than Cellpose)" for stain in others] + ["s / Mpx", "peak, GiB"]
    rows = [head, ["---"] * len(head)]
    for method, result in results.items():
        cost = [f"{value:.2f}" for value in result["_cost"]]
        against = [compared(stain, result, results.get("cellpose")) for stain in others]
        rows.append([method, *scores(stains, result), *against, *cost])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# --- picture


def draw(stains: list[Stain], results: dict[str, dict[str, NDArray]], file: Path) -> None:
    """Counts of each method as bars, and below them the outlines on a piece of one image of each set."""
    kinds = list(dict.fromkeys(stain.kind for stain in stains))
    shown = [max((s for s in stains if s.kind == kind), key=lambda s: count_any(s, results)) for kind in kinds]
    methods = list(results)
    size = (2.6 * len(methods), 2.6 * (len(shown) + 1))
    figure, axes = plt.subplots(len(shown) + 1, len(methods), figsize=size, layout="constrained", squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    for ax, kind in zip(axes[0], kinds, strict=False):
        totals = [sum(count(r[s.name]) for s in stains if s.kind == kind and s.name in r) for r in results.values()]
        ax.set_axis_on()
        ax.barh(methods[::-1], totals[::-1], color=NUCLEI)
        ax.set_title(f"{kind}: nuclei", fontsize=8)
        ax.tick_params(labelsize=6)
    for row, stain in zip(axes[1:], shown, strict=True):
        place = tuple(slice(max(0, (side - CROP) // 2), (side + CROP) // 2) for side in stain.image.shape)
        low, high = np.percentile(stain.image, (1, 99.8))
        for ax, (method, result) in zip(row, results.items(), strict=True):
            ax.imshow(stain.image[place], cmap="gray", vmin=low, vmax=high)
            ax.set_title(method if stain.name in result else f"{method}: not told", fontsize=8)
            if stain.name in result:
                lines = outlines(result[stain.name][place]) - 0.5  # pixels are drawn around whole numbers
                ax.add_collection(LineCollection(lines, colors=NUCLEI, linewidths=0.5))
    figure.savefig(file, dpi=150)


def count_any(stain: Stain, results: dict[str, dict[str, NDArray]]) -> int:
    return count(next(result[stain.name] for result in results.values() if stain.name in result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folders of images")
    parser.add_argument("--cellpose", metavar="WEIGHTS", help="weights file, or name, of the Cellpose network")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to save the outlines side by side")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods to run, of all")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N of the DSB2018 images")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], args.cellpose, args.data, args.limit, Path(args.worker[1]))
        return
    ours, theirs = ["watershed", "sslcst"], ["cellpose", f"cellpose{TOLD}"]
    methods = args.only or [*ours, *theirs, *sorted({*BACKENDS} - {*ours, *theirs})]
    with tempfile.TemporaryDirectory() as folder:
        results = {method: run(method, args, Path(folder)) for method in methods}
    results = {method: result for method, result in results.items() if result is not None}
    stains = [stain for folder in args.data for stain in read_stains(folder, args.limit)]
    print(table(stains, results))
    if args.picture:
        draw(stains, results, args.picture)


if __name__ == "__main__":
    main()
