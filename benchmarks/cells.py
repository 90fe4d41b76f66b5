"""Cells by the network and by simple rules, from the same nuclei, on tissues that nothing was trained on or chosen by.

    python benchmarks/cells.py [--data ../shared] [--weights FILE] [--only NAME ...]

Embryo: the ten fields that are held out, with the stand-in nuclei of seed 0 and with ellipses that know nothing of the
cell's shape. Prostate: the vendor's nuclei. CosMx: nuclei by the bundled network. Simulated: the ten tissues of
tissues.py, true nuclei. Growing "by the best distance" takes for each tissue and figure the best of ten with the true
cells in hand; 0.4 r is one rule for all; "network, no genes" is that with network.expression=False, and "network alone"
with network.trust=1 besides. Prints tables in Markdown.

The breast has no known cells. There the pairs of genes count that exclude each other in its own nuclei
(`sslcst.metrics.exclusive_pairs`): how often both meet in a cell that has either, against the share of the transcripts
that is kept in cells. More kept means more mixed: read it at equal share.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import spatialdata as sd
from real_cells import HELD_OUT, drawn_nuclei, embryo, make_stores
from scipy import sparse
from skimage.segmentation import expand_labels
from tissues import TISSUES

import sslcst
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.cells import decide, fill_holes, keep_attached
from sslcst.core.density import cell_share, local_density, measure_levels
from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Spots, bin_transcripts
from sslcst.methods.network.expression import Expression, draw_blocks, tally_ratios, weight_of
from sslcst.methods.network.inputs import REACH
from sslcst.methods.network.load import load_network
from sslcst.methods.network.network import CellNetwork
from sslcst.methods.network.params import NetworkRuleParams
from sslcst.methods.network.predict import predict_cells
from sslcst.metrics import exclusive_pairs, f1, fraction_right, mean_best_iou

BINS_ACROSS = 16  # a nucleus, as the package lays its bins
GROWN_BY = (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6)  # micron
DENSITY_REACH = 1.25  # in r, as the density method has it
FIGURES = ("mean best IoU", "F1 at 0.5", "transcripts right", "owners right", "in or out right")


@dataclass(frozen=True)
class Field:
    """Nuclei and transcripts (n, 2) on pixels; the true cells and the owner of each transcript, where known."""

    name: str
    nuclei: np.ndarray
    yx: np.ndarray
    pixel_size: float  # micron
    gene: np.ndarray
    cells: np.ndarray | None = None
    owner: np.ndarray | None = None

    def at(self, labels: np.ndarray) -> np.ndarray:
        """The label under each transcript."""
        return labels[tuple(np.clip(self.yx.astype(int), 0, np.subtract(labels.shape, 1)).T)]


# --- tissues


def fields(data: Path, only: Sequence[str] = ()) -> Iterator[Field]:
    """All, or those whose names begin so; few others are made on the way."""
    beginnings = tuple(only)

    def wanted(group: str) -> bool:
        return not beginnings or group.startswith(beginnings) or any(name.startswith(group) for name in beginnings)

    return (field for field in _made(data, wanted) if not beginnings or field.name.startswith(beginnings))


def _made(data: Path, wanted: Callable[[str], bool]) -> Iterator[Field]:
    rng = np.random.default_rng(0)
    for name in HELD_OUT:
        if not wanted(f"embryo {name}") and not wanted("embryo, other nuclei"):  # of these each draws for the next
            continue
        yield from embryo_twice(data, name, rng)
    if wanted("prostate"):
        prostate = make_stores(data).prostate(data / "data" / "xenium_prime_prostate")
        yield from halves(from_store(prostate, "prostate", 0.5))
    if wanted("cosmx"):
        cosmx = make_stores(data).cosmx(data / "data" / "cosmx_lung12_fov2")
        yield from_store(with_nuclei(cosmx), "cosmx fov 2", 0.18)
    for name, settings in TISSUES.items():
        if wanted(f"simulated {name}"):
            yield simulated(f"simulated {name}", n_cells=200, **settings)
    if wanted("breast"):
        breast = make_stores(data).breast(data / "data" / "xenium_breast")
        yield from_store(with_nuclei(breast), "breast", 0.2125)


def embryo_twice(data: Path, name: str, rng: np.random.Generator) -> Iterator[Field]:
    """A field of the embryo with the stand-in nuclei, and with ellipses that know nothing of the cell's shape."""
    whole = embryo(data, name, 2)
    points = make_stores(data).embryo(data / "data" / "seqfish_embryo", name, 2).points["transcripts"].compute()
    owner, gene = points["cell"].to_numpy().astype(np.int64), points["gene"].cat.codes.to_numpy()
    field = Field(f"embryo {name}", whole.nuclei, whole.yx, 0.412, gene, whole.cells, owner)
    yield field
    others = drawn_nuclei(whole.cells, rng, follow=False)
    yield replace(field, name=f"embryo, other nuclei {name}", nuclei=others)


