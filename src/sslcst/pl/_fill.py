"""What cells are filled with: a column of the table or a gene, as colours."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Patch
from numpy.typing import NDArray

from sslcst._section import check
from sslcst.errors import KeyMissingError, ParameterError
from sslcst.pl._canvas import Raster, category_colours, say_why_empty, show

_NORMS = {"linear": Normalize, "log": LogNorm}


class Fill(NamedTuple):
    """A colour for each cell."""

    name: str  # what is shown
    cells: pd.Index  # ids of the cells, (n,)
    rgba: NDArray[np.float64]  # (n, 4); clear where a cell has no value, or none that the norm can place
    categories: dict[str, NDArray[np.float64]]  # colour (4,) of each category; empty where values are numbers
    numbers: ScalarMappable | None  # of the colour bar; None where there are categories


def as_norm(norm: str | Normalize | None, vmin: float | None, vmax: float | None) -> Normalize:
    """How values become colours, with ends where they are given; raise ParameterError where they do not go together."""
    if isinstance(norm, Normalize):
        for name, value in (("vmin", vmin), ("vmax", vmax)):
            check(value is None, name, value, "norm has ends of its own, so give one or the other")
        return copy(norm)  # which is given its ends, where it has none
    name = "linear" if norm is None else norm
    check(name in _NORMS, "norm", norm, f"must be one of {', '.join(_NORMS)}, or of matplotlib.colors")
    for end, value in (("vmin", vmin), ("vmax", vmax)):
        check(value is None or np.isfinite(value), end, value, "must be finite")
        check(value is None or value > 0 or name != "log", end, value, "must be above 0 where norm is 'log'")
    check(vmin is None or vmax is None or vmin < vmax, "vmin", vmin, f"must be below vmax={vmax!r}")
    return _NORMS[name](vmin, vmax)


def choose_fill(table: AnnData, color: str, norm: Normalize) -> Fill:
    """The column of obs, or gene, of that name, in colours by a norm that takes such values."""
    if color in table.obs:
        values = table.obs[color]
    elif color in table.var_names:
        values = pd.Series(table.obs_vector(color))
    else:
        raise KeyMissingError(
            f"color={color!r} is neither one of the table's {table.n_vars} genes nor a column of its obs: "
            f"{list(table.obs)}."
        )
    cells = pd.Index(table.obs["cell_id"])
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        mappable = _colour_scale(values.to_numpy(float), norm, color)
        return Fill(color, cells, mappable.to_rgba(mappable.get_array()), {}, mappable)
    values = values.astype("category").cat
    colours = category_colours(len(values.categories), table, color)
    rgba = np.vstack([colours, np.zeros(4)])[values.codes]
    return Fill(color, cells, rgba, dict(zip(map(str, values.categories), colours, strict=True)), None)


def _colour_scale(numbers: NDArray[np.float64], norm: Normalize, name: str) -> ScalarMappable:
    """The numbers, with an end alone where it was given beyond all of them."""
    shown = np.isfinite(numbers) & ((numbers > 0) | (not isinstance(norm, LogNorm)))
    known = numbers[shown] if shown.any() else np.array([1.0, 2.0])
    if norm.vmin is None and norm.vmax is not None:
        norm.vmin = min(known.min(), norm.vmax)
    elif norm.vmax is None and norm.vmin is not None:
        norm.vmax = max(known.max(), norm.vmin)
    try:
        norm.autoscale_None(known)
        norm(known)
    except ValueError as error:
        raise ParameterError(f"norm={norm!r} cannot show the values of {name}: {error}.") from error
    mappable = ScalarMappable(norm, "viridis")
    mappable.set_array(np.ma.masked_where(~shown, numbers))
    return mappable


def fill_cells(ax: Axes, cells: Raster, fill: Fill) -> list[Artist]:
    """Fill the cells; those without a colour stay clear. Returns what the legend needs, a colour bar needs none."""
    place = fill.cells.get_indexer(cells.pixels.ravel())
    pixels = np.vstack([fill.rgba, np.zeros(4)])[place].reshape(*cells.pixels.shape, 4)
    if not pixels[..., 3].any():
        above = " above 0" if fill.numbers is not None and isinstance(fill.numbers.norm, LogNorm) else ""
        here = " here" if fill.rgba[:, 3].any() else ""
        say_why_empty(ax, f"no cell{here} has a value of {fill.name}{above}")
    show(ax, cells, pixels, alpha=pixels[..., 3] * 0.6, interpolation="nearest")
    if fill.numbers is not None:
        ax.figure.colorbar(fill.numbers, ax=ax, label=fill.name, location="bottom", shrink=0.6)
    return [Patch(color=colour, label=name) for name, colour in fill.categories.items()]
