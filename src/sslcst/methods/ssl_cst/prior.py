"""Direction prior from the nuclei around, and the posterior (paper: eq. 13-15)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS, direction_class


def direction_prior(yx: np.ndarray, centers: np.ndarray, reach: float) -> np.ndarray:
    """Eq. 13-14: 1/n for each of the n directions that hold a nucleus centroid within reach, 0 for the others.

    Of positions (n, 2) and centroids (m, 2) in one unit, where `reach` is r + sigma: float32 (n, 16). Uniform (eq. 13)
    for a spot that has no centroid within reach, and for one that lies on a centroid.
    """
    pairs = cKDTree(yx).sparse_distance_matrix(cKDTree(centers), reach, output_type="coo_matrix")
    direction = direction_class(centers[pairs.col] - yx[pairs.row])
    known = direction >= 0
    allowed = np.zeros((len(yx), N_DIRECTIONS), bool)
    allowed[pairs.row[known], direction[known]] = True
    allowed[pairs.row[~known]] = True
    allowed[~allowed.any(axis=1)] = True
    return (allowed / allowed.sum(axis=1, keepdims=True)).astype(np.float32)


def direction_posterior(predicted: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Eq. 15: the network's probabilities (n, 16), given under the uniform prior, under the new prior (n, 16).

    Where the network leaves nothing to the directions that the prior allows, the prior itself.
    """
    joint = predicted * prior * N_DIRECTIONS
    total = joint.sum(axis=1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), prior)
