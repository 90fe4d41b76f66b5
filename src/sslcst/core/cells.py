"""From basins of the flow to cells: one piece each, without holes; from bins to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import label

from sslcst.core import composition
from sslcst.methods.density.composition import assign_bins, compare_mixes
from sslcst.core.density import Surroundings
from sslcst.methods.ssl_cst.flow import confidence_field, mean_field, track
from sslcst.core.spots import Grid, Spots
from sslcst.errors import DataError
from sslcst.params import FlowParams

_FOUR = ((0, 1), (1, 0))
_CLIMBS = 4  # steps from the end of a path to the summit of its cell


@dataclass(frozen=True)
class Occupancy:
    """How many bins lie in nuclei, and how many of these hold a spot; of parts of a chip they add up."""

    n_bins: int
    n_spots: int

    def __add__(self, other: Occupancy) -> Occupancy:
        return Occupancy(self.n_bins + other.n_bins, self.n_spots + other.n_spots)

    @property
    def spacing(self) -> float:
        """Half the mean spacing of the spots within nuclei, in bins and at least 1: how far a prediction speaks for."""
        return max(1.0, 0.5 * float(np.sqrt(self.n_bins / max(self.n_spots, 1))))

    @classmethod
    def of(cls, nuclei: np.ndarray, nucleus: np.ndarray) -> Occupancy:
        """From nucleus labels on the grid, and at each spot."""
        return cls(int(np.count_nonzero(nuclei)), int(np.count_nonzero(nucleus)))


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


def orphan_cells(sinks: np.ndarray, grid: Grid, *, radius: float, first_id: int, min_area: int) -> np.ndarray:
    """Cells that the flow forms around no nucleus: paths run into one cell whose ends climb to the same summit.

    From each end of a path the way goes to where most paths end within `radius`, up to `_CLIMBS` times; what has not
    come to a summit by then is no cell. So a cell depends on nothing beyond a bounded distance.

    Parameters
    ----------
    sinks
        As `sslcst.methods.ssl_cst.flow.track` gives them (rows, columns).
    grid
        The grid in view.
    radius
        In bins.
    first_id
        An orphan's id is this plus the key of its summit, wherever the window lies.
    min_area
        Orphans of fewer bins are dropped.

    Raises
    ------
    DataError
        The ids do not fit 32 bits.
    """
    n_bins = int(np.prod(grid.whole_shape))
    if first_id + n_bins > np.iinfo(np.uint32).max:
        raise DataError(
            f"Cells without a nucleus cannot be numbered on a grid of {n_bins} bins: "
            "set flow.orphans=False, or a larger spots.bin_size."
        )
    start = sinks >= 0
    ends = np.bincount(sinks[start], minlength=sinks.size).reshape(sinks.shape)
    places = np.argwhere(ends > 0)
    # Of two places where equally many paths end, the first is higher: no two are equal.
    height = np.full(sinks.shape, -1, np.int64)
    height[tuple(places.T)] = ends[tuple(places.T)] * n_bins + (n_bins - 1 - grid.keys(places + grid.corner))
    highest = ndimage.maximum_filter(height, 2 * int(np.ceil(radius)) + 1, mode="constant", cval=-1)
    place = np.arange(sinks.size)
    up = n_bins - 1 - highest.ravel() % n_bins
    rows, columns = np.divmod(up, grid.whole_shape[1])
    up = np.where(ends.ravel() > 0, (rows - grid.corner[0]) * sinks.shape[1] + columns - grid.corner[1], place)
    of_path = sinks[start]
    for _ in range(_CLIMBS):
        of_path = up[of_path]
    area = np.bincount(of_path, minlength=sinks.size)
    large = (up == place) & (area >= min_area)
    orphan = np.zeros(sinks.shape, np.uint32)
    index = np.stack(np.divmod(of_path, sinks.shape[1]), axis=1) + grid.corner
    orphan[start] = np.where(large[of_path], first_id + grid.keys(index), 0)
    return orphan


def to_pixels(cells: np.ndarray, grid: Grid, nuclei: np.ndarray) -> np.ndarray:
    """Cells on the raster of the nuclei: each pixel takes its bin's cell, and a nucleus' pixels always its own.

    Parameters
    ----------
    cells
        Labels on the grid (rows, columns).
    grid
        The grid.
    nuclei
        Labels on the pixels in view (y, x), of the same ids.
    """
    return np.where(nuclei > 0, nuclei, grid.to_raster(cells)).astype(np.uint32)


def find_cells(
    spots: Spots,
    *,
    direction: np.ndarray,
    inside: np.ndarray,
    nuclei: np.ndarray,
    reach: float,
    spacing: float,
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
    spacing
        How far a prediction speaks for, in bins (`Occupancy`).
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
        field = confidence_field(spots, direction, inside, sigma=spacing)
    cells, sinks = track(field, nuclei, threshold=params.threshold, step=params.step, reach=reach)
    cells = fill_holes(keep_attached(cells, nuclei))
    if params.orphans:
        orphans = orphan_cells(
            sinks, spots.grid, radius=reach / 2, first_id=first_orphan, min_area=params.min_orphan_area
        )
        cells = np.where(cells == 0, orphans, cells)
    return cells


def cells_near_nuclei(
    around: Surroundings,
    spots: Spots,
    *,
    share: np.ndarray,
    predicted: np.ndarray,
    gene_total: np.ndarray,
    trust: float,
    radius: float,
    threshold: float = 0.5,
) -> np.ndarray:
    """Predictions to cells: each bin that lies in a cell goes to one of the nuclei near it.

    Parameters
    ----------
    around
        The surroundings of all bins.
    spots
        The n occupied spots, with the counts of the genes by which cells are told apart.
    share
        Probability of lying in a cell that the density tells, for bins without a spot (rows, columns).
    predicted
        That of the spots (n,).
    gene_total
        Counts of the genes in the tissue (n_genes,).
    trust
        See `sslcst.methods.density.composition.trust_of`.
    radius
        Expected cell radius in bins.
    threshold
        Bins with a lower probability are outside every cell, unless they lie in a nucleus.

    Returns
    -------
    Labels on the grid (rows, columns), each with the id of its nucleus.
    """
    in_nucleus = around.distance[0] == 0
    probability = share.copy()
    probability[spots.place] = predicted
    inside = (probability >= threshold) | in_nucleus
    likelihood = compare_mixes(around, spots, inside, gene_total=gene_total, radius=radius)
    owner = assign_bins(around, likelihood, trust, radius=radius)
    return fill_holes(keep_attached(np.where(inside, owner, 0), np.where(in_nucleus, owner, 0)))


def halo(extent: int, *, reach: float, spacing: float, orphans: bool) -> int:
    """Bins around a window beyond which nothing bears on the cells that reach into the window.

    Parameters
    ----------
    extent
        Longest side of a nucleus' bounding box in bins.
    reach, spacing, orphans
        As in `find_cells`.

    Notes
    -----
    A cell spans its nucleus and `reach` on either side; each of its bins has a path within `reach`, over predictions
    smoothed by a Gaussian that ends at four standard deviations. An orphan's bins lie within `reach` and the climbs of
    its summit; how high the places are that each of them climbs past is told by the paths that end there.
    """
    span = extent + 2 * reach
    if orphans:
        radius = np.ceil(reach / 2)
        span = max(span, 2 * (reach + _CLIMBS * radius) + reach + (_CLIMBS + 1) * radius)
    return int(np.ceil(span + reach + 4 * spacing)) + 2


def halo_near_nuclei(extent: int, *, radius: float, reach: float) -> int:
    """Bins around a window beyond which nothing bears on the cells of `cells_near_nuclei` that reach into the window.

    Parameters
    ----------
    extent
        Longest side of a nucleus' bounding box in bins.
    radius, reach
        Expected cell radius, and how far a cell may reach from its nucleus, in bins.
    """
    return int(np.ceil(extent + 2 * reach)) + composition.halo(extent, radius=radius, reach=reach) + 1
