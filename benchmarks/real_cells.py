"""Tissues with known cells to train the cell network on, and what makes them various.

Real cells are those of a mouse embryo, outlined by membrane stains (seqFISH, Lohoff et al. 2021, CC BY 4.0), of which
ten fields are held out, and the packing of a lymph node (Xenium Prime, 10x, CC BY 4.0). Simulated tissues join them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.draw import polygon
from skimage.measure import label

import sslcst
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts

# Fields of the embryo that nothing was trained on or chosen by; the other 35 are for training.
HELD_OUT = ("a05", "a09", "a15", "a19", "a24", "a29", "a35", "a39", "a45", "a49")
PLANES = (2, 5)
LYMPH_PIXEL = 0.3  # micron
LYMPH_CORNER = 5000.0  # micron, of the crop's rows and columns
LEAST_DENSITY = 0.06  # transcripts a bin that are left of those of a tissue
LYMPH_SIDE = 512  # pixels of a piece of the lymph node


@dataclass(frozen=True)
class Tissue:
    """Cells on a grid of bins (rows, columns), transcripts at (n, 2) in bins, and nuclei where these are known too."""

    cells: np.ndarray
    yx: np.ndarray
    nuclei: np.ndarray | None = None

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The bin of each transcript."""
        return tuple(np.clip(self.yx.astype(int), 0, np.subtract(self.cells.shape, 1)).T)

    @property
    def counts(self) -> np.ndarray:
        """Transcripts in each bin."""
        rows, columns = self.places
        size = self.cells.size
        return np.bincount(rows * self.cells.shape[1] + columns, minlength=size).reshape(self.cells.shape)


# --- sources


