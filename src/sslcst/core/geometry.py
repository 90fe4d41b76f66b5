"""Where a spot lies: nucleus centroids, distance to the nearest, position, nearest spots (paper: eq. 1-4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numba
import numpy as np
from scipy.spatial import cKDTree

from sslcst.core.spots import Spots
from sslcst.core.threads import compiled, parallel

_MOST_TIES = 4  # centroids that may be equally near: the corners of a square around a spot


@dataclass(frozen=True)
class Regions:
    """The regions of a label image: sums of whole numbers, so that parts of an image give what the whole gives."""

    ids: np.ndarray  #: The labels that occur, ascending, (n,)
    areas: np.ndarray  #: Their numbers of pixels, int64 (n,)
    sums: np.ndarray  #: Sums of the rows and of the columns of their pixels, int64 (n, 2)
    low: np.ndarray  #: First row and column of their bounding boxes, int64 (n, 2)
    high: np.ndarray  #: Those behind the last, int64 (n, 2)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def centers(self) -> np.ndarray:
        """Eq. 1: the mean position (n, 2) of each region's pixels, where pixel i reaches from i to i + 1."""
        return (self.sums + 0.5 * self.areas[:, None]) / self.areas[:, None]

    @property
    def diameter(self) -> float:
        """That of the disc as large as the median region, in pixels."""
        return 2 * float(np.sqrt(np.median(self.areas) / np.pi))

    def extent(self, step: tuple[float, float]) -> int:
        """Longest side of a bounding box, in bins of `step` pixels."""
        return int(np.ceil(((self.high - self.low) / step).max()))

    def take(self, chosen: np.ndarray) -> Regions:
        """Some of the regions."""
        return Regions(*(values[chosen] for values in vars(self).values()))

    @classmethod
    def of(cls, labels: np.ndarray, corner: tuple[int, int] = (0, 0)) -> Regions:
        """Regions of labels (y, x), 0 being background, whose first pixel is `corner` of the whole."""
        rows, starts, stops = _runs(labels)
        length = stops - starts
        ids, member = np.unique(labels[rows, starts], return_inverse=True)
        part = cls(
            ids=ids[member],
            areas=length,
            sums=np.stack([(rows + corner[0]) * length, (starts + stops - 1 + 2 * corner[1]) * length // 2], axis=1),
            low=np.stack([rows, starts], axis=1) + corner,
            high=np.stack([rows + 1, stops], axis=1) + corner,
        )
        return part._gathered(ids, member)

    @classmethod
    def join(cls, parts: Sequence[Regions]) -> Regions:
        """Regions of the whole from those of its parts, which share no pixel."""
        every = cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))
        return every._gathered(*np.unique(every.ids, return_inverse=True))

    def _gathered(self, ids: np.ndarray, member: np.ndarray) -> Regions:
        def total(values: np.ndarray) -> np.ndarray:  # exact, as long as sums stay below 2^53
            return np.bincount(member, values, len(ids)).astype(np.int64)

        low, high = np.full((len(ids), 2), np.iinfo(np.int64).max), np.zeros((len(ids), 2), np.int64)
        np.minimum.at(low, member, self.low)
        np.maximum.at(high, member, self.high)
        sums = np.stack([total(axis) for axis in self.sums.T], axis=1)
        return Regions(ids, total(self.areas), sums, low, high)


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and the column behind the last of each run of one label along a row; background has none."""
    change = np.ones((labels.shape[0], labels.shape[1] + 1), bool)
    change[:, 1:-1] = labels[:, 1:] != labels[:, :-1]
    rows, edges = np.nonzero(change)
    start = np.flatnonzero(edges < labels.shape[1])
    labelled = start[labels[rows[start], edges[start]] > 0]
    return rows[labelled], edges[labelled], edges[labelled + 1]


def nearest_centroid(yx: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 2-3: index (n,) of the nearest centroid, the first of equally near ones, and the distance (n,) to it.

    Only centroids around the positions are looked at, in a margin that grows until it holds the nearest of each.
    """
    if not len(yx):
        return np.zeros(0, np.intp), np.zeros(0)
    low, high = yx.min(axis=0), yx.max(axis=0)
    margin = np.sqrt((high - low).prod()) / 8 + 1
    while True:
        near = np.flatnonzero(((centers >= low - margin) & (centers <= high + margin)).all(axis=1))
        if len(near):
            n_ties = min(_MOST_TIES, len(near))
            distance, place = cKDTree(centers[near]).query(yx, k=range(1, n_ties + 1), workers=-1)
            if len(near) == len(centers) or distance[:, 0].max() <= margin:
                break
        margin *= 2
    tied = np.where(distance == distance[:, :1], near[np.minimum(place, len(near) - 1)], len(centers))
    return tied.min(axis=1), distance[:, 0]


