"""Boundaries of labels as shapes, whose index holds the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from sslcst._sdata.raster import plane
from sslcst.core.polygons import polygons


def as_boundaries(
    ids: np.ndarray, corners: np.ndarray, size: np.ndarray, transformations: Mapping[str, Any]
) -> GeoDataFrame:
    """Polygons in pixels as an element, in the order of their ids (n,).

    `corners` are those (y, x) of all rings, one behind the other, the first of each not repeated; `size` says how many
    each ring has (n,).
    """
    # Rings are closed by hand: shapely wants the first corner again at the end.
    start = np.cumsum(size) - size
    order = np.insert(np.arange(len(corners)), start + size, start)
    rings = shapely.linearrings(
        corners[order][:, ::-1].astype(np.float64), indices=np.repeat(np.arange(len(ids)), size + 1)
    )
    frame = GeoDataFrame({"cell_id": ids}, geometry=shapely.polygons(rings), index=pd.Index(ids)).sort_index()
    return ShapesModel.parse(frame, transformations=dict(transformations))


def boundaries_of(sdata: SpatialData, labels_key: str, ids: np.ndarray) -> GeoDataFrame:
    """The boundaries of some labels, all of which must occur, as shapes."""
    labels = plane(sdata, labels_key)
    rings = list(polygons(labels.to_numpy(), ids).values())
    size = np.array([len(ring) for ring in rings], np.int64)
    corners = np.concatenate([*rings, np.zeros((0, 2), np.int64)])
    return as_boundaries(np.asarray(ids), corners, size, get_transformation(labels, get_all=True))
