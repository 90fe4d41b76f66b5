"""A picture of nuclei, cells and, where there is one, a reference, on the stain.

Every element is drawn in its own pixels or coordinates and placed by its affine transformation, so that rotated,
sheared and flipped coordinate systems need no resampling.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Affine2D, Transform
from spatialdata.transformations import get_transformation

from sslcst.errors import DataError, KeyMissingError, ParameterError

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

Region = tuple[float, float, float, float]

# Okabe and Ito's sky blue, orange and reddish purple, and white: told apart with any colour vision, on grey and black.
NUCLEI, CELLS, TRANSCRIPTS, REFERENCE = "#56b4e9", "#e69f00", "#cc79a7", "#ffffff"
MAX_PIXELS = 2000  # of an element's longer side: about what a page can show
MAX_DOTS = 200_000


def segmentation(
    sdata: SpatialData,
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    channel: str | int | None = None,
    points_key: str | None = None,
    truth_key: str | None = None,
    color: str | None = None,
    coordinate_system: str = "global",
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
        Stain to draw in grey. ``None`` takes the only image there is; with no image, the ground is black.
    channel
        Channel of the stain. ``None`` takes the first.
    points_key
        Transcripts to draw as dots, at most 200,000 of them. All partitions are read, one at a time.
    truth_key
        Labels of a reference to outline as well.
    color
        Column of the table's obs, or a gene, to fill the cells with.
    coordinate_system
        In whose units the axes are, y downward.
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
        `region` has no area.
    DataError
        An element does not reach into the region.
    """
    labels = {name: _pick(sdata.labels, f"{key}_{name}", "labels") for name in ("nuclei", "cells")}
    if truth_key is not None:
        labels["reference"] = _pick(sdata.labels, truth_key, "labels")
    values = None if color is None else _values(_pick(sdata.tables, f"{key}_table", "table"), color)
    points = None if points_key is None else _pick(sdata.points, points_key, "points")
    image = _pick_image(sdata, image_key)
    region = _extent(labels["cells"], coordinate_system) if region is None else _checked(region)
    rasters = {name: _read(element, coordinate_system, region, name) for name, element in labels.items()}
    stain = None if image is None else _read(image, coordinate_system, region, "the image", channel)
    dots = None if points is None else _read_points(points, coordinate_system, region)

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 8), layout="constrained")
    ax.set_facecolor("black")
    if stain is not None:
        low, high = np.percentile(stain.pixels, (1, 99.8))
        _show(ax, stain, stain.pixels, cmap="gray", vmin=low, vmax=high)
    handles: list[Artist] = []
    if values is not None:
        handles += _fill_cells(ax, rasters["cells"], values)
    if dots is not None:
        handles.append(_draw_dots(ax, dots))
    for name, colour in (("reference", REFERENCE), ("cells", CELLS), ("nuclei", NUCLEI)):
        if name in rasters:
            handles.append(_draw_outlines(ax, rasters[name], name, colour))

    x0, y0, x1, y1 = region
    ax.set(xlim=(x0, x1), ylim=(y1, y0), aspect="equal")
    ax.set(xlabel=f"x ({coordinate_system})", ylabel=f"y ({coordinate_system})")
    legend = ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=True, facecolor="0.35")
    plt.setp(legend.get_texts(), color="white")
    if save is not None:
        ax.figure.savefig(save, dpi=200, bbox_inches="tight")
    return ax


class _Raster(NamedTuple):
    """The part of an element that is drawn, and the affine matrix (3, 3) from its (column, row) to the axes."""

    pixels: NDArray[Any]
    to_axes: NDArray[np.float64]

    def transform(self, ax: Axes) -> Transform:
        return Affine2D(self.to_axes) + ax.transData


def _pick(elements: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in elements:
        raise KeyMissingError(f"There is no {kind} {name!r}; there is {sorted(elements) or 'none at all'}.")
    return elements[name]


def _pick_image(sdata: SpatialData, image_key: str | None) -> DataArray | DataTree | None:
    if image_key is not None:
        return _pick(sdata.images, image_key, "image")
    if len(sdata.images) > 1:
        raise KeyMissingError(f"There are several images: give image_key, one of {sorted(sdata.images)}.")
    return next(iter(sdata.images.values()), None)


def _checked(region: Region) -> Region:
    x0, y0, x1, y1 = region
    if not (x0 < x1 and y0 < y1 and np.isfinite(region).all()):
        raise ParameterError(f"region={region!r}: must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1.")
    return region


def _levels(element: DataArray | DataTree) -> list[DataArray]:
    """The stored scales of an element, finest first."""
    if not hasattr(element, "children"):
        return [element]
    return [scale["image"] for scale in element.children.values()]


def _affine(element: Any, coordinate_system: str, name: str) -> NDArray[np.float64]:
    """Affine matrix (3, 3) from an element's (x, y) to the coordinate system's."""
    systems = get_transformation(element, get_all=True)
    if coordinate_system not in systems:
        raise KeyMissingError(f"{name} is not in coordinate system {coordinate_system!r} but in {sorted(systems)}.")
    return systems[coordinate_system].to_affine_matrix(("x", "y"), ("x", "y"))


def _bounds(matrix: NDArray[np.float64], box: Sequence[float]) -> NDArray[np.float64]:
    """Smallest upright box (x0, y0, x1, y1) around a box that an affine matrix moved."""
    x0, y0, x1, y1 = box
    corners = matrix[:2] @ np.array([[x0, x0, x1, x1], [y0, y1, y0, y1], [1, 1, 1, 1]])
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)])


