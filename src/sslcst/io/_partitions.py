"""Rows of counts as partitioned points, of which no more than some partitions are ever held in memory."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from spatialdata.models import PointsModel

from sslcst.errors import StoreError

ROWS_PER_PARTITION = 2_000_000  # some 50 MB
SCHEMA = pa.schema(
    {"x": pa.int32(), "y": pa.int32(), "gene": pa.dictionary(pa.int32(), pa.string()), "count": pa.uint32()}
)


def make_frame(
    x: np.ndarray, y: np.ndarray, codes: np.ndarray, genes: pd.Index, count: np.ndarray, start: int
) -> pd.DataFrame:
    """Rows numbered from `start`: the centres of spots, the genes by their place in `genes`, the counts."""
    gene, index = pd.Categorical.from_codes(codes, genes), pd.RangeIndex(start, start + len(x))
    # As float64, places are exact wherever 32 bits can count.
    return pd.DataFrame({"x": x + 0.5, "y": y + 0.5, "gene": gene, "count": count.astype(np.uint32)}, index=index)


def lazy_points(
    read: Callable[[int, int], pd.DataFrame], n_rows: list[int], genes: pd.Index, transformations: dict[str, Any]
) -> dd.DataFrame:
    """Points whose partition i, of ``n_rows[i]`` rows, is ``read(i, number of its first row)``."""
    *starts, end = np.cumsum([0, *n_rows]).tolist()
    none = np.empty(0, int)
    what = {"meta": make_frame(none, none, none, genes, none, 0), "divisions": (*starts, end - 1)}
    frame = dd.from_map(read, range(len(n_rows)), starts, **what, enforce_metadata=False)
    # sort=True: else the model reads all rows to see whether they are sorted; a copy, since it keeps the dict.
    return PointsModel.parse(frame, feature_key="gene", sort=True, transformations=dict(transformations))


def spool(
    blocks: Iterable[pa.RecordBatch], cache: Path | None, name: str, transformations: dict[str, Any]
) -> dd.DataFrame:
    """Points of a stream of rows: in memory if they fill no more than a partition, else in a file that is read lazily.

    The file has this name in the folder `cache`. Without a folder a temporary one is made, which goes when the last
    object goes that reads it, at the latest with the process.
    """
    partitions = _regroup(blocks)
    first, second = next(partitions), next(partitions, None)
    if second is None:
        frame = _to_frame(first, pd.Index(sorted(_genes_of(first))), 0)
        return PointsModel.parse(frame, feature_key="gene", npartitions=1, transformations=dict(transformations))
    read = _RowGroups(Path(mkdtemp(prefix="sslcst-")) if cache is None else cache, name, keep=cache is not None)
    n_rows, genes = read.write(chain([first, second], partitions))
    return lazy_points(read, n_rows, genes, transformations)


def _regroup(blocks: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, `ROWS_PER_PARTITION` at a time."""
    held, n = [], 0
    for block in blocks:
        held.append(block)
        n += len(block)
        while n >= ROWS_PER_PARTITION:
            table = pa.Table.from_batches(held)
            yield table.slice(0, ROWS_PER_PARTITION)
            held = table.slice(ROWS_PER_PARTITION).to_batches()
            n -= ROWS_PER_PARTITION
    if n:
        yield pa.Table.from_batches(held)


def _genes_of(table: pa.Table) -> set[str]:
    return set(table["gene"].unique().to_pylist())


def _to_frame(table: pa.Table, genes: pd.Index, start: int) -> pd.DataFrame:
    gene = table["gene"].unify_dictionaries().combine_chunks()
    codes = genes.get_indexer(gene.dictionary.to_pandas())[gene.indices.to_numpy()]
    return make_frame(*(table[name].to_numpy() for name in "xy"), codes, genes, table["count"].to_numpy(), start)


class _RowGroups:
    """A file of partitions; without `keep` its folder goes with this object, but not with copies in other processes."""

    def __init__(self, folder: Path, name: str, *, keep: bool) -> None:
        self.path = (folder / name).absolute()  # read later, wherever one works then
        self.genes = pd.Index([])
        if not keep:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def write(self, tables: Iterable[pa.Table]) -> tuple[list[int], pd.Index]:
        """Write each table as a row group; the numbers of their rows, and the genes in alphabetical order."""
        if self.path.exists():
            raise StoreError(f"{self.path} exists: choose another cache, or delete it.")
        n_rows, genes = [], set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as undo:  # what is written in part is deleted
                undo.callback(self.path.unlink, missing_ok=True)
                with parquet.ParquetWriter(self.path, SCHEMA, use_dictionary=["gene"], compression="lz4") as file:
                    for table in tables:
                        file.write_table(table, row_group_size=len(table))
                        n_rows.append(len(table))
                        genes |= _genes_of(table)
                undo.pop_all()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error}.") from error
        self.genes = pd.Index(sorted(genes))
        return n_rows, self.genes

    def __call__(self, number: int, start: int) -> pd.DataFrame:
        with parquet.ParquetFile(self.path) as file:
            return _to_frame(file.read_row_group(number, use_threads=False), self.genes, start)
