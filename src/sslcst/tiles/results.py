"""What the tiles made, put together: labels, table, outlines, owners of transcripts."""

from __future__ import annotations

from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import zarr

from sslcst._logging import progress
from sslcst.core.measure import Cells
from sslcst.elements import YX, Raster
from sslcst.scratch import Scratch
from sslcst.tiles.cells import OWNER, PROBABILITY, outlines_file, read_cells
from sslcst.tiles.chip import Chip
from sslcst.tiles.plan import Tile

CELLS = "cells.zarr"
_CHUNK = 1024  # pixels


def put_together(chip: Chip, tiles: list[Tile]) -> Cells:
    """Write the cell labels of all tiles to one array, and join the measures of the cells."""
    shape = chip.grid.raster_shape
    chunks = tuple(min(_CHUNK, size) for size in shape)
    out = zarr.create_array(
        chip.scratch.path(CELLS), shape=shape, chunks=chunks, dtype=np.uint32, fill_value=0, overwrite=True
    )
    parts = []
    with progress("join", len(tiles), unit="tile") as bar:
        for tile in tiles:
            labels, cells = read_cells(chip, tile)
            out[chip.grid.view(tile.ranges).owned_pixels()] = labels
            parts.append(cells)
            bar.update()
    return Cells.join(parts)


def labels_element(scratch: Scratch, name: str, raster: Raster, *, in_memory: bool) -> Any:
    """Labels on a raster: as they lie on disk, chunk by chunk, or read."""
    from spatialdata.models import Labels2DModel

    path = scratch.folder / name
    labels = zarr.open_array(path, mode="r")[:] if in_memory else da.from_zarr(path)
    # A copy, since parsing keeps the dict it is given.
    return Labels2DModel.parse(labels, dims=YX, transformations=dict(raster.transformations))


def shapes_element(chip: Chip, tiles: list[Tile], raster: Raster) -> Any:
    """Outlines of the cells, polygons in pixels with the raster's transformations; the index holds the cells' ids."""
    import geopandas as gpd
    import shapely
    from spatialdata.models import ShapesModel

    parts = [chip.scratch.load(outlines_file(tile)) for tile in tiles]
    ids, corners, size = (np.concatenate([part[name] for part in parts]) for name in ("id", "corners", "size"))
    # Rings are closed by hand: shapely wants the first corner again at the end.
    start = np.cumsum(size) - size
    order = np.insert(np.arange(len(corners)), start + size, start)
    rings = shapely.linearrings(
        corners[order][:, ::-1].astype(np.float64), indices=np.repeat(np.arange(len(ids)), size + 1)
    )
    frame = gpd.GeoDataFrame({"cell_id": ids}, geometry=shapely.polygons(rings), index=pd.Index(ids)).sort_index()
    return ShapesModel.parse(frame, transformations=dict(raster.transformations))


def count_rows(points: Any) -> int:
    """Rows of a points element."""
    return int(sum(_sizes(points)))


def _sizes(points: Any) -> list[int]:
    return points.map_partitions(len).compute(scheduler="synchronous").tolist()


def points_element(points: Any, scratch: Scratch, *, in_memory: bool) -> Any:
    """The points with two more columns: ``cell_id``, 0 for none, and ``probability`` of lying in a cell."""
    from spatialdata.models import PointsModel
    from spatialdata.transformations import get_transformation

    ends = np.cumsum(_sizes(points)).tolist()
    meta = points._meta.assign(cell_id=np.zeros(0, np.uint32), probability=np.zeros(0, np.float32))
    frame = dd.from_map(
        _with_owners,
        list(range(points.npartitions)),
        [0, *ends[:-1]],
        ends,
        points=points,
        folder=scratch.folder,
        meta=meta,
    )
    if in_memory:
        frame = dd.from_pandas(frame.compute(scheduler="synchronous"), npartitions=points.npartitions, sort=False)
    about = points.attrs.get("spatialdata_attrs", {})
    return PointsModel.parse(
        frame,
        coordinates={axis: axis for axis in ("x", "y", "z") if axis in points.columns},
        **{key: about[key] for key in ("feature_key", "instance_key") if key in about},
        transformations=dict(get_transformation(points, get_all=True)),
    )


def _with_owners(i: int, start: int, stop: int, *, points: Any, folder: Any) -> pd.DataFrame:
    part = points.partitions[i].compute(scheduler="synchronous")
    owner, probability = (np.load(folder / name, mmap_mode="r")[start:stop] for name in (OWNER, PROBABILITY))
    return part.assign(cell_id=owner, probability=probability)
