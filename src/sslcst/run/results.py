"""What the tiles made, put together: labels, table, boundaries, and the cell of each transcript."""

from __future__ import annotations

from itertools import count
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from spatialdata.models import PointsModel, TableModel
from spatialdata.transformations import get_transformation

from sslcst._logging import progress
from sslcst._sdata.raster import Raster, as_labels
from sslcst._sdata.scratch import Scratch
from sslcst._sdata.source_ids import of_cells
from sslcst._sdata.transcripts import ROWS_OF_A_SOURCE
from sslcst.core.measure import Cells, without
from sslcst.methods.model_file import Kept
from sslcst.run.stages.cells import STAGE
from sslcst.run.stages.nuclei import CHUNK, create
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, statistics

CELLS = "cells.zarr"
_OWNERS = {"owner": np.uint32, "probability": np.float32}  # files of all rows of the points element
_ROWS = 2**20  # of a file, written at once


def join_labels(workspace: Workspace, tiles: list[Tile]) -> None:
    """Write the cell labels of all tiles to one array."""
    grid, scratch = workspace.grid, workspace.scratch
    out = create(scratch, grid.raster_shape, CELLS)
    with progress("join tiles", len(tiles), unit="tile") as bar:
        for tile in tiles:
            out[grid.view(tile.ranges).owned_pixels()] = statistics(scratch, STAGE, tile, "labels")["labels"]
            bar.update()


def join_cells(scratch: Scratch, tiles: list[Tile], *, in_memory: bool) -> Cells:
    """The measures of the cells of all tiles; their counts in memory, or else in files that are mapped to it."""
    number = count()
    empty = np.empty if in_memory else lambda n, kind: _mapped(scratch, f"counts.{next(number)}", n, kind)
    return Cells.join(lambda name: (statistics(scratch, STAGE, tile, name)[name] for tile in tiles), empty)


def _mapped(scratch: Scratch, name: str, n: int, kind: np.dtype) -> np.ndarray:
    """Zeros in a file, as an array (n,) whose memory the system takes back when it needs it."""
    path = scratch.path(name)
    with path.open("wb") as file:
        for start in range(0, n, _ROWS):  # a full disk is met here: met by a map of memory, it would kill
            np.zeros(min(_ROWS, n - start), kind).tofile(file)
    return np.memmap(path, kind, "r+") if n else np.zeros(0, kind)  # an empty file cannot be mapped


def as_table(
    cells: Cells,
    center: np.ndarray,
    pixel_size: float,
    genes: pd.Index,
    regions: pd.Categorical,
    source_ids: pd.Series | None = None,
) -> AnnData:
    """The table of measured cells, with their centroids (n, 2) in the coordinate system.

    It annotates the labels that `regions` name cell by cell. The original ids are noted where they differ.
    """
    table = AnnData(
        cells.counts,
        obs=pd.DataFrame({"cell_id": cells.id, "region": regions}, index=cells.id.astype(str)),
        var=pd.DataFrame(index=genes),
        layers={"nuclear": cells.nuclear},
        obsm={"spatial": center[:, ::-1]},
    )
    every = regions.categories.tolist()
    region = every[0] if len(every) == 1 else every
    table = TableModel.parse(table, region=region, region_key="region", instance_key="cell_id")
    # Columns of our own come after parsing, which would reorder and retype them.
    table.obs["area"] = cells.area * pixel_size**2
    table.obs["nucleus_area"] = cells.nucleus_area * pixel_size**2
    for name in ("n_counts", "n_genes", "n_spots", "mean_prob", "touches_border"):
        table.obs[name] = getattr(cells, name)
    if source_ids is not None:
        table.obs["source_id"] = of_cells(source_ids, cells.id).array
    return table


def keep(kept: Kept) -> dict[str, Any]:
    """A model as a table's ``uns["sslcst"]["model"]`` holds it."""
    weights = {} if kept.weights is None else {"weights": np.frombuffer(kept.weights, np.uint8).copy()}
    return {"card": kept.card.decode()} | weights


