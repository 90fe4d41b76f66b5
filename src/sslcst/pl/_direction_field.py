"""A picture of what the encoder predicts: where each spot's nucleus lies, and whether the spot lies in a cell."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb, to_rgba
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from spatialdata import SpatialData

from sslcst._arguments import Region, checked
from sslcst._sdata.provenance import Used
from sslcst.errors import DataError, KeyMissingError
from sslcst.methods.ssl_cst.sampling import direction_vectors
from sslcst.pl._canvas import (
    CELLS,
    NUCLEI,
    Raster,
    View,
    affine_of,
    bounds_of,
    check_save,
    draw_outlines,
    pick,
    say_why_empty,
    show,
)
from sslcst.pp._spots import as_spots

ARROWS = "#ffffff"
ARROW_STYLE = {"color": ARROWS, "width": 0.0035, "edgecolor": "black", "linewidth": 0.4}  # seen on dark and on bright
MAX_ARROWS = 50  # along the longer side: more of them cannot be told apart
SHADE = 0.4  # opacity where a spot surely lies in a cell: the stain shows through


@checked
def direction_field(
    sdata: SpatialData,
    *,
    spots_key: str = "sslcst_spots",
    nuclei_key: str | None = None,
    image_key: str | None = None,
    channel: str | int | None = None,
    coordinate_system: str | None = None,
    region: Region | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the predicted directions as arrows, on the stain and the probability of lying in a cell (paper: eq. 12-15).

    An arrow points along the mean direction of the posterior (eq. 15) and is the longer, the surer the prediction.
    Spots that more probably lie outside of all cells have none. Where arrows would be too many to be told apart, each
    stands for the spots of a square block, and the legend says so: best seen in a region of some cells.

    Parameters
    ----------
    sdata
        Holds the spots with their predictions, and the nuclei. `sslcst.tl.segment` keeps no spots:
        `sslcst.pp.bin_spots`, `sslcst.tl.train` and `sslcst.tl.predict`, called one by one, do.
    spots_key
        The table that `sslcst.tl.predict` completed.
    nuclei_key
        Labels of nuclei to outline; by default those that the spots were binned with.
    image_key, channel, coordinate_system, region, ax, save
        As in `sslcst.pl.segmentation`, of the spots and nuclei in place of the cells.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyMissingError
        The spots have no predictions; and as in `sslcst.pl.segmentation`.
    ParameterError, DataError, StoreError
        As in `sslcst.pl.segmentation`.
    """
    check_save(save)
    table = _predicted(sdata, spots_key)
    used = Used.by(sdata, spots_key)
    if nuclei_key is None:
        nuclei_key = used.record.get("nuclei_key", "sslcst_nuclei")
    labels = pick(used.sdata.labels, nuclei_key, "labels")
    view = View.of(used, {"nuclei": nuclei_key}, "nuclei", image_key, channel, coordinate_system, region)
    blocks = _read_blocks(table, affine_of(labels, view.coordinate_system, "nuclei"), view.region)

    ax = view.draw_stain(ax)
    shade = LinearSegmentedColormap.from_list("inside", [to_rgba(CELLS, 0), to_rgba(CELLS, SHADE)])
    show(ax, Raster(blocks.inside, blocks.to_axes), blocks.inside, cmap=shade, vmin=0, vmax=1, interpolation="nearest")
    on_black = LinearSegmentedColormap.from_list("inside", ["black", SHADE * np.array(to_rgb(CELLS))])
    bar = ScalarMappable(Normalize(0, 1), on_black)
    ax.figure.colorbar(bar, ax=ax, label="probability of lying in a cell", location="bottom", shrink=0.6)
    handles = [_draw_arrows(ax, blocks), *draw_outlines(ax, {"nuclei": (view.cells["nuclei"], NUCLEI)})]
    return view.finish(ax, handles, save)


def _predicted(sdata: SpatialData, spots_key: str) -> AnnData:
    steps = "run sslcst.pp.bin_spots, sslcst.tl.train and sslcst.tl.predict on the object, which sslcst.tl.segment does"
    steps += " without keeping the spots"
    if spots_key not in sdata.tables:
        raise KeyMissingError(f"There is no table {spots_key!r} of spots, only {sorted(sdata.tables)}: {steps}.")
    table = sdata.tables[spots_key]
    if "direction" not in table.obsm or "probability" not in table.obs:
        raise KeyMissingError(f"Table {spots_key!r} has no predictions: {steps}.")
    return table


class _Blocks(NamedTuple):
    """Blocks of ``step x step`` bins over the region; NaN where there is no spot to speak for one."""

    inside: NDArray[np.float64]  # mean probability of its spots (rows, columns)
    vector: NDArray[np.float64]  # mean vector (dy, dx), in bins, of those that lie in a cell (rows, columns, 2)
    to_axes: NDArray[np.float64]  # from (column, row)
    step: int


def _read_blocks(table: AnnData, pixel_to_axes: NDArray[np.float64], region: Region) -> _Blocks:
    spots, _ = as_spots(table)
    to_axes = pixel_to_axes @ np.diag([*spots.grid.step[::-1], 1.0])
    box = bounds_of(np.linalg.inv(to_axes), region)[[1, 0, 3, 2]]  # row before column
    low = np.clip(np.floor(box[:2]).astype(int), 0, spots.grid.shape)
    high = np.clip(np.ceil(box[2:]).astype(int), 0, spots.grid.shape)
    shown = spots.within(tuple(zip(low, high, strict=True)))
    if not shown.any():
        raise DataError(f"There is no spot in the region {region}.")
    step = math.ceil((high - low).max() / MAX_ARROWS)
    shape = tuple(-(-(high - low) // step))
    block = np.ravel_multi_index(tuple((spots.index[shown] - low).T // step), shape)
    inside = table.obs["probability"].to_numpy()[shown]
    vector = table.obsm["direction"][shown] @ direction_vectors()
    in_cell = inside >= 0.5
    placed = np.array([[step, 0, low[1]], [0, step, low[0]], [0, 0, 1]])
    return _Blocks(
        inside=_mean(block, inside, shape),
        vector=np.stack([_mean(block[in_cell], part[in_cell], shape) for part in vector.T], axis=-1),
        to_axes=to_axes @ placed,
        step=step,
    )


def _mean(block: NDArray[np.intp], values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    total, number = (np.bincount(block, weights, minlength=math.prod(shape)) for weights in (values, None))
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0).reshape(shape)


def _draw_arrows(ax: Axes, blocks: _Blocks) -> Artist:
    rows, columns = np.nonzero(np.isfinite(blocks.vector[..., 0]))
    if not len(rows):
        say_why_empty(ax, "no spot here is more probably in a cell than not")
    turn = blocks.to_axes[:2, :2]
    x, y = turn @ [columns + 0.5, rows + 0.5] + blocks.to_axes[:2, 2:]
    dx, dy = turn @ blocks.vector[rows, columns, ::-1].T  # a sure prediction is as long as a block
    ax.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, pivot="mid", **ARROW_STYLE)
    name = "direction" if blocks.step == 1 else f"direction\n({blocks.step} x {blocks.step} bins)"
    return Line2D([], [], color=ARROWS, marker=r"$\rightarrow$", markersize=12, linestyle="none", label=name)