def simulated(name: str, **settings: float) -> Field:
    sdata = sslcst.datasets.simulate(**settings)
    labels = {key: np.asarray(sdata[f"true_{key}"]) for key in ("nuclei", "cells")}
    owner = sdata.points["transcripts"]["cell_id"].compute().to_numpy()
    return Field(name, pixel_size=0.5, owner=owner, **labels, **transcripts_of(sdata, "true_cells"))


def transcripts_of(sdata: sd.SpatialData, labels_key: str) -> dict[str, np.ndarray]:
    raster = raster_of(sdata, labels_key, "global")
    transcripts = read_transcripts(sdata, "transcripts", gene_key=None, count_key=None, raster=raster)
    return {"yx": transcripts.yx, "gene": transcripts.gene}


def with_nuclei(sdata: sd.SpatialData) -> sd.SpatialData:
    sslcst.pp.segment_nuclei(
        sdata, image_key="dapi", method="sslcst", coordinate_system="global", key_added="reference_nuclei"
    )
    return sdata


def from_store(sdata: sd.SpatialData, name: str, pixel_size: float) -> Field:
    nuclei = np.asarray(sdata["reference_nuclei"]).astype(np.int32)
    field = Field(name, nuclei, pixel_size=pixel_size, **transcripts_of(sdata, "reference_nuclei"))
    if "reference_cells" not in sdata.labels:
        return field
    cells = np.asarray(sdata["reference_cells"]).astype(np.int32)
    return replace(field, cells=cells, owner=field.at(cells).astype(np.int64))


def halves(field: Field) -> Iterator[Field]:
    """Left and right half, each a tissue of its own."""
    middle = field.nuclei.shape[1] // 2
    for name, columns in (("left", slice(0, middle)), ("right", slice(middle, None))):
        start, stop, _ = columns.indices(field.nuclei.shape[1])
        inside = (field.yx[:, 1] >= start) & (field.yx[:, 1] < stop)
        parts = {"nuclei": field.nuclei[:, columns], "cells": field.cells[:, columns]}
        parts |= {"owner": field.owner[inside], "gene": field.gene[inside]}
        yield replace(field, name=f"{field.name} {name}", yx=field.yx[inside] - (0, start), **parts)


# --- methods: labels, and the owner that each pixel would have


def grown(field: Field, by: float) -> tuple[np.ndarray, np.ndarray]:
    return expand_labels(field.nuclei, by), expand_labels(field.nuclei, max(field.nuclei.shape))


