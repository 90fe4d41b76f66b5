"""What a run takes in memory and on the disk: estimates, rounded from what benchmarks/chip.py gave."""

from __future__ import annotations

import numpy as np

_BYTES_PER_BIN = 300  # of a tile and what it sees around
_BYTES_PER_SPOT = 1_200  # two tiles are at work, one being read
_AROUND = 128  # bins, about, that a tile sees around


def bins_seen(side: int, whole_shape: tuple[int, int]) -> int:
    """Bins, about, that a tile sees with those around it."""
    return min(side + 2 * _AROUND, max(whole_shape)) ** 2


def tile_bytes(n_bins: int, n_transcripts: float) -> float:
    """What a tile takes in memory, about, that sees so many bins, and so many transcripts on them."""
    return _BYTES_PER_BIN * n_bins + _BYTES_PER_SPOT * occupied(n_transcripts, n_bins)


def occupied(n: float, n_bins: float) -> float:
    """Bins that hold one of n transcripts strewn at random."""
    return n_bins * -np.expm1(-n / n_bins)
