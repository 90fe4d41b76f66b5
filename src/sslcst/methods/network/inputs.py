"""What the cell network sees of a window: nuclei, distances to them and densities, in units that fit any tissue.

Lengths are in units of the expected cell radius r, densities relative to their surroundings and to the tissue's levels,
so that tissues of other sizes and depths look alike. What the density method tells goes in as well: it says how far the
cells of *this* tissue reach. Genes do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from sslcst.core.density import Levels, cell_share, local_density

REACH = 2.0  # in r: a bin farther from every nucleus is in no cell
N_CANDIDATES = 3  # nearest nuclei to one of which a bin may belong
N_PLANES = 21
VECTORS = ((5, 6), (7, 8))  # planes that are the rows and columns of a vector, and turn with the tissue
_SCALES = (0.1, 0.25, 0.6)  # of densities: half the side of a square in r, over which is averaged twice
_SURROUNDINGS = 1.5
_LEAST = 1e-3  # counts a bin that are added to the surroundings', which may be empty


@dataclass(frozen=True)
class Inputs:
    """A window as the network sees it."""

    planes: np.ndarray  #: Input of the network, float32 (21, rows, columns)
    #: Candidates, the nearest nuclei of each bin (3, rows, columns), nearest first and 0 where there are no more
    labels: np.ndarray
    distance: np.ndarray  #: To the nearest bin of each candidate, in r and at most `REACH`, float32 (3, rows, columns)
    #: From the bin to the centroid of each candidate, in r, float32 (3, 2, rows, columns); 0 where there is none
    offset: np.ndarray
    share: np.ndarray  #: Probability of lying in a cell by the density method, float32 (rows, columns)


def make_inputs(counts: np.ndarray, nuclei: np.ndarray, levels: Levels, *, radius: float) -> Inputs:
    """Make the inputs of a window from the transcripts in each bin and the nuclei (rows, columns).

    `levels` are those of the whole tissue within `REACH` r of the nuclei, and r is `radius` bins.
    """
    around = local_density(counts, nuclei, radius=radius, reach=REACH * radius)
    labels = around.nuclei
    distance = (np.minimum(around.distance, REACH * radius) / radius).astype(np.float32)
    offset, size = _offsets(nuclei, labels, radius)

    density = [_blurred(counts, scale * radius) for scale in _SCALES]
    surroundings = _blurred(counts, _SURROUNDINGS * radius)
    usual = [_usual_share(near, levels) for near in around.distance[:2]]
    share = cell_share(around, levels, radius=radius).astype(np.float32)
    planes = [
        nuclei > 0,
        *distance,
        distance[1] - distance[0],
        *offset[0],  # VECTORS
        *offset[1],
        *size[:2],
        *(np.sqrt(values / (surroundings + _LEAST)) for values in density),
        *(np.sqrt(values / (levels.cell + _LEAST)) for values in density[1:]),
        np.log10(surroundings * radius**2 + 1),  # how much the densities can tell
        np.sqrt(surroundings / (levels.cell + _LEAST)),
        share,
        *usual,
    ]
    return Inputs(np.stack(planes, dtype=np.float32), labels, distance, offset, share)


def _offsets(nuclei: np.ndarray, labels: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from each bin to its candidates' centroids, and their diameters, both in r; 0 where there is none."""
    inside = np.nonzero(nuclei)
    ids, member = np.unique(nuclei[inside], return_inverse=True)
    area = np.bincount(member)
    row, column = (np.bincount(member, place) / area for place in inside)
    exists = labels > 0
    index = np.searchsorted(ids, labels)
    down = np.where(exists, (row[index] - np.arange(nuclei.shape[0])[:, None]) / radius, 0)
    right = np.where(exists, (column[index] - np.arange(nuclei.shape[1])) / radius, 0)
    size = np.where(exists, (2 * np.sqrt(area / np.pi) / radius)[index], 0)
    return np.stack([down, right], axis=1).astype(np.float32), size.astype(np.float32)


def _usual_share(distance: np.ndarray, levels: Levels) -> np.ndarray:
    """The share of the bins at a distance in bins that usually lies in cells; 0 beyond reach."""
    n = len(levels.share)
    return np.where(np.isfinite(distance), np.interp(np.minimum(distance, n), np.arange(n), levels.share), 0)


def _blurred(counts: np.ndarray, half: float) -> np.ndarray:
    """Mean over a square around each bin, taken twice; beyond the window there is nothing."""
    side = 2 * max(1, round(half)) + 1
    values = counts.astype(np.float64)
    for _ in range(2):
        values = uniform_filter(values, side, mode="constant")
    return np.maximum(values, 0)  # sums that run along may end a rounding error below
