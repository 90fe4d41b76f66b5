"""Which cell each transcript belongs to, as others write it."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import choose_column, choose_points
from sslcst._sdata.source_ids import LARGEST
from sslcst.errors import DataError

CELL_COLUMNS = ("cell", "cell_id", "cell_ID", "CellId", "assignment")  # Baysor, xenium, cosmx, others; proseg
# How "in no cell" is written: 0 and below by CosMx, MERSCOPE and others, the largest uint32 by proseg; as text by
# Xenium ("UNASSIGNED"), Baysor (empty) and CosMx ("c_1_<fov>_0").
_NOT_A_CELL = re.compile(r"\s*|unassigned|none|nan|na|<na>|null|background|noise|-1|0|c_\d+_\d+_0", re.IGNORECASE)
_EXACT = 2**53  # up to which a float64 tells whole numbers apart


class Owners(NamedTuple):
    """What :func:`read_owners` reads."""

    owner: np.ndarray  #: The cell of each transcript in the order of the points, 0 = none, uint32 (n,)
    names: pd.Series  #: The column's own name of each cell; the index is its id


@checked
def read_owners(
    sdata: SpatialData,
    *,
    points_key: str | None = None,
    cell_key: str | None = None,
    unassigned: Collection[Hashable] | None = None,
) -> Owners:
    """Read which cell each transcript belongs to, as Baysor, proseg, SCS and the vendors write it.

    The result can be scored as it is, without any labels: by `sslcst.metrics.fraction_right`, `match`, `overlap` and
    `correlation`.

    Parameters
    ----------
    sdata
        Holds the points.
    points_key
        The transcripts; may be left out if there is only one points element, or one named "transcripts".
    cell_key
        Column of the cell ids; may be left out if it is named ``cell``, ``cell_id``, ``cell_ID``, ``CellId`` or
        ``assignment``.
    unassigned
        Values that mean "in no cell", beside missing ones. ``None`` takes 0, whatever is negative and 2^32 - 1 among
        numbers; empty text, "UNASSIGNED", "None", "NaN", "NA", "null", "background", "noise", "-1", "0" and CosMx'
        "c_1_2_0" in text. Give it where one of these is a cell, as with proseg, which counts cells from 0:
        ``unassigned=[4294967295]``.

    Returns
    -------
    The owner of each transcript, and the cells' names. Whole numbers that can be ids stay what they are. Text that ends
    in a number of its own for each cell, as Baysor's "CR5f2e1a-12", takes that number. All others are numbered from 1
    in the order of their names.

    Raises
    ------
    KeyMissingError
        There is no such element or column, or several could be meant.
    DataError
        Fractional ids; no transcript is in a cell.
    """
    points_key = choose_points(sdata, points_key)
    points = sdata.points[points_key]
    of = {"kind": "cell column", "argument": "cell_key", "usual": CELL_COLUMNS, "holds": "cell ids"}
    cell_key = choose_column(points, points_key, cell_key, **of)
    what = f"Column {cell_key!r} of points {points_key!r}"
    code, names = pd.factorize(points[cell_key].compute(), sort=True)
    names = pd.Series(np.asarray(names)).infer_objects()
    is_cell = ~names.isin(list(unassigned)) if unassigned is not None else _are_cells(names)
    if not is_cell.any():
        raise DataError(f"{what} puts no transcript into a cell.")
    cells = names[is_cell]
    if cells.dtype.kind == "f" and cells.max() > _EXACT:
        said = "%s holds ids above 2^53 as %s, which rounds them: cells may have become one. Read it as int64 or text."
        logger.warning(said, what, cells.dtype)
    ids = np.zeros(len(names) + 1, np.uint32)  # the last is that of missing values, whose code is -1
    ids[:-1][is_cell] = _ids(cells, what)
    cells = cells.set_axis(pd.Index(ids[:-1][is_cell], name="cell_id")).sort_index()
    return Owners(ids[code], cells.rename(cell_key))


def _are_cells(names: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(names):
        return (names > 0) & (names != LARGEST)
    return ~names.astype(str).str.fullmatch(_NOT_A_CELL)


def _ids(names: pd.Series, what: str) -> np.ndarray:
    """An id above 0 for each name: its own number where it has one that no other has."""
    if pd.api.types.is_numeric_dtype(names):
        if (names % 1 != 0).any():
            raise DataError(f"{what} holds fractional numbers: cell ids are whole numbers or text.")
        number = names.astype("int64") if names.max() <= LARGEST else None
    else:
        tail = names.astype(str).str.extract(r"(?<!\d)(\d{1,9})$", expand=False)
        number = None if tail.isna().any() else tail.astype("int64")
    if number is None or number.duplicated().any() or number.min() < 1:
        return np.arange(1, len(names) + 1)
    return number.to_numpy()
