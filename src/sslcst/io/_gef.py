"""Stereo-seq's bin GEF: an HDF5 file that holds the rows of a GEM gene by gene."""

from __future__ import annotations

import math
import os
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.columns import as_counts, as_whole, gene_codes
from sslcst.errors import DataError, KeyMissingError
from sslcst.io import _partitions
from sslcst.io._partitions import lazy_points, make_frame
from sslcst.io._stain import read_stain
from sslcst.io._systems import chip_offset, chip_systems

_BIN1 = "geneExp/bin1"
# Types in which no number can be wrong; files that have others are checked at once, not when they are read.
_USUAL = {"x": ("i4", "u2"), "y": ("i4", "u2"), "count": ("u1", "u2", "u4")}


@checked
def read_gef(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    image_offset: tuple[float, float] = (0, 0),
    spot_size: float | None = None,
    gene_column: str | None = None,
) -> SpatialData:
    """Read the bin1 counts of a GEF file of Stereo-seq, of any size.

    It is read as SAW and geftools write it: ``geneExp/bin1``, with minX and minY as the place on the chip from which x
    and y count. Larger bins and exon counts, a part of the counts, are left alone. Coordinate systems, spots and image
    are those of `sslcst.io.read_gem`: a GEF and a GEM of one chip, sorted by gene, give the same points.

    Parameters
    ----------
    path
        The file. The points read from it when they are used, so that it must stay; ``sdata.write`` makes them
        independent of it.
    image, image_offset
        A registered stain and its place, see `sslcst.io.read_gem`.
    spot_size
        Distance of neighbouring spots in microns; by default the file's resolution.
    gene_column
        Field that names the genes; by default ``"geneID"``, or ``"gene"`` in files that have but one. Genes that share
        a name become one gene.

    Returns
    -------
    Points ``"transcripts"`` and image ``"stain"`` as of `sslcst.io.read_gem`; the attributes of file and counts in
    ``attrs["gef_header"]``.

    Raises
    ------
    ParameterError
        `spot_size` is not a positive number, or `image_offset` is not two finite ones.
    KeyMissingError
        There is no field `gene_column`.
    DataError
        The file is no GEF with bin 1, it has no counts or ones that are negative or no whole numbers, the offsets of
        its genes do not fit its rows, a gene has no name, or it does not say its resolution. The image is no TIFF of
        one channel.
    """
    path = Path(path).absolute()  # read later, wherever one works then
    try:
        with h5py.File(path) as file:
            counts = _table(path, file, "expression", ("x", "y", "count"))
            genes = _table(path, file, "gene", ("offset", "count"))[:]
            header = {name: _plain(value) for name, value in [*file.attrs.items(), *counts.attrs.items()]}
            n_rows = len(counts)
            usual = all(counts.dtype[name].str[1:] in types for name, types in _USUAL.items())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} is no HDF5 file, or damaged: {error}.") from error
    ends = _ends(path, genes, n_rows)
    names, codes = _names(path, genes, gene_column)
    if spot_size is None:
        resolution = header.get("resolution")
        if not (isinstance(resolution, Real) and 0 < resolution < math.inf):
            raise DataError(f"{path} does not say its resolution: give spot_size, in microns.")
        spot_size = resolution / 1000
    systems = chip_systems(spot_size, chip_offset(path, header, ("minX", "minY")))
    size = _partitions.ROWS_PER_PARTITION
    sizes = [min(size, n_rows - start) for start in range(0, n_rows, size)]
    rows = partial(_read_rows, path=path, size=size, ends=ends, codes=codes, genes=names)
    if not usual:
        for number, start in enumerate(range(0, n_rows, size)):
            rows(number, start)  # checks them
    points = lazy_points(rows, sizes, names, systems)
    images = {} if image is None else {"stain": read_stain(Path(image), image_offset, systems)}
    logger.info("%s: %d rows, %d genes.", path.name, n_rows, len(names))
    return SpatialData(points={"transcripts": points}, images=images, attrs={"gef_header": header})


def _table(path: Path, file: h5py.File, name: str, fields: tuple[str, ...]) -> h5py.Dataset:
    """A table of bin 1 that has these fields."""
    found = file.get(f"{_BIN1}/{name}")
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path} is no GEF with counts of single spots: it has no table {_BIN1}/{name}.")
    if found.ndim != 1 or not set(fields) <= set(found.dtype.names or ()):
        raise DataError(
            f"{path} is no GEF: {_BIN1}/{name} has the shape {found.shape} and the fields {found.dtype.names}, "
            f"and must be a list with {', '.join(fields)}."
        )
    return found


def _plain(value: Any) -> Any:
    """An attribute as a number or text, or a list of them."""
    values = [] if isinstance(value, h5py.Empty) else list(map(_text, np.ravel(value).tolist()))
    return values[0] if len(values) == 1 else values


def _text(value: Any) -> Any:
    """Bytes as text: what follows a zero byte may be anything."""
    return value.split(b"\0")[0].decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _ends(path: Path, genes: np.ndarray, n_rows: int) -> np.ndarray:
    """Row behind the last one of each gene, (genes,)."""
    if not n_rows:
        raise DataError(f"{path} holds no counts.")
    offset, count = (
        as_whole(genes[name], f"Field {name!r} of {_BIN1}/gene in {path} must count rows", 0, n_rows)
        for name in ("offset", "count")
    )
    ends = np.cumsum(count)
    if not len(genes) or ends[-1] != n_rows or not np.array_equal(ends - count, offset):
        raise DataError(f"{path} is damaged: the offsets of its {len(genes)} genes do not fit its {n_rows} rows.")
    return ends


def _names(path: Path, genes: np.ndarray, gene_column: str | None) -> tuple[pd.Index, np.ndarray]:
    """Names that have rows, in alphabetical order, and which of them each gene has."""
    columns = [name for name in genes.dtype.names if name not in ("offset", "count")]
    if gene_column is None and len(columns) == 1:
        gene_column = columns[0]
    gene_column = gene_column or "geneID"
    if gene_column not in columns:
        raise KeyMissingError(f"{path} has no gene field {gene_column!r}: give gene_column, one of {columns}.")
    has_rows = genes["count"] > 0
    codes = np.full(len(genes), -1)
    codes[has_rows], index = gene_codes(map(_text, genes[gene_column][has_rows]), literal=True)
    n = genes["count"][has_rows & (codes < 0)].sum()
    if n:
        raise DataError(f"{path} has {n} rows without a gene: it has no name in the field {gene_column!r}.")
    return index, codes


def _read_rows(
    number: int, start: int, *, path: Path, size: int, ends: np.ndarray, codes: np.ndarray, genes: pd.Index
) -> pd.DataFrame:
    """A partition of `size` rows; `ends` and `codes` are of the genes of the file, which may share a code."""
    with h5py.File(path) as file:
        rows = file[f"{_BIN1}/expression"][start : start + size]
    within = np.diff(np.clip(ends, start, start + len(rows)), prepend=start)
    what = f"of {_BIN1}/expression in {path}"
    x, y = (as_whole(rows[name], f"Field {name!r} {what} must hold spots", -(2**31), 2**31 - 1) for name in "xy")
    count = as_counts(rows["count"], f"Field 'count' {what}")
    return make_frame(x, y, np.repeat(codes, within), genes, count, start)