def make_stores(data: Path):
    """The module that reads the raw data; it comes with the data."""
    spec = importlib.util.spec_from_file_location("make_stores", data / "tools" / "make_stores.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embryo_fields(data: Path) -> list[str]:
    """Names of all fields."""
    return sorted(file.stem for file in (data / "data" / "seqfish_embryo").glob("a[0-9][0-9].parquet"))


def embryo(data: Path, field: str, plane: int) -> Tissue:
    """A field of the embryo, with the stand-in nuclei of seed 0: those that published figures are given with."""
    sdata = make_stores(data).embryo(data / "data" / "seqfish_embryo", field, plane)
    points = sdata.points["transcripts"].compute()
    cells, nuclei = (np.asarray(sdata.labels[key]).astype(np.int32) for key in ("reference_cells", "nuclei"))
    return Tissue(cells, points[["y", "x"]].to_numpy() / 4, nuclei)


def lymph_node(data: Path) -> Iterator[Tissue]:
    """Pieces of the lymph node: real cells, real nuclei, and of their transcripts the part that was published."""
    folder = data / "data" / "xenium_prime_lymph_node"
    outlines = [pd.read_parquet(folder / f"{name}_boundaries.parquet") for name in ("cell", "nucleus")]
    number = {cell: i for i, cell in enumerate(sorted(outlines[0].cell_id.unique()), 1)}
    cells, nuclei = np.zeros((2, *[int(500 / LYMPH_PIXEL)] * 2), np.int32)
    for grid, frame in zip((cells, nuclei), outlines, strict=True):
        for (cell, _), part in frame.groupby(["cell_id", "label_id"], sort=True):
            at = (part[["vertex_y", "vertex_x"]].to_numpy() - LYMPH_CORNER) / LYMPH_PIXEL
            grid[polygon(*at.T, grid.shape)] = number.get(cell, 0)
    points = pd.read_parquet(folder / "transcripts.parquet")
    yx = (points[["y_location", "x_location"]].to_numpy() - LYMPH_CORNER) / LYMPH_PIXEL
    for top in range(0, len(cells) - LYMPH_SIDE + 1, LYMPH_SIDE):
        for left in range(0, len(cells) - LYMPH_SIDE + 1, LYMPH_SIDE):
            window = np.s_[top : top + LYMPH_SIDE, left : left + LYMPH_SIDE]
            inside = ((yx >= (top, left)) & (yx < (top + LYMPH_SIDE, left + LYMPH_SIDE))).all(axis=1)
            yield Tissue(cells[window], yx[inside] - (top, left), nuclei[window])


def simulated(seed: int) -> Tissue:
    """A simulated tissue of random packing, size, counts, diffusion and ambient."""
    rng = np.random.default_rng([seed, 1])
    sdata = sslcst.datasets.simulate(
        n_cells=int(rng.integers(150, 350)),
        pixel_size=float(rng.uniform(0.35, 0.55)),
        cell_diameter=float(rng.uniform(8, 14)),
        coverage=float(rng.uniform(0.35, 0.95)),
        nuclear_shift=float(rng.uniform(0.05, 0.45)),
        n_genes=20,
        counts_per_cell=float(np.exp(rng.uniform(np.log(60), np.log(4000)))),
        diffusion=float(rng.uniform(0, 1.6)),
        ambient=float(rng.uniform(0, 0.25)),
        seed=1000 + seed,
    )
    raster = raster_of(sdata, "true_cells", "global")
    yx = read_transcripts(sdata, "transcripts", gene_key=None, count_key=None, raster=raster).yx
    cells, nuclei = (np.asarray(sdata.labels[f"true_{name}"]).astype(np.int32) for name in ("cells", "nuclei"))
    return Tissue(cells, yx, nuclei)


# --- variety


def vary(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """The same tissue made different in scale, shape, gaps, depth, noise and nuclei; with nuclei."""
    tissue = stretched(tissue, rng)
    if tissue.nuclei is None or rng.random() < 0.7:
        tissue = replace(tissue, nuclei=drawn_nuclei(tissue.cells, rng, follow=rng.random() < 0.5))
    if rng.random() < 0.65:
        tissue = with_contrasts(with_gaps(tissue, rng), rng)
    tissue = seen_worse(tissue, rng)
    missing = rng.random(tissue.nuclei.max() + 1) < (rng.uniform(0, 0.2) if rng.random() < 0.2 else 0)
    return replace(tissue, nuclei=np.where(missing[tissue.nuclei], 0, tissue.nuclei))


def is_enough(tissue: Tissue) -> bool:
    """Whether a varied tissue has cells and transcripts left to learn from."""
    return len(np.unique(tissue.nuclei)) > 10 and len(tissue.yx) > 500


def stretched(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """In bins of another size, and stretched along one axis, at most 512 bins wide; turned or mirrored."""
    zoom = np.exp(rng.uniform(np.log(0.8), np.log(1.5))) * np.exp(rng.uniform(-0.12, 0.12, 2))
    shape = np.minimum(np.array(tissue.cells.shape) * zoom, 512).astype(int)
    corner = [rng.uniform(0, max(size - n / z, 0)) for size, n, z in zip(tissue.cells.shape, shape, zoom, strict=True)]
    index = [
        np.clip((start + (np.arange(n) + 0.5) / z).astype(int), 0, size - 1)
        for start, n, z, size in zip(corner, shape, zoom, tissue.cells.shape, strict=True)
    ]
    cells, nuclei = (None if x is None else x[np.ix_(*index)] for x in (tissue.cells, tissue.nuclei))
    yx = (tissue.yx - corner) * zoom
    yx = yx[((yx >= 0) & (yx < shape)).all(axis=1)]
    for axis in np.flatnonzero(rng.random(2) < 0.5):
        cells, nuclei = (None if x is None else np.flip(x, axis) for x in (cells, nuclei))
        yx[:, axis] = np.nextafter(shape[axis], 0) - yx[:, axis]
    if rng.random() < 0.5:
        cells, nuclei, yx = cells.T, None if nuclei is None else nuclei.T, yx[:, ::-1]
    return Tissue(np.ascontiguousarray(cells), np.ascontiguousarray(yx), nuclei)


def depth_in(labels: np.ndarray) -> np.ndarray:
    """Distance of each bin to the next one of another label or none."""
    same = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    return np.where(labels > 0, ndimage.distance_transform_edt(same & (labels > 0)) + 1, 0)


def drawn_nuclei(cells: np.ndarray, rng: np.random.Generator, *, follow: bool) -> np.ndarray:
    """Ellipses for nuclei.

    Those that follow their cell lie as it does, a share of its area, more or less off centre. The others are of a size
    of their own, turned and placed without regard to the cell's shape, so that it cannot be read off them. They end at
    the rim of the cell, or now and then beyond.
    """
    beyond = rng.random() < 0.15
    least = rng.uniform(0.12, 0.45)
    share = (least, least + 0.15)
    off, vary_size = rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.4)
    depth, areas = depth_in(cells), np.bincount(cells.ravel())
    typical = np.median(areas[1:][areas[1:] > 0])
    nuclei = np.zeros_like(cells)
    for number, box in enumerate(ndimage.find_objects(cells), 1):
        if box is None or areas[number] < 60:
            continue
        box = tuple(slice(max(0, s.start - 4), s.stop + 4) for s in box)
        cell, deep = cells[box] == number, np.where(cells[box] == number, depth[box], 0)
        places = np.argwhere(cell)
        middle, radius = places.mean(axis=0), np.sqrt(areas[number] / np.pi)
        if follow:
            spread, axes = np.linalg.eigh(np.cov((places - middle).T) + 1e-6 * np.eye(2))
            longer = np.clip(np.sqrt(spread[1] / spread[0]), 1, 2.5) ** rng.uniform(0.3, 0.9)
            turn = np.arctan2(axes[0, 1], axes[1, 1]) + rng.normal(0, 0.3)
            area = rng.uniform(*share) * areas[number]
            near = np.exp(-((places - middle) ** 2).sum(axis=1) / (2 * (off * radius) ** 2 + 1e-9))
        else:
            longer, turn = rng.uniform(1, 1.8), rng.uniform(0, np.pi)
            area = min(np.mean(share) * typical * rng.lognormal(0, vary_size), 0.8 * areas[number])
            near = np.ones(len(places))
        size = np.sqrt(area / np.pi)
        near *= deep[tuple(places.T)] >= min(0.6 * size, 0.8 * deep.max())
        center = places[rng.choice(len(places), p=near / near.sum())] if near.sum() > 0 else middle
        y, x = np.indices(cell.shape) - center[:, None, None]
        along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        ellipse = np.hypot(along / np.sqrt(longer), across * np.sqrt(longer)) < size
        free = (nuclei[box] == 0) if beyond else (deep > 1)
        nuclei[box][ellipse & free] = number
    return largest_pieces(nuclei)


def largest_pieces(labels: np.ndarray) -> np.ndarray:
    """Of each label the largest piece."""
    piece = label(labels, connectivity=1)
    area = np.bincount(piece.ravel())
    of = np.zeros(len(area), labels.dtype)
    of[piece] = labels
    best = np.zeros(labels.max() + 1, area.dtype)
    np.maximum.at(best, of, area)
    return np.where((area >= np.maximum(best[of], 5))[piece], labels, 0)


def with_gaps(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """Cells taken out or shrunk, their transcripts but for a few with them."""
    cells = tissue.cells
    gone = rng.random(cells.max() + 1) < (rng.uniform(0, 0.6) if rng.random() < 0.5 else 0)
    if rng.random() < 0.3:  # a region without cells
        y, x = np.indices(cells.shape)
        away = np.hypot(y - rng.uniform(0, cells.shape[0]), x - rng.uniform(0, cells.shape[1])) < rng.uniform(40, 160)
        gone[np.unique(cells[away])] = True
    gone[0] = False
    lost = gone[cells]
    if rng.random() < 0.4:  # a nucleus keeps some cytoplasm around it
        lost |= (depth_in(cells) <= rng.choice([1, 2])) & (ndimage.maximum_filter(tissue.nuclei, 5) != cells)
    out = lost[tissue.places] & (rng.random(len(tissue.yx)) > rng.uniform(0.02, 0.35))
    nuclei = np.where(gone[tissue.nuclei] | gone[cells], 0, tissue.nuclei)
    return Tissue(np.where(lost, 0, cells), tissue.yx[~out], nuclei)


def with_contrasts(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """Nuclei or cytoplasm poorer in transcripts, cells and regions of different density."""
    keep = np.ones(tissue.cells.shape)
    if rng.random() < 0.5:
        poorer = tissue.nuclei > 0 if rng.random() < 0.5 else tissue.nuclei == 0
        keep[poorer & (tissue.cells > 0)] *= rng.uniform(0.4, 1)
    if rng.random() < 0.5:
        of_cell = np.exp(-np.abs(rng.normal(0, rng.uniform(0, 0.6), tissue.cells.max() + 1)))
        of_cell[0] = 1
        keep *= of_cell[tissue.cells]
    if rng.random() < 0.3:
        sheet = ndimage.zoom(rng.normal(0, rng.uniform(0, 0.8), (6, 6)), np.array(keep.shape) / 6, order=1)
        keep *= np.exp(np.minimum(sheet - sheet.max() / 2, 0))
    return replace(tissue, yx=tissue.yx[rng.random(len(tissue.yx)) < keep[tissue.places]])


def seen_worse(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """Fewer transcripts, some strewn everywhere, others moved from where they belong."""
    shape = np.array(tissue.cells.shape)
    least = np.clip(LEAST_DENSITY * tissue.cells.size / max(1, len(tissue.yx)), 0.08, 1)
    yx = tissue.yx[rng.random(len(tissue.yx)) < np.exp(rng.uniform(np.log(least), 0))]
    if rng.random() < 0.5:
        yx = yx + rng.normal(0, rng.uniform(0, 2), yx.shape)
    if rng.random() < 0.5:
        yx = np.concatenate([yx, rng.uniform(0, 1, (int(len(yx) * rng.uniform(0, 0.3)), 2)) * shape])
    return replace(tissue, yx=yx[((yx >= 0) & (yx < shape)).all(axis=1)])
