"""`pl.training`: the curves are the history's, from a store as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from spatialdata import SpatialData, read_zarr

from sslcst.errors import KeyMissingError
from sslcst.pl import training

HISTORY = {
    "epoch": [0, 1, 2, 3],
    "train_loss": [2.0, 1.0, 0.8, 0.7],
    "validation_loss": [1.9, 1.2, 0.9, 1.1],
    "inside_accuracy": [0.5, 0.9, 0.95, 0.94],
    "direction_accuracy": [float("nan"), 0.4, 0.6, 0.7],
}


@pytest.fixture
def table() -> AnnData:
    return AnnData(
        np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["1", "2"]), uns={"sslcst": {"history": HISTORY}}
    )


def curves(ax: Axes) -> dict[str, list[float]]:
    return {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in ax.get_lines()}


def test_curves_are_the_history(table: AnnData, tmp_path: Path) -> None:
    """Epochs count from 1 as people do; the best one is that of the lowest validation loss."""
    SpatialData(tables={"sslcst_table": table}).write(tmp_path / "a.zarr")
    for data in (table, read_zarr(tmp_path / "a.zarr")):
        losses, accuracies = training(data)
        assert losses.get_lines()[0].get_xdata().tolist() == [1, 2, 3, 4]
        assert losses.get_lines()[2].get_xdata() == [3, 3]
        shown = curves(losses)
        assert shown["training"] == HISTORY["train_loss"]
        assert shown["validation"] == HISTORY["validation_loss"]
        assert "best epoch (3)" in shown
        shown = curves(accuracies)
        assert shown["in or out of a cell"] == HISTORY["inside_accuracy"]
        assert shown["direction"] == pytest.approx(HISTORY["direction_accuracy"], nan_ok=True)


def test_on_given_axes_into_a_file(table: AnnData, tmp_path: Path) -> None:
    _, axes = plt.subplots(2)
    assert training(table, axes=tuple(axes), save=tmp_path / "a.png") == tuple(axes)
    assert plt.imread(tmp_path / "a.png").std() > 0.05


def test_without_history(table: AnnData) -> None:
    """The error says who writes it, and no empty figure is left behind."""
    with pytest.raises(KeyMissingError, match="no table 'mine_table'; there are: none"):
        training(SpatialData(), key="mine")
    del table.uns["sslcst"]["history"]
    with pytest.raises(KeyMissingError, match=r"no uns\['sslcst'\]\['history'\]: sslcst\.tl\.segment writes it"):
        training(table)
    assert not plt.get_fignums()
