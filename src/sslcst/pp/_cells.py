"""Others' cells: as labels, as shapes, or as a cell id for each transcript."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sslcst.elements import (
    YX,
    Raster,
    add_labels,
    affine_matrix,
    apply_affine,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
    raster_of,
    raster_over_points,
)
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.pp._nuclei import import_nuclei

if TYPE_CHECKING:
    from spatialdata import SpatialData

CELL_COLUMNS = ("cell", "cell_id", "cell_ID", "CellId", "assignment")  # Baysor, xenium, cosmx, others; proseg
# How "in no cell" is written: 0 and below by CosMx, MERSCOPE and others, the largest uint32 by proseg; as text by
# Xenium ("UNASSIGNED"), Baysor (empty) and CosMx ("c_1_<fov>_0").
_NOT_A_CELL = re.compile(r"\s*|unassigned|none|nan|na|<na>|null|background|noise|-1|0|c_\d+_\d+_0", re.IGNORECASE)
_LARGEST = np.iinfo(np.uint32).max


class Owners(NamedTuple):
    """What :func:`read_owners` reads.

    Attributes
    ----------
    owner
        (n,) uint32, the cell of each transcript in the order of the points, 0 = none.
    names
        The column's own name of each cell; the index is its id.
    """

    owner: np.ndarray
    names: pd.Series


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
    columns = [name for name in points.columns if name not in ("x", "y", "z")]
    if cell_key is None and not set(columns) & set(CELL_COLUMNS):
        raise KeyMissingError(
            f"No column of points {points_key!r} is known to hold cell ids: choose with cell_key=; "
            f"columns: {', '.join(map(repr, columns)) or 'none'}."
        )
    cell_key = choose_key(
        columns, cell_key, kind=f"cell column of points {points_key!r}", argument="cell_key", usual=CELL_COLUMNS
    )
    what = f"Column {cell_key!r} of points {points_key!r}"
    code, names = pd.factorize(points[cell_key].compute(), sort=True)
    names = pd.Series(np.asarray(names)).infer_objects()
    is_cell = ~names.isin(list(unassigned)) if unassigned is not None else _are_cells(names)
    if not is_cell.any():
        raise DataError(f"{what} puts no transcript into a cell.")
    names = names.where(is_cell)
    ids = np.zeros(len(names) + 1, np.uint32)  # the last is that of missing values, whose code is -1
    ids[:-1][is_cell] = _ids(names[is_cell], what)
    cells = names[is_cell].set_axis(pd.Index(ids[:-1][is_cell], name="cell_id")).sort_index()
    return Owners(ids[code], cells.rename(cell_key))


def _are_cells(names: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(names):
        return (names > 0) & (names != _LARGEST)
    return ~names.astype(str).str.fullmatch(_NOT_A_CELL)


def _ids(names: pd.Series, what: str) -> np.ndarray:
    """An id above 0 for each name: its own number where it has one that no other has."""
    if pd.api.types.is_numeric_dtype(names):
        if (names % 1 != 0).any():
            raise DataError(f"{what} holds fractional numbers: cell ids are whole numbers or text.")
        number = names.astype("int64") if names.max() <= _LARGEST else None
    else:
        tail = names.astype(str).str.extract(r"(?<!\d)(\d{1,9})$", expand=False)
        number = None if tail.isna().any() else tail.astype("int64")
    if number is None or number.duplicated().any() or number.min() < 1:
        return np.arange(1, len(names) + 1)
    return number.to_numpy()


def import_cells(
    sdata: SpatialData,
    cells_key: str,
    *,
    cell_key: str | None = None,
    unassigned: Collection[Hashable] | None = None,
    reach: float | None = None,
    image_key: str | None = None,
    points_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = "imported_cells",
) -> None:
    """Take cells that others segmented, as labels, so that they can be compared, drawn and counted.

    Parameters
    ----------
    sdata
        Holds the cells.
    cells_key
        Labels or shapes, which become labels as in `sslcst.pp.import_nuclei`. Or points with a cell id for each
        transcript: a pixel then belongs to the cell of the nearest transcript to its centre, and to none where that is
        in no cell or farther than `reach`. Cells are as ragged as their transcripts lie; where only transcripts are
        scored, `sslcst.pp.read_owners` needs no such drawing.
    cell_key, unassigned
        Of points, the column of the cell ids and what means "in no cell" there, as in `sslcst.pp.read_owners`.
    reach
        Of points, how far a transcript speaks for the pixels around it, in units of the coordinate system. By default
        three times the median distance of a place with transcripts to the next one: in even tissue one pixel in a
        thousand is farther from all.
    image_key, points_key
        What gives the grid of shapes and points: an image; without one, shapes take the points. May be left out if
        there is only one. Points without an image take pixels of half `reach`.
    coordinate_system
        Where cells, image and points meet; by default "global" or the only one.
    key_added
        Name of the labels, uint32. They are added to the object; a store on disk is not touched.

    Raises
    ------
    KeyMissingError
        No such element, column or coordinate system, or several that could be meant.
    ParameterError
        `reach` is not a positive number, or was given for others than points.
    DataError
        Labels or ids that are no whole numbers; no cell.
    """
    kinds = [*sdata.labels, *sdata.shapes, *sdata.points]
    choose_key(kinds, cells_key, kind="labels, shapes or points element", argument="cells_key")
    if reach is not None and not 0 < reach < np.inf:
        raise ParameterError(f"reach={reach!r}: must be a positive number.")
    if cells_key not in sdata.points:
        given = {"cell_key": cell_key, "unassigned": unassigned, "reach": reach}
        for argument, value in given.items():
            if value is not None:
                raise ParameterError(f"{argument}={value!r} is for points, and {cells_key!r} is none.")
        where = {"image_key": image_key, "points_key": points_key, "coordinate_system": coordinate_system}
        import_nuclei(sdata, cells_key, **where, key_added=key_added)
        return
    owner = read_owners(sdata, points_key=cells_key, cell_key=cell_key, unassigned=unassigned).owner
    if image_key is not None or len(sdata.images) == 1:
        image_key = choose_image(sdata, image_key)
    keys = [cells_key] if image_key is None else [cells_key, image_key]
    coordinate_system = choose_coordinate_system(sdata, keys, coordinate_system)
    points = sdata.points[cells_key]
    yx = apply_affine(affine_matrix(points, coordinate_system), points[list(YX)].compute().to_numpy(np.float64))
    if not np.isfinite(yx).all():
        raise DataError(f"Points {cells_key!r} have coordinates that are not finite.")
    reach = 3 * _spacing(yx) if reach is None else reach
    if image_key is None:
        raster = raster_over_points(sdata, cells_key, coordinate_system, reach / 2)
    else:
        raster = raster_of(sdata, image_key, coordinate_system)
    add_labels(sdata, key_added, _label_pixels(raster, yx, owner, reach), raster)


def _spacing(yx: np.ndarray) -> float:
    """Median distance of a place to the next one."""
    places = np.unique(yx, axis=0)
    if len(places) < 2:
        raise DataError("The transcripts are all at one place: give reach.")
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))


def _label_pixels(raster: Raster, yx: np.ndarray, owner: np.ndarray, reach: float) -> np.ndarray:
    """Label of the transcript nearest to each pixel's centre, 0 beyond reach; rows go through in blocks."""
    tree = cKDTree(yx)
    owner = np.append(owner, np.uint32(0))  # the tree names a missing neighbour by the number of transcripts
    height, width = raster.shape
    blocks = []
    for start in range(0, height, 256):
        rows, columns = np.mgrid[start : min(start + 256, height), 0:width].reshape(2, -1)
        centers = apply_affine(raster.to_system, np.column_stack([rows, columns]) + 0.5)
        blocks.append(owner[tree.query(centers, distance_upper_bound=reach)[1]])
    return np.concatenate(blocks).reshape(raster.shape)
