"""Whom to trust: the cell network, or the density and the usual reach of cells beside it, and genes.

    python benchmarks/validate_cells.py [--data ../shared] [--weights FILE]

Tissues to choose by, never those of cells.py, which judge: three pieces of the lymph node with their real nuclei, three
fields of the embryo and six simulated tissues, as they are and made worse in fixed ways: transcripts moved farther,
strewn, cells taken out, and cells that end at a distance from the nucleus with much of their transcripts left beyond.
The weights that come with the package were trained on these fields and pieces as they are, which speaks for them here.
Prints mean best IoU for several values of network.trust; then, on such of these as have genes, for several weights of
what these say of whose a bin is, relative to the weight that is learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from cells import Field, by_density, by_network, embryo_twice, grown
from cells import simulated as simulated_with_genes
from real_cells import Tissue, drawn_nuclei, embryo, lymph_node, simulated
from scipy import ndimage

from sslcst.core.geometry import Regions
from sslcst.methods.network.load import load_network
from sslcst.metrics import mean_best_iou

FIELDS = ("a08", "a22", "a33")
PIECES = (1, 4, 6)
SIMULATED = range(100, 106)
DEPTH = 0.12  # transcripts a bin that are left of an embryo's made worse
TRUST = {"1": 1.0, "1/2": 1 / 2, "1/3": 1 / 3, "0": 0.0}
GENES = {"0": 0.0, "1/4": 1 / 2, "1/2": 1.0, "1": 2.0, "2": 4.0}  # times what is the default


def tissues(data: Path) -> Iterator[tuple[str, list[Tissue]]]:
    """Groups of tissues by name."""
    rng = np.random.default_rng(5)
    lymph = [piece for i, piece in enumerate(lymph_node(data)) if i in PIECES]
    fields = [embryo(data, name, 2) for name in FIELDS]
    simulations = [simulated(seed) for seed in SIMULATED]
    yield "lymph node", lymph
    yield "lymph node, diffuse", [moved(t, rng, by=3, strewn=0.5) for t in lymph]
    yield "lymph node, gaps", [without_cells(t, rng, gone=0.4, left=0.3) for t in lymph]
    yield "embryo", fields
    yield (
        "embryo, nuclei blind to the cell",
        [replace(t, nuclei=drawn_nuclei(t.cells, rng, follow=False)) for t in fields],
    )
    gaps = [thinned(without_cells(t, rng, gone=0.3, left=0.5), rng) for t in fields]
    yield "embryo, gaps and diffuse", [moved(t, rng, by=4, strewn=0.7) for t in gaps]
    for name, reach, left in (("short", 0.35, 0.5), ("middling", 0.6, 0.2)):
        cut = [thinned(short_of(t, rng, reach=reach, left=left), rng) for t in fields]
        yield f"embryo, {name} reach", [moved(t, rng, by=1.5) for t in cut]
    yield "simulated", simulations
    yield "simulated, diffuse", [moved(t, rng, by=4, strewn=0.7) for t in simulations]


def without_cells(tissue: Tissue, rng: np.random.Generator, *, gone: float, left: float) -> Tissue:
    """Some cells taken out with their nuclei, and a share of their transcripts left."""
    lost = rng.random(tissue.cells.max() + 1) < gone
    lost[0] = False
    out = lost[tissue.cells][tissue.places] & (rng.random(len(tissue.yx)) > left)
    cells, nuclei = (np.where(lost[labels], 0, labels) for labels in (tissue.cells, tissue.nuclei))
    return Tissue(cells, tissue.yx[~out], nuclei)


def short_of(tissue: Tissue, rng: np.random.Generator, *, reach: float, left: float) -> Tissue:
    """Cells that end at a distance from the nucleus (in r), and a share of the transcripts beyond left."""
    distance = ndimage.distance_transform_edt(tissue.nuclei == 0) / Regions.of(tissue.nuclei).diameter
    beyond = (tissue.cells > 0) & (distance > (reach * rng.lognormal(0, 0.2, tissue.cells.max() + 1))[tissue.cells])
    out = beyond[tissue.places] & (rng.random(len(tissue.yx)) > left)
    return Tissue(np.where(beyond, 0, tissue.cells), tissue.yx[~out], tissue.nuclei)


def thinned(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    return replace(tissue, yx=tissue.yx[rng.random(len(tissue.yx)) < DEPTH * tissue.cells.size / len(tissue.yx)])


def moved(tissue: Tissue, rng: np.random.Generator, *, by: float, strewn: float = 0) -> Tissue:
    """Transcripts moved (standard deviation in bins), and others everywhere, as a share of them."""
    shape = tissue.cells.shape
    yx = tissue.yx + rng.normal(0, by, tissue.yx.shape)
    yx = np.concatenate([yx, rng.uniform(0, 1, (int(len(yx) * strewn), 2)) * shape])
    return replace(tissue, yx=yx[((yx >= 0) & (yx < shape)).all(axis=1)])


def with_genes(data: Path) -> Iterator[tuple[str, list[Field]]]:
    """Groups of tissues by name: as they are, since genes cannot be made worse as the rest can."""
    rng = np.random.default_rng(5)
    fields = [list(embryo_twice(data, name, rng)) for name in FIELDS]
    for name, group in zip(("embryo", "embryo, nuclei blind to the cell"), zip(*fields, strict=True), strict=True):
        yield name, list(group)
    yield (
        "simulated",
        [
            simulated_with_genes("simulated", n_cells=200, coverage=0.4 + 0.1 * i, seed=seed)
            for i, seed in enumerate(SIMULATED)
        ],
    )


def print_ious(data: Path, names: Sequence[str], ways: Callable[[Tissue, Field], list[np.ndarray]]) -> None:
    """A table of the mean best IoU of the cells that several ways make, group by group, and over all groups."""
    print(f"| tissue | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    rows = []
    for name, group in tissues(data):
        found = []
        for tissue in group:
            gene = np.zeros(len(tissue.yx), np.int64)  # none is told
            field = Field(name, tissue.nuclei, tissue.yx, 0.3, gene, tissue.cells)
            found.append([mean_best_iou(field.cells, labels) for labels in ways(tissue, field)])
        rows.append(np.mean(found, axis=0))
        print(f"| {name} | {' | '.join(f'{x:.3f}' for x in rows[-1])} |", flush=True)
    print(f"| mean | {' | '.join(f'{x:.3f}' for x in np.mean(rows, axis=0))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, help="by default those that come with sslcst")
    args = parser.parse_args()
    network = load_network(path=args.weights)

    def ways(_: Tissue, field: Field) -> list[np.ndarray]:
        trusted = [by_network(field, network, trust=trust, genes=0) for trust in TRUST.values()]
        every = [grown(field, 0.4 * Regions.of(field.nuclei).diameter), by_density(field), *trusted]
        return [labels for labels, _ in every]

    print_ious(args.data, ["grown 0.4 r", "density", *(f"network, trust {name}" for name in TRUST)], ways)
    print(f"\n| tissue | {' | '.join(f'genes, weight {name}' for name in GENES)} |\n|---|{'---|' * len(GENES)}")
    for name, group in with_genes(args.data):
        ways = [[by_network(field, network, genes=genes)[0] for genes in GENES.values()] for field in group]
        found = [[mean_best_iou(f.cells, labels) for labels in each] for f, each in zip(group, ways, strict=True)]
        print(f"| {name} | {' | '.join(f'{x:.4f}' for x in np.mean(found, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
