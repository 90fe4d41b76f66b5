"""Predictions of a method for the spots and bins of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcst._arguments import checked
from sslcst.device import choose_device
from sslcst.elements import add_element
from sslcst.methods import choose_method
from sslcst.params import Params
from sslcst.run import memory
from sslcst.tl._steps import open_window, prediction_key, raster_of_spots, spots_table

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
        axis and on towards +y. What a method predicts of all bins is added as the image ``{spots_key}_prediction``.
    params
        As in `sslcst.tl.train`.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.

    Raises
    ------
    DataError
        The spots are of another size than those the model was trained on, or have few of its genes.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, Sequence

    shared, method = choose_method(model.method, params, device=choose_device(device))
    table = spots_table(sdata, spots_key)
    window = open_window(sdata, spots_key, method, shared)
    part = memory.predict(method, window, method.fit_of(model, window.tissue))
    if part.of_bins:
        raster, grid = raster_of_spots(sdata, table), window.grid
        to_pixel = Affine(np.diag([*grid.step[::-1], 1.0]), input_axes=("x", "y"), output_axes=("x", "y"))
        image = Image2DModel.parse(
            np.stack(list(part.of_bins.values())),
            dims=("c", "y", "x"),
            c_coords=list(part.of_bins),
            transformations={
                name: Sequence([to_pixel, to_system]) for name, to_system in raster.transformations.items()
            },
        )
        add_element(sdata, "images", prediction_key(spots_key), image)
    table.obs["probability"] = window.probability
    for name, values in part.of_spots.items():
        if name != "probability":
            table.obsm[name] = values
