"""The blocks in which a tissue goes through the network, cut on one grid.

A block is seen with a margin around it, both at fixed places of the tissue, filled up with empty bins beyond its edge.
So it goes in the same shape through the same kernels, whatever window it is asked for, and gives the same numbers
wherever that begins or ends; blocks at the far edges, and of small tissues, are but as large as they need to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from sslcst.core.spots import Ranges
from sslcst.methods.network.network import MULTIPLE

BLOCK = 512  # bins, side of a block; a multiple of what the network halves, and a part of the default tile
MARGIN = 48  # bins around it, about three expected cell radii, likewise
INNER = np.s_[..., MARGIN:-MARGIN, MARGIN:-MARGIN]  # a block without its margin


def halo_of(block: int) -> int:
    """Bins around any window that hold all blocks which reach into it, if it is cut on a grid of that many bins."""
    return MARGIN if block % BLOCK == 0 else BLOCK - 1 + MARGIN


def blocks_of(own: Ranges, whole: tuple[int, int]) -> Iterator[Ranges]:
    """The blocks that reach into a window of a tissue."""
    rows, columns = (
        [
            (first, min(first + BLOCK, -(-side // MULTIPLE) * MULTIPLE))
            for first in range(start // BLOCK * BLOCK, stop, BLOCK)
        ]
        for (start, stop), side in zip(own, whole, strict=True)
    )
    return product(rows, columns)


def cut_block(values: np.ndarray, block: Ranges, corner: tuple[int, int]) -> np.ndarray:
    """A block and its margin from the values in view, filled up with zeros beyond these."""
    low = [start - MARGIN - first for (start, _), first in zip(block, corner, strict=True)]
    high = [stop + MARGIN - first for (_, stop), first in zip(block, corner, strict=True)]
    inner = tuple(slice(max(0, a), max(0, b)) for a, b in zip(low, high, strict=True))
    before = [max(0, -a) for a in low]
    after = [min(b - a, max(0, b - side)) for a, b, side in zip(low, high, values.shape, strict=True)]
    return np.pad(values[inner], list(zip(before, after, strict=True)))
