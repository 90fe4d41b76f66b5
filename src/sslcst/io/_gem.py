"""Stereo-seq's bin1 GEM: a tab-separated text table, one row for each gene of each spot, gzipped or not."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import csv
from spatialdata import SpatialData
from spatialdata.models import PointsModel
from spatialdata.transformations import BaseTransformation, Identity, Scale, Translation

from sslcst._logging import logger
from sslcst.errors import DataError, KeyMissingError, ParameterError

# The format says MIDCount; published files use the others too. ExonCount is a part of the count, never the whole.
COUNT_COLUMNS = ("MIDCount", "MIDCounts", "UMICount", "UMICounts")
ROWS_PER_PARTITION = 4_000_000


def read_gem(path: str | os.PathLike[str], *, spot_size: float = 0.5, gene_column: str = "geneID") -> SpatialData:
    """Read a bin1 GEM file of Stereo-seq.

    The file's spot (x, y) is the square [x, x + 1) x [y, y + 1). Its counts are placed at the square's centre,
    (x + 0.5, y + 0.5): binning with ``floor`` then finds the spot again, whatever rounding a transformation adds.

    The points lie in these coordinate systems:

    - ``"global"``: spots, counted as in the file. The registered images of SAW, the maker's pipeline, lie on this grid.
    - ``"micron"``: ``"global"`` times `spot_size`.
    - ``"chip"``: ``"global"`` plus the header's OffsetX and OffsetY, the place of a spot on the whole chip. Files whose
      header has no offsets lack it.

    Parameters
    ----------
    path
        The file. Whether it is gzipped is seen from its content.
    spot_size
        Distance of neighbouring spots in microns.
    gene_column
        Column that names the genes, ``"geneID"`` or ``"geneName"`` (which newer files have as well). Genes that share
        a name become one gene.

    Returns
    -------
    Points ``"transcripts"`` with float32 x and y, categorical ``gene`` (in alphabetical order) and integer ``count``,
    one row for each row of the file; the header's fields in ``attrs["gem_header"]``. The text is converted block by
    block: what is held in memory is some 16 bytes a row.

    Raises
    ------
    ParameterError
        `spot_size` is not a positive number.
    KeyMissingError
        There is no column `gene_column`.
    DataError
        The file is no bin1 GEM: columns are missing, there are no rows, bins are larger than a spot, a coordinate is
        not an integer, a count is negative or not an integer, or the file ends early.
    """
    if not 0 < spot_size < math.inf:
        raise ParameterError(f"spot_size={spot_size!r}: must be a positive number of microns.")
    path = Path(path)
    try:
        with _open(path) as file:
            header, columns = _read_header(file)
            count_column = _check_columns(path, header, columns, gene_column)
            transformations = _transformations(path, header, spot_size)
            table = _read_rows(path, file, columns, gene_column, count_column)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut short or damaged: {error}") from error
    if table.num_rows == 0:
        raise DataError(f"{path} holds column names but no rows.")

    frame = table.unify_dictionaries().to_pandas().rename(columns={gene_column: "gene", count_column: "count"})
    frame[["x", "y"]] = (frame[["x", "y"]] + 0.5).astype("float32")
    # The order in which genes are met depends on how the text is cut into blocks; the alphabet does not.
    frame["gene"] = frame["gene"].cat.reorder_categories(sorted(frame["gene"].cat.categories))
    logger.info("%s: %d rows, %d genes", path.name, len(frame), len(frame["gene"].cat.categories))
    points = PointsModel.parse(
        frame,
        feature_key="gene",
        npartitions=1 + len(frame) // ROWS_PER_PARTITION,
        transformations=dict(transformations),  # the model keeps the dict it is given
    )
    return SpatialData(points={"transcripts": points}, attrs={"gem_header": header})


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if gzipped else path.open("rb")


def _read_header(file: IO[bytes]) -> tuple[dict[str, str], list[str]]:
    """Fields of the leading ``#name=value`` lines, and the column names; leaves the file at the first row."""
    header = {}
    while (line := file.readline().decode(errors="replace").strip("\r\n")).startswith("#"):
        name, _, value = line[1:].partition("=")
        header[name.strip()] = value.strip()
    return header, line.split("\t")


def _check_columns(path: Path, header: dict[str, str], columns: list[str], gene_column: str) -> str:
    """Name of the count column of a file that is a bin1 GEM."""
    counts = [name for name in COUNT_COLUMNS if name in columns]
    missing = [name for name in ("x", "y") if name not in columns]
    missing += [] if counts else [" or ".join(COUNT_COLUMNS)]
    if missing:
        raise DataError(f"{path} is no GEM: it lacks the tab-separated columns {missing}; it has {columns[:10]}.")
    if gene_column not in columns:
        raise KeyMissingError(f"{path} has no column {gene_column!r}: give gene_column, one of {columns}.")
    bin_size = header.get("BinSize", "1")
    if bin_size.isdecimal() and int(bin_size) != 1:
        raise DataError(f"{path} holds bins of {bin_size} spots a side: export it again with bin size 1.")
    return counts[0]


def _transformations(path: Path, header: dict[str, str], spot_size: float) -> dict[str, BaseTransformation]:
    systems: dict[str, BaseTransformation] = {"global": Identity(), "micron": Scale([spot_size] * 2, axes=("x", "y"))}
    if "OffsetX" in header and "OffsetY" in header:
        try:
            offset = [int(header["OffsetX"]), int(header["OffsetY"])]
        except ValueError as error:
            raise DataError(f"{path}: OffsetX and OffsetY of the header must be integers: {error}.") from error
        systems["chip"] = Translation(offset, axes=("x", "y"))
    return systems


def _read_rows(path: Path, file: IO[bytes], columns: list[str], gene_column: str, count_column: str) -> pa.Table:
    types = {"x": pa.int32(), "y": pa.int32(), count_column: pa.uint32()}
    types[gene_column] = pa.dictionary(pa.int32(), pa.string())
    try:
        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(column_names=columns),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            # No text means "missing": an empty number is an error, and "NA" may be a gene.
            convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is no GEM: x and y must be integers, {count_column} integers from 0. {error} "
            f"(columns, counted from 0: {columns})"
        ) from error
