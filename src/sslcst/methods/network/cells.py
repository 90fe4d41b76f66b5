"""From predictions to cells."""

from __future__ import annotations

import numpy as np

from sslcst.core.cells import fill_holes, keep_attached


def decide(probability: np.ndarray, owner: np.ndarray, nuclei: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Cells in one piece each, around their nucleus and without holes.

    Parameters
    ----------
    probability, owner
        As `predict_cells` gives them (rows, columns).
    nuclei
        Nucleus labels (rows, columns); their bins stay theirs.
    threshold
        Bins with a lower probability are outside every cell.

    Returns
    -------
    Labels (rows, columns), each with the id of its nucleus; 0 in no cell.
    """
    labels = np.where(nuclei > 0, nuclei, np.where(probability >= threshold, owner, 0))
    return fill_holes(keep_attached(labels, nuclei))


def halo(extent: int, *, reach: float) -> int:
    """Bins around a window beyond which nothing bears on the cells that reach into it.

    Parameters
    ----------
    extent
        Longest side of a nucleus' bounding box in bins.
    reach
        How far from its nucleus a bin of a cell may lie, in bins.
    """
    return int(np.ceil(extent + 2 * reach)) + 2
