"""What the nuclei say of each spot: the one it lies in, the nearest, and the way there (paper: eq. 1-3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslcst.core.geometry import Regions, nearest_centroid
from sslcst.core.spots import Spots


@dataclass(frozen=True)
class Relations:
    """Nuclei as seen from n spots; lengths in bins."""

    nucleus: np.ndarray  #: Label of the nucleus at each spot, 0 outside, (n,)
    core: np.ndarray  #: Label of the eroded nucleus, likewise
    nearest: np.ndarray  #: Id of the nucleus with the nearest centroid, (n,)
    distance: np.ndarray  #: Distance to that centroid, (n,)
    #: Vector (dy, dx) from the spot to the centroid of its own nucleus, or else of the nearest, (n, 2)
    offset: np.ndarray


def relate(spots: Spots, nuclei: np.ndarray, cores: np.ndarray, regions: Regions) -> Relations:
    """Relate spots to nuclei: labels of nuclei and cores on the grid (rows, columns), and all regions, in pixels."""
    middle, centers = spots.index + 0.5, regions.centers / spots.grid.step
    nearest, distance = nearest_centroid(middle, centers)
    nucleus = nuclei[spots.place]
    own = np.where(nucleus > 0, np.searchsorted(regions.ids, nucleus), nearest)
    return Relations(nucleus, cores[spots.place], regions.ids[nearest], distance, centers[own] - middle)
