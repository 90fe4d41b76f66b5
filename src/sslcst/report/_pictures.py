"""The pictures of the page, as data URIs: what is a photograph as JPEG, what is a chart as SVG."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sslcst import pl
from sslcst._sdata.elements import channel_in_words
from sslcst.pl._canvas import say_why_empty
from sslcst.report._page import picture, row
from sslcst.report._result import Result

DPI = 110
JPEG = {"quality": 85, "subsampling": 0, "optimize": True}  # colours as fine as the outlines are thin
CELLS_ACROSS = 12  # a close view
# Blue, lightened, and vermilion of Okabe and Ito, which carry on white and on black.
COLOURS = ("#2b8cc4", "#d55e00")
# Black becomes the colour of the text, which follows the reader's choice of light or dark.
THEME = (
    "<style>svg {color: #1c1f24} text {fill: currentColor} "
    "@media (prefers-color-scheme: dark) {svg {color: #e7e9ed}}</style>"
)
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def segmentation_pictures(result: Result) -> Iterator[str]:
    """The whole, and close views where cells are densest, where they are as dense as usual, and anywhere."""
    yield _picture(result, None, "All of it.")
    names = ("Where cells are densest.", "Where they are as dense as usual.", "A place drawn at random.")
    close = [_picture(result, region, name) for region, name in zip(close_views(result), names, strict=False)]
    if close:
        yield row(close)


def close_views(result: Result) -> list[tuple[float, float, float, float]]:
    """Up to three squares (x0, y0, x1, y1): the densest, the one of median density, and one drawn by the run's seed."""
    if "spatial" not in result.table.obsm:
        return []
    xy, area = result.table.obsm["spatial"], result.column("area")
    low, high = xy.min(axis=0), xy.max(axis=0)
    across = 2 * np.sqrt(np.median(area) / np.pi) if area is not None else (high - low).max() / 50
    side = min(CELLS_ACROSS * across, (high - low).max() / 3)
    if not side > 0:
        return []
    squares, number = np.unique(((xy - low) // side).astype(np.int64), axis=0, return_counts=True)
    order = np.argsort(-number, kind="stable")
    chosen = list(dict.fromkeys([order[0], order[len(order) // 2]]))
    left = np.setdiff1d(order, chosen)
    if len(left):
        chosen.append(np.random.default_rng(result.about.get("seed", 0)).choice(left))
    corners = np.minimum(low + squares[chosen] * side, np.maximum(low, high - side))  # not beyond the tissue
    return [(x, y, x + side, y + side) for x, y in corners.tolist()]


def _picture(result: Result, region: tuple[float, float, float, float] | None, caption: str) -> str:
    """A region of the segmentation, or all of it."""
    figure = Figure(figsize=(9, 7) if region is None else (5, 5), layout="constrained")
    ax = pl.segmentation(
        result.sdata,
        key=result.key,
        image_key=result.image_key,
        channel=None if isinstance(result.channel, list) else result.channel,
        truth_key=result.truth_key,
        coordinate_system=result.coordinate_system,
        region=region,
        ax=figure.add_subplot(),
    )
    if region is not None:  # the picture of all explains the colours
        ax.get_legend().remove()
    (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
    ground = (
        "a black ground"
        if result.image_key is None
        else f"the stain, {channel_in_words(result.image_key, result.channel)},"
    )
    reference = "" if result.truth_key is None else f" and of {result.truth_key} (white)"
    alt = (
        f"Outlines of cells (orange) and nuclei (blue){reference} on {ground}, x from {x0:.4g} to {x1:.4g} and y "
        f"from {y0:.4g} to {y1:.4g} {result.coordinate_system}."
    )
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=DPI, bbox_inches="tight", pil_kwargs=JPEG)
    return picture(_data_uri("image/jpeg", file.getvalue()), alt, caption)


def histogram(values: dict[str, NDArray[Any]], label: str, caption: str) -> str:
    """Histograms of up to two sets of numbers, over one another; numbers that are not finite are left out."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    ax = figure.add_subplot()
    known = {name: numbers[np.isfinite(numbers)] for name, numbers in values.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(known.values())), 40)
    for (name, numbers), colour, alpha in zip(known.items(), COLOURS, (1, 0.75), strict=False):
        ax.hist(numbers, bins=bins, color=colour, alpha=alpha, label=name)
    ax.set(xlabel=label, ylabel="number")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    if len(known) > 1:
        ax.legend(frameon=False)
    if not any(map(len, known.values())):
        say_why_empty(ax, f"no {' and no '.join(known)} of known {label}")
    medians = ", ".join(f"median of {name} {np.median(numbers):.4g}" for name, numbers in known.items() if len(numbers))
    return picture(_chart(figure), f"Histogram of the {label}: {medians}.", caption, chart=True)


def training_chart(result: Result) -> str:
    """Losses and accuracies by epoch."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    pl.training(result.table, axes=tuple(figure.subplots(1, 2)))
    history, best = result.history, result.best_epoch
    alt = (
        f"Losses and accuracies of {len(history['epoch'])} epochs; at the best, epoch {best + 1}, the validation loss "
        f"is {history['validation_loss'][best]:.4g}."
    )
    caption = "Losses and accuracies by epoch; the dotted line marks the model's."
    return picture(_chart(figure), alt, caption, chart=True)


def _chart(figure: Figure) -> str:
    file = io.StringIO()
    # Text stays text, and ids do not change from run to run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sslcst"}):
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<defs>", f"{THEME}<defs>", 1).replace("#000000", "currentColor")
    return _data_uri("image/svg+xml", svg.encode())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
