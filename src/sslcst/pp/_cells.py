"""Others' cells: as labels, as shapes, or as a cell id for each transcript."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import add_labels, check_addable, choose_coordinate_system, choose_image, choose_key
from sslcst._sdata.provenance import as_record, note
from sslcst._sdata.raster import YX, Raster, affine_matrix, apply_affine, centers, raster_of, raster_over_points
from sslcst._sdata.source_ids import by_number
from sslcst._section import check
from sslcst.errors import DataError, ParameterError
from sslcst.pp._nuclei import import_nuclei
from sslcst.pp._owners import read_owners


@checked
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
        in no cell or farther than `reach`. Where only transcripts are scored, `sslcst.pp.read_owners` needs no drawing.
    cell_key, unassigned
        Of points, the column of the cell ids and what means "in no cell" there, as in `sslcst.pp.read_owners`.
    reach
        Of points, how far a transcript speaks for the pixels around it, in units of the coordinate system; by default
        four times the median distance of a place with transcripts to the next one.
    image_key, points_key
        What gives the grid: an image; without one, the points of shapes, or pixels of half `reach`. May be left out if
        there is only one.
    coordinate_system
        Where cells, image and points meet; by default "global" or the only one.
    key_added
        Name of the labels, uint32, and of the table ``{key_added}_ids``, as in `sslcst.pp.import_nuclei`.

    Raises
    ------
    KeyMissingError
        No such element, column or coordinate system, or several that could be meant.
    ParameterError
        `reach` is not a positive number, or was given for others than points.
    DataError
        Labels that are no whole numbers, or fractional ids of transcripts; no cell.
    """
    check_addable(sdata, "labels", key_added)
    kinds = [*sdata.labels, *sdata.shapes, *sdata.points]
    choose_key(kinds, cells_key, kind="labels, shapes or points element", argument="cells_key")
    check(reach is None or 0 < reach < np.inf, "reach", reach, "must be a positive number")
    if cells_key not in sdata.points:
        given = {"cell_key": cell_key, "unassigned": unassigned, "reach": reach}
        for argument, value in given.items():
            if value is not None:
                raise ParameterError(f"{argument}={value!r} is for points, and {cells_key!r} is none.")
        where = {"image_key": image_key, "points_key": points_key, "coordinate_system": coordinate_system}
        import_nuclei(sdata, cells_key, **where, key_added=key_added)
        return
    owner, names = read_owners(sdata, points_key=cells_key, cell_key=cell_key, unassigned=unassigned)
    if image_key is not None or len(sdata.images) == 1:
        image_key = choose_image(sdata, image_key)
    record = as_record(image_key=image_key, coordinate_system=coordinate_system)
    keys = [cells_key] if image_key is None else [cells_key, image_key]
    coordinate_system = choose_coordinate_system(sdata, keys, coordinate_system)
    points = sdata.points[cells_key]
    yx = apply_affine(affine_matrix(points, coordinate_system), points[list(YX)].compute().to_numpy(np.float64))
    if not np.isfinite(yx).all():
        raise DataError(f"Points {cells_key!r} have coordinates that are not finite.")
    reach = 4 * _spacing(yx) if reach is None else reach
    if image_key is None:
        raster = raster_over_points(sdata, cells_key, coordinate_system, reach / 2)
    else:
        raster = raster_of(sdata, image_key, coordinate_system)
    labels = _label_pixels(raster, yx, owner, reach)
    seen = names.index.isin(pd.unique(labels.ravel()))
    if not seen.any():
        raise DataError(
            f"None of the {len(seen)} cells in {cells_key!r} has a pixel: they lie off the image, or no pixel's centre "
            f"is nearest to them and within reach={reach:g}."
        )
    unseen, names = names[~seen].tolist(), names[seen]
    if unseen:
        named = ", ".join(map(repr, unseen[:5])) + (", ..." if len(unseen) > 5 else "")
        said = "%d of %d cells in %r have no pixel (%s): off the image, or among the transcripts of others."
        logger.warning(said, len(unseen), len(seen), cells_key, named)
    same = pd.api.types.is_numeric_dtype(names) and (names == names.index).all()
    add_labels(sdata, key_added, labels, raster, None if same else by_number(names.array, names.index))
    note(sdata, key_added, record)


def _spacing(yx: np.ndarray) -> float:
    """Median distance of a place to the next one."""
    places = np.unique(yx, axis=0)
    if len(places) < 2:
        raise DataError("The transcripts are all at one place: give reach.")
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))


def _label_pixels(raster: Raster, places: np.ndarray, owner: np.ndarray, reach: float) -> np.ndarray:
    """Label of the transcript nearest to each pixel's centre, 0 beyond reach."""
    tree = cKDTree(places)
    owner = np.append(owner, np.uint32(0))  # the tree names a missing neighbour by the number of transcripts
    labels = np.empty(raster.shape, owner.dtype)
    for rows, yx in centers(raster.shape, raster.to_system):
        labels[rows] = owner[tree.query(yx, distance_upper_bound=reach)[1]].reshape(-1, raster.shape[1])
    return labels