def normalize_distance(distance: np.ndarray, radius: float) -> np.ndarray:
    """Exponential normalisation exp(-d / r): 1 on a centroid, near 0 far from all, float32."""
    return np.exp(-distance / radius).astype(np.float32)


def normalize_position(offset: np.ndarray, radius: float) -> np.ndarray:
    """Eq. 4, with the expected cell around each spot for range: offsets in [-r, r] become [-1, 1].

    The paper's minimum and maximum over all samples would tie a prediction to where the tissue's border lies.
    """
    return offset / radius


def nearest_spots(spots: Spots, *, n_neighbors: int, window: int, wanted: np.ndarray | slice = np.s_[:]) -> np.ndarray:
    """The nearest occupied spots of each spot, itself first: int32 (n, 1 + n_neighbors), -1 where there are no more.

    They are sought within `window` bins along each axis, of all spots or of those that are `wanted`. They come by
    distance and, where that is equal, by row and column of the offset, so that the order depends on nothing but the
    spots around.
    """
    place = np.stack(spots.place, axis=1).astype(np.int64) + window
    lookup = np.full(np.add(spots.grid.shape, 2 * window), -1, np.int32)
    lookup[tuple(place.T)] = np.arange(len(spots), dtype=np.int32)
    span = np.arange(-window, window + 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(span, span, indexing="ij"))
    rings = np.lexsort((columns, rows, rows**2 + columns**2))
    return _search_rings(place[wanted], lookup, rows[rings], columns[rings], 1 + n_neighbors)


@parallel()
def _search_rings(index, lookup, rows, columns, n):  # pragma: no cover (compiled)
    out = np.full((len(index), n), -1, np.int32)
    for spot in numba.prange(len(index)):
        found = 0
        for k in range(len(rows)):
            other = lookup[index[spot, 0] + rows[k], index[spot, 1] + columns[k]]
            if other >= 0:
                out[spot, found] = other
                found += 1
                if found == n:
                    break
    return out


def nearest_nuclei(nuclei: np.ndarray, reach: float, *, n_nearest: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The nearest nuclei of each bin, by their nearest bin: labels and distances (n_nearest, rows, columns).

    Labels are like `nuclei`, nearest first and of several as near the least one; 0 where there is none within `reach`
    bins. A bin in a nucleus has that one alone. Distances are in bins, float64: 0 in a nucleus, infinite where there is
    none.
    """
    padded = np.pad(nuclei, 1)
    inner = np.ones(nuclei.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[dy : dy + nuclei.shape[0], dx : dx + nuclei.shape[1]] == nuclei
    rows, columns = np.nonzero((nuclei > 0) & ~inner)
    order = np.argsort(nuclei[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    ids, start = np.unique(nuclei[rows, columns], return_index=True)
    labels, squared = _stamp(nuclei, ids, np.append(start, len(rows)), rows, columns, reach, n_nearest)
    return labels, np.where(labels > 0, np.sqrt(squared), np.inf)


@compiled(nogil=True)
def _stamp(nuclei, ids, start, rows, columns, reach, n_nearest):  # pragma: no cover (compiled)
    """Each nucleus, in rising order, enters the lists of the bins around it."""
    height, width = nuclei.shape
    labels = np.zeros((n_nearest, height, width), nuclei.dtype)
    squared = np.full((n_nearest, height, width), np.iinfo(np.int64).max)
    far = int(reach)
    for i in range(len(ids)):
        edge_rows, edge_columns = rows[start[i] : start[i + 1]], columns[start[i] : start[i + 1]]
        top, bottom, left, right = edge_rows.min(), edge_rows.max(), edge_columns.min(), edge_columns.max()
        for y in range(max(0, top - far), min(height, bottom + far + 1)):
            for x in range(max(0, left - far), min(width, right + far + 1)):
                if nuclei[y, x] > 0:
                    if nuclei[y, x] == ids[i]:
                        labels[0, y, x], squared[0, y, x] = ids[i], 0
                    continue
                # No bin of it is nearer than its bounding box.
                least = max(top - y, 0, y - bottom) ** 2 + max(left - x, 0, x - right) ** 2
                if least > reach**2 or least >= squared[n_nearest - 1, y, x]:
                    continue
                least = np.iinfo(np.int64).max
                for k in range(len(edge_rows)):
                    least = min(least, (edge_rows[k] - y) ** 2 + (edge_columns[k] - x) ** 2)
                if least > reach**2:
                    continue
                place = n_nearest
                while place > 0 and least < squared[place - 1, y, x]:
                    place -= 1
                for k in range(n_nearest - 1, place, -1):
                    labels[k, y, x], squared[k, y, x] = labels[k - 1, y, x], squared[k - 1, y, x]
                if place < n_nearest:
                    labels[place, y, x], squared[place, y, x] = ids[i], least
    return labels, squared
