"""What the encoder reads of the spots: expression, neighbours, position and distance, gathered a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from sslcst.core.geometry import nearest_spots, normalize_distance, normalize_position
from sslcst.core.spots import Spots


@dataclass(frozen=True)
class Batch:
    """Tokens of b spots: each spot itself, first, and its k nearest.

    Parameters
    ----------
    spot
        Index of each token's spot, int64 (b, 1 + k).
    position
        Eq. 4, float32 (b, 1 + k, 2).
    distance
        Normalised distance to the nearest centroid, float32 (b, 1 + k).
    present
        Whether there is such a neighbour, bool (b, 1 + k); None if there always is.
    """

    spot: torch.Tensor
    position: torch.Tensor
    distance: torch.Tensor
    present: torch.Tensor | None


class Inputs:
    """The spots' features on one device.

    Parameters
    ----------
    spots
        The n occupied spots.
    counts
        Counts of the genes that are read, csr (n, n_genes).
    distance
        Distance of each spot to the nearest nucleus centroid (n,), in bins.
    radius
        Expected cell radius r in bins.
    n_neighbors, window
        See `sslcst.core.geometry.nearest_spots`.
    device
        Where the tensors lie.
    """

    def __init__(
        self,
        spots: Spots,
        *,
        counts: sparse.csr_matrix,
        distance: np.ndarray,
        radius: float,
        n_neighbors: int,
        window: int,
        device: str = "cpu",
    ) -> None:
        neighbors = nearest_spots(spots.index, spots.grid.shape, n_neighbors=n_neighbors, window=window)
        self.radius = radius
        self.complete = bool((neighbors >= 0).all())
        self.neighbors = torch.from_numpy(neighbors).to(device)
        self.index = torch.from_numpy(spots.index).to(device, torch.float32)
        self.distance = torch.from_numpy(normalize_distance(distance, radius)).to(device)
        self.counts = GeneCounts(counts.astype(np.float32), device)

    def __len__(self) -> int:
        return len(self.neighbors)

    def batch(self, spot: torch.Tensor) -> Batch:
        """Tokens of these spots, int64 (b,)."""
        neighbors = self.neighbors[spot].long()
        present = None if self.complete else neighbors >= 0
        neighbors = neighbors.clamp_min(0)
        position = normalize_position(self.index[neighbors] - self.index[spot][:, None], self.radius)
        return Batch(neighbors, position, self.distance[neighbors], present)


class GeneCounts:
    """Sparse counts, rows of which are taken on the device: log(1 + count), so that none is too large to learn from."""

    def __init__(self, counts: sparse.csr_matrix, device: str = "cpu") -> None:
        self.start = torch.from_numpy(counts.indptr.astype(np.int64)).to(device)
        self.gene = torch.from_numpy(counts.indices.astype(np.int64)).to(device)
        self.value = torch.from_numpy(np.log1p(counts.data)).to(device)

    def rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Genes, values and first entry of each of these rows, one behind the other, as `embedding_bag` reads them."""
        start, length = self.start[rows], self.start[rows + 1] - self.start[rows]
        first = torch.cumsum(length, 0) - length
        entry = torch.repeat_interleave(start - first, length)
        entry += torch.arange(len(entry), device=entry.device)
        return self.gene[entry], self.value[entry], first
