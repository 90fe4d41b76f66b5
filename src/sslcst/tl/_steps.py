"""The steps of a method, on the spots and nuclei of an object: the one window of a tissue in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger, progress
from sslcst._sdata.elements import add_labels, check_addable, choose_image, choose_key, read_channel, read_nuclei
from sslcst._sdata.provenance import Used, note
from sslcst._sdata.raster import Raster, raster_of
from sslcst._section import check_seed
from sslcst.device import choose_device
from sslcst.errors import KeyMissingError, ParameterError
from sslcst.methods import DEFAULT, choose_method
from sslcst.methods.base import Method, Model, Window
from sslcst.params import Params
from sslcst.pp._spots import as_spots
from sslcst.run import memory


@checked
def train(
    sdata: SpatialData,
    *,
    method: str | type[Method] = DEFAULT,
    spots_key: str = "sslcst_spots",
    image_key: str | None = None,
    channel: str | int | None = None,
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Model:
    """Learn what a method needs to know of a tissue: levels of density, or a trained encoder (paper: Algorithm 2).

    Parameters
    ----------
    sdata
        Holds the spots and the nuclei that they were binned on.
    method, device
        As in `sslcst.tl.segment`.
    spots_key
        The table that `sslcst.pp.bin_spots` made.
    image_key, channel
        The stain, on the pixels of the nuclei: with ``"ssl-cst"``, nuclei that stand out less from it have smaller
        cores. Without it, all count as standing out.
    params
        The method's own sections, and ``cells.max_distance`` and ``tiles`` of those that methods share.
    seed
        Of whatever the method draws.

    Returns
    -------
    The model, for `sslcst.tl.predict` and, on other tissues, `sslcst.tl.segment`; `sslcst.io.write_model` keeps it.
    That of ``"ssl-cst"`` has the history of its training.

    Raises
    ------
    ParameterError
        A method that learns nothing: ``"stain"`` or ``"given"``.
    DataError
        Nothing to learn from.
    TrainingError
        The loss is not finite.
    """
    check_seed(seed)
    device = choose_device(device)
    shared, chosen = choose_method(method, params, seed=seed, device=device, progress=progress)
    if chosen.whole_cells:
        raise ParameterError(
            f"method={chosen.name!r} learns nothing, and takes cells as they are: sslcst.tl.segment does it at once."
        )
    table = _spots_table(sdata, spots_key)
    image = None if image_key is None else read_channel(sdata, choose_image(sdata, image_key), channel)
    window = _open_window(sdata, table, chosen, shared, image)
    return chosen.model(memory.learn(chosen, window))


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
    params, device
        As in `sslcst.tl.train`.

    Raises
    ------
    DataError
        The spots are of another size than those the model was trained on, or have few of its genes.
    """
    shared, method = choose_method(model.method, params, device=choose_device(device))
    table = _spots_table(sdata, spots_key)
    window = _open_window(sdata, table, method, shared)
    part = memory.predict(method, window, method.fit_of(model, window.tissue))
    table.uns["sslcst"]["of_bins"] = dict(part.of_bins)
    table.obs["probability"] = window.probability
    for name, values in part.of_spots.items():
        if name != "probability":
            table.obsm[name] = values


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
    table = _spots_table(sdata, spots_key)
    if "probability" not in table.obs:
        raise KeyMissingError(f"Table {spots_key!r} has no predictions: run sslcst.tl.predict on it first.")
    window = _open_window(sdata, table, method, shared)
    with progress("track"):
        labels = method.label_pixels(window, method.fit_of(model, window.tissue), window.source.labels)
    logger.info("%d cells.", len(np.unique(labels[labels > 0])))
    add_labels(sdata, key_added, labels, _raster_of_spots(sdata, table))
    note(sdata, key_added, Used.by(sdata, spots_key).record)


def _spots_table(sdata: SpatialData, spots_key: str) -> AnnData:
    """The table of spots of that name."""
    return sdata.tables[choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")]


def _raster_of_spots(sdata: SpatialData, table: AnnData) -> Raster:
    """The pixels of the nuclei that the spots were binned on."""
    about = table.uns["sslcst"]
    return raster_of(sdata, about["nuclei_key"], about["coordinate_system"])


def _open_window(
    sdata: SpatialData, table: AnnData, method: Method, params: Params, image: np.ndarray | None = None
) -> Window:
    """The tissue of a table of spots, with its stain, and what `sslcst.tl.predict` gave if it did."""
    choose_key(sdata.labels, table.uns["sslcst"]["nuclei_key"], kind="labels element", argument="nuclei_key")
    nuclei = read_nuclei(sdata, table.uns["sslcst"]["nuclei_key"], _raster_of_spots(sdata, table))
    spots, layout = as_spots(table)
    by_spot = {name: table.obs[name].to_numpy() for name in ("probability",) if name in table.obs}
    by_spot |= {name: np.asarray(table.obsm[name]) for name in ("direction",) if name in table.obsm}
    by_bin = {name: np.asarray(values) for name, values in table.uns["sslcst"].get("of_bins", {}).items()}
    reach = method.reach(params.cells.max_distance, layout.radius)
    source = memory.InMemory(spots, layout.radius, reach, nuclei, image, by_spot, by_bin)
    return source.window(np.asarray(table.var_names), params.tiles.block)
