"""A picture of the training: the losses and accuracies of its epochs."""

from __future__ import annotations

import os

import numpy as np
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._sdata.provenance import table_of
from sslcst.errors import KeyMissingError
from sslcst.pl._canvas import check_save, save_figure, say_why_empty

# Blue and vermilion of Okabe and Ito, which carry on white; line styles tell the lines apart without any colour.
FIRST, SECOND = "#0072b2", "#d55e00"


@checked
def training(
    data: SpatialData | AnnData,
    *,
    key: str = "sslcst",
    axes: tuple[Axes, Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> tuple[Axes, Axes]:
    """Draw the losses and the accuracies by epoch (paper: Algorithm 2).

    The state of the epoch with the lowest validation loss is the model's; a dotted line marks it. Where the validation
    loss still falls at the last epoch, more epochs would help; where it has long risen, the samples are few.

    Parameters
    ----------
    data
        Holds the table ``{key}_table``, or is the table itself. It keeps the history of the model that made it, also of
        one that was trained on another chip.
    key
        The `key_added` of the segmentation.
    axes
        Where to draw the losses and the accuracies; a new figure otherwise.
    save
        File to write the figure to.

    Returns
    -------
    The axes of the losses (training and validation) and of the accuracies (direction, and in or out of a cell; both of
    the validation samples).

    Raises
    ------
    KeyMissingError
        There is no such table, or it has no history.
    ParameterError, StoreError
        As in `sslcst.pl.segmentation`.
    """
    check_save(save)
    table = data if isinstance(data, AnnData) else table_of(data, key)
    history = table.uns.get("sslcst", {}).get("history")
    if history is None:
        method = table.uns.get("sslcst", {}).get("method")
        why = "sslcst.tl.segment writes it with method='ssl-cst'" + (f", and this is {method!r}" if method else "")
        raise KeyMissingError(f"The table has no uns['sslcst']['history']: {why}.")
    epoch = np.asarray(history["epoch"]) + 1
    best = epoch[np.argmin(history["validation_loss"])]
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    losses, accuracies = axes
    _draw(losses, epoch, {"training": history["train_loss"], "validation": history["validation_loss"]}, best)
    losses.set(ylabel="loss", ylim=(0, None))
    accuracy = {"in or out of a cell": history["inside_accuracy"], "direction": history["direction_accuracy"]}
    _draw(accuracies, epoch, accuracy, best)
    accuracies.set(ylabel="validation samples right", ylim=(0, 1))
    accuracies.yaxis.set_major_formatter(PercentFormatter(1))
    save_figure(losses, save)
    return losses, accuracies


def _draw(ax: Axes, epoch: NDArray[np.integer], lines: dict[str, NDArray[np.floating]], best: int) -> None:
    styles = ({"color": FIRST, "linestyle": "-"}, {"color": SECOND, "linestyle": "--"})
    for (name, values), style in zip(lines.items(), styles, strict=True):
        ax.plot(epoch, values, marker="o", markersize=3, label=name, **style)
    if not any(np.isfinite(values).any() for values in lines.values()):
        say_why_empty(ax, "no epoch has a value")
    ax.axvline(best, color="0.5", linestyle=":", label=f"best epoch ({best})")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
