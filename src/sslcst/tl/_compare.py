"""Two segmentations of one tissue beside each other, whoever made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._sdata.elements import choose_key, read_nuclei
from sslcst._sdata.provenance import Used
from sslcst._sdata.raster import apply_affine, labels_on
from sslcst._sdata.transcripts import Transcripts, read_transcripts
from sslcst.core.counts import owners
from sslcst.errors import DataError
from sslcst.metrics import (
    average_precision,
    correlation,
    diameters,
    fraction_right,
    match,
    mean_best_iou,
    n_cells,
    splits_merges,
)
from sslcst.pp._nuclei import rasters_of_cells


@dataclass(frozen=True)
class Comparison:
    """What `sslcst.tl.compare` finds of segmentations a and b; two numbers are of a and of b."""

    a: str  #: Name of the labels or shapes
    b: str  #: That of the others
    n_cells: tuple[int, int]  #: Number of cells
    n_pairs: int  #: Cells that are paired one to one so that they share most area
    mean_best_iou: tuple[float, float]  #: Of the cells of either with their best in the other (paper: fig. 7)
    average_precision: tuple[float, ...]  #: TP / (TP + FP + FN) at an IoU of 0.5, 0.6, 0.7, 0.8 and 0.9
    splits: int  #: Cells of a that are several in b
    merges: int  #: Cells of b that are several in a
    diameter: tuple[float, float]  #: Median equivalent diameter, in units of the coordinate system (paper: fig. 6)
    #: Share of the counts that lie in cells. This and what follows is NaN without transcripts
    share_in_cells: tuple[float, float] = (np.nan, np.nan)
    transcripts_alike: float = np.nan  #: Share of the transcripts that both give to the same cell or to none
    #: Of the part that a cell has in one alone with the part that is shared, mean over the pairs with counts enough in
    #: all three parts (paper: fig. 2, 5 and 8)
    correlation: tuple[float, float] = (np.nan, np.nan)
    n_correlated: int = 0  #: Number of these pairs

    def to_frame(self) -> pd.DataFrame:
        """One row for each figure, one column for each segmentation; what belongs to both stands in both."""
        rows = {
            "cells": self.n_cells,
            "paired cells": self.n_pairs,
            "mean best IoU": self.mean_best_iou,
            "average precision at 0.5": self.average_precision[0],
            "split in the other": (self.splits, self.merges),
            "median diameter": self.diameter,
            "counts in cells": self.share_in_cells,
            "transcripts alike": self.transcripts_alike,
            "correlation": self.correlation,
        }
        values = {name: value if isinstance(value, tuple) else (value, value) for name, value in rows.items()}
        return pd.DataFrame.from_dict(values, orient="index", columns=[self.a, self.b])


@checked
def compare(
    sdata: SpatialData,
    a_key: str,
    b_key: str,
    *,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    coordinate_system: str | None = None,
    min_counts: int = 100,
) -> Comparison:
    """Compare two segmentations cell by cell; neither is taken for the truth.

    Labels of different grids are compared on that of the first: each of its pixels takes the label that the second has
    at its centre. Transcripts are looked up in each on its own grid. Shapes are drawn on the grid of the labels beside
    them; without labels, on that of the image, or on one over the transcripts.

    Parameters
    ----------
    sdata
        Holds the cells and, for what concerns transcripts, points.
    a_key, b_key
        Labels or shapes of the cells. A cell id for each transcript becomes labels by `sslcst.pp.import_cells`.
    points_key, gene_key, count_key
        The transcripts, as in `sslcst.pp.bin_spots`; by default those that the cells were made of. Where the object has
        no points, geometry alone is compared.
    coordinate_system
        Where cells and points meet, and whose units diameters are in; by default that in which the cells were made,
        else "global" or the only one they share.
    min_counts
        Counts that each part of a cell needs to be correlated, see `sslcst.metrics.correlation`.

    Returns
    -------
    The figures, each pair in the order (a, b).

    Raises
    ------
    KeyMissingError
        An element or coordinate system is not there, or several could be meant.
    DataError
        Labels that are no integers or hold no cell; shapes that cannot be drawn; cells that do not lie over each other;
        what `sslcst.pp.bin_spots` refuses of transcripts.
    ParameterError
        `min_counts` is below 1.

    See Also
    --------
    sslcst.pl.compare : look at it.
    sslcst.tl.quality : judge cells by themselves.
    """
    for argument, key in (("a_key", a_key), ("b_key", b_key)):
        choose_key([*sdata.labels, *sdata.shapes], key, kind="labels or shapes element", argument=argument)
    used, molecules = Used.by(sdata, a_key, b_key), {}
    sdata = used.sdata
    if points_key is not None or len(sdata.points):
        molecules = used.transcripts(points_key, gene_key, count_key)
        points_key = molecules["points_key"]
    coordinate_system = used.system([a_key, b_key, points_key], coordinate_system)
    where = {"image_key": used.known_image, "points_key": points_key, "coordinate_system": coordinate_system}
    rasters = rasters_of_cells(sdata, (a_key, b_key), **where)
    labels = [read_nuclei(sdata, key, raster) for key, raster in zip((a_key, b_key), rasters, strict=True)]
    a, b = labels[0], labels_on(labels[1], rasters[1], rasters[0])
    if not b.any():
        raise DataError(
            f"No cell of {b_key!r} lies on {a_key!r} in coordinate system {coordinate_system!r}: "
            "see that their transformations are right."
        )
    splits, merges = splits_merges(a, b)
    figures = {
        "n_cells": tuple(n_cells(of) for of in labels),
        "n_pairs": len(match(a, b)),
        "mean_best_iou": (mean_best_iou(a, b), mean_best_iou(b, a)),
        "average_precision": tuple(average_precision(a, b).tolist()),
        "splits": splits,
        "merges": merges,
        "diameter": tuple(
            float(np.median(diameters(of, pixel_size=raster.pixel_size)))
            for of, raster in zip(labels, rasters, strict=True)
        ),
    }
    if points_key is not None:
        transcripts = read_transcripts(sdata, **molecules, raster=rasters[0], params=used.taken)
        to_b = np.linalg.inv(rasters[1].to_system) @ rasters[0].to_system
        owner = owners(transcripts.yx, labels[0]), owners(apply_affine(to_b, transcripts.yx), labels[1])
        for key, of in zip((a_key, b_key), owner, strict=True):
            if not of.any():
                raise DataError(
                    f"No transcript of {points_key!r} lies in a cell of {key!r} in coordinate system "
                    f"{coordinate_system!r}: see that their transformations are right."
                )
        figures |= _transcripts(*owner, transcripts, min_counts)
    return Comparison(a_key, b_key, **figures)


def _transcripts(a: np.ndarray, b: np.ndarray, transcripts: Transcripts, min_counts: int) -> dict[str, Any]:
    weight = np.ones(len(a), np.int64) if transcripts.count is None else transcripts.count
    scores = correlation(
        a, b, transcripts.gene, transcripts.count, n_genes=len(transcripts.genes), min_counts=min_counts
    )
    return {
        "share_in_cells": tuple(float(weight[owner > 0].sum() / weight.sum()) for owner in (a, b)),
        "transcripts_alike": fraction_right(a, b),
        "correlation": (scores.a, scores.b),
        "n_correlated": scores.n_pairs,
    }