def kept_in(table: AnnData) -> Kept | None:
    """The model that `keep` put into a table, if there is one; it may have been changed."""
    try:
        held = table.uns["sslcst"]["model"]
        weights = held.get("weights")
        return Kept(held["card"].encode(), None if weights is None else np.asarray(weights, np.uint8).tobytes())
    except (KeyError, AttributeError, TypeError, ValueError):  # others put other things there
        return None


def labels_element(
    scratch: Scratch, name: str, raster: Raster, dropped: np.ndarray, window: tuple[slice, slice], *, in_memory: bool
) -> Any:
    """The labels of a window of all, that of a raster, but for those that are dropped: as they lie on disk, or read."""
    path = scratch.folder / name
    if in_memory:
        return as_labels(without(zarr.open_array(path, mode="r")[window], dropped), raster)
    labels = da.from_zarr(path)[window].rechunk(CHUNK)
    return as_labels(labels.map_blocks(without, ids=dropped, meta=labels._meta) if len(dropped) else labels, raster)


def join_boundaries(scratch: Scratch, tiles: list[Tile]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all cells the ids (n,), the corners of all rings one behind the other, in pixels, and how many each has."""
    names = ("id", "corners", "n_corners")
    parts = [statistics(scratch, STAGE, tile, *names) for tile in tiles]
    return tuple(np.concatenate([part[name] for part in parts]) for name in names)


def transcripts_element(
    scratch: Scratch, tiles: list[Tile], points: Any, dropped: np.ndarray, source: int, *, in_memory: bool
) -> Any:
    """The points with two more columns: ``cell_id``, 0 for none, and ``probability`` of lying in a cell.

    `source` says which of several points elements they are, and `tiles` are those that hold any of them.
    """
    ends = np.cumsum(points.map_partitions(len).compute(scheduler="synchronous")).tolist()
    _lay_out_owners(scratch, tiles, ends[-1], dropped, source)
    meta = points._meta.assign(cell_id=np.zeros(0, np.uint32), probability=np.zeros(0, np.float32))
    frame = dd.from_map(
        _with_owners,
        list(range(points.npartitions)),
        [0, *ends[:-1]],
        ends,
        points=points,
        folder=scratch.folder,
        source=source,
        meta=meta,
    )
    if in_memory:
        frame = dd.from_pandas(frame.compute(scheduler="synchronous"), npartitions=points.npartitions, sort=False)
    about = points.attrs.get("spatialdata_attrs", {})
    genes = about.get("feature_key")
    if isinstance(frame.dtypes.get(genes), pd.CategoricalDtype) and not frame[genes].cat.known:
        # Of the points, whose other columns need not be read; spatialdata would read all, and warn of it.
        categories = points[genes].cat.as_known(scheduler="synchronous").cat.categories
        frame[genes] = frame[genes].cat.set_categories(categories)
    return PointsModel.parse(
        frame,
        coordinates={axis: axis for axis in ("x", "y", "z") if axis in points.columns},
        **{key: about[key] for key in ("feature_key", "instance_key") if key in about},
        transformations=dict(get_transformation(points, get_all=True)),
    )


def _lay_out_owners(scratch: Scratch, tiles: list[Tile], n_rows: int, dropped: np.ndarray, source: int) -> None:
    out = {name: _mapped(scratch, f"{name}.{source}", n_rows, np.dtype(kind)) for name, kind in _OWNERS.items()}
    for tile in tiles:
        part = statistics(scratch, STAGE, tile, "row", *_OWNERS)
        own, row = np.divmod(part["row"], ROWS_OF_A_SOURCE)
        part["owner"] = without(part["owner"], dropped)
        for name, values in out.items():
            values[row[own == source]] = part[name][own == source]
    for values in out.values():
        values.flush()


def _with_owners(i: int, start: int, stop: int, *, points: Any, folder: Any, source: int) -> pd.DataFrame:
    part = points.partitions[i].compute(scheduler="synchronous")
    files = ((folder / f"{name}.{source}", kind) for name, kind in _OWNERS.items())
    owner, probability = (np.memmap(file, kind, "r")[start:stop] for file, kind in files)
    return part.assign(cell_id=np.array(owner), probability=np.array(probability))