def _extent(element: DataArray | DataTree, coordinate_system: str) -> Region:
    finest = _levels(element)[0]
    box = (0, 0, finest.sizes["x"], finest.sizes["y"])
    return tuple(_bounds(_affine(finest, coordinate_system, "cells"), box).tolist())


def _read(
    element: DataArray | DataTree,
    coordinate_system: str,
    region: Region,
    name: str,
    channel: str | int | None = None,
) -> _Raster:
    """Read the region, from the coarsest scale that has enough pixels, and of these at most `MAX_PIXELS` a side."""
    for level in reversed(_levels(element)):
        matrix = _affine(level, coordinate_system, name)
        box = _bounds(np.linalg.inv(matrix), region)
        size = np.array([level.sizes["x"], level.sizes["y"]])
        low = np.clip(np.floor(box[:2]).astype(int), 0, size)
        high = np.clip(np.ceil(box[2:]).astype(int), 0, size)
        if (high - low).max() >= MAX_PIXELS:
            break
    if (high <= low).any():
        raise DataError(f"{name} has no pixel in the region {region} of coordinate system {coordinate_system!r}.")

    step = math.ceil((high - low).max() / MAX_PIXELS)
    columns, rows = (slice(start + (step - 1) // 2, stop, step) for start, stop in zip(low, high, strict=True))
    part = level.isel(x=columns, y=rows)
    if "c" in part.dims:
        names = part.coords["c"].to_numpy().tolist()
        if channel is not None and channel not in names:
            raise KeyMissingError(f"{name} has no channel {channel!r}; it has {names}.")
        part = part.isel(c=0 if channel is None else names.index(channel))
    placed = np.array([[step, 0, low[0]], [0, step, low[1]], [0, 0, 1]])
    return _Raster(part.to_numpy(), matrix @ placed)


def _read_points(points: Any, coordinate_system: str, region: Region) -> NDArray[np.float64]:
    """Read the points (n, 2) of the region, x before y, in the units of the coordinate system."""
    matrix = _affine(points, coordinate_system, "the points")
    inside = []
    for partition in points[["x", "y"]].partitions:
        xy = partition.compute().to_numpy() @ matrix[:2, :2].T + matrix[:2, 2]
        inside.append(xy[((xy >= region[:2]) & (xy < region[2:])).all(axis=1)])
    return np.concatenate(inside)


def _show(ax: Axes, raster: _Raster, pixels: NDArray[Any], **style: Any) -> None:
    height, width = pixels.shape[:2]
    ax.imshow(pixels, extent=(0, width, height, 0), origin="upper", transform=raster.transform(ax), **style)


def _draw_outlines(ax: Axes, labels: _Raster, name: str, colour: str) -> Artist:
    width = np.clip(500 / max(labels.pixels.shape), 0.2, 0.8)  # points; about a pixel, so that small cells stay visible
    lines = LineCollection(_outlines(labels.pixels), colors=colour, linewidths=width, capstyle="projecting")
    lines.set_transform(labels.transform(ax))
    ax.add_collection(lines, autolim=False)
    return Line2D([], [], color=colour, label=name)


def _outlines(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Line segments (n, 2 ends, xy) between pixels of different labels, straight runs in one piece.

    They run along the edges of pixels, so that they are as thin in a close view as in a wide one, and hide nothing.
    """
    pieces = []
    for flip, array in ((False, labels), (True, labels.T)):
        edge = np.pad(array[:, 1:] != array[:, :-1], ((1, 1), (0, 0))).T.astype(np.int8)
        turn = np.diff(edge, axis=1)
        line, start = np.nonzero(turn == 1)
        _, stop = np.nonzero(turn == -1)
        ends = np.stack([np.stack([line + 1, start], axis=1), np.stack([line + 1, stop], axis=1)], axis=1)
        pieces.append(ends[..., ::-1] if flip else ends)
    return np.concatenate(pieces)


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


def _fill_cells(ax: Axes, cells: _Raster, values: _Values) -> list[Artist]:
    """Fill the cells by value; cells without one stay clear. Returns what the legend needs, a colour bar needs none."""
    of_cell, handles = values.of_cell, []
    if isinstance(of_cell.dtype, pd.CategoricalDtype):
        categories = of_cell.cat.categories
        palette = mpl.colormaps["tab10" if len(categories) <= 10 else "tab20"]
        colours = to_rgba_array(palette.colors if values.colours is None else values.colours)
        colours = colours[np.arange(len(categories)) % len(colours)]
        handles = [Patch(color=colour, label=str(name)) for colour, name in zip(colours, categories, strict=True)]
        of_cell, rgba = of_cell.cat.codes, np.vstack([colours, np.zeros(4)])[of_cell.cat.codes]
    else:
        numbers = of_cell.to_numpy(float)
        mappable = ScalarMappable(Normalize(np.nanmin(numbers), np.nanmax(numbers)), "viridis")
        ax.figure.colorbar(mappable, ax=ax, label=values.name, location="bottom", shrink=0.6)
        rgba = mappable.to_rgba(np.ma.masked_invalid(numbers))
    place = of_cell.index.get_indexer(cells.pixels.ravel())
    pixels = np.vstack([rgba, np.zeros(4)])[place].reshape(*cells.pixels.shape, 4)
    _show(ax, cells, pixels, alpha=pixels[..., 3] * 0.6, interpolation="nearest")
    return handles
