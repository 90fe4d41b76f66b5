"""Cells as GeoJSON, for QuPath and Xenium Ranger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._files import check_folder, writing
from sslcst._logging import logger, progress
from sslcst._sdata.elements import choose_coordinate_system
from sslcst._sdata.provenance import Used, nuclei_of, result_name, result_table
from sslcst._sdata.raster import affine_matrix, apply_affine, full_scale
from sslcst.core.polygons import polygons
from sslcst.errors import KeyMissingError


@checked
def write_geojson(
    sdata: SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    coordinate_system: str | None = None,
    class_key: str | None = None,
) -> None:
    """Write the cells with their nuclei as a GeoJSON FeatureCollection.

    QuPath reads it when the file is dropped on the image: each cell is a cell object with its nucleus, named by its id.
    Xenium Ranger reads it with ``import-segmentation --cells=a.geojson --nuclei=a.geojson --units=pixels``, and makes
    files for Xenium Explorer. Outlines run along the edges of pixels; of a cell in pieces the largest is written.

    Parameters
    ----------
    sdata
        Holds labels ``{key}_cells`` and ``{key}_nuclei`` and the table ``{key}_table``. Cells that the table lacks,
        because they were filtered out, are left out.
    path
        The file to write; one of that name is replaced.
    key
        The `key_added` of the segmentation.
    image_key
        In whose pixels coordinates are, x before y, with (0, 0) the upper left corner: what QuPath expects. By default
        the image that the cells were made of, else as in `sslcst.tl.segment`; without any, the labels' pixels count.
    coordinate_system
        In whose units coordinates are instead (with one in microns, Xenium Ranger wants ``--units=microns``).
    class_key
        Column of the table's obs, of clusters for instance, that becomes the classification.

    Raises
    ------
    KeyMissingError
        An element, a column or a coordinate system is not there, or there are several images to choose from.
    DataError
        The table has cells that the labels lack, or colours of `class_key` that are none.
    StoreError
        The file cannot be written.
    """
    path = Path(path)
    check_folder(path)
    cells_key = result_name(sdata, key, "cells")
    nuclei_key = nuclei_of(sdata, cells_key, key)
    table = result_table(sdata, key, cells_key, nuclei_key)
    obs = table.obs.set_index("cell_id")
    classes = {} if class_key is None else _classes(table, class_key)
    matrix = _to_target(sdata, cells_key, image_key, coordinate_system)

    with progress("write GeoJSON", len(obs), unit="cell") as bar:
        cells, nuclei = (full_scale(sdata.labels[name]).to_numpy() for name in (cells_key, nuclei_key))
        with_nucleus = obs.index[np.isin(obs.index, nuclei)]
        outlines, inner = polygons(cells, obs.index), polygons(nuclei, with_nucleus)
        features = _features(obs, outlines, inner, matrix, classes, cells_key)
        with writing(path), path.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [\n')
            for i, feature in enumerate(features):
                file.write((",\n" if i else "") + json.dumps(feature))
                bar.update()
            file.write("\n]}\n")
    logger.info("%s: %d cells, %d with a nucleus.", path, len(obs), len(with_nucleus))


def _to_target(sdata: SpatialData, cells_key: str, image_key: str | None, coordinate_system: str | None) -> np.ndarray:
    """Affine matrix (3, 3) on (y, x) from the labels' pixels to those of the image, or to the coordinate system."""
    if coordinate_system is not None:
        choose_coordinate_system(sdata, [cells_key], coordinate_system)
        return affine_matrix(full_scale(sdata[cells_key]), coordinate_system)
    used = Used.by(sdata, cells_key)
    image_key = used.image(image_key)
    if image_key is None:
        return np.eye(3)
    sdata, shared = used.sdata, used.system([cells_key, image_key], None)
    to_shared, image_to_shared = (affine_matrix(full_scale(sdata[name]), shared) for name in (cells_key, image_key))
    return np.linalg.inv(image_to_shared) @ to_shared


def _classes(table: AnnData, class_key: str) -> dict[int, dict[str, Any]]:
    """Name and colour of each cell's class, the colours as in `sslcst.pl.segmentation`."""
    from sslcst.pl._canvas import category_colours

    if class_key not in table.obs:
        raise KeyMissingError(f"There is no column {class_key!r} in the table; it has {list(table.obs)}.")
    values = table.obs[class_key].astype("category").cat
    colours = category_colours(len(values.categories), table, class_key)
    classes = [
        {"name": str(name), "color": (255 * colour[:3]).round().astype(int).tolist()}
        for name, colour in zip(values.categories, colours, strict=True)
    ]
    return {cell: classes[code] for cell, code in zip(table.obs["cell_id"], values.codes, strict=True) if code >= 0}


def _features(
    obs: pd.DataFrame,
    outlines: dict[int, np.ndarray],
    nuclei: dict[int, np.ndarray],
    matrix: np.ndarray,
    classes: dict[int, dict],
    namespace: str,
) -> Iterator[dict[str, Any]]:
    """The cells as QuPath's own export has them; QuPath wants ids to be UUIDs, and measurements to be numbers.

    They are made one by one, since the numbers of a whole chip's outlines would not fit into memory as objects.
    """
    pixel = np.sqrt(abs(np.linalg.det(matrix)))
    digits = max(3, int(np.ceil(-np.log10(pixel))) + 2)  # a hundredth of a pixel or finer, whatever the unit

    def polygon(ring: np.ndarray) -> dict[str, Any]:
        xy = apply_affine(matrix, ring)[:, ::-1].round(digits).tolist()
        return {"type": "Polygon", "coordinates": [[*xy, xy[0]]]}

    numeric = [name for name in obs if obs[name].dtype.kind in "biuf" and name != "source_id"]
    for cell, values in zip(obs.index.tolist(), obs[numeric].astype(float).to_numpy(), strict=True):
        numbers = {name: value for name, value in zip(numeric, values.tolist(), strict=True) if np.isfinite(value)}
        properties = {"objectType": "cell", "name": str(cell), "measurements": numbers}
        if cell in classes:
            properties["classification"] = classes[cell]
        identity = str(uuid5(NAMESPACE_OID, f"{namespace} {cell}"))
        feature = {"type": "Feature", "id": identity, "geometry": polygon(outlines[cell])}
        if cell in nuclei:
            feature["nucleusGeometry"] = polygon(nuclei[cell])
        yield feature | {"properties": properties}
