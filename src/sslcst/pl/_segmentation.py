"""A picture of nuclei, cells and, where there is one, a reference, on the stain."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used, nuclei_of
from sslcst._section import check
from sslcst.errors import KeyMissingError
from sslcst.pl._canvas import (
    CELLS,
    NUCLEI,
    REFERENCE,
    TRANSCRIPTS,
    Raster,
    affine_of,
    category_colours,
    check_region,
    draw_outlines,
    extent_of,
    finish_axes,
    pick,
    prepare_axes,
    read_raster,
    read_stain,
    say_why_empty,
    show,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

MAX_DOTS = 200_000


@checked
def segmentation(
    sdata: SpatialData,
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    channel: str | int | None = None,
    points_key: str | None = None,
    truth_key: str | None = None,
    color: str | None = None,
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
    image_key
        Stain to draw in grey; by default the one the cells were made of, else as `sslcst.tl.segment` chooses.
        With no image, the ground is black.
    channel
        Channel of the stain; by default the one that was segmented, else one named DAPI or the like, else the first.
    points_key
        Transcripts to draw as dots, at most 200,000 of them. All partitions are read, one at a time.
    truth_key
        Labels of a reference to outline as well.
    color
        Column of the table's obs, or a gene, to fill the cells with.
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
        An element, channel, coordinate system or `color` is not there, or there are several images to choose from.
    ParameterError
        `region` has no area, or `vmin` is not below `vmax`.
    DataError
        An element does not reach into the region.
    """
    for name, value in (("vmin", vmin), ("vmax", vmax)):
        check(value is None or np.isfinite(value), name, value, "must be finite")
    check(vmin is None or vmax is None or vmin < vmax, "vmin", vmin, f"must be below vmax={vmax!r}")
    used = Used.by(sdata, f"{key}_cells")
    sdata = used.sdata
    names = {"nuclei": nuclei_of(sdata, f"{key}_cells", key), "cells": f"{key}_cells"}
    if truth_key is not None:
        names["reference"] = truth_key
    labels = {name: pick(sdata.labels, of, "labels") for name, of in names.items()}
    values = None if color is None else _values(pick(sdata.tables, f"{key}_table", "table"), color)
    points = None if points_key is None else pick(sdata.points, points_key, "points")
    image_key = used.image(image_key)
    if coordinate_system is None:
        coordinate_system = used.system([*names.values(), image_key, points_key], None)
    region = extent_of(labels["cells"], coordinate_system) if region is None else check_region(region)
    rasters = {name: read_raster(element, coordinate_system, region, name) for name, element in labels.items()}
    stain = read_stain(used, image_key, channel, coordinate_system, region)
    dots = None if points is None else _read_points(points, coordinate_system, region)

    ax = prepare_axes(ax, stain)
    handles: list[Artist] = []
    if values is not None:
        handles += _fill_cells(ax, rasters["cells"], values, vmin, vmax)
    if dots is not None:
        handles.append(_draw_dots(ax, dots))
    for name, colour in (("reference", REFERENCE), ("cells", CELLS), ("nuclei", NUCLEI)):
        if name in rasters:
            handles.append(draw_outlines(ax, rasters[name], name, colour))

    return finish_axes(ax, region, coordinate_system, handles, save)


def _read_points(points: Any, coordinate_system: str, region: Region) -> NDArray[np.float64]:
    """Read the points (n, 2) of the region, x before y, in the units of the coordinate system."""
    matrix = affine_of(points, coordinate_system, "the points")
    inside = []
    for partition in points[["x", "y"]].partitions:
        xy = partition.compute().to_numpy() @ matrix[:2, :2].T + matrix[:2, 2]
        inside.append(xy[((xy >= region[:2]) & (xy < region[2:])).all(axis=1)])
    return np.concatenate(inside)


def _draw_dots(ax: Axes, xy: NDArray[np.float64]) -> Artist:
    step = math.ceil(len(xy) / MAX_DOTS) or 1
    ax.scatter(*xy[::step].T, s=4, color=TRANSCRIPTS, linewidths=0)
    name = "transcripts" if step == 1 else f"transcripts (1 in {step})"
    return Line2D([], [], color=TRANSCRIPTS, marker=".", linestyle="none", label=name)


class _Values(NamedTuple):
    """What to fill each cell with: one value an id, under a name, and the colours that the table has for it."""

    name: str
    of_cell: pd.Series
    colours: Sequence[str] | None


def _values(table: AnnData, color: str) -> _Values:
    if color in table.obs:
        values = table.obs[color]
    elif color in table.var_names:
        values = pd.Series(table.obs_vector(color))
    else:
        raise KeyMissingError(
            f"color={color!r} is neither one of the table's {table.n_vars} genes nor a column of its obs: "
            f"{list(table.obs)}."
        )
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        values = values.astype("category")
    return _Values(color, values.set_axis(pd.Index(table.obs["cell_id"])), table.uns.get(f"{color}_colors"))


def _fill_cells(ax: Axes, cells: Raster, values: _Values, vmin: float | None, vmax: float | None) -> list[Artist]:
    """Fill the cells by value; cells without one stay clear. Returns what the legend needs, a colour bar needs none."""
    of_cell, handles = values.of_cell, []
    if isinstance(of_cell.dtype, pd.CategoricalDtype):
        categories = of_cell.cat.categories
        colours = category_colours(len(categories), values.colours)
        handles = [Patch(color=colour, label=str(name)) for colour, name in zip(colours, categories, strict=True)]
        of_cell, rgba = of_cell.cat.codes, np.vstack([colours, np.zeros(4)])[of_cell.cat.codes]
    else:
        numbers = of_cell.to_numpy(float)
        known = numbers[np.isfinite(numbers)]
        if not len(known):
            say_why_empty(ax, f"no cell has a value of {values.name}")
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        low = min(low, high if vmax is None else vmax) if vmin is None else vmin
        high = max(low, high) if vmax is None else vmax
        mappable = ScalarMappable(Normalize(low, high), "viridis")
        ax.figure.colorbar(mappable, ax=ax, label=values.name, location="bottom", shrink=0.6)
        rgba = mappable.to_rgba(np.ma.masked_invalid(numbers))
    place = of_cell.index.get_indexer(cells.pixels.ravel())
    pixels = np.vstack([rgba, np.zeros(4)])[place].reshape(*cells.pixels.shape, 4)
    show(ax, cells, pixels, alpha=pixels[..., 3] * 0.6, interpolation="nearest")
    return handles
