"""Stereo-seq's bin GEF: an HDF5 file that holds the rows of a GEM gene by gene."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._logging import logger
from sslcst.errors import DataError, KeyMissingError
from sslcst.io import _partitions
from sslcst.io._partitions import lazy_points, make_frame
from sslcst.io._stain import read_stain
from sslcst.io._systems import chip_systems

_BIN1 = "geneExp/bin1"


def read_gef(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    image_offset: tuple[float, float] = (0, 0),
    spot_size: float | None = None,
    gene_column: str | None = None,
) -> SpatialData:
    """Read the bin1 counts of a GEF file of Stereo-seq, of any size.

    The format, as SAW and geftools write it: ``geneExp/bin1/expression`` has a row (x, y, count) for each gene of each
    spot, in the order of the genes, and the attributes minX and minY, the place on the chip from which x and y count,
    and resolution, the distance of spots in nanometres; ``geneExp/bin1/gene`` has a row for each gene, with its name
    (``gene``; since version 4 of the format ``geneID`` and ``geneName``) and the offset and number of its rows. Larger
    bins and exon counts, a part of the counts, are left alone.

    Coordinate systems, spots and the image are those of `sslcst.io.read_gem`, and so is what is read: a GEF and a GEM
    of one chip, sorted by gene, give the same points.

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
    ``attrs["gef_header"]``. What is held in memory depends on the number of genes and the size of a partition.

    Raises
    ------
    ParameterError
        `spot_size` is not a positive number.
    KeyMissingError
        There is no field `gene_column`.
    DataError
        The file is no GEF with bin 1, it has no counts, the offsets of its genes do not fit its rows, or it does not
        say its resolution. The image is no TIFF of one channel.
    """
    path = Path(path)
    try:
        with h5py.File(path) as file:
            if f"{_BIN1}/expression" not in file or f"{_BIN1}/gene" not in file:
                raise DataError(f"{path} is no GEF with counts of single spots: it has no {_BIN1}.")
            counts, genes = file[f"{_BIN1}/expression"], file[f"{_BIN1}/gene"][:]
            header = {name: _plain(value) for name, value in [*file.attrs.items(), *counts.attrs.items()]}
            n_rows = len(counts)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(f"{path} is no HDF5 file, or damaged: {error}.") from error
    ends = _ends(path, genes, n_rows)
    names, codes = _names(path, genes, gene_column)
    if spot_size is None:
        spot_size = header.get("resolution", 0) / 1000
        if not spot_size > 0:
            raise DataError(f"{path} does not say its resolution: give spot_size, in microns.")
    offset = (header["minX"], header["minY"]) if {"minX", "minY"} <= set(header) else None
    systems = chip_systems(spot_size, offset)
    size = _partitions.ROWS_PER_PARTITION
    sizes = [min(size, n_rows - start) for start in range(0, n_rows, size)]
    points = lazy_points(_Rows(path, size, ends, codes, names), sizes, names, systems)
    images = {} if image is None else {"stain": read_stain(Path(image), image_offset, systems)}
    logger.info("%s: %d rows, %d genes.", path.name, n_rows, len(names))
    return SpatialData(points={"transcripts": points}, images=images, attrs={"gef_header": header})


def _plain(value: Any) -> Any:
    """An attribute as a number, text or list of numbers."""
    value = np.asarray(value)
    value = value.item() if value.size == 1 else value.tolist()
    return _text(value) if isinstance(value, bytes) else value


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode(errors="replace")  # what follows a zero byte may be anything


def _ends(path: Path, genes: np.ndarray, n_rows: int) -> np.ndarray:
    """Row behind the last one of each gene, (genes,)."""
    if not {"offset", "count"} <= set(genes.dtype.names or ()):
        raise DataError(f"{path} is no GEF: {_BIN1}/gene has the fields {genes.dtype.names}, no offset and count.")
    ends = np.cumsum(genes["count"], dtype=np.int64)
    if not n_rows:
        raise DataError(f"{path} holds no counts.")
    if ends[-1] != n_rows or not np.array_equal(ends - genes["count"], genes["offset"]):
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
    names = np.array([_text(name) for name in genes[gene_column]], object)
    index = pd.Index(sorted(set(names[genes["count"] > 0])))
    return index, index.get_indexer(names)


class _Rows:
    """Reads partitions of `size` rows; `ends` and `codes` are of the genes of the file, which may share a code."""

    def __init__(self, path: Path, size: int, ends: np.ndarray, codes: np.ndarray, genes: pd.Index) -> None:
        self.path, self.size, self.ends, self.codes, self.genes = path, size, ends, codes, genes

    def __call__(self, number: int, start: int) -> pd.DataFrame:
        with h5py.File(self.path) as file:
            rows = file[f"{_BIN1}/expression"][start : start + self.size]
        within = np.diff(np.clip(self.ends, start, start + len(rows)), prepend=start)
        return make_frame(rows["x"], rows["y"], np.repeat(self.codes, within), self.genes, rows["count"], start)
