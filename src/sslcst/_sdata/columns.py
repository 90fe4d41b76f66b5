"""Columns that come from outside, as what they must be: numbers, counts, names of genes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from sslcst.errors import DataError

LARGEST_COUNT = np.iinfo(np.uint32).max  # of one row: as files and buckets hold it
# What a missing value reads as once it is made text, as spatialdata does with the column of genes.
_MISSING_AS_TEXT = frozenset({"None", "nan", "NaN", "<NA>"})


def as_numbers(column: pd.Series, what: str) -> np.ndarray:
    """A column of any type of numbers as float64, NaN where a value is missing."""
    if column.dtype.kind not in "biuf":
        raise DataError(f"{what} must hold numbers, and is of type {column.dtype}: convert it with astype(float).")
    return column.to_numpy(np.float64, na_value=np.nan)


def as_counts(values: np.ndarray, what: str) -> np.ndarray:
    """Numbers of molecules as int64."""
    return as_whole(values, f"{what} must hold counts", 0, LARGEST_COUNT)


def counts_of(table: AnnData, table_key: str) -> csr_matrix:
    """The molecules of a table of cells, of X or else, where that was normalised, of ``layers["counts"]``."""
    counts = csr_matrix(table.layers.get("counts", table.X))
    if (counts.data < 0).any() or (counts.data % 1 != 0).any():
        raise DataError(
            f"Table {table_key!r} holds no counts but what was made of them: normalise a copy of it, or keep them in "
            'layers["counts"].'
        )
    return counts


def as_whole(values: np.ndarray, rule: str, low: int, high: int) -> np.ndarray:
    """Whole numbers within bounds, of any type, as int64; the message about others begins with the rule."""
    if values.dtype.kind in "biuf":
        good = (values >= low) & (values <= high) & (values == np.floor(values))
        if good.all():
            return values.astype(np.int64)
        found = f"{values[~good][0]} in {len(good) - good.sum():,} of {len(good):,} places"
    else:
        found = f"values of type {values.dtype}"
    raise DataError(f"{rule}: whole numbers from {low:,} to {high:,}; there are {found}.")


def gene_codes(names: Iterable[object], *, literal: bool = False) -> tuple[np.ndarray, pd.Index]:
    """The genes that are named, sorted, and which of them each name is; -1 for a name that is missing or blank.

    Names are text, bytes as HDF5 files have them, or numbers; equal ones are one gene. If `literal`, "nan" and the like
    are names, since no missing value was made text where they come from.
    """
    missing = frozenset() if literal else _MISSING_AS_TEXT
    texts = [
        name.decode(errors="backslashreplace") if isinstance(name, bytes) else "" if pd.isna(name) else str(name)
        for name in names
    ]
    known = np.array([text if text.strip() and text not in missing else None for text in texts], object)
    codes, genes = pd.factorize(known, sort=True)
    return codes, pd.Index(genes, dtype=object)
