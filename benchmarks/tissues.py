"""Cells of simulated tissues that differ in packing, counts, diffusion and size, by sslcst and by simple rivals.

    python benchmarks/tissues.py [--only NAME ...] [--nuclei true bundled watershed] [--ways density network ...]
        [--set section.field=value ...]

All work on the same nuclei. Rivals are given what no user has: growing takes the best of ten distances, and growing
gated by density the best of 75 settings, each for every tissue and figure by itself with the true cells in hand; the
watershed of the density, seeded with the nuclei, has the best of nine. ``--ways`` are methods of sslcst, density by
default. Prints a table in Markdown, its last rows the means.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import spatialdata as sd
from scipy import ndimage
from skimage.segmentation import expand_labels, watershed

import sslcst
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.counts import owners
from sslcst.metrics import f1, fraction_right, mean_best_iou

TISSUES: dict[str, dict] = {
    "usual": {"seed": 0},
    "few counts, spread": {"seed": 1, "counts_per_cell": 60, "diffusion": 1.0},
    "many counts, far spread": {"seed": 2, "counts_per_cell": 1000, "diffusion": 2.0, "ambient": 0.1, "coverage": 0.6},
    "sparse": {"seed": 3, "coverage": 0.4, "counts_per_cell": 150},
    "dense": {"seed": 4, "coverage": 0.95, "counts_per_cell": 200, "diffusion": 1.0},
    "small cells": {"seed": 5, "cell_diameter": 8.0, "coverage": 0.8, "counts_per_cell": 100, "ambient": 0.15},
    "large cells": {"seed": 6, "cell_diameter": 16.0, "coverage": 0.7, "counts_per_cell": 400, "diffusion": 1.5},
    "nuclei off centre": {"seed": 7, "nuclear_shift": 0.45, "n_genes": 1000, "coverage": 0.55, "ambient": 0.02},
    "much ambient": {"seed": 8, "ambient": 0.3, "coverage": 0.65},
    "one type": {"seed": 9, "n_types": 1, "coverage": 0.85},
}
WAYS: dict[str, tuple[str, dict]] = {
    "density": ("density", {}),
    "network": ("network", {}),
    "ssl-cst": ("ssl-cst", {}),
}
NUCLEI = {"bundled": "sslcst", "watershed": "watershed"}  # of nuclei that are found in the stain
GROWN_BY = (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6)  # micron
SMOOTHED_BY = (0.5, 0.75, 1.0, 1.5)  # micron
FIGURES = ("mean best IoU", "F1 at 0.5", "transcripts right")
Score = tuple[float, float, float]


class Scorer:
    """A tissue with nuclei, and how close labels come to its cells."""

    def __init__(self, sdata: sd.SpatialData, nuclei_key: str) -> None:
        self.nuclei = np.asarray(sdata.labels[nuclei_key])
        self.cells = np.asarray(sdata.labels["true_cells"])
        raster = raster_of(sdata, nuclei_key, "global")
        self.pixel_size = raster.pixel_size
        self.yx = read_transcripts(sdata, "transcripts", gene_key=None, count_key=None, raster=raster).yx
        self.owner = sdata.points["transcripts"]["cell_id"].compute().to_numpy()
        height, width = self.nuclei.shape
        y, x = self.yx.astype(int).T
        self.counts = np.bincount(y * width + x, minlength=height * width).reshape(height, width).astype(float)

    def __call__(self, labels: np.ndarray) -> Score:
        """The figures, in their order."""
        return (
            mean_best_iou(self.cells, labels),
            f1(self.cells, labels),
            fraction_right(self.owner, owners(self.yx, labels)),
        )

    def best(self, ways: Iterator[np.ndarray]) -> Score:
        """The best of each figure by itself."""
        return tuple(np.max([self(labels) for labels in ways], axis=0).tolist())

    def grown(self) -> Iterator[np.ndarray]:
        """Nuclei grown by a distance."""
        for by in GROWN_BY:
            yield expand_labels(self.nuclei, by / self.pixel_size)

    def gated(self) -> Iterator[np.ndarray]:
        """Nuclei grown by a distance where the smoothed density is above a share of its median in nuclei."""
        grown = [expand_labels(self.nuclei, by / self.pixel_size) for by in (2, 3, 4, 6, 8)]
        for share, density in self._densities((0.2, 0.3, 0.4, 0.5, 0.6)):
            for labels in grown:
                yield np.where((density >= share) | (self.nuclei > 0), labels, 0)

    def flooded(self) -> Iterator[np.ndarray]:
        """Watershed of the density from the nuclei, down to a share of its median in nuclei."""
        for share, density in self._densities((0.2, 0.3, 0.4)):
            yield watershed(-density, self.nuclei.astype(np.int32), mask=(density >= share) | (self.nuclei > 0))

    def _densities(self, shares: tuple[float, ...]) -> Iterator[tuple[float, np.ndarray]]:
        for by, share in product(SMOOTHED_BY[:3], shares):
            density = ndimage.gaussian_filter(self.counts, by / self.pixel_size)
            yield share, density / max(np.median(density[self.nuclei > 0]), 1e-9)


def segmented(sdata: sd.SpatialData, nuclei_key: str, way: str, params: dict) -> np.ndarray:
    method, own = WAYS[way]
    sslcst.tl.segment(sdata, nuclei_key=nuclei_key, method=method, params=joined(own, params), overwrite=True)
    return np.asarray(sdata.labels["sslcst_cells"])


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(rows: dict[tuple[str, str], Score]) -> list[str]:
    """Rows of all tissues, and the means of each way."""
    lines = [row("tissue", "method", *FIGURES), "|---|---|---|---|---|"]
    lines += [row(*names, *(f"{x:.3f}" for x in score)) for names, score in rows.items()]
    for way in dict.fromkeys(way for _, way in rows):
        mean = np.mean([score for (_, other), score in rows.items() if other == way], axis=0)
        lines.append(row("**mean**", way, *(f"**{x:.3f}**" for x in mean)))
    return lines


def settings_of(texts: list[str]) -> dict:
    """Nested parameters from ``section.field=value``."""
    params: dict = {}
    for text in texts:
        name, value = text.split("=")
        section, parameter = name.split(".")
        params.setdefault(section, {})[parameter] = value if value.isidentifier() else json.loads(value)
    return params


def joined(params: dict, others: dict) -> dict:
    return {name: params.get(name, {}) | others.get(name, {}) for name in params.keys() | others.keys()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(TISSUES))
    parser.add_argument("--nuclei", nargs="*", default=["true", "bundled"], choices=["true", *NUCLEI])
    parser.add_argument("--n-cells", type=int, default=200)
    parser.add_argument("--ways", nargs="*", default=["density"], choices=list(WAYS))
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.FIELD=VALUE")
    args = parser.parse_args()
    params = settings_of(args.set)
    found: dict[tuple[str, str], Score] = {}
    seconds: dict[str, list[float]] = {way: [] for way in args.ways}
    for name, nuclei in product(args.only, args.nuclei):
        sdata = sslcst.datasets.simulate(n_cells=args.n_cells, **TISSUES[name])
        key = "true_nuclei"
        if nuclei != "true":
            key = "nuclei"
            sslcst.pp.segment_nuclei(sdata, params={"nuclei": {"method": NUCLEI[nuclei]}}, key_added=key)
        score = Scorer(sdata, key)
        title = f"{name}, {nuclei} nuclei"
        rivals: dict[str, Callable[[], Iterator[np.ndarray]]] = {
            "nuclei alone": lambda score=score: iter([score.nuclei]),
            "grown by the best distance": score.grown,
            "grown where dense, best setting": score.gated,
            "watershed of density, best setting": score.flooded,
        }
        found |= {(title, way): score.best(labels()) for way, labels in rivals.items()}
        for way in args.ways:
            start = time.perf_counter()
            cells = segmented(sdata, key, way, params)
            seconds[way].append(time.perf_counter() - start)
            found[title, f"sslcst, {way}"] = score(cells)
    print("\n".join(table(found)))
    print("\n" + "\n".join(f"{way} took {np.mean(taken):.1f} s a tissue." for way, taken in seconds.items()))


if __name__ == "__main__":
    main()
