"""The whole way from stain and transcripts to cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sslcst import __version__, pp
from sslcst._logging import progress
from sslcst.core.nuclei import choose_method
from sslcst.device import choose_device
from sslcst.elements import (
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    raster_of,
)
from sslcst.params import Params, check_seed
from sslcst.store import check_free, commit
from sslcst.tl._aggregate import aggregate
from sslcst.tl._predict import predict
from sslcst.tl._track import track
from sslcst.tl._train import train
from sslcst.transcripts import open_transcripts

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.core.model import Model

_PACKAGES = ("spatialdata", "torch", "numpy", "scipy", "scikit-image")


def segment(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str | None = None,
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | str | None = None,
    model: Model | None = None,
    device: str | None = None,
    seed: int = 0,
    key_added: str = "sslcst",
    overwrite: bool = False,
) -> None:
    """Segment the cells of a tissue from its stain and its transcripts, by the method of SSL-CST.

    Nuclei are segmented in the stain and eroded; a transformer learns, from the spots in nuclei and those far from any,
    in which direction the nucleus of a spot lies and whether the spot lies in a cell; cells are what flows to one
    nucleus. These are, in order, `sslcst.pp.segment_nuclei` (or `sslcst.pp.import_nuclei`), `sslcst.pp.erode_nuclei`,
    `sslcst.pp.bin_spots`, `sslcst.tl.train`, `sslcst.tl.predict`, `sslcst.tl.track` and `sslcst.tl.aggregate`.

    Parameters
    ----------
    sdata
        Holds the transcripts and the stain, or nuclei. Where it is backed by a store, the results are written there:
        all of them, or on any error none.
    image_key
        The stain, (c, y, x); may be left out if there is only one image, or one named "morphology_focus".
    channel
        Its channel that shows nuclei; may be left out if there is only one, or one is named DAPI or ssDNA.
    points_key
        Transcripts: molecules with a gene each, or places annotated by a table of counts. May be left out if there is
        only one points element, or one named "transcripts".
    gene_key, count_key
        Columns of the gene and of the number of molecules; by default those the element names, or of a usual name.
    nuclei_key
        Labels or shapes to take as nuclei, instead of segmenting an image.
    coordinate_system
        Where stain and transcripts meet, and whose units (micron or pixel) lengths are in; by default "global" or the
        only one they share.
    params
        `sslcst.params.Params`; or nested mappings of what differs from the defaults, ``{"training": {"max_epochs":
        20}}``; or ``"paper"`` for the paper's own encoder, training and smoothing.
    model
        A model from `sslcst.tl.train`, to be used as it is instead of training one.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    seed
        The same seed gives the same cells on the same machine.
    key_added
        Results are the labels ``{key_added}_nuclei`` and ``{key_added}_cells`` and the table ``{key_added}_table``.
    overwrite
        Whether results of these names may be replaced.

    Raises
    ------
    KeyMissingError
        An element, column, channel or coordinate system is missing, or several could be meant, or a result exists.
    DataError
        The data cannot be segmented: no transcripts, no nuclei, values that are not finite, nothing to learn from.
    ParameterError
        A parameter does not exist or is out of bounds.
    StoreError
        The store cannot be written.
    BackendError
        A nucleus model or a device that was asked for cannot be had.
    TrainingError
        The loss is not finite.

    See Also
    --------
    sslcst.pl.segmentation : look at the result.
    """
    from spatialdata import SpatialData

    params = Params.of(params)
    check_seed(seed)
    device = choose_device(device)
    results = {"nuclei": "labels", "cells": "labels", "table": "tables"}
    results = {f"{key_added}_{name}": kind for name, kind in results.items()}
    nuclei_added, cells_added, table_added = results
    check_free(sdata, results, overwrite=overwrite)
    points_key = choose_points(sdata, points_key)
    where = {"points_key": points_key, "gene_key": gene_key, "count_key": count_key}
    if nuclei_key is None:
        params = replace(params, nuclei=choose_method(params.nuclei))
        image_key = choose_image(sdata, image_key)
    else:
        choose_key([*sdata.labels, *sdata.shapes], nuclei_key, kind="labels or shapes element", argument="nuclei_key")
    coordinate_system = choose_coordinate_system(sdata, [nuclei_key or image_key, points_key], coordinate_system)
    if nuclei_key is None:
        # Transcripts that cannot be read are better known before minutes go into the nuclei.
        raster = raster_of(sdata, image_key, coordinate_system)
        open_transcripts(sdata, raster=raster, params=params.transcripts, **where)

    # The steps add what they make to an object of their own; the caller's gets the finished results alone.
    work = SpatialData.init_from_elements({name: element for _, name, element in sdata.gen_elements()})
    with progress("nuclei"):
        if nuclei_key is None:
            pp.segment_nuclei(
                work,
                image_key=image_key,
                channel=channel,
                coordinate_system=coordinate_system,
                params=params,
                device=device,
                key_added=nuclei_added,
            )
        else:
            pp.import_nuclei(
                work,
                nuclei_key,
                image_key=image_key,
                points_key=points_key,
                coordinate_system=coordinate_system,
                key_added=nuclei_added,
            )
        stain = {"image_key": image_key, "channel": channel} if nuclei_key is None else {}
        pp.erode_nuclei(work, nuclei_key=nuclei_added, params=params, seed=seed, **stain)
    with progress("spots"):
        pp.bin_spots(work, nuclei_key=nuclei_added, coordinate_system=coordinate_system, params=params, **where)
    if model is None:
        model = train(work, params=params, device=device, seed=seed)
    predict(work, model, params=params, device=device)
    track(work, nuclei_key=nuclei_added, params=params, key_added=cells_added)
    with progress("count"):
        aggregate(
            work,
            cells_key=cells_added,
            nuclei_key=nuclei_added,
            coordinate_system=coordinate_system,
            params=params,
            key_added=table_added,
            **where,
        )
        work.tables[table_added].uns["sslcst"] = _provenance(work, params, model, seed)
    with progress("write"):
        commit(sdata, {name: work[name] for name in results}, results)


def _provenance(work: SpatialData, params: Params, model: Model, seed: int) -> dict[str, Any]:
    """What is needed to know how a result came about, in types that a store holds."""
    layout = work.tables["sslcst_spots"].uns["sslcst"]
    history = [asdict(epoch) for epoch in model.history]
    return {
        "params": _storable(params.to_dict()),
        "versions": {"sslcst": __version__} | {name: version(name) for name in _PACKAGES},
        "seed": seed,
        "model": {"seed": model.seed, "sha256": model.sha256()},
        "history": {name: [epoch[name] for epoch in history] for name in history[0]},
        "coordinate_system": layout["coordinate_system"],
        "bin_size": layout["bin_size"],
        "radius": layout["radius"] * layout["bin_size"],
    }


def _storable(value: Any) -> Any:
    """None is left out, since a store has no word for it; tuples become lists."""
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value
