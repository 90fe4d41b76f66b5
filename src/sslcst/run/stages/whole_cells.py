"""Nuclei and whole cells, each found or given by itself, matched under one id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sslcst._logging import logger, progress
from sslcst._sdata.scratch import Scratch
from sslcst.core.geometry import Regions
from sslcst.core.matching import Shared, as_cells
from sslcst.core.spots import slices
from sslcst.params import Params
from sslcst.run.stages.nuclei import create
from sslcst.run.tiling import squares
from sslcst.run.warnings import warn
from sslcst.run.workspace import MATCHED, NUCLEI, WHOLE_CELLS, read_labels

_FILE, _DONE = "matched_nuclei.npz", "matched_nuclei.done"
_MOST = 0.5  # share of the nuclei in no cell, from which both hardly are of one tissue


@dataclass(frozen=True)
class Matched:
    """Which nucleus is of which cell."""

    nucleus: np.ndarray  #: Ids of all nuclei
    owner: np.ndarray  #: Id of the cell of each, 0 for none

    def n_nuclei(self, cells: np.ndarray) -> np.ndarray:
        """How many nuclei these cells have, ids (n,)."""
        return pd.Series(self.owner).value_counts().reindex(cells, fill_value=0).to_numpy()


def match(scratch: Scratch, shape: tuple[int, int], cells: Regions, params: Params) -> Matched:
    """Give nuclei the ids of their cells, and cut them to these, unless that was done before.

    A nucleus is of the cell, or of none, in which most of its pixels lie (`sslcst.core.matching`).
    """
    if scratch.is_finished(_DONE):
        return Matched(**scratch.load(_FILE))
    out = create(scratch, shape, MATCHED)
    tiles = [slices(ranges) for _, _, ranges in squares(shape, params.tiles.image_size)]
    with progress("match nuclei", 2 * len(tiles), unit="tile") as bar:
        parts = []
        for pixels in tiles:
            parts.append(Shared.of(read_labels(scratch, NUCLEI, pixels), read_labels(scratch, WHOLE_CELLS, pixels)))
            bar.update()
        matched = Matched(*Shared.join(parts).match())
        for pixels in tiles:
            labels, whole = (read_labels(scratch, file, pixels) for file in (NUCLEI, WHOLE_CELLS))
            out[pixels] = as_cells(labels, whole, matched.nucleus, matched.owner)
            bar.update()
    _tell(scratch, matched, cells)
    scratch.save(_FILE, vars(matched))
    scratch.finish(_DONE, [_FILE, MATCHED])
    return matched


def _tell(scratch: Scratch, matched: Matched, cells: Regions) -> None:
    n, lost = len(matched.owner), int((matched.owner == 0).sum())
    of_cell = matched.n_nuclei(cells.ids)
    logger.info(
        "%d cells: %d with one nucleus, %d with several, %d with none; %d of %d nuclei are in no cell and left out.",
        *(len(cells), (of_cell == 1).sum(), (of_cell > 1).sum(), (of_cell == 0).sum(), lost, n),
    )
    if lost > _MOST * n:
        warn(
            scratch,
            f"{lost} of {n} nuclei lie in none of the {len(cells)} cells, and are left out. See whether cells were "
            "missed, and whether nuclei and cells lie on one another: draw both with sslcst.pl.segmentation.",
        )
