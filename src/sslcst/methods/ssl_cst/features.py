"""What the encoders read of the spots: of all in view, or of those that samples draw from, gathered over a chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sslcst.core.geometry import nearest_spots
from sslcst.core.spots import Spots
from sslcst.methods.ssl_cst.params import SslCstParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import Samples


@dataclass(frozen=True)
class Features:
    """Features of n spots, in the order of their keys."""

    index: np.ndarray  #: Row and column on the whole grid, int32 (n, 2)
    #: The nearest spots of each, itself first, as indices into the n, int32 (n, 1 + k); -1 where there is none
    neighbors: np.ndarray
    counts: sparse.csr_matrix  #: Counts of the genes that are read, csr (n, n_genes)
    distance: np.ndarray  #: Distance to the nearest nucleus centroid in bins, (n,)

    @classmethod
    def of(
        cls, spots: Spots, *, counts: sparse.csr_matrix, distance: np.ndarray, n_neighbors: int, window: int
    ) -> Features:
        """Features of all spots in view; see `sslcst.core.geometry.nearest_spots` for the neighbours."""
        neighbors = nearest_spots(spots, n_neighbors=n_neighbors, window=window)
        return cls(spots.index, neighbors, counts, distance)


@dataclass(frozen=True)
class Gathering:
    """Spots cut out of a part of a chip; neighbours are told by their keys, since they may lie in another part."""

    key: np.ndarray  #: Keys of the n spots (`Spots.keys`), int64 (n,)
    neighbors: np.ndarray  #: Keys of the nearest spots of each, int64 (n, 1 + k); -1 where there is none or nobody asks
    asked: np.ndarray  #: Whether the neighbours of a spot are told, bool (n,)
    index: np.ndarray  #: As in `Features`, like the next two
    counts: sparse.csr_matrix
    distance: np.ndarray


def gather(
    spots: Spots,
    samples: Samples,
    counts: sparse.csr_matrix,
    distance: np.ndarray,
    *,
    radius: float,
    params: SslCstParams,
    owned: np.ndarray | slice = np.s_[:],
) -> Gathering:
    """Cut out the spots that an encoder reads when it learns from samples.

    Those are, for one that reads fields, the spots in the squares of tissue that hold samples and in the eight squares
    around each; and for one that reads spot by spot, those of the samples and the nearest of each.

    Samples are those of the whole chip, but only spots that are owned are cut out; the others serve as neighbours.
    `counts` (n, n_genes) are of the genes that are read, `distance` is that to the nearest centroid in bins (n,), and
    r, the expected cell radius, is `radius` bins.
    """
    seek = {"n_neighbors": params.inputs.n_neighbors, "window": params.inputs.window}
    mine = np.zeros(len(spots), bool)
    mine[owned] = True
    if params.encoder.kind == "field":
        width = spots.grid.whole_shape[1]
        around = np.add.outer([-width, 0, width], [-1, 0, 1]).ravel()
        square = (spots.index // crop_side(params.training, radius)).astype(np.int64) @ (width, 1)
        chosen = np.flatnonzero(mine & np.isin(square, np.add.outer(np.unique(samples.square), around)))
        near = nearest_spots(spots, wanted=chosen, **seek)
        asked = np.ones(len(chosen), bool)
    else:
        wanted = np.flatnonzero(mine & np.isin(spots.keys, samples.key))
        found = nearest_spots(spots, wanted=wanted, **seek)
        chosen = np.union1d(wanted, found[found >= 0])
        asked = np.isin(chosen, wanted)
        near = np.full((len(chosen), found.shape[1]), -1, np.int32)
        near[asked] = found
    keys = np.append(spots.keys, -1)  # which a missing neighbour, -1, finds at the end
    return Gathering(keys[chosen], keys[near], asked, spots.index[chosen], counts[chosen], distance[chosen])


def join(parts: Sequence[Gathering]) -> tuple[np.ndarray, Features]:
    """Keys and features of what the parts of a chip gathered; neighbours that none of them has are left out."""
    key, asked = (np.concatenate([getattr(part, name) for part in parts]) for name in ("key", "asked"))
    order = np.lexsort((~asked, key))  # of a spot that several parts have, the one who knows its neighbours
    first = np.r_[True, key[order][1:] != key[order][:-1]] if len(key) else np.zeros(0, bool)
    order = order[first]
    key = key[order]
    neighbor_key = np.concatenate([part.neighbors for part in parts])[order]
    place = np.minimum(np.searchsorted(key, neighbor_key), max(len(key) - 1, 0))
    neighbors = np.where(key[place] == neighbor_key, place, -1).astype(np.int32)
    index, distance = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("index", "distance"))
    counts = sparse.vstack([part.counts for part in parts], format="csr")[order]
    return key, Features(index, neighbors, counts, distance)


def crop_side(params: TrainingParams, radius: float) -> int:
    """Side in bins of the squares that a field encoder learns from, where r is `radius` bins."""
    return max(1, round(params.crop * radius))
