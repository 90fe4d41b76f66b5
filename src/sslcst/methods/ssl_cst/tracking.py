"""From predictions to cells: smoothing, flow, cells around nuclei and, on request, around none."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sslcst.core.cells import fill_holes, keep_attached
from sslcst.core.spots import Grid, Spots
from sslcst.errors import DataError
from sslcst.methods.ssl_cst.flow import confidence_field, mean_field, track
from sslcst.methods.ssl_cst.params import FlowParams

_CLIMBS = 4  # steps from the end of a path to the summit of its cell


def find_cells(
    spots: Spots,
    *,
    direction: np.ndarray,
    inside: np.ndarray,
    nuclei: np.ndarray,
    reach: float,
    spacing: float,
    first_orphan: int,
    params: FlowParams,
) -> np.ndarray:
    """Predictions to cells: smooth, track, clean. Labels on the grid (rows, columns), each with the id of its nucleus.

    Of each spot, `direction` is the posterior of the directions (n, 16), `inside` the probability of lying in a cell
    (n,). Paths are followed within `reach` bins; a prediction speaks for `spacing` bins (`Occupancy`). Where `params`
    keep cells without a nucleus, they are numbered from `first_orphan`.
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


def halo(extent: int, *, reach: float, spacing: float, orphans: bool) -> int:
    """Bins around a window beyond which nothing bears on the cells that reach into the window.

    A cell spans its nucleus, of at most `extent` bins, and `reach` on either side; each of its bins has a path within
    `reach`, over predictions smoothed by a Gaussian that ends at four standard deviations (`spacing`). An orphan's bins
    lie within `reach` and the climbs of its summit; how high the places are that each of them climbs past is told by
    the paths that end there.
    """
    span = extent + 2 * reach
    if orphans:
        radius = np.ceil(reach / 2)
        span = max(span, 2 * (reach + _CLIMBS * radius) + reach + (_CLIMBS + 1) * radius)
    return int(np.ceil(span + reach + 4 * spacing)) + 2


def check_ids(grid: Grid, first_id: int) -> None:
    """See that there is an id for each bin of a grid, from a first one on."""
    n_bins = int(np.prod(grid.whole_shape))
    if first_id + n_bins > np.iinfo(np.uint32).max:
        raise DataError(
            f"Cells without a nucleus cannot be numbered on a grid of {n_bins} bins: "
            "set flow.orphans=False, or a larger spots.bin_size."
        )


def orphan_cells(sinks: np.ndarray, grid: Grid, *, radius: float, first_id: int, min_area: int) -> np.ndarray:
    """Cells that the flow forms around no nucleus: paths run into one cell whose ends climb to the same summit.

    From each end of a path (`sinks` of `track`) the way goes to where most paths end within `radius` bins, up to
    `_CLIMBS` times; what has not come to a summit by then is no cell. So a cell depends on nothing beyond a bounded
    distance. Its id is `first_id` plus the key of its summit, wherever the window lies, and must fit 32 bits; one of
    fewer bins than `min_area` is dropped.
    """
    check_ids(grid, first_id)
    n_bins = int(np.prod(grid.whole_shape))
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
