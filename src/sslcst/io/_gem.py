"""Stereo-seq's bin1 GEM: a tab-separated text table, one row for each gene of each spot, gzipped or not."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst.errors import DataError, KeyMissingError
from sslcst.io._partitions import SCHEMA, spool
from sslcst.io._stain import read_stain
from sslcst.io._systems import chip_offset, chip_systems

# The format says MIDCount; published files use the others too. ExonCount is a part of the count, never the whole.
COUNT_COLUMNS = ("MIDCount", "MIDCounts", "UMICount", "UMICounts")
_NAMES = {name.lower(): name for name in ("x", "y", "geneID", "geneName", *COUNT_COLUMNS)}
_BLOCK = 8 << 20  # bytes of text
_LONGEST = 1 << 20  # bytes of a line, and of the header: no more than this is looked at to find an end


@checked
def read_gem(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    image_offset: tuple[float, float] = (0, 0),
    spot_size: float = 0.5,
    gene_column: str = "geneID",
    cache: str | os.PathLike[str] | None = None,
) -> SpatialData:
    """Read a bin1 GEM file of Stereo-seq, of any size.

    The file's spot (x, y) is the square [x, x + 1) x [y, y + 1). Its counts are placed at the square's centre,
    (x + 0.5, y + 0.5): binning with ``floor`` then finds the spot again, whatever rounding a transformation adds.

    Points and image lie in these coordinate systems:

    - ``"global"``: spots, counted as in the file. The registered images of SAW, the maker's pipeline, lie on this grid.
    - ``"micron"``: ``"global"`` times `spot_size`.
    - ``"chip"``: ``"global"`` plus the header's OffsetX and OffsetY, the place of a spot on the whole chip. Files whose
      header has no offsets lack it.

    Parameters
    ----------
    path
        The file. Whether it is gzipped is seen from its content.
    image
        A stain registered to the spots, as SAW's ``*_regist.tif``: a TIFF of one channel, one pixel a spot.
    image_offset
        The spot (x, y), as the file counts, under the image's first pixel; for a GEM that was cut out of a chip and
        keeps the chip's numbers, where its image was cut.
    spot_size
        Distance of neighbouring spots in microns.
    gene_column
        Column that names the genes, ``"geneID"`` or ``"geneName"`` (which newer files have as well). Genes that share
        a name become one gene.
    cache
        Folder for the rows of a file that does not fit one partition, as ``NAME.parquet`` (some 7 bytes a row); it must
        stay as long as the points are used. By default a temporary one (``TMPDIR`` says where), which goes with them.

    Returns
    -------
    Points ``"transcripts"`` with float64 x and y, categorical ``gene`` (in alphabetical order) and integer ``count``,
    one row for each row of the file, in its order, 2 million a partition; of a file with more they are read when used.
    Image ``"stain"`` (c, y, x) if one was given, read when used; its channel is ``"ssDNA"`` or ``"DAPI"`` where the
    file's name says so. The header's fields in ``attrs["gem_header"]``. Memory depends on the size of a partition, not
    on that of the file.

    Raises
    ------
    ParameterError
        `spot_size` is not a positive number, or `image_offset` is not two finite ones.
    KeyMissingError
        There is no column `gene_column`.
    DataError
        The file is no bin1 GEM: columns are missing, there are no rows, bins are larger than a spot, a coordinate is
        not an integer, a count is negative or not an integer, a row has no gene, a line is longer than 1 MiB, or the
        file ends early. The image is no TIFF of one channel.
    StoreError
        The cache holds a file of that name, or cannot be written.
    """
    path = Path(path)
    with _open(path) as file:
        with _intact(path):
            header, columns = _read_header(path, file)
        gene_column = _NAMES.get(gene_column.lower(), gene_column)
        count_column = _check_columns(path, header, columns, gene_column)
        systems = chip_systems(spot_size, chip_offset(path, header, ("OffsetX", "OffsetY")))
        images = {} if image is None else {"stain": read_stain(Path(image), image_offset, systems)}
        rows = _read_rows(path, file, columns, gene_column, count_column)
        points = spool(rows, None if cache is None else Path(cache), f"{path.name}.parquet", systems)
    logger.info("%s: %d rows, %d genes.", path.name, points.divisions[-1] + 1, len(points["gene"].cat.categories))
    return SpatialData(points={"transcripts": points}, images=images, attrs={"gem_header": header})


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if gzipped else path.open("rb")


def _read_header(path: Path, file: IO[bytes]) -> tuple[dict[str, str], list[str]]:
    """Fields of the leading ``#name=value`` lines, and the column names; leaves the file at the first row."""
    header, size = {}, 0
    while True:
        line = file.readline(_LONGEST + 1)
        size += len(line)
        if size > _LONGEST:
            raise DataError(f"{path} is no GEM: its header does not end within {_LONGEST:,} bytes.")
        text = line.decode(errors="replace").lstrip("\ufeff").strip("\r\n")
        if not text.startswith("#"):
            return header, [_NAMES.get(name.strip().lower(), name.strip()) for name in text.split("\t")]
        name, _, value = text[1:].partition("=")
        header[name.strip()] = value.strip()


