"""High-confidence cores of the nuclei."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import (
    add_labels,
    check_addable,
    choose_channel,
    choose_image,
    choose_key,
    read_channel,
    read_with_ids,
)
from sslcst._sdata.provenance import Used, as_record, note
from sslcst._sdata.raster import raster_of, systems_of
from sslcst._section import check_seed
from sslcst.methods import choose_method
from sslcst.methods.ssl_cst.erosion import ErosionReport, erode_and_report
from sslcst.params import Params


@checked
def erode_nuclei(
    sdata: SpatialData,
    *,
    nuclei_key: str = "sslcst_nuclei",
    image_key: str | None = None,
    channel: str | int | None = None,
    params: Params | Mapping[str, Any] | None = None,
    seed: int = 0,
    key_added: str = "sslcst_cores",
) -> ErosionReport:
    """Erode nuclei to the cores that serve as positive samples (paper: Algorithm 1).

    Parameters
    ----------
    sdata
        Holds the nuclei.
    nuclei_key
        Labels of the nuclei.
    image_key, channel
        The stain, on the pixels of the labels: nuclei that stand out less keep less. Without it, all stand out. Its
        channel as in `sslcst.tl.segment`.
    params
        Section ``erosion``.
    seed
        Of the structuring element's angles.
    key_added
        Name of the labels of the cores, with the ids of their nuclei, and of their table ``{key_added}_ids``, as in
        `sslcst.pp.import_nuclei`; a store on disk is not touched.

    Returns
    -------
    How many nuclei there were, and which have no core and why.

    Raises
    ------
    KeyMissingError
        There are no such labels, no such image, or no such channel.
    DataError
        The image and the labels have different shapes.
    """
    check_addable(sdata, "labels", key_added)
    check_seed(seed)
    choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    raster = raster_of(sdata, nuclei_key, min(systems_of(sdata.labels[nuclei_key])))  # any: erosion counts in pixels
    nuclei, source_ids = read_with_ids(sdata, nuclei_key, raster)
    image = None
    if image_key is not None:
        image_key = choose_image(sdata, image_key)
        channel = choose_channel(sdata, image_key, channel)
        image = read_channel(sdata, image_key, channel)
    erosion = choose_method("ssl-cst", params)[1].params.erosion
    cores, report = erode_and_report(nuclei, image=image, params=erosion, seed=seed)
    logger.info("%s", report)
    if source_ids is not None:
        source_ids = source_ids[source_ids.index.isin(pd.unique(cores.ravel()))]
    add_labels(sdata, key_added, cores, raster, source_ids)
    note(sdata, key_added, as_record(Used.by(sdata, nuclei_key).record, image_key=image_key, channel=channel))
    return report
