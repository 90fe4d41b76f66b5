"""Transcripts of a points element, read one partition after the other, on the pixels of a raster."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from spatialdata import SpatialData

from sslcst._logging import logger
from sslcst._sdata.columns import as_counts, as_numbers, gene_codes
from sslcst._sdata.elements import choose_column, choose_key, regions_of
from sslcst._sdata.raster import YX, Raster, apply_affine
from sslcst.core.spots import inside_raster
from sslcst.core.threads import ahead
from sslcst.errors import DataError, KeyMissingError
from sslcst.params import TranscriptParams

GENE_COLUMNS = ("gene", "feature_name", "target", "geneID", "name")  # ours, xenium, cosmx, GEM, seqfish
COUNT_COLUMNS = ("count", "MIDCount", "MIDCounts")
QUALITY_COLUMN = "qv"  # xenium
_OUR_READERS = frozenset({"gem_header", "gef_header"})  # which refuse what has no gene: "nan" is one of the fly's
ROWS_OF_A_SOURCE = 2**40  # where several points elements are read as one, rows of the next are counted from here on
_BLOCK = 4_000_000  # entries of a table of counts that are read at once


@dataclass(frozen=True)
class Transcripts:
    """Transcripts on a raster."""

    yx: np.ndarray  # positions (n, 2) in pixels of the raster
    gene: np.ndarray  # index into `genes`, (n,)
    count: np.ndarray | None  # molecules of each (n,), or None for one each
    genes: pd.Index  # names of the genes, sorted
    # which row of the points element each is, (n,), counted over all partitions: some rows are left out
    row: np.ndarray


def is_of_gem(sdata: SpatialData) -> bool:
    """Whether `sslcst.io.read_gem` or `sslcst.io.read_gef` read the object."""
    return not _OUR_READERS.isdisjoint(sdata.attrs)


@dataclass(frozen=True)
class TranscriptSource:
    """Transcripts that are read a partition at a time, by any thread or process."""

    # names of the genes of all partitions, sorted: those that occur among the transcripts that are kept
    genes: pd.Index
    blocks: _Molecules | _Places  # the rows of each partition, as they are
    to_pixel: np.ndarray  # affine matrix (3, 3) from the element's own coordinates to pixels of the raster
    params: TranscriptParams  # which rows are kept
    digest: str  # hash of all rows in their order
    of_gem: bool  # `is_of_gem`
    bounds: np.ndarray  # the lowest and the highest place (y, x) of each partition, (n, 2, 2)
    # pixels (height, width) outside of which transcripts are left out; None: none are
    within: tuple[int, int] | None = None

    @property
    def n_partitions(self) -> int:
        """Number of partitions that hold any."""
        return len(self._holding)

    def partition(self, i: int) -> Transcripts:
        """The transcripts of one partition."""
        block = self.blocks[i]
        gene = self.genes.get_indexer(block["gene"].cat.categories)[block["gene"].cat.codes]
        kept = gene >= 0
        for rows in _left_out(block, self.params).values():
            kept &= ~rows
        count = block.get("count")
        yx = apply_affine(self.to_pixel, block[list(YX)].to_numpy())
        if self.within is not None:
            kept &= inside_raster(yx, self.within)
        count = None if count is None else count.to_numpy()[kept]
        return Transcripts(yx[kept], gene[kept].astype(np.int64), count, self.genes, block["row"].to_numpy()[kept])

    def partitions(self) -> Iterator[Transcripts]:
        """The partitions that hold any, in turn."""
        return (part for _, part in ahead(self.partition, self._holding))

    @property
    def _holding(self) -> list[int]:
        """Which partitions may hold transcripts that are not left out."""
        if self.within is None:
            return list(range(len(self.blocks)))
        (top, left), (bottom, right) = self.bounds[:, 0].T, self.bounds[:, 1].T
        corners = np.stack([[y, x] for y in (top, bottom) for x in (left, right)])  # (4, 2, n)
        with np.errstate(invalid="ignore"):  # those of an empty one are infinite
            yx = np.einsum("ij,cjn->cin", self.to_pixel[:2, :2], corners) + self.to_pixel[:2, 2][:, None]
        beyond = (yx.max(axis=0).T < 0) | (self.within <= yx.min(axis=0).T)
        return np.flatnonzero(~beyond.any(axis=1)).tolist()


def open_transcripts(
    sdata: SpatialData,
    points_key: str,
    *,
    gene_key: str | None = None,
    count_key: str | None = None,
    raster: Raster,
    params: TranscriptParams = TranscriptParams(),
) -> TranscriptSource:
    """Transcripts of a points element: molecules with a gene each, or places with a table of counts.

    One pass over the element checks all of it, and finds which genes there are.
    """
    points = sdata.points[points_key]
    columns = columns_of(sdata, points_key, gene_key, count_key)
    if not columns:
        blocks = _open_places(sdata, points_key, annotating_table(sdata, points_key))
    else:
        blocks = _open_molecules(points, points_key, **columns, params=params, literal=is_of_gem(sdata))
    genes, sizes, bounds, digest = _survey(blocks, points_key, params)
    if isinstance(blocks, _Molecules):
        blocks = replace(blocks, starts=tuple(np.cumsum([0, *sizes[:-1]]).tolist()))
    to_pixel = raster.to_pixel(points, points_key)
    return TranscriptSource(genes, blocks, to_pixel, params, digest, is_of_gem(sdata), bounds)


def read_transcripts(sdata: SpatialData, points_key: str, **kwargs: Any) -> Transcripts:
    """All partitions of `open_transcripts`, which takes the same arguments, as one."""
    source = open_transcripts(sdata, points_key, **kwargs)
    parts = list(source.partitions())
    yx, gene, row = (np.concatenate([getattr(part, name) for part in parts]) for name in ("yx", "gene", "row"))
    count = None if parts[0].count is None else np.concatenate([part.count for part in parts])
    return Transcripts(yx, gene, count, source.genes, row)


def columns_of(
    sdata: SpatialData, points_key: str, gene_key: str | None, count_key: str | None
) -> dict[str, str | None]:
    """The columns of genes and of counts, if any, as arguments; none where a table has both."""
    points = sdata.points[points_key]
    columns = list(points.columns)
    if gene_key is None:
        named = points.attrs.get("spatialdata_attrs", {}).get("feature_key")
        if not {named, *GENE_COLUMNS} & set(columns) and annotating_table(sdata, points_key):
            return {}
        gene_key = named
    what = {"kind": "gene column", "argument": "gene_key", "usual": GENE_COLUMNS, "holds": "genes"}
    gene_key = choose_column(points, points_key, gene_key, **what)
    if count_key is None:
        count_key = next((name for name in COUNT_COLUMNS if name in columns), None)
    elif count_key not in columns:
        raise KeyMissingError(f"Points {points_key!r} have no column {count_key!r}: choose count_key among {columns}.")
    return {"gene_key": gene_key, "count_key": count_key}


def annotating_table(sdata: SpatialData, points_key: str) -> str | None:
    """The one table that annotates these points, if there is."""
    keys = [key for key, table in sdata.tables.items() if points_key in regions_of(table)]
    return choose_key(keys, None, kind=f"table of points {points_key!r}", argument="gene_key") if keys else None


@dataclass(frozen=True)
class _Molecules:
    """Rows of a points element, with a gene each: blocks are its partitions."""

    frame: Any  # of dask
    columns: dict[str, str]  # ours to its own
    points_key: str
    literal: bool  # whether a gene may be named "nan"
    starts: tuple[int, ...] = ()  # row at which each partition starts, once known

    def __len__(self) -> int:
        return self.frame.npartitions

    def __getitem__(self, i: int) -> pd.DataFrame:
        rows = self.frame.partitions[i].compute(scheduler="synchronous")  # in this thread: the caller's is the pool
        start = self.starts[i] if self.starts else 0
        block = {}
        for name, own in self.columns.items():
            what = f"Column {own!r} of points {self.points_key!r}"
            block[name] = self._genes(rows[own]) if name == "gene" else as_numbers(rows[own], what)
            if name == "count":
                block[name] = as_counts(block[name], what)
        return pd.DataFrame(block | {"row": np.arange(start, start + len(rows))})

    def _genes(self, column: pd.Series) -> pd.Categorical:
        """The genes of rows, missing where they have none."""
        found = column.astype("category").cat
        n = len(found.categories)
        used = np.bincount(found.codes[found.codes >= 0], minlength=n) > 0
        codes = np.full(n + 1, -1)  # the last is that of rows without a gene
        codes[:n][used], genes = gene_codes(found.categories[used], literal=self.literal)
        return pd.Categorical.from_codes(codes[found.codes], genes)


@dataclass(frozen=True)
class _Places:
    """Entries of a table of counts whose rows are places: blocks are runs of its rows."""

    yx: np.ndarray  # of each place
    place: np.ndarray  # of each row of the table
    counts: sparse.csr_matrix
    genes: tuple[np.ndarray, pd.Index]  # which gene each column of the table is, and their names
    ends: np.ndarray  # rows of the table at which the blocks end
    what: str

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> pd.DataFrame:
        start = self.ends[i - 1] if i else 0
        entries = self.counts[start : self.ends[i]].tocoo()
        row = self.place[start : self.ends[i]][entries.row]
        codes, names = self.genes
        (y, x), gene = self.yx[row].T, pd.Categorical.from_codes(codes[entries.col], names)
        return pd.DataFrame({"y": y, "x": x, "gene": gene, "count": as_counts(entries.data, self.what), "row": row})


def _open_molecules(points, points_key, *, gene_key, count_key, params, literal: bool) -> _Molecules:
    columns = {"y": "y", "x": "x", "gene": gene_key}
    if count_key is not None:
        columns["count"] = count_key
    if params.min_quality and QUALITY_COLUMN in points.columns:
        columns["quality"] = QUALITY_COLUMN
    rows = "one molecule a row" if count_key is None else f"counts in column {count_key!r}"
    aside = ", z is left aside" if "z" in points.columns else ""
    logger.info("Points %r: genes in column %r, %s%s.", points_key, gene_key, rows, aside)
    return _Molecules(points[list(dict.fromkeys(columns.values()))], columns, points_key, literal)


def _open_places(sdata, points_key, table_key) -> _Places:
    table = sdata.tables[table_key]
    if table.X is None:
        raise DataError(f"Table {table_key!r} of points {points_key!r} has no X: counts must lie there.")
    places = sdata.points[points_key][list(YX)].compute()
    if not places.index.is_unique:
        raise DataError(f"Points {points_key!r} have an index that repeats: number their rows for table {table_key!r}.")
    instance = table.obs[table.uns["spatialdata_attrs"]["instance_key"]]
    of_points = (table.obs[table.uns["spatialdata_attrs"]["region_key"]] == points_key).to_numpy()
    place = pd.Index(places.index).get_indexer(instance[of_points])
    if (place < 0).any():
        raise DataError(f"Table {table_key!r} has rows for which points {points_key!r} have no instance.")
    counts = sparse.csr_matrix(table.X[of_points])
    steps = np.arange(_BLOCK, counts.nnz, _BLOCK)
    ends = np.append(np.unique(np.searchsorted(counts.indptr, steps)), counts.shape[0])
    logger.info("Points %r: genes and counts in table %r.", points_key, table_key)
    yx = np.column_stack([as_numbers(places[name], f"Column {name!r} of points {points_key!r}") for name in YX])
    return _Places(yx, place, counts, gene_codes(table.var_names), ends, f"X of table {table_key!r}")


def _survey(
    blocks: _Molecules | _Places, points_key: str, params: TranscriptParams
) -> tuple[pd.Index, list[int], np.ndarray, str]:
    """The genes that occur, each block's rows and bounds, and a hash of all; one pass, which also checks the values."""
    sizes, bounds, no_gene, not_finite, n_good, digest = [], [], 0, 0, Counter(), hashlib.sha256()
    reasons = Counter()
    for _, block in ahead(blocks.__getitem__, range(len(blocks))):
        digest.update(pd.util.hash_pandas_object(block.drop(columns="row"), index=False).to_numpy().tobytes())
        sizes.append(len(block))
        yx = block[list(YX)].to_numpy()
        bounds.append([yx.min(axis=0, initial=np.inf), yx.max(axis=0, initial=-np.inf)])
        no_gene += block["gene"].isna().sum()
        not_finite += (~np.isfinite(block[list(YX)])).any(axis=1).sum()
        good = np.ones(len(block), bool)
        for reason, rows in _left_out(block, params).items():
            reasons[reason] += (rows & good).sum()
            good &= ~rows
        n_good.update(block.loc[good, "gene"].value_counts().to_dict())
    if no_gene:
        raise DataError(
            f"Points {points_key!r} have {no_gene} rows without a gene (missing, blank, or named as a missing value is "
            'once it was made text: "None", "nan", "<NA>"): drop these rows, or name their gene.'
        )
    if not sum(sizes):
        raise DataError(f"Points {points_key!r} are empty: there is no transcript.")
    if not_finite:
        raise DataError(f"Points {points_key!r} have {not_finite} rows with NaN or infinite x or y: drop them.")

    controls = {name for name in n_good if params.exclude and re.match(params.exclude, name)}
    genes = sorted(name for name, many in n_good.items() if many and name not in controls)
    n, n_kept = sum(sizes), sum(n_good[name] for name in genes)
    reasons["of control probes"] = n_good.total() - n_kept
    dropped = ", ".join(f"{many:,} {reason}" for reason, many in reasons.items() if many)
    if not genes:
        raise DataError(
            f"None of the {n:,} transcripts of points {points_key!r} is kept ({dropped}): "
            "change transcripts.min_quality or transcripts.exclude."
        )
    if dropped:
        logger.info("Dropped %s of %s transcripts of points %r: %s.", f"{n - n_kept:,}", f"{n:,}", points_key, dropped)
    return pd.Index(genes), sizes, np.array(bounds), digest.hexdigest()


def _left_out(block: pd.DataFrame, params: TranscriptParams) -> dict[str, np.ndarray]:
    """Reasons to leave rows out, and for which rows each holds."""
    rows = {}
    if "count" in block:
        rows["of count 0"] = block["count"].to_numpy() == 0
    if "quality" in block:
        quality = block["quality"].to_numpy()
        rows["of unknown quality"] = np.isnan(quality)
        rows[f"of quality below {params.min_quality:g}"] = quality < params.min_quality
    return rows