def _check_columns(path: Path, header: dict[str, str], columns: list[str], gene_column: str) -> str:
    """Name of the count column of a file that is a bin1 GEM."""
    counts = [name for name in COUNT_COLUMNS if name in columns]
    missing = [name for name in ("x", "y") if name not in columns]
    missing += [] if counts else [" or ".join(COUNT_COLUMNS)]
    if missing:
        raise DataError(f"{path} is no GEM: it lacks the tab-separated columns {missing}; it has {columns[:10]}.")
    if gene_column not in columns:
        raise KeyMissingError(f"{path} has no column {gene_column!r}: give gene_column, one of {columns}.")
    twice = [name for name in ("x", "y", gene_column, counts[0]) if columns.count(name) > 1]
    if twice:
        raise DataError(f"{path} has several columns of one name: {twice}.")
    bin_size = header.get("BinSize", "1")
    if bin_size not in ("1", "1.0"):
        raise DataError(f"{path} holds bins of {bin_size} spots a side: export it again with bin size 1.")
    return counts[0]


def _read_rows(
    path: Path, file: IO[bytes], columns: list[str], gene_column: str, count_column: str
) -> Iterator[pa.RecordBatch]:
    """The rows, some megabytes of text at a time."""
    types = dict(zip(("x", "y", gene_column, count_column), SCHEMA.types, strict=True))
    n, no_gene = 0, 0
    try:
        with _intact(path):
            for block in csv.open_csv(
                _BoundedLines(path, file),
                read_options=csv.ReadOptions(column_names=columns, block_size=_BLOCK, use_threads=False),
                parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
                # No text means "missing": an empty number is an error, and "NA" may be a gene.
                convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
            ):
                n += len(block)
                rows = pa.RecordBatch.from_arrays(block.columns, schema=SCHEMA)
                gene = rows["gene"]
                blank = [i for i, name in enumerate(gene.dictionary.to_pylist()) if not name.strip()]
                no_gene += np.isin(gene.indices, blank).sum()
                yield rows
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is no GEM: x and y must be integers, {count_column} integers from 0, of 32 bits. {error} "
            f"(columns, counted from 0: {columns})"
        ) from error
    if not n:
        raise DataError(f"{path} holds column names but no rows.")
    if no_gene:
        raise DataError(f"{path} has {no_gene} rows without a gene in column {gene_column!r}: delete them, or name it.")


class _BoundedLines:
    """A file as the parser reads it, whose lines must end: one that does not would be held in memory as a whole."""

    closed = False

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.begun = path, file, 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        text = self.file.read(size)
        start = -self.begun  # of the line that is looked at
        while len(text) - start > _LONGEST:
            end = text.rfind(b"\n", max(start, 0), start + _LONGEST)
            if end < 0:
                raise DataError(f"{self.path} is no GEM: it has a line of more than {_LONGEST:,} bytes.")
            start = end + 1
        self.begun = len(text) - (text.rfind(b"\n") + 1 or start)
        return text


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is cut short or damaged: {error}") from error
