"""How good cells are by themselves."""

from __future__ import annotations

import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._sdata.elements import choose_key, read_nuclei, read_with_ids
from sslcst._sdata.provenance import Used, check_one, nuclei_of, result_name
from sslcst._sdata.raster import labels_on
from sslcst._sdata.source_ids import of_cells
from sslcst._sdata.transcripts import read_transcripts
from sslcst.metrics import quality as quality_of_arrays
from sslcst.pp._nuclei import rasters_of_cells


@checked
def quality(
    sdata: SpatialData,
    *,
    key: str = "sslcst",
    cells_key: str | None = None,
    nuclei_key: str | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    coordinate_system: str | None = None,
    ring: float | None = None,
) -> pd.DataFrame:
    """Measure the quality of each cell that needs no reference: signal, its fall at the border, what is of neighbours.

    Parameters
    ----------
    sdata
        Holds cells, nuclei and points.
    key
        The `key_added` of a segmentation: its cells are judged, by what it was made of.
    cells_key
        Labels or shapes of other cells, whoever made them. Of what made them nothing may be known: then they are judged
        by the nuclei, the transcripts and the coordinate system of `key`.
    nuclei_key
        Labels or shapes of nuclei, of any ids and on any grid; by default those of the cells. Compare segmentations by
        the same nuclei: they decide what cytoplasm is, and which genes exclude each other.
    points_key, gene_key, count_key, coordinate_system
        As in `sslcst.tl.compare`.
    ring
        How far around a cell "just outside" reaches, in these units; by default a quarter of the nuclei's median
        diameter.

    Returns
    -------
    One row for each cell, the index is its id: ``n_counts``, ``n_genes``, ``share``, ``diameter``, ``contamination``
    and ``density_ratio``, each defined in `sslcst.metrics.quality`; and ``source_id`` as in `sslcst.tl.aggregate`.

    Raises
    ------
    KeyMissingError, DataError
        As in `sslcst.tl.compare`.
    ParameterError
        `ring` is not a positive number.

    See Also
    --------
    sslcst.pl.quality : look at it.
    """
    if cells_key is None:
        check_one(sdata, key)
        cells_key = result_name(sdata, key, "cells")
    if nuclei_key is None:
        nuclei_key = nuclei_of(sdata, cells_key, key)
    for argument, name in (("cells_key", cells_key), ("nuclei_key", nuclei_key)):
        choose_key([*sdata.labels, *sdata.shapes], name, kind="labels or shapes element", argument=argument)
    used = Used.by(sdata, cells_key, result_name(sdata, key, "cells"))
    sdata, molecules = used.sdata, used.transcripts(points_key, gene_key, count_key)
    coordinate_system = used.system([cells_key, nuclei_key, molecules["points_key"]], coordinate_system)
    where = {"image_key": used.known_image, "points_key": molecules["points_key"]}
    raster, own = rasters_of_cells(sdata, (cells_key, nuclei_key), **where, coordinate_system=coordinate_system)
    cells, source_ids = read_with_ids(sdata, cells_key, raster)
    nuclei = labels_on(read_nuclei(sdata, nuclei_key, own), own, raster)
    transcripts = read_transcripts(sdata, **molecules, raster=raster, params=used.taken)
    frame = quality_of_arrays(
        cells, nuclei, transcripts.yx, transcripts.gene, transcripts.count, pixel_size=raster.pixel_size, ring=ring
    )
    if source_ids is not None:
        frame["source_id"] = of_cells(source_ids, frame.index).array
    return frame
