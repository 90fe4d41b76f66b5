"""A picture of two segmentations: where they disagree, and by how much."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from numpy.typing import NDArray
from spatialdata import SpatialData

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used
from sslcst._sdata.raster import Raster as Grid
from sslcst._sdata.raster import labels_on
from sslcst.errors import KeyMissingError, ParameterError
from sslcst.metrics import match
from sslcst.pl._canvas import CELLS, NUCLEI, SWAP, TRANSCRIPTS, Raster, View, check_save, draw_outlines, show

if TYPE_CHECKING:
    from sslcst.tl import Comparison

# Of the rows of Comparison.to_frame, the shares, which one axis can hold.
_OF_EACH = ("mean best IoU", "counts in cells", "correlation")
_OF_BOTH = ("average precision at 0.5", "transcripts alike")


@checked
def compare(
    sdata: SpatialData,
    a_key: str,
    b_key: str,
    *,
    comparison: Comparison | None = None,
    image_key: str | None = None,
    channel: str | int | None = None,
    coordinate_system: str | None = None,
    region: Region | None = None,
    axes: Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> NDArray[np.object_]:
    """Draw the outlines of two segmentations on the stain, where they disagree, and the figures of `sslcst.tl.compare`.

    Cells are paired one to one by the area that they share in the region. Where a pixel is in a cell of one and not in
    that cell's partner, the two disagree.

    Parameters
    ----------
    sdata
        Holds the cells.
    a_key, b_key
        Labels or shapes of the cells.
    comparison
        What `sslcst.tl.compare` returned for the two. ``None`` compares them here, with its defaults.
    image_key, channel, coordinate_system, region, save
        As in `sslcst.pl.segmentation`; the figures are those of the whole tissue, whatever the region.
    axes
        Two axes to draw on; a new figure otherwise.

    Returns
    -------
    The two axes: the map, and the bars.

    Raises
    ------
    KeyMissingError
        `comparison` is of other cells; and as in `sslcst.pl.segmentation`.
    ParameterError
        `axes` are not two; and as there.
    DataError
        As there; what `sslcst.tl.compare` refuses.
    StoreError
        As there.
    """
    check_save(save)
    if axes is not None and len(axes) != 2:
        raise ParameterError(f"axes hold {len(axes)}: there must be two, for the map and the bars.")
    if comparison is not None and (comparison.a, comparison.b) != (a_key, b_key):
        raise KeyMissingError(
            f"comparison is of {comparison.a!r} and {comparison.b!r}, not of {a_key!r} and {b_key!r}: leave it out."
        )
    used = Used.by(sdata, a_key, b_key)
    view = View.of(used, {a_key: a_key, b_key: b_key}, a_key, image_key, channel, coordinate_system, region)
    a, b = view.cells[a_key], view.cells[b_key]
    if comparison is None:
        from sslcst.tl import compare as compare_labels  # here, since it loads much that pictures do without

        comparison = compare_labels(used.sdata, a_key, b_key, coordinate_system=view.coordinate_system)

    if axes is None:
        x0, y0, x1, y1 = view.region
        width = np.clip(7 * (x1 - x0) / (y1 - y0), 3, 14) + 2.5  # inches, with room for the legend
        _, axes = plt.subplots(1, 2, figsize=(width + 5, 7), width_ratios=(width, 5), layout="constrained")
    ground, bars = axes
    view.draw_stain(ground)
    show(ground, a, _disagreement(a, b), interpolation="nearest")
    handles = draw_outlines(ground, {a_key: (a, CELLS), b_key: (b, NUCLEI)})
    handles.append(Patch(color=TRANSCRIPTS, alpha=0.6, label="disagreement"))
    _draw_bars(bars, comparison)
    view.finish(ground, handles, save)
    return np.array([ground, bars])


def _disagreement(a: Raster, b: Raster) -> NDArray[np.float64]:
    """Colour (y, x, 4) of each of a's pixels, clear where its cell is the partner of b's or both have none."""
    others = labels_on(b.pixels, _grid(b), _grid(a))
    ids, place = np.unique(a.pixels, return_inverse=True)
    partner = np.where(ids == 0, 0, -1)
    if a.pixels.any():
        pairs = match(a.pixels, others)
        partner[np.searchsorted(ids, pairs[:, 0])] = pairs[:, 1]
    differ = partner[place].reshape(others.shape) != others
    return differ[..., None] * np.array(to_rgba(TRANSCRIPTS, 0.6))


def _grid(raster: Raster) -> Grid:
    """A drawn raster as one of (y, x)."""
    return Grid(raster.pixels.shape, SWAP @ raster.to_axes @ SWAP, "", {})


def _draw_bars(ax: Axes, comparison: Comparison) -> None:
    """Bars from 0 to 1, two for what each segmentation has by itself and one for what they have together."""
    frame = comparison.to_frame().dropna()
    names = [name for name in (*_OF_EACH, *_OF_BOTH) if name in frame.index]
    for place, name in enumerate(names):
        a, b = frame.loc[name]
        for offset, value, colour in (
            ((-0.2, a, CELLS), (0.2, b, NUCLEI)) if name in _OF_EACH else ((0, a, TRANSCRIPTS),)
        ):
            ax.barh(place + offset, value, height=0.38, color=colour, edgecolor="black", linewidth=0.5)
            ax.text(max(value, 0) + 0.02, place + offset, f"{value:.2f}", va="center")
    ax.set_yticks(range(len(names)), names)
    if missing := [name for name in (*_OF_EACH, *_OF_BOTH) if name not in frame.index]:
        ax.set_xlabel(f"unknown, for want of transcripts in cells: {', '.join(missing)}", color="0.4")
    ax.set(xlim=(min(0, frame.loc[names].to_numpy().min()), 1.15), ylim=(len(names) - 0.4, -0.6))
    ax.spines[["top", "right"]].set_visible(False)
    sides = zip((comparison.a, comparison.b), comparison.n_cells, comparison.diameter, strict=True)
    ax.set_title(
        "\n".join(f"{name}: {n} cells, median diameter {size:.3g}" for name, n, size in sides),
        loc="left",
        fontsize="medium",
    )