@dataclass(frozen=True)
class Binned:
    """A field on bins a sixteenth as wide as its nuclei."""

    step: int
    shape: tuple[int, int]
    nuclei: np.ndarray
    spots: Spots
    radius: float

    @classmethod
    def of(cls, field: Field) -> Binned:
        diameter = Regions.of(field.nuclei).diameter
        step = max(1, round(diameter / BINS_ACROSS))
        nuclei = field.nuclei[step // 2 :: step, step // 2 :: step]
        yx = np.clip(field.yx / step, 0, np.subtract(nuclei.shape, 1))
        grid = Grid(nuclei.shape, (1.0, 1.0), 1.0)
        spots = bin_transcripts(yx, field.gene, n_genes=int(field.gene.max()) + 1, grid=grid)
        return cls(step, field.nuclei.shape, nuclei, spots, diameter / step)

    @property
    def counts(self) -> np.ndarray:
        return self.spots.totals()

    def levels(self, reach: float):
        around = local_density(self.counts, self.nuclei, radius=self.radius, reach=reach * self.radius)
        return measure_levels(around, radius=self.radius, reach=reach * self.radius), around

    def to_pixels(self, labels: np.ndarray) -> np.ndarray:
        rows, columns = (
            np.minimum(np.arange(n) // self.step, m - 1) for n, m in zip(self.shape, labels.shape, strict=True)
        )
        return labels[np.ix_(rows, columns)]


def by_density(field: Field) -> tuple[np.ndarray, np.ndarray]:
    bins = Binned.of(field)
    levels, around = bins.levels(DENSITY_REACH)
    inside = cell_share(around, levels, radius=bins.radius) >= 0.5
    cells = fill_holes(keep_attached(np.where(inside, around.nuclei[0], 0), bins.nuclei))
    return np.where(field.nuclei > 0, field.nuclei, bins.to_pixels(cells)), grown(field, 0)[1]


def by_network(
    field: Field,
    network: CellNetwork,
    threshold: float = 0.5,
    trust: float = NetworkRuleParams().trust,
    genes: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The network, with a weight of its opinion of in or out, and one of what genes say of whose; 1 is the default."""
    bins = Binned.of(field)
    levels, _ = bins.levels(REACH)
    seen = (bins.counts, bins.nuclei, levels)
    expression = None
    if genes:
        expression = Expression(bins.spots, np.asarray(bins.spots.counts.sum(axis=0)).ravel())
        own = bins.spots.grid.ranges
        blocks = draw_blocks(own, bins.nuclei.shape, Regions.of(bins.nuclei).centers, seed=0)
        place = {"radius": bins.radius, "corner": (0, 0), "own": own}
        ratios = sum(tally_ratios(expression, *seen, block, **place) for block in blocks)
        expression = replace(expression, weight=genes * weight_of(ratios))
    probability, owner = predict_cells(network, *seen, radius=bins.radius, trust=trust, expression=expression)
    cells = decide(probability, owner, bins.nuclei, threshold=threshold)
    return np.where(field.nuclei > 0, field.nuclei, bins.to_pixels(cells)), bins.to_pixels(owner)


# --- figures


def score(field: Field, labels: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The figures, in their order."""
    cells, outside = field.cells, field.nuclei == 0
    has_nucleus = np.zeros(cells.max() + 1, bool)
    partner = np.zeros(int(max(field.nuclei.max(), owner.max())) + 1, np.int64)  # the cell that holds most of a nucleus
    both = (field.nuclei > 0) & (cells > 0)
    pairs, number = np.unique(np.stack([field.nuclei[both], cells[both]]), axis=1, return_counts=True)
    for index in np.argsort(number):
        partner[pairs[0, index]] = pairs[1, index]
    has_nucleus[partner] = True
    has_nucleus[0] = False
    known = has_nucleus[cells] & outside
    return np.array(
        [
            mean_best_iou(cells, labels),
            f1(cells, labels),
            fraction_right(field.owner, field.at(labels).astype(np.int64)),
            (partner[owner] == cells)[known].mean(),
            ((labels > 0) == (cells > 0))[outside].mean(),
        ]
    )


def scores(field: Field, network: CellNetwork) -> dict[str, np.ndarray]:
    diameter = Regions.of(field.nuclei).diameter
    trials = [score(field, *grown(field, by / field.pixel_size)) for by in GROWN_BY]
    return {
        "nuclei alone": score(field, *grown(field, 0)),
        "grown 0.4 r": score(field, *grown(field, 0.4 * diameter)),
        "grown 5 micron": score(field, *grown(field, 5 / field.pixel_size)),
        "grown by the best distance": np.max(trials, axis=0),
        "density": score(field, *by_density(field)),
        "network": score(field, *by_network(field, network)),
        "network, no genes": score(field, *by_network(field, network, genes=0)),
        "network alone": score(field, *by_network(field, network, trust=1, genes=0)),
    }


def meetings(gene: np.ndarray, owner: np.ndarray, pairs: np.ndarray) -> tuple[float, float]:
    """Share of the transcripts kept, and how often both genes of a pair are in a cell that has either."""
    present = counts_of(gene, owner) > 0
    both = either = 0
    for g, h in pairs:
        one, other = present[:, [g]].toarray().ravel(), present[:, [h]].toarray().ravel()
        both, either = both + np.sum(one & other), either + np.sum(one | other)
    return float((owner > 0).mean()), both / max(1, either)


def counts_of(gene: np.ndarray, owner: np.ndarray) -> sparse.csc_array:
    ids, row = np.unique(owner[owner > 0], return_inverse=True)
    entries = (np.ones(len(row), np.int64), (row, gene[owner > 0]))
    return sparse.csc_array(entries, shape=(len(ids), gene.max() + 1))


def exclusive_rows(field: Field, network: CellNetwork) -> Iterator[str]:
    pairs = exclusive_pairs(sparse.csr_array(counts_of(field.gene, field.at(field.nuclei))))
    yield f"{len(pairs)} pairs of genes that exclude each other in the nuclei\n"
    yield "| cells | share kept | exclusive genes meet |\n|---|---|---|"
    diameter = Regions.of(field.nuclei).diameter
    ways = {f"grown {k} r": grown(field, k * diameter) for k in (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)}
    ways |= {"density": by_density(field)}
    ways |= {f"network, threshold {t}": by_network(field, network, t) for t in (0.4, 0.5, 0.6, 0.7, 0.8)}
    ways |= {f"network, no genes, threshold {t}": by_network(field, network, t, genes=0) for t in (0.5, 0.6, 0.7)}
    ways |= {f"network alone, threshold {t}": by_network(field, network, t, trust=1, genes=0) for t in (0.5, 0.7)}
    for name, (labels, _) in ways.items():
        kept, meet = meetings(field.gene, field.at(labels), pairs)
        yield f"| {name} | {kept:.3f} | {meet:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, help="by default those that come with sslcst")
    parser.add_argument("--only", nargs="*", help="beginnings of the names of tissues")
    args = parser.parse_args()
    network = load_network(path=args.weights)
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    breast, start = [], time.perf_counter()
    for field in fields(args.data, args.only or ()):
        if field.cells is None:
            breast = list(exclusive_rows(field, network))
            continue
        group = field.name.rsplit(" ", 1)[0] if field.name.startswith("embryo") else field.name
        each = scores(field, network)
        found.setdefault(group, []).append(each)
        if group.startswith("simulated"):
            found.setdefault("simulated, mean of ten", []).append(each)
    print(f"| tissue | cells | {' | '.join(FIGURES)} |\n|---|---|{'---|' * len(FIGURES)}")
    for group, many in found.items():
        for way in many[0]:
            mean = np.mean([each[way] for each in many], axis=0)
            print(f"| {group} | {way} | {' | '.join(f'{x:.3f}' for x in mean)} |")
    print("\n" + "\n".join(breast))
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
