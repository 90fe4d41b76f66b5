"""All transcripts in one pass over their partitions, each to the file of the block it lies in."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sslcst._logging import progress
from sslcst._sdata.scratch import Scratch
from sslcst._sdata.transcripts import Transcripts, TranscriptSource
from sslcst.core.spots import Grid, Ranges, in_ranges, inside_raster
from sslcst.errors import DataError
from sslcst.params import TileParams
from sslcst.run.tiling import blocks
from sslcst.run.warnings import check_on_image, warn

_RECORD = np.dtype(
    [("row", "i4"), ("column", "i4"), ("y", "i4"), ("x", "i4"), ("gene", "i4"), ("count", "u4"), ("transcript", "i8")]
)
_DONE = "transcripts/done.json"


def bucket(block: str) -> str:
    """Name of the file that holds a block's transcripts."""
    return f"transcripts/{block}.bin"


@dataclass(frozen=True)
class Bucketed:
    """Transcripts in whole numbers, the same from wherever they are seen."""

    bins: np.ndarray  # row and column on the whole grid, int32 (n, 2)
    pixels: np.ndarray  # row and column on the whole raster, int32 (n, 2)
    gene: np.ndarray  # index of the gene, int32 (n,)
    count: np.ndarray  # molecules, uint32 (n,)
    transcript: np.ndarray  # row of the points element, int64 (n,)


def fill(source: TranscriptSource, grid: Grid, scratch: Scratch, params: TileParams, *, pair: str) -> None:
    """Write the transcripts to the blocks of a grid, unless that was done before.

    `pair` names them and the raster, for what there is to say of how the two lie.
    """
    if scratch.is_finished(_DONE):
        return
    shutil.rmtree(scratch.path(_DONE).parent)
    n, n_on = 0, 0
    with progress("transcripts", source.n_partitions, unit="partition") as bar:
        for part in source.partitions():
            n += len(part.gene)
            n_on += _append(part, grid, scratch, params.block)
            bar.update()
    if warning := check_on_image(n_on, n, pair, of_gem=source.of_gem, part=source.within is not None):
        warn(scratch, warning)
    scratch.finish(_DONE, [f"transcripts/{file.name}" for file in scratch.path(_DONE).parent.iterdir()])


def _append(part: Transcripts, grid: Grid, scratch: Scratch, side: int) -> int:
    """Add transcripts to the files of their blocks; how many lie on the raster.

    By hand: pyarrow's dataset writer is faster, but cannot append, and points in no order of place would leave a file
    for each block of each partition.
    """
    on = inside_raster(part.yx, grid.raster_shape)
    if not on.any():
        return 0
    records = np.empty(int(on.sum()), _RECORD)
    bins, pixels = grid.bins(part.yx[on]), np.floor(part.yx[on]).astype(np.int32)
    records["row"], records["column"] = bins.T
    records["y"], records["x"] = pixels.T
    records["gene"], records["transcript"] = part.gene[on], part.row[on]
    count = 1 if part.count is None else part.count[on]
    if np.max(count, initial=0) > np.iinfo(np.uint32).max:
        raise DataError(f"A transcript counts {np.max(count)} molecules: more than 2^32 - 1 cannot be.")
    records["count"] = count
    block = bins // side
    n_rows, n_columns = (-(-size // side) for size in grid.whole_shape)
    number = (block[:, 0] * n_columns + block[:, 1]).astype(np.min_scalar_type(n_rows * n_columns))  # sorts faster
    order = np.argsort(number, kind="stable")
    records, number = records[order], number[order]
    edges = np.append(np.flatnonzero(np.diff(number, prepend=-1)), len(number))
    for start, stop in pairwise(edges.tolist()):
        [(name, _)] = blocks(tuple((n, n + 1) for n in records[start].tolist()[:2]), side, grid.whole_shape)
        with scratch.path(bucket(name)).open("ab") as file:
            records[start:stop].tofile(file)
    return len(records)


def transcripts_in(ranges: Ranges, grid: Grid, scratch: Scratch, side: int) -> Bucketed:
    """The transcripts in these rows and columns of bins."""
    parts = [np.zeros(0, _RECORD)]
    for name, block in blocks(ranges, side, grid.whole_shape):
        if scratch.has(bucket(name)):
            part = np.fromfile(scratch.folder / bucket(name), _RECORD)
            if any(own != wider for own, wider in zip(block, ranges, strict=True)):
                part = part[in_ranges(np.stack([part["row"], part["column"]], axis=1), ranges)]
            parts.append(part)
    records = np.concatenate(parts)
    return Bucketed(
        np.stack([records["row"], records["column"]], axis=1),
        np.stack([records["y"], records["x"]], axis=1),
        records["gene"],
        records["count"],
        records["transcript"],
    )


def count(scratch: Scratch) -> int:
    """Transcripts that lie on the raster."""
    return sum(file.stat().st_size for file in (scratch.folder / "transcripts").glob("*.bin")) // _RECORD.itemsize
