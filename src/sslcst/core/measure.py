"""What the table says of each cell: its counts, its size, its spots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from sslcst.core.counts import count_matrix, owners
from sslcst.core.geometry import Regions
from sslcst.params import CellParams

Empty = Callable[[int, np.dtype], np.ndarray]  # an array of that size and type, to be filled


@dataclass(frozen=True)
class Cells:
    """Measures of n cells; lengths and areas in pixels."""

    id: np.ndarray  #: Ascending, (n,)
    center: np.ndarray  #: Centroid on the whole raster (n, 2), where pixel i reaches from i to i + 1
    area: np.ndarray  #: Pixels of the cell, (n,)
    nucleus_area: np.ndarray  #: Pixels of its nucleus, (n,)
    n_spots: np.ndarray  #: Spots in the cell, (n,)
    mean_prob: np.ndarray  #: Their mean probability of lying in a cell, NaN without spots, (n,)
    n_counts: np.ndarray  #: Molecules in the cell, (n,)
    n_genes: np.ndarray  #: Genes with one, (n,)
    touches_border: np.ndarray  #: Whether it reaches the raster's edge, bool (n,)
    counts: sparse.csr_matrix  #: Molecules of each gene in the cell, integer csr (n, n_genes)
    nuclear: sparse.csr_matrix  #: Those in its nucleus, likewise

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def join(cls, read: Callable[[str], Iterable[Any]], empty: Empty = np.empty) -> Cells:
        """The cells of all parts, which share none, by their ids.

        `read` gives a measure of each part in turn, by its name. One is in memory at a time, since the counts of all
        are most of what a chip needs; `empty` makes the arrays that these are put in.
        """
        place = np.argsort(np.argsort(np.concatenate([*read("id")])))
        return cls(
            **{
                each.name: _join_matrices(partial(read, each.name), place, empty)
                if each.name in ("counts", "nuclear")
                else np.concatenate([*read(each.name)])[np.argsort(place)]
                for each in fields(cls)
            }
        )

    def without_small(self, params: CellParams, pixel_size: float) -> tuple[Cells, np.ndarray]:
        """The cells that are kept, and the ids of those that are too small; `pixel_size` is in units of `params`."""
        large = (self.n_counts >= params.min_counts) & (self.area * pixel_size**2 >= params.min_area)
        kept = {name: values[large] for name, values in vars(self).items()}
        return Cells(**kept), self.id[~large]


def without(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Labels of which some are background."""
    return np.where(np.isin(labels, ids), labels.dtype.type(0), labels) if len(ids) else labels


def measure(
    cells: np.ndarray,
    nuclei: np.ndarray,
    *,
    corner: tuple[int, int] = (0, 0),
    raster_shape: tuple[int, int],
    pixel: np.ndarray,
    gene: np.ndarray,
    count: np.ndarray | None,
    n_genes: int,
    spot: np.ndarray,
    inside: np.ndarray,
    wanted: np.ndarray | None = None,
) -> Cells:
    """Measure the wanted cells, by default all, which are in view as a whole.

    Labels of cells and nuclei (y, x) have one id for both, and begin at the pixel `corner` of a raster of
    `raster_shape`. `pixel`, `gene` and `count` are of each transcript the place on the whole raster (n, 2), the gene,
    and the molecules (None: one each); `spot` and `inside` of each spot the place there (m, 2), and the probability of
    lying in a cell (m,).
    """
    regions = Regions.of(cells, corner)
    if wanted is not None:
        regions = regions.take(np.isin(regions.ids, wanted))
    ids = regions.ids
    owner = owners(pixel - corner, cells)
    in_nucleus = owners(pixel - corner, nuclei) == owner
    counts, nuclear = (
        count_matrix(who, gene, count, ids=ids, n_genes=n_genes) for who in (owner, np.where(in_nucleus, owner, 0))
    )
    cores = Regions.of(nuclei, corner)
    nucleus_area = np.zeros(len(ids), np.int64)
    has_nucleus = np.isin(ids, cores.ids)
    nucleus_area[has_nucleus] = cores.areas[np.searchsorted(cores.ids, ids[has_nucleus])]
    owner = owners(spot - corner, cells)
    owned = np.isin(owner, ids)
    member = np.searchsorted(ids, owner[owned])
    n_spots, total = (np.bincount(member, weights, minlength=len(ids)) for weights in (None, inside[owned]))
    return Cells(
        id=ids,
        center=regions.centers,
        area=regions.areas,
        nucleus_area=nucleus_area,
        n_spots=n_spots,
        mean_prob=np.divide(total, n_spots, out=np.full(len(ids), np.nan), where=n_spots > 0),
        n_counts=np.asarray(counts.sum(axis=1)).ravel(),
        n_genes=np.diff(counts.indptr),
        touches_border=((regions.low == 0) | (regions.high == raster_shape)).any(axis=1),
        counts=counts,
        nuclear=nuclear,
    )


def _join_matrices(
    read: Callable[[], Iterable[sparse.csr_matrix]], place: np.ndarray, empty: Empty
) -> sparse.csr_matrix:
    """The rows of all parts, each in its place; the parts are read twice, for their sizes and for what they hold."""
    parts = [(np.diff(part.indptr), part.shape[1], part.dtype) for part in read()]
    n_entries, n_genes, kinds = zip(*parts, strict=True)
    start = np.zeros(len(place) + 1, np.int64)
    start[place + 1] = np.concatenate(n_entries)
    start = np.cumsum(start)
    numbers = np.dtype(sparse.get_index_dtype(maxval=start[-1]))  # that scipy would copy others to
    data, indices = empty(int(start[-1]), np.result_type(*kinds)), empty(int(start[-1]), numbers)
    ends = np.cumsum([len(each) for each in n_entries])[:-1]
    for part, rows in zip(read(), np.split(place, ends), strict=True):
        at = np.repeat(start[rows] - part.indptr[:-1], np.diff(part.indptr)) + np.arange(part.nnz)
        data[at], indices[at] = part.data, part.indices
    return sparse.csr_matrix((data, indices, start.astype(numbers)), shape=(len(place), n_genes[0]))
