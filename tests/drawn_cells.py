"""Two cells with a table and one without, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from scipy.sparse import csr_matrix
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

from sslcst.pl import _canvas as module

AXES = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
TURNED = np.array([[0.0, -2.0, 100.0], [1.0, 0.5, -10.0], [0.0, 0.0, 1.0]])  # turned, stretched and sheared
HEIGHT, WIDTH = 30, 40


def systems() -> dict:
    return {"global": Identity(), "micron": Scale([0.5, 0.5], axes=("x", "y")), "turned": Affine(TURNED, **AXES)}


def labels(array: np.ndarray, **kwargs) -> object:
    return Labels2DModel.parse(array.astype(np.uint32), dims=("y", "x"), transformations=systems(), **kwargs)


def two_cells() -> SpatialData:
    """Cells 5 and 9 (square, with a nucleus each) and 12, which the table does not have, on a stain."""
    cells, nuclei = np.zeros((2, HEIGHT, WIDTH), int)
    cells[4:14, 6:16], cells[4:14, 16:26], cells[20:24, 30:36] = 5, 9, 12
    nuclei[6:10, 8:12], nuclei[6:10, 18:22] = 5, 9
    table = AnnData(
        csr_matrix([[3, 0], [1, 7]]),
        obs=pd.DataFrame(
            {"cell_id": np.array([9, 5], np.uint32), "region": pd.Categorical(["sslcst_cells"] * 2)}, index=["9", "5"]
        ).assign(kind=pd.Categorical(["T", "B"]), touches_border=[False, True], area=[100.0, np.nan]),
        var=pd.DataFrame(index=["Actb", "Cd3e"]),
    )
    points = pd.DataFrame({"x": [10.5, 20.5, 39.5], "y": [8.5, 8.5, 29.5], "z": 1.0})
    stain = np.random.default_rng(0).integers(0, 900, (2, HEIGHT, WIDTH)).astype(np.uint16)
    return SpatialData(
        images={
            "stain": Image2DModel.parse(
                stain, dims=("c", "y", "x"), c_coords=["RNA", "DAPI"], transformations=systems()
            )
        },
        labels={"sslcst_cells": labels(cells), "sslcst_nuclei": labels(nuclei), "truth": labels(np.roll(cells, 1))},
        points={"transcripts": PointsModel.parse(points, npartitions=2, transformations=systems())},
        tables={
            "sslcst_table": TableModel.parse(table, region="sslcst_cells", region_key="region", instance_key="cell_id")
        },
    )


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def outline(ax: Axes, name: str) -> np.ndarray:
    """Corner points (n, 2) of an element's outlines in the units of the axes."""
    return _corners(ax, {"cells": module.CELLS, "nuclei": module.NUCLEI, "reference": module.REFERENCE}[name])


def _corners(ax: Axes, colour: str) -> np.ndarray:
    [lines] = [
        lines
        for lines in ax.collections
        if isinstance(lines, LineCollection) and to_hex(lines.get_color()[0]) == colour
    ]
    return (lines.get_transform() - ax.transData).transform(np.concatenate(lines.get_segments()))


def box_of(ax: Axes, colour: str) -> list[float]:
    """Box around the outlines of one colour, in the units of the axes."""
    return box(_corners(ax, colour))


def box(points: np.ndarray) -> list[float]:
    return [*points.min(axis=0), *points.max(axis=0)]


def fills(ax: Axes) -> dict[int, str | None]:
    """Colour in the middle of each cell, None where clear."""
    pixels = ax.images[-1].get_array()
    middle = {5: (9, 11), 9: (9, 21), 12: (22, 33), 0: (0, 0)}
    return {cell: to_hex(pixels[place]) if pixels[place][3] else None for cell, place in middle.items()}


def draw_boxes(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    array = np.zeros((HEIGHT, WIDTH), int)
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        array[y0:y1, x0:x1] = number
    return array
