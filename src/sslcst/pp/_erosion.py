"""High-confidence cores of the nuclei."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcst._logging import logger
from sslcst.core import erosion
from sslcst.elements import add_labels, choose_key, raster_of, read_nuclei
from sslcst.params import Params, check_seed

if TYPE_CHECKING:
    from spatialdata import SpatialData


def erode_nuclei(
    sdata: SpatialData,
    *,
    nuclei_key: str = "sslcst_nuclei",
    params: Params | Mapping[str, Any] | None = None,
    seed: int = 0,
    key_added: str = "sslcst_cores",
) -> None:
    """Erode nuclei to the cores that serve as positive samples (paper: Algorithm 1).

    Parameters
    ----------
    sdata
        Holds the nuclei.
    nuclei_key
        Labels of the nuclei.
    params
        Section ``erosion``.
    seed
        Of the structuring element's angles.
    key_added
        Name of the labels of the cores, with the ids of their nuclei. They are added to the object; a store on disk is
        not touched.

    Raises
    ------
    KeyMissingError
        There are no such labels.
    """
    from spatialdata.transformations import get_transformation

    check_seed(seed)
    choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    any_system = next(iter(get_transformation(sdata.labels[nuclei_key], get_all=True)))  # erosion counts in pixels
    raster = raster_of(sdata, nuclei_key, any_system)
    nuclei = read_nuclei(sdata, nuclei_key, raster)
    cores = erosion.erode_nuclei(nuclei, params=Params.of(params).erosion, seed=seed)
    logger.info("%d of %d nuclei have a core to learn from.", len(np.unique(cores)) - 1, len(np.unique(nuclei)) - 1)
    add_labels(sdata, key_added, cores, raster)
