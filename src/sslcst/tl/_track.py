"""From predictions to cell labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcst._arguments import checked
from sslcst._logging import logger, progress
from sslcst._sdata.elements import add_labels, check_addable
from sslcst._sdata.provenance import Used, note
from sslcst.errors import KeyMissingError
from sslcst.methods import choose_method
from sslcst.params import Params
from sslcst.tl._steps import open_window, raster_of_spots, spots_table

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.methods.base import Model


@checked
def track(
    sdata: SpatialData,
    model: Model,
    *,
    spots_key: str = "sslcst_spots",
    params: Params | Mapping[str, Any] | None = None,
    key_added: str = "sslcst_cells",
) -> None:
    """Make cells of the predictions: by the flow to the nuclei (Li et al. 2007), or as else the method decides.

    Parameters
    ----------
    sdata
        Holds the spots, with their predictions, and the nuclei that they were binned on.
    model
        From `sslcst.tl.train`.
    spots_key
        The table that `sslcst.tl.predict` completed.
    params
        As in `sslcst.tl.train`.
    key_added
        Name of the cell labels, uint32 on the grid of the nuclei, each with the id of its nucleus. They are added to
        the object; a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        There are no such elements, or the spots have no predictions yet.
    """
    check_addable(sdata, "labels", key_added)
    shared, method = choose_method(model.method, params)
    table = spots_table(sdata, spots_key)
    if "probability" not in table.obs:
        raise KeyMissingError(f"Table {spots_key!r} has no predictions: run sslcst.tl.predict on it first.")
    window = open_window(sdata, spots_key, method, shared)
    with progress("track"):
        labels = method.label_pixels(window, method.fit_of(model, window.tissue), window.source.labels)
    logger.info("%d cells.", len(np.unique(labels[labels > 0])))
    add_labels(sdata, key_added, labels, raster_of_spots(sdata, table))
    note(sdata, key_added, Used.by(sdata, spots_key).record)
