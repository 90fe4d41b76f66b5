"""What the pictures share: reading the part of an element that shows, and laying it on the axes.

Every element is drawn in its own pixels or coordinates and placed by its affine transformation, so that rotated,
sheared and flipped coordinate systems need no resampling.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from anndata import AnnData
from geopandas import GeoDataFrame
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, Transform
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

from sslcst._arguments import Region
from sslcst._files import check_folder, writing
from sslcst._sdata.elements import channel_name, choose_key
from sslcst._sdata.microns import is_in_microns
from sslcst._sdata.provenance import Used
from sslcst._sdata.raster import full_scale
from sslcst._sdata.shapes import DrawnShapes, Outlines
from sslcst._section import check
from sslcst.errors import DataError, KeyMissingError, ParameterError

# Okabe and Ito's sky blue, orange and reddish purple, and white: told apart with any colour vision, on grey and black.
NUCLEI, CELLS, TRANSCRIPTS, REFERENCE = "#56b4e9", "#e69f00", "#cc79a7", "#ffffff"
# Of what is filled or dotted: far from the four above, from black and from one another, the first the most.
CATEGORIES = (
    *("#f20d52", "#f0e442", "#3b69f2", "#96f27f", "#f224db", "#009e73", "#7f0df2", "#0df2f2", "#7f693b", "#0df20d"),
    *("#adf20d", "#527f0d", "#f20d96", "#963bad", "#526969", "#adc47f", "#ad523b", "#0df2ad", "#f20d0d", "#6969ad"),
)
PERCENTILES = (1, 99.8)  # of a stain, drawn black and white
MAX_PIXELS = 2000  # of an element's longer side: about what a page can show
SWAP = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # on both sides of a matrix of (x, y): one of (y, x)


class Raster(NamedTuple):
    """The part of an element that is drawn, and the affine matrix (3, 3) from its (column, row) to the axes."""

    pixels: NDArray[Any]
    to_axes: NDArray[np.float64]
    thinned: bool = False  # whether pixels of the element were left out

    def transform(self, ax: Axes) -> Transform:
        return Affine2D(self.to_axes) + ax.transData


@dataclass(frozen=True)
class View:
    """What a picture shows of a tissue: a region, the cells that lie there, and the stain that they are drawn on."""

    coordinate_system: str
    region: Region
    cells: dict[str, Raster]  # by what the picture calls them
    stain: Raster | None

    @classmethod
    def of(
        cls,
        used: Used,
        keys: Mapping[str, str | None],
        whole: str,
        image_key: str | None,
        channel: str | int | None,
        coordinate_system: str | None,
        region: Region | None,
        points_key: str | None = None,
    ) -> View:
        """Read labels or shapes, and the stain: in a region, or the `whole` of one of them.

        `keys` are the elements', None for one that is not wanted, by what the picture calls them. The points are only
        asked for their coordinate systems.
        """
        keys = {name: key for name, key in keys.items() if key is not None}
        elements = {**used.sdata.labels, **used.sdata.shapes}
        for key in keys.values():
            pick(elements, key, "labels or shapes")
        image_key = used.image(image_key)
        if coordinate_system is None:
            coordinate_system = used.system([*keys.values(), image_key, points_key], None)
        if region is None:
            region = _extent_of(elements[keys[whole]], coordinate_system, keys[whole])
        x0, y0, x1, y1 = region
        if not (x0 < x1 and y0 < y1 and np.isfinite(region).all()):
            raise ParameterError(f"region={region!r}: must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1.")
        cells = _read_cells(used.sdata, keys, coordinate_system, region)
        return cls(coordinate_system, region, cells, _read_stain(used, image_key, channel, coordinate_system, region))

    def draw_stain(self, ax: Axes | None) -> Axes:
        """Axes, new unless given, with the stain in grey on black."""
        if ax is None:
            _, ax = plt.subplots(figsize=(8, 8), layout="constrained")
        ax.set_facecolor("black")
        if self.stain is not None:
            low, high = _ends(self.stain.pixels)
            show(ax, self.stain, self.stain.pixels, cmap="gray", vmin=low, vmax=high)
        return ax

    def finish(self, ax: Axes, handles: Sequence[Artist], save: str | os.PathLike[str] | None) -> Axes:
        """Limit the axes to the region, y downward, name them, explain the colours, and save the figure if asked to."""
        x0, y0, x1, y1 = self.region
        x, y = (f"{axis} ({self.coordinate_system})" for axis in "xy")
        ax.set(xlim=(x0, x1), ylim=(y1, y0), aspect="equal", xlabel=x, ylabel=y)
        if is_in_microns(self.coordinate_system):
            _draw_scale(ax, x1 - x0)
        legend = ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=True, facecolor="0.35")
        plt.setp(legend.get_texts(), color="white")
        save_figure(ax, save)
        return ax


def check_save(file: str | os.PathLike[str] | None) -> None:
    """See, before any work, that a figure can be saved there, if asked to."""
    if file is not None:
        check_folder(Path(file))
        suffix, known = Path(file).suffix.removeprefix("."), FigureCanvasBase.get_supported_filetypes()
        check(suffix.lower() in {"", *known}, "save", os.fspath(file), f"must end in one of {', '.join(known)}")


def save_figure(ax: Axes, file: str | os.PathLike[str] | None) -> None:
    """Save the figure that axes are of, if asked to."""
    if file is not None:
        with writing(Path(file)):
            ax.figure.figure.savefig(file, dpi=200, bbox_inches="tight")  # also of a subfigure, the whole figure


def _draw_scale(ax: Axes, width: float) -> None:
    """A bar of a round number of microns, at most a quarter of the picture."""
    power = 10 ** math.floor(math.log10(width / 4))
    length = max(power * step for step in (0.5, 1, 2, 5) if power * step <= width / 4)  # 0.5: the logarithm is rounded
    bar = AnchoredSizeBar(
        ax.transData, length, f"{length:g} \u00b5m", "lower right", color="white", size_vertical=width / 150
    )
    bar.patch.set(facecolor="black", alpha=0.5, linewidth=0)  # seen on a bright stain too
    ax.add_artist(bar)


def say_why_empty(ax: Axes, why: str) -> None:
    """Words in the middle of axes that lack something to show; several below one another."""
    place = {"x": 0.5, "y": 0.5 - 0.08 * len(ax.texts), "ha": "center", "va": "center", "transform": ax.transAxes}
    ground = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "alpha": 0.7}  # seen on a stain too
    ax.text(**place, s=why, color="0.5", wrap=True, bbox=ground)


def category_colours(n: int, table: AnnData | None = None, column: str = "") -> NDArray[np.float64]:
    """RGBA (n, 4): those that a table keeps for a column, if it has enough; else `CATEGORIES`, again and again."""
    kept = [] if table is None else table.uns.get(f"{column}_colors", [])
    if len(kept) < n:
        return to_rgba_array(CATEGORIES)[np.arange(n) % len(CATEGORIES)]
    try:
        return to_rgba_array(kept)[:n]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"uns['{column}_colors'] of the table must list colours: {error}. Mend it, or delete it."
        ) from error


def pick(elements: Mapping[str, Any], key: str, kind: str) -> Any:
    return elements[choose_key(elements, key, kind=kind, argument="key")]


def affine_of(element: Any, coordinate_system: str, name: str) -> NDArray[np.float64]:
    """Affine matrix (3, 3) from an element's (x, y) to the coordinate system's."""
    systems = get_transformation(element, get_all=True)
    if coordinate_system not in systems:
        raise KeyMissingError(f"{name} is not in coordinate system {coordinate_system!r} but in {sorted(systems)}.")
    return systems[coordinate_system].to_affine_matrix(("x", "y"), ("x", "y"))


def bounds_of(matrix: NDArray[np.float64], box: Sequence[float]) -> NDArray[np.float64]:
    """Smallest upright box (x0, y0, x1, y1) around a box that an affine matrix moved."""
    x0, y0, x1, y1 = box
    corners = matrix[:2] @ np.array([[x0, x0, x1, x1], [y0, y1, y0, y1], [1, 1, 1, 1]])
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)])


def _extent_of(element: Any, coordinate_system: str, key: str) -> Region:
    """The smallest upright box around labels or shapes."""
    if hasattr(element, "geometry"):
        box = shapely.total_bounds(Outlines.of(element, key).polygons)
    else:
        height, width = full_scale(element).shape[-2:]
        box = (0, 0, width, height)
    return tuple(bounds_of(affine_of(element, coordinate_system, "cells"), box).tolist())


def _read_cells(
    sdata: SpatialData, keys: Mapping[str, str], coordinate_system: str, region: Region
) -> dict[str, Raster]:
    """The region of labels, as `read_raster` has it, and of shapes, drawn on the pixels of the last labels."""
    read = {
        name: read_raster(sdata.labels[key], coordinate_system, region, name)
        for name, key in keys.items()
        if key in sdata.labels
    }
    like = [*read.values()] or [_over(region)]
    return {
        name: read[name] if name in read else _read_shapes(sdata.shapes[key], key, coordinate_system, like[-1], name)
        for name, key in keys.items()
    }


def _over(region: Region) -> Raster:
    """Empty pixels, `MAX_PIXELS` of them along the longer side of a region."""
    x0, y0, x1, y1 = region
    side = max(x1 - x0, y1 - y0) / MAX_PIXELS
    shape = (math.ceil((y1 - y0) / side), math.ceil((x1 - x0) / side))
    return Raster(np.zeros(shape, np.uint32), np.array([[side, 0, x0], [0, side, y0], [0, 0, 1]]))


def _read_shapes(shapes: GeoDataFrame, key: str, coordinate_system: str, like: Raster, name: str) -> Raster:
    to_pixel = SWAP @ np.linalg.inv(like.to_axes) @ affine_of(shapes, coordinate_system, name) @ SWAP
    drawn = DrawnShapes.of(Outlines.of(shapes, key), like.pixels.shape, to_pixel)
    return like._replace(pixels=drawn.read(*(slice(0, size) for size in like.pixels.shape)))


def read_raster(
    element: DataArray | DataTree, coordinate_system: str, region: Region, name: str, channel: str | int = 0
) -> Raster:
    """Read the region, from the coarsest scale that has enough pixels, and of these at most `MAX_PIXELS` a side."""
    levels = [scale["image"] for scale in getattr(element, "children", {}).values()] or [element]
    for level in reversed(levels):  # the coarsest first
        matrix = affine_of(level, coordinate_system, name)
        box = bounds_of(np.linalg.inv(matrix), region)
        size = np.array([level.sizes["x"], level.sizes["y"]])
        low = np.clip(np.floor(box[:2]).astype(int), 0, size)
        high = np.clip(np.ceil(box[2:]).astype(int), 0, size)
        if (high - low).max() >= MAX_PIXELS:
            break
    if (high <= low).any():
        raise DataError(f"{name} has no pixel in the region {region} of coordinate system {coordinate_system!r}.")

    step = math.ceil((high - low).max() / MAX_PIXELS)
    middle = (np.minimum(step, high - low) - 1) // 2
    columns, rows = (slice(start, stop, step) for start, stop in zip(low + middle, high, strict=True))
    part = level.isel(x=columns, y=rows)
    if "c" in part.dims:
        names = [str(each) for each in part.coords["c"].to_numpy()]
        chosen = choose_key(names, channel_name(names, channel), kind="channel", argument="channel")
        part = part.isel(c=names.index(chosen))
    placed = np.array([[step, 0, low[0]], [0, step, low[1]], [0, 0, 1]])
    return Raster(part.to_numpy(), matrix @ placed, thinned=step > 1 or level is not levels[0])


def _read_stain(
    used: Used, image_key: str | None, channel: str | int | None, coordinate_system: str, region: Region
) -> Raster | None:
    """The region of the image, in the channel that was used where the user names none; of several, the brightest."""
    if image_key is None:
        return None
    image, channel = used.sdata.images[image_key], used.channel(image_key, channel)
    if not isinstance(channel, list):
        return read_raster(image, coordinate_system, region, "the image", channel)
    parts = [read_raster(image, coordinate_system, region, "the image", name) for name in channel]
    ends = [_ends(part.pixels) for part in parts]
    scaled = [(part.pixels - low) / max(high - low, 1e-30) for part, (low, high) in zip(parts, ends, strict=True)]
    return parts[0]._replace(pixels=np.max(scaled, axis=0))


def _ends(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """What of a stain is drawn black, and what white; pixels that are missing or infinite have no say."""
    known = pixels[np.isfinite(pixels)]
    return np.percentile(known.astype(float), PERCENTILES) if known.size else np.array([0.0, 1.0])


def show(ax: Axes, raster: Raster, pixels: NDArray[Any], **style: Any) -> None:
    height, width = pixels.shape[:2]
    ax.imshow(pixels, extent=(0, width, height, 0), origin="upper", transform=raster.transform(ax), **style)


def draw_outlines(ax: Axes, layers: Mapping[str, tuple[Raster, str]], *, count: bool = False) -> list[Artist]:
    """Outline labels, each under its name in its colour. Returns what the legend needs; it may count them."""
    if not any(labels.pixels.any() for labels, _ in layers.values()):
        say_why_empty(ax, f"no {' and no '.join(layers)} here")
    handles = []
    for name, (labels, colour) in layers.items():
        width = np.clip(500 / max(labels.pixels.shape), 0.2, 0.8)  # points; about a pixel: small cells stay visible
        segments = _joined(outlines(labels.pixels))
        lines = LineCollection(segments, colors=colour, linewidths=width, capstyle="projecting")
        lines.set_transform(labels.transform(ax))
        ax.add_collection(lines, autolim=False)
        at_least = "at least " if labels.thinned else ""  # small ones may lie between the pixels that are drawn
        how_many = f" ({at_least}{np.count_nonzero(np.unique(labels.pixels))})" if count else ""
        handles.append(Line2D([], [], color=colour, label=name + how_many))
    return handles


def _joined(segments: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """Lines of 300 segments with gaps between: some ten times faster to draw than each alone, to the same pixels.

    Longer ones would not be snapped to pixels.
    """
    with_gap = np.full((len(segments), 3, 2), np.nan)
    with_gap[:, :2] = segments
    return [part.reshape(-1, 2) for part in np.array_split(with_gap, math.ceil(len(segments) / 300) or 1)]


def outlines(labels: NDArray[np.integer]) -> NDArray[np.intp]:
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
