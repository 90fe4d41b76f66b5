"""What a run will take, before it takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spatialdata import SpatialData

from sslcst._arguments import Region, checked
from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, inside_raster, slices
from sslcst.device import choose_device
from sslcst.methods import choose_method, default_method
from sslcst.methods.base import Method
from sslcst.params import Params
from sslcst.run.execute import THREADS
from sslcst.run.pipeline import NUCLEI_ACROSS, Input
from sslcst.run.stages.nuclei import nucleus_diameter, sample_stain
from sslcst.run.tiling import cut, occupied, seen, squares, tile_bytes
from sslcst.run.warnings import check_on_image
from sslcst.tl._fields import choose_fields, choose_input
from sslcst.tl._sources import choose_keys

# Rounded from what benchmarks/chip.py gave.
_BASE_BYTES = 1.5 * 2**30  # the packages
_IMAGE_BYTES_PER_PIXEL = 220  # where nuclei are found, with the bundled network
_TABLE_BYTES_PER_TRANSCRIPT = 12  # of the whole chip: cells by genes, where the caller gets them in memory
_DISK_BYTES = {"transcript": 45, "spot": 150, "bin": 8}  # beside the store


@dataclass(frozen=True)
class Plan:
    """What a run will take: estimates, but for the numbers of transcripts.

    Parameters
    ----------
    bins
        Rows and columns of the grid.
    bin_size
        In units of the coordinate system; from a part of the stain where nuclei are yet to be found.
    n_tiles
        Tiles that hold transcripts.
    skipped
        Names ("row-column") of those that hold none.
    n_transcripts
        Transcripts on the raster.
    largest
        Those of the fullest tile.
    memory, disk
        GiB: of the process, and beside the store until the run ends.
    """

    bins: tuple[int, int]
    bin_size: float
    n_tiles: int
    skipped: tuple[str, ...]
    n_transcripts: int
    largest: int
    memory: float
    disk: float

    def __str__(self) -> str:
        tiles = f"{self.n_tiles} with {self.n_transcripts:,} transcripts, at most {self.largest:,} in one"
        if self.skipped:
            tiles += f"; {len(self.skipped)} without any are skipped: {', '.join(self.skipped)}"
        return "\n".join(
            [
                f"grid:    {self.bins[0]:,} x {self.bins[1]:,} bins of {self.bin_size:.3g}",
                f"tiles:   {tiles}",
                f"memory:  about {self.memory:.1f} GiB",
                f"disk:    about {self.disk:.1f} GiB beside the store until the run ends",
            ]
        )


@checked
def plan(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    channels: Sequence[str | int] | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str | None = None,
    cells_key: str | None = None,
    coordinate_system: str | None = None,
    unit: str | None = None,
    pixel_size: float | None = None,
    region: str | Region | None = None,
    fields: str | Sequence[str] | None = None,
    method: str | type[Method] | None = None,
    params: Params | Mapping[str, Any] | None = None,
    load_table: bool = True,
) -> Plan:
    """Say what `sslcst.tl.segment` will take with the same arguments, which are checked as it does.

    The transcripts are read, and where nuclei are to be found, those of a part of the stain are; nothing is written.

    Parameters
    ----------
    sdata, image_key, channel, channels, points_key, gene_key, count_key, nuclei_key, cells_key
        As in `sslcst.tl.segment`.
    coordinate_system, unit, pixel_size, region, fields
        As in `sslcst.tl.segment`.
    method, params, load_table
        As in `sslcst.tl.segment`.

    Returns
    -------
    Tiles, memory and disk; ``print`` shows them. How long a run takes, its own progress bars tell by its first tiles.

    Raises
    ------
    KeyMissingError, DataError, ParameterError, BackendError
        As in `sslcst.tl.segment`.
    """
    arguments = dict(locals())
    params, chosen = choose_method(method or default_method(cells_key), params)
    keys = choose_keys(arguments, chosen)
    given, params = choose_input(sdata, choose_fields(sdata, fields, keys), keys, params=params, method=chosen)
    grid = given.raster.lay_out(_diameter(given, params), params).grid
    chosen.check_grid(grid, 1)
    tiles = cut(grid, params.tiles)
    side = tiles[0].ranges[0][1] if len(tiles) > 1 else max(grid.whole_shape)
    in_tile = _count(given, grid, side)
    full = [tile for tile, n in zip(tiles, in_tile, strict=True) if n]
    n_bins, n, largest = int(np.prod(grid.whole_shape)), int(in_tile.sum()), int(in_tile.max())
    n_spots = occupied(n, n_bins)
    n_seen = seen(side, grid.whole_shape)
    at_work = tile_bytes(n_seen, min(largest * n_seen / side**2, n), chosen.bytes_per_spot)
    at_work *= min(THREADS, len(full))
    memory = _BASE_BYTES + max(at_work, _image_bytes(given, params), _TABLE_BYTES_PER_TRANSCRIPT * n * load_table)
    disk = _DISK_BYTES["transcript"] * n + _DISK_BYTES["spot"] * n_spots + _DISK_BYTES["bin"] * n_bins
    return Plan(
        bins=grid.whole_shape,
        bin_size=grid.bin_size,
        n_tiles=len(full),
        skipped=tuple(tile.name for tile in tiles if tile not in full),
        n_transcripts=n,
        largest=largest,
        memory=memory / 2**30,
        disk=disk / 2**30,
    )


def _image_bytes(given: Input, params: Params) -> float:
    """What the tiles of the stain take while nuclei, or whole cells, are found in them."""
    if given.image is None and given.cell_stain is None:
        return 0.0
    shape, side = given.raster.shape, params.tiles.image_size
    n_tiles = len(list(squares(shape, side)))
    return _IMAGE_BYTES_PER_PIXEL * seen(side, shape) * min(THREADS, n_tiles)


def _diameter(given: Input, params: Params) -> float:
    """Diameter of the nuclei in pixels; of cells that are given, what their nuclei are taken to measure."""
    labels, raster = given.cells or given.nuclei, given.raster
    if labels is None:
        sample = sample_stain(given.image, given.image.shape, params.nuclei, given.image_name)
        return nucleus_diameter(sample, pixel_size=raster.pixel_size, params=params.nuclei, device=choose_device(None))
    parts = [
        Regions.of(labels.read(*slices(ranges)), tuple(start for start, _ in ranges))
        for _, _, ranges in squares(raster.shape, params.tiles.image_size)
    ]
    regions = Regions.join(parts)
    labels.check(regions.ids, "nuclei" if given.cells is None else "cells")
    return regions.diameter / (1 if given.cells is None else NUCLEI_ACROSS)


def _count(given: Input, grid: Grid, side: int) -> np.ndarray:
    """Transcripts in each tile, row by row."""
    n_rows, n_columns = (-(-size // side) for size in grid.whole_shape)
    n, counts = 0, np.zeros(n_rows * n_columns, np.int64)
    for part in given.transcripts.partitions():
        n += len(part.yx)
        row, column = grid.bins(part.yx[inside_raster(part.yx, grid.raster_shape)]).T // side
        counts += np.bincount(row * n_columns + column, minlength=len(counts))
    of_gem, part = given.transcripts.of_gem, given.transcripts.within is not None
    check_on_image(int(counts.sum()), n, given.pair, of_gem=of_gem, part=part)
    return counts
