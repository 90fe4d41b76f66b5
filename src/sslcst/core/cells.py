"""From basins of the flow to cells: one piece each, without holes; from bins to pixels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label

from sslcst.core.flow import confidence_field, mean_field, track
from sslcst.core.spots import Grid, Spots
from sslcst.params import FlowParams

_FOUR = ((0, 1), (1, 0))


def keep_attached(cells: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """Cells without the pieces that do not hang together (4-neighbours) with their nucleus."""
    piece = label(cells, connectivity=1)
    attached = np.zeros(piece.max() + 1, bool)
    attached[piece[(nuclei > 0) & (cells == nuclei)]] = True
    return np.where(attached[piece], cells, 0)


def fill_holes(cells: np.ndarray) -> np.ndarray:
    """Cells with every background region filled that one cell alone encloses; regions at the border stay open."""
    region, n_regions = ndimage.label(np.pad(cells, 1) == 0)
    padded = np.pad(cells, 1)
    pairs = []
    for dy, dx in _FOUR:
        one, other = np.s_[dy:, dx:], np.s_[: padded.shape[0] - dy, : padded.shape[1] - dx]
        for a, b in ((one, other), (other, one)):
            edge = (padded[a] == 0) & (padded[b] > 0)
            pairs.append(np.stack([region[a][edge], padded[b][edge].astype(np.int64)], axis=1))
    pairs = np.unique(np.concatenate(pairs), axis=0)
    alone = np.bincount(pairs[:, 0], minlength=n_regions + 1) == 1
    alone[region[0, 0]] = False  # the outside
    owner = np.zeros(n_regions + 1, cells.dtype)
    owner[pairs[:, 0]] = pairs[:, 1]
    return np.where(alone[region], owner[region], padded)[1:-1, 1:-1]


def orphan_cells(sinks: np.ndarray, *, first_id: int, min_area: int) -> np.ndarray:
    """Cells that the flow forms around no nucleus: paths whose sinks touch run into one cell.

    Parameters
    ----------
    sinks
        As `sslcst.core.flow.track` gives them (rows, columns).
    first_id
        Orphans are numbered from here.
    min_area
        Those of fewer bins are dropped.
    """
    start = sinks >= 0
    at_sink = np.zeros(sinks.size, bool)
    at_sink[sinks[start]] = True
    merged = label(at_sink.reshape(sinks.shape), connectivity=2).ravel()
    orphan = np.zeros(sinks.shape, np.int64)
    orphan[start] = merged[sinks[start]]
    area = np.bincount(orphan.ravel())
    area[0] = 0
    new_id = np.zeros(len(area), np.uint32)
    large = np.flatnonzero(area >= min_area)
    new_id[large] = first_id + np.arange(len(large))
    return new_id[orphan]


def to_pixels(cells: np.ndarray, grid: Grid, nuclei: np.ndarray) -> np.ndarray:
    """Cells on the raster of the nuclei: each pixel takes its bin's cell, and a nucleus' pixels always its own.

    Parameters
    ----------
    cells
        Labels on the grid (rows, columns).
    grid
        The grid.
    nuclei
        Labels on the raster (y, x), of the same ids.
    """
    return np.where(nuclei > 0, nuclei, grid.to_raster(cells)).astype(np.uint32)


def find_cells(
    spots: Spots,
    *,
    direction: np.ndarray,
    inside: np.ndarray,
    nuclei: np.ndarray,
    reach: float,
    first_orphan: int,
    params: FlowParams = FlowParams(),
) -> np.ndarray:
    """Predictions to cells: smooth, track, clean.

    Parameters
    ----------
    spots
        The n occupied spots.
    direction
        Posterior of the directions (n, 16).
    inside
        Probability of lying in a cell (n,).
    nuclei
        Nucleus labels on the grid (rows, columns).
    reach
        Distance in bins beyond which a path is not followed.
    first_orphan
        Cells without a nucleus are numbered from here.
    params
        Smoothing, threshold, step, and whether cells without a nucleus are kept.

    Returns
    -------
    Labels on the grid (rows, columns), each with the id of its nucleus.
    """
    if params.smoothing == "mean":
        field = mean_field(spots, direction, inside)
    else:
        field = confidence_field(spots, direction, inside, sigma=spot_spacing(spots, nuclei))
    cells, sinks = track(field, nuclei, threshold=params.threshold, step=params.step, reach=reach)
    cells = fill_holes(keep_attached(cells, nuclei))
    if params.orphans:
        orphans = orphan_cells(sinks, first_id=first_orphan, min_area=params.min_orphan_area)
        cells = np.where(cells == 0, orphans, cells)
    return cells


def spot_spacing(spots: Spots, nuclei: np.ndarray) -> float:
    """Half the mean spacing of the spots within nuclei, in bins and at least 1: how far a prediction speaks for."""
    in_nuclei = nuclei > 0
    occupied = np.count_nonzero(in_nuclei[tuple(spots.index.T)])
    return max(1.0, 0.5 * float(np.sqrt(np.count_nonzero(in_nuclei) / max(occupied, 1))))
