"""A picture of nuclei, cells and, where there is one, a reference, on the stain."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from spatialdata import SpatialData

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used, check_one, nuclei_of, result_name, result_table
from sslcst._section import check
from sslcst.pl._canvas import CELLS, NUCLEI, REFERENCE, View, check_save, draw_outlines, pick
from sslcst.pl._fill import as_norm, choose_fill, fill_cells
from sslcst.pl._transcripts import draw, read_all, read_genes


@checked
def segmentation(
    sdata: SpatialData,
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    channel: str | int | None = None,
    points_key: str | None = None,
    genes: str | Sequence[str] | None = None,
    gene_key: str | None = None,
    truth_key: str | None = None,
    color: str | None = None,
    norm: str | Normalize | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    coordinate_system: str | None = None,
    region: Region | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the outlines of nuclei and cells on the stain.

    Of a large element only the region is read, at the coarsest stored scale that still fills the picture.

    Parameters
    ----------
    sdata
        Holds labels ``{key}_nuclei`` and ``{key}_cells`` and, for `color`, the table ``{key}_table``.
    key
        The `key_added` of the segmentation.
    image_key, channel
        Stain to draw in grey; by default that of the cells, else as `sslcst.tl.segment` chooses, or the first
        channel. With no image, the ground is black.
    points_key
        Transcripts to draw as dots, at most 200,000 of them. All partitions are read, one at a time.
    genes
        Genes whose transcripts alone are drawn, under the outlines, each in its own colour and with their number in the
        legend: of those that were segmented, or else of `points_key`.
    gene_key
        Their column of genes, as in `sslcst.tl.segment`.
    truth_key
        Labels or shapes of a reference to outline as well.
    color
        Column of the table's obs, or a gene, to fill the cells with.
    norm
        How numbers of `color` become colours: ``"linear"`` or ``"log"``, which leaves cells of 0 clear, or a norm of
        `matplotlib.colors`.
    vmin, vmax
        Values of `color` at the ends of its colours; by default the lowest and the highest.
    coordinate_system
        In whose units the axes are, y downward; by default that in which the cells were made, else "global" or
        the only one.
    region
        (x0, y0, x1, y1) to show, in units of the coordinate system. ``None`` shows all of the labels.
    ax
        Where to draw; a new figure otherwise.
    save
        File to write the figure to.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyMissingError
        An element, channel, coordinate system, gene or `color` is not there, or there are several images, or points, to
        choose from.
    ParameterError
        `region` has no area, `genes` are none, `vmin` is not below `vmax`, `norm` goes with neither them nor the
        values, or `save` ends as no kind of picture does.
    DataError
        An element does not reach into the region, or the table keeps colours of `color` that are none.
    StoreError
        The figure cannot be saved.
    """
    check_save(save)
    norm = as_norm(norm, vmin, vmax)
    genes = [genes] if isinstance(genes, str) else genes
    check(genes is None or len(genes) > 0, "genes", genes, "must name one at least")
    check_one(sdata, key)
    cells_key = result_name(sdata, key, "cells")
    used = Used.by(sdata, cells_key)
    nuclei_key = nuclei_of(used.sdata, cells_key, key)
    for labels_key in (nuclei_key, cells_key):
        pick(used.sdata.labels, labels_key, "labels")
    fill = None if color is None else choose_fill(result_table(used.sdata, key), color, norm)
    points = None if points_key is None else pick(used.sdata.points, points_key, "points")
    if genes is not None:
        molecules = used.transcripts(points_key, gene_key, None)
        points_key = molecules["points_key"]
    keys = {"nuclei": nuclei_key, "cells": cells_key, "reference": truth_key}
    view = View.of(used, keys, "cells", image_key, channel, coordinate_system, region, points_key)
    dots = None
    if genes is not None:
        dots = read_genes(used, molecules, list(dict.fromkeys(genes)), view.coordinate_system, view.region)
    elif points is not None:
        dots = {"transcripts": read_all(points, view.coordinate_system, view.region)}

    ax = view.draw_stain(ax)
    handles: list[Artist] = []
    if fill is not None:
        handles += fill_cells(ax, view.cells["cells"], fill)
    if dots is not None:
        handles += draw(ax, dots)
    colours = {"reference": REFERENCE, "cells": CELLS, "nuclei": NUCLEI}
    layers = {name: (view.cells[name], colour) for name, colour in colours.items() if name in view.cells}
    return view.finish(ax, [*handles, *draw_outlines(ax, layers)], save)
