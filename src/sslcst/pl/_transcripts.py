"""Transcripts as dots: all of them in one colour, or some genes each in its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sslcst._arguments import Region
from sslcst._sdata.provenance import Used
from sslcst._sdata.raster import Raster as Grid
from sslcst._sdata.transcripts import open_transcripts
from sslcst.errors import KeyMissingError, did_you_mean
from sslcst.pl._canvas import TRANSCRIPTS, affine_of, category_colours, say_why_empty

MAX_DOTS = 200_000


class Dots(NamedTuple):
    """Places (n, 2), x before y, in units of the coordinate system."""

    xy: NDArray[np.float64]
    step: int = 1  # there are as many times more
    molecules: int | None = None  # that lie there


def read_all(points: Any, coordinate_system: str, region: Region) -> Dots:
    """Read the points of the region, of whatever kind; of many, no more than can be drawn are in memory."""
    matrix = affine_of(points, coordinate_system, "the points")
    kept, n, step = np.zeros((0, 2)), 0, 1
    for partition in points[["x", "y"]].partitions:
        xy = partition.compute().to_numpy() @ matrix[:2, :2].T + matrix[:2, 2]
        xy = xy[((xy >= region[:2]) & (xy < region[2:])).all(axis=1)]
        kept, n = np.concatenate([kept, xy[-n % step :: step]]), n + len(xy)
        while len(kept) > 2 * MAX_DOTS:
            kept, step = kept[::2], 2 * step
    return Dots(kept, step)


def read_genes(
    used: Used, molecules: Mapping[str, Any], genes: Sequence[str], coordinate_system: str, region: Region
) -> dict[str, Dots]:
    """Read the transcripts of some genes in the region, as far as they are good enough to be segmented."""
    x0, y0, x1, y1 = region
    affine_of(used.sdata.points[molecules["points_key"]], coordinate_system, "the points")
    to_system = np.array([[1, 0, y0], [0, 1, x0], [0, 0, 1.0]])
    grid = Grid((y1 - y0, x1 - x0), to_system, coordinate_system, {})  # of pixels a unit wide
    source = open_transcripts(used.sdata, **molecules, raster=grid, params=used.taken)
    source = replace(source, within=grid.shape)
    for gene in genes:
        if gene not in source.genes:
            raise KeyMissingError(
                f"There is no gene {gene!r} among the {len(source.genes)} of the transcripts in "
                f"{molecules['points_key']!r}{did_you_mean(gene, source.genes)}."
            )
    codes, kept = source.genes.get_indexer(genes), [(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int))]
    for part in source.partitions():
        rows = np.isin(part.gene, codes)
        weight = np.ones(rows.sum(), int) if part.count is None else part.count[rows]
        kept.append((part.yx[rows][:, ::-1] + (x0, y0), part.gene[rows], weight))
    xy, gene_of, weight = map(np.concatenate, zip(*kept, strict=True))
    return {
        gene: Dots(xy[gene_of == code], molecules=int(weight[gene_of == code].sum()))
        for gene, code in zip(genes, codes, strict=True)
    }


def draw(ax: Axes, dots: Mapping[str, Dots]) -> list[Artist]:
    """Draw dots, the rarest on top: genes each in its colour, with its number of molecules in the legend, or all alike.

    Returns what the legend needs.
    """
    of_genes = any(each.molecules is not None for each in dots.values())
    colours = dict(zip(dots, category_colours(len(dots)) if of_genes else [TRANSCRIPTS], strict=True))
    step = math.ceil(sum(len(each.xy) for each in dots.values()) / MAX_DOTS) or 1
    for name, each in sorted(dots.items(), key=lambda item: -len(item[1].xy)):
        ax.scatter(*each.xy[::step].T, s=8 if of_genes else 4, color=colours[name], linewidths=0)
    if not any(len(each.xy) for each in dots.values()):
        say_why_empty(ax, "no transcripts here" + (" of these genes" if of_genes else ""))
    handles = []
    for name, each in dots.items():
        label = name + (f" ({each.molecules:,})" if of_genes else "")
        label += f" (1 in {step * each.step})" if step * each.step > 1 else ""
        handles.append(Line2D([], [], color=colours[name], marker=".", markersize=9, linestyle="none", label=label))
    return handles
