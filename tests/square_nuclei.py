"""A tissue of three square nuclei, and these as shapes and labels of any ids."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import spatialdata as sd
from shapely import box
from spatialdata.models import Image2DModel, PointsModel, ShapesModel

SIDE = 80
SQUARES = [box(8, 8, 18, 18), box(60, 10, 70, 20), box(20, 40, 30, 50)]
MERSCOPE = [1203981230981230981, 1203981230981230982, 1203981230981230983]


def tissue(**elements) -> sd.SpatialData:
    """An image of 80 x 80 pixels, transcripts that are denser in the squares, and whatever else is given."""
    rng = np.random.default_rng(0)
    places = [rng.uniform(0, SIDE, (1500, 2))]
    places += [rng.normal(np.array(square.centroid.coords)[0], 5, (600, 2)) for square in SQUARES]
    xy = np.clip(np.concatenate(places), 0.1, SIDE - 0.1)
    frame = pd.DataFrame(xy, columns=["x", "y"]).assign(gene=pd.Categorical(rng.choice(list("abcd"), len(xy))))
    image = Image2DModel.parse(np.zeros((1, SIDE, SIDE), np.uint8), dims=("c", "y", "x"))
    points = PointsModel.parse(frame, feature_key="gene", npartitions=1)
    return sd.SpatialData.init_from_elements({"stain": image, "transcripts": points} | elements)


def shapes(geometry, index=None, **columns):
    return ShapesModel.parse(gpd.GeoDataFrame(columns, geometry=geometry, index=index))


def broken(geometry, index=None, **columns):
    """Shapes as spatialdata's parser would not have them, but its readers give them."""
    element = shapes(SQUARES[:1])
    element = gpd.GeoDataFrame(columns, geometry=geometry, index=index).__finalize__(element)
    element.attrs = dict(shapes(SQUARES[:1]).attrs)
    return element


def squares_as_labels(ids, dtype) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), dtype)
    for square, each in zip(SQUARES, ids, strict=True):
        left, top, right, bottom = map(int, square.bounds)
        labels[top:bottom, left:right] = each
    return labels
