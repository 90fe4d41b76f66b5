"""A tiny tissue with whole cells of every kind: with a nucleus, with two, with none, and a nucleus in none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import spatialdata as sd
from geopandas import GeoDataFrame
from scipy import ndimage
from shapely import box
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel

BOXES = {  # cells of every kind: rows and columns of the cell, and of its nuclei
    1: ((2, 20, 2, 20), [(6, 14, 6, 14)]),
    2: ((2, 20, 24, 46), [(5, 11, 27, 33), (8, 15, 36, 43)]),  # binucleate
    3: ((24, 44, 2, 20), []),  # without a nucleus
    7: ((24, 44, 20, 40), [(30, 38, 15, 30)]),  # whose nucleus reaches into the cell beside it
}
ALONE = (50, 58, 50, 58)  # a nucleus in no cell
SHAPE = (64, 64)


def drawn(places: dict[int, tuple[int, int, int, int]]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint32)
    for number, (top, bottom, left, right) in places.items():
        labels[top:bottom, left:right] = number
    return labels


CELLS = drawn({number: place for number, (place, _) in BOXES.items()})
NUCLEI = drawn(dict(enumerate([*(each for _, some in BOXES.values() for each in some), ALONE], start=11)))


def tissue(cells: object = CELLS, nuclei: object = NUCLEI, **elements: object) -> sd.SpatialData:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(0, 64, (3000, 2)), columns=["x", "y"]).assign(gene=rng.choice(list("abcd"), 3000))
    made = {"transcripts": PointsModel.parse(frame, feature_key="gene", npartitions=2)}
    for name, labels in (("cells", cells), ("nuclei", nuclei)):
        if labels is not None:
            made[name] = Labels2DModel.parse(labels, dims=("y", "x")) if isinstance(labels, np.ndarray) else labels
    return sd.SpatialData.init_from_elements(made | elements)


def polygons(labels: np.ndarray, index: list | None = None) -> GeoDataFrame:
    places = [ndimage.find_objects((labels == number).astype(int))[0] for number in np.unique(labels[labels > 0])]
    geometry = [box(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in places]
    return ShapesModel.parse(GeoDataFrame(geometry=geometry, index=index))


def stain(*channels: np.ndarray, names: list[str]) -> object:
    return Image2DModel.parse(np.stack(channels), dims=("c", "y", "x"), c_coords=names)
