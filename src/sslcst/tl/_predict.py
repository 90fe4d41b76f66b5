"""Predictions of a method for the spots and bins of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sslcst._arguments import checked
from sslcst.device import choose_device
from sslcst.methods import choose_method
from sslcst.params import Params
from sslcst.run import memory
from sslcst.tl._steps import open_window, spots_table

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.methods.base import Model


@checked
def predict(
    sdata: SpatialData,
    model: Model,
    *,
    spots_key: str = "sslcst_spots",
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
) -> None:
    """Predict whether spots lie in a cell and, with ``"ssl-cst"``, the direction to its nucleus (paper: eq. 5-15).

    Parameters
    ----------
    sdata
        Holds the spots and the nuclei that they were binned on.
    model
        From `sslcst.tl.train`.
    spots_key
        The table that `sslcst.pp.bin_spots` made. ``obs["probability"]`` gets the probability of lying in a cell, and
        ``obsm["direction"]``, float32 (n, 16), with ``"ssl-cst"`` the posterior of the directions, class 0 from the x
        axis and on towards +y. What a method predicts of all bins is in ``uns["sslcst"]["of_bins"]``.
    params
        As in `sslcst.tl.train`.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.

    Raises
    ------
    DataError
        The spots are of another size than those the model was trained on, or have few of its genes.
    """
    shared, method = choose_method(model.method, params, device=choose_device(device))
    table = spots_table(sdata, spots_key)
    window = open_window(sdata, spots_key, method, shared)
    part = memory.predict(method, window, method.fit_of(model, window.tissue))
    table.uns["sslcst"]["of_bins"] = dict(part.of_bins)
    table.obs["probability"] = window.probability
    for name, values in part.of_spots.items():
        if name != "probability":
            table.obsm[name] = values
