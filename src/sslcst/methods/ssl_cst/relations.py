"""What the nuclei say of each spot: the one it lies in, the nearest, and the way there (paper: eq. 1-3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst.core.geometry import Regions, nearest_centroid
from sslcst.core.spots import Spots


@dataclass(frozen=True)
class Relations:
    """Nuclei as seen from n spots; lengths in bins.

    Parameters
    ----------
    nucleus, core
        Label of the nucleus, and of the eroded nucleus, at each spot, 0 outside, (n,).
    nearest
        Id of the nucleus with the nearest centroid, (n,).
    distance
        Distance to that centroid, (n,).
    offset
        Vector (dy, dx) from the spot to the centroid of its own nucleus, or else of the nearest, (n, 2).
    """

    nucleus: np.ndarray
    core: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    offset: np.ndarray


def relate(spots: Spots, nuclei: np.ndarray, cores: np.ndarray, regions: Regions) -> Relations:
    """Relate spots to nuclei.

    Parameters
    ----------
    spots
        The n occupied spots.
    nuclei, cores
        Labels on the grid (rows, columns).
    regions
        All nuclei, in pixels.
    """
    middle, centers = spots.index + 0.5, regions.centers / spots.grid.step
    nearest, distance = nearest_centroid(middle, centers)
    nucleus = nuclei[spots.place]
    own = np.where(nucleus > 0, np.searchsorted(regions.ids, nucleus), nearest)
    return Relations(nucleus, cores[spots.place], regions.ids[nearest], distance, centers[own] - middle)
