"""From predictions to cells."""

from __future__ import annotations

import numpy as np

from sslcst.core.cells import fill_holes, keep_attached


def decide(probability: np.ndarray, owner: np.ndarray, nuclei: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Cells (rows, columns) in one piece each, around their nucleus and without holes, from what `predict_cells` gives.

    Bins of nuclei stay theirs; others of a probability below the threshold are outside every cell.
    """
    labels = np.where(nuclei > 0, nuclei, np.where(probability >= threshold, owner, 0))
    return fill_holes(keep_attached(labels, nuclei))


def halo(extent: int, *, reach: float) -> int:
    """Bins around a window beyond which nothing bears on the cells that reach into it.

    A cell spans its nucleus, of at most `extent` bins, and `reach` bins on either side.
    """
    return int(np.ceil(extent + 2 * reach)) + 2
