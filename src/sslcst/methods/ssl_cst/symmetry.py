"""The eight ways to turn and mirror a square grid onto itself, and what they do to offsets and to directions."""

from __future__ import annotations

import numpy as np

from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS

N_TURNS = 8


def turn_matrices() -> np.ndarray:
    """Matrices (8, 2, 2) that take an offset (dy, dx), as a column, to the turned one; the first leaves it as it is."""
    quarter = np.array([[0, 1], [-1, 0]])  # from the x axis towards +y, as the classes of directions go
    mirror = np.array([[-1, 0], [0, 1]])
    quarters = [np.linalg.matrix_power(quarter, k) for k in range(4)]
    return np.array([*quarters, *(turn @ mirror for turn in quarters)], np.float32)


def turned_classes() -> np.ndarray:
    """Class (8, 17) of each class of direction after each turn; the last column, read with -1, is -1: no direction."""
    classes = np.arange(N_DIRECTIONS)
    quarters = np.arange(4)[:, None] * (N_DIRECTIONS // 4)
    turned = np.concatenate([(classes + quarters) % N_DIRECTIONS, (classes[::-1] + quarters) % N_DIRECTIONS])
    return np.pad(turned, ((0, 0), (0, 1)), constant_values=-1)
