"""A picture of the quality of cells that needs no reference, of one segmentation or several beside each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from sslcst._arguments import checked
from sslcst.errors import KeyMissingError, ParameterError
from sslcst.pl._canvas import check_save, save_figure, say_why_empty

_NAMES = {
    "n_counts": "counts a cell",
    "n_genes": "genes a cell",
    "diameter": "diameter",
    "contamination": "contamination",
    "density_ratio": "density ratio, cytoplasm to outside",
}
_LOGARITHMIC = {"n_counts", "density_ratio"}
# Okabe and Ito's colours that stand out from white and from black, and a grey; each with a stroke of its own.
_COLOURS = ("#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#808080")
_STROKES = ("-", "--", "-.", ":")


@checked
def quality(
    frames: Mapping[str, pd.DataFrame],
    *,
    columns: Sequence[str] = tuple(_NAMES),
    axes: Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> NDArray[np.object_]:
    """Draw how the quality of cells is distributed, as cumulative shares of the cells.

    Parameters
    ----------
    frames
        What `sslcst.tl.quality` returned, under the name of each segmentation:
        ``{"ours": tl.quality(sdata), "vendor's": tl.quality(sdata, cells_key="vendor_cells")}``. The legend gives the
        number of cells and the share of counts in them.
    columns
        What to draw, one axes each. Cells without a finite value are left out of it; on logarithmic axes (counts,
        density ratio), those of 0 as well.
    axes
        Where to draw, one for each column; a new figure otherwise.
    save
        File to write the figure to.

    Returns
    -------
    The axes, in the order of the columns.

    Raises
    ------
    ParameterError
        There is no frame, the axes are not as many as the columns, or `save` ends as no kind of picture does.
    KeyMissingError
        A frame lacks a column.
    StoreError
        The figure cannot be saved.
    """
    check_save(save)
    if not frames or not len(columns):
        raise ParameterError("There is nothing to draw: give a frame of tl.quality and a column at least.")
    for name, frame in frames.items():
        missing = {*columns, "share"} - set(frame)
        if missing:
            raise KeyMissingError(f"The frame of {name!r} has no column {sorted(missing)}: take it from tl.quality.")
    if axes is None:
        size = (3.2 * len(columns) + 3, 3.2)  # inches, with room for the legend
        _, axes = plt.subplots(1, len(columns), figsize=size, sharey=True, layout="constrained")
    elif len(axes) != len(columns):
        raise ParameterError(f"axes hold {len(axes)} for {len(columns)} columns: there must be one for each.")
    axes = np.atleast_1d(axes)
    for ax, column in zip(axes, columns, strict=True):
        for (name, frame), colour, stroke in zip(frames.items(), cycle(_COLOURS), cycle(_STROKES)):
            values = frame[column].to_numpy(float)
            values = values[np.isfinite(values) & ((values > 0) | (column not in _LOGARITHMIC))]
            label = f"{name} ({len(frame)} cells, {frame['share'].sum():.0%} of counts)"
            draw = partial(ax.ecdf, values) if len(values) else partial(ax.plot, [])
            draw(color=colour, linestyle=stroke, label=label)
        if not any(len(line.get_xdata()) for line in ax.lines):
            say_why_empty(ax, f"no cell has a value{' above 0' if column in _LOGARITHMIC else ''}")
        elif column in _LOGARITHMIC:
            _make_logarithmic(ax)
        ax.set(xlabel=_NAMES.get(column, column), ylim=(0, 1))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of cells")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save_figure(axes[0], save)
    return axes


def _make_logarithmic(ax: Axes) -> None:
    """A logarithmic axis whose labels are plain numbers, with room between them also where it spans few decades."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 20 * low else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
