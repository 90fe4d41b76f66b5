"""What the density of transcripts around the nuclei tells: how far cells reach in a tissue, and which bins lie in one.

Between the density of the background and that of the nearest cell, the counts around a bin tell what share of its
surroundings is cell. On average over all bins at one distance from a nucleus that shows how far the tissue's cells
reach. At one bin it is noisy, and is drawn to this average as far as it is: an empirical Bayes estimate, in which all
numbers come from the tissue itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.optimize import isotonic_regression

from sslcst.core.geometry import nearest_nuclei

_WINDOW = 0.15  # half the side of the square of counts, which is summed over twice, in expected cell radii r
_NEAR, _FAR = 0.2, 1.0  # from a nucleus, in r: up to here all is its cell, and from here on hardly anything
_LEAST_FAR = 0.02  # of the bins outside nuclei: where fewer are far, as in dense tissue, the farthest are taken
_LEAST_RING = 0.02  # of the bins outside nuclei: rings of fewer do not tell how dense a cell is
_CONTRAST = 1.5  # a cell's density is at least so many times that of the background
_PRIOR_COUNTS = 40.0  # of the mean nucleus, added to each cell's own to tell its density
_ALL = np.s_[:, :]
_MOST_WIDE = 1 << 17  # counts in a wide square from which on it is not told how many: histograms end there
_MOST, _SCALE = 8.0, 1 << 12  # a share that is told counts as no more, in whole numbers of this fraction


@dataclass(frozen=True)
class LocalDensity:
    """Where the bins of a grid lie, and how densely transcripts do around them."""

    #: Labels of the nearest nuclei, nearest first (k, rows, columns), 0 where there are no more within reach
    nuclei: np.ndarray
    #: Distances to them in bins, float32 (k, rows, columns), 0 in a nucleus, infinite where there is none
    distance: np.ndarray
    counts: np.ndarray  #: Transcripts in each bin (rows, columns)
    density: np.ndarray  #: Counts a bin in the window around, float32 (rows, columns)
    wide: np.ndarray  #: Counts in the wide square around, int64 (rows, columns)

    @property
    def in_nucleus(self) -> np.ndarray:
        """Labels of the nuclei themselves, 0 outside (rows, columns)."""
        return np.where(self.distance[0] == 0, self.nuclei[0], 0)

    def crop(self, part: tuple[slice, slice]) -> LocalDensity:
        """Nuclei and counts around some rows and columns of the bins."""
        return LocalDensity(**{name: np.ascontiguousarray(values[..., *part]) for name, values in vars(self).items()})

    @property
    def ring(self) -> np.ndarray:
        """Distance to the nearest nucleus in whole bins, -1 beyond reach, int64 (rows, columns)."""
        return np.where(self.nuclei[0] > 0, np.rint(np.minimum(self.distance[0], 1e9)), -1).astype(np.int64)


def local_density(
    counts: np.ndarray,
    nuclei: np.ndarray,
    *,
    radius: float,
    reach: float,
    n_nearest: int = 3,
    covered: np.ndarray | None = None,
) -> LocalDensity:
    """Nuclei and counts around all bins of a grid (rows, columns).

    `n_nearest` nuclei are sought around each, none farther than `reach` bins; `radius` is the expected cell radius r in
    bins, as everywhere in this module.
    Bins that are not `covered`, bool (rows, columns), have no nucleus near and no room for counts, as beyond the edge.
    """
    side = _side(_WINDOW * radius)
    counts = counts.astype(np.int64)
    there = np.ones_like(counts) if covered is None else covered.astype(np.int64)
    window, area = (_squares(_squares(values, side), side) for values in (counts, there))
    wide = _squares(counts, _side(radius / 2))
    labels, distance = nearest_nuclei(nuclei, reach, n_nearest=n_nearest)
    if covered is not None:
        labels, distance = np.where(covered, labels, 0), np.where(covered, distance, np.inf)
    density = (window / np.maximum(area, 1)).astype(np.float32)
    return LocalDensity(labels, distance.astype(np.float32), counts, density, wide)


def margin(*, radius: float, reach: float) -> int:
    """Bins around a window beyond which nothing bears on what is around the bins in it."""
    return max(int(np.ceil(reach)), _side(radius / 2), 2 * _side(_WINDOW * radius)) + 1


def halo(extent: int, *, radius: float, max_distance: float) -> int:
    """Bins around a window whose local density bears on what is told of the bins in it.

    Their nearest nucleus reaches `extent` beyond `max_distance`, and the bins that tell its density some more.
    """
    return int(np.ceil(max_distance + extent + max(1, round(_NEAR * radius)))) + 1


def _side(half: float) -> int:
    return 2 * max(1, round(half)) + 1


def _squares(values: np.ndarray, side: int) -> np.ndarray:
    """Sum over the square around each bin; whole numbers, so that it is the same wherever the grid begins."""
    for axis in (0, 1):
        values = ndimage.correlate1d(values, np.ones(side, np.int64), axis, mode="constant")
    return values


@dataclass(frozen=True)
class Levels:
    """What a tissue as a whole tells, in a few numbers."""

    nucleus: float  #: Counts a bin in nuclei
    close: float  #: Next to nuclei
    cell: float  #: In cells where they are densest
    background: float  #: Outside cells
    #: Share of the bins at each whole distance from a nucleus, from 0 bins on, that lie in its cell
    share: tuple[float, ...]
    near: int  #: Distance in bins up to which a cell's density is measured
    far: int  #: From which on the background's is
    #: Variance of the shares that densities tell, beyond what counting explains: among cells, and outside them
    spread: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Rings:
    """Counts of bins by their distance from the nearest nucleus, in whole numbers; of parts of a chip they add up."""

    n_bins: np.ndarray  #: Bins at each whole distance from 0 on, int64 (n,)
    total: np.ndarray  #: Transcripts in them, int64 (n,)
    wide: np.ndarray  #: Bins at each whole distance by the transcripts in the wide square around them, int64 (n, m)

    def __add__(self, other: Rings) -> Rings:
        width = max(self.wide.shape[1], other.wide.shape[1])
        wide = sum(np.pad(part.wide, ((0, 0), (0, width - part.wide.shape[1]))) for part in (self, other))
        return Rings(self.n_bins + other.n_bins, self.total + other.total, wide)


def tally_rings(around: LocalDensity, *, reach: float, owned: tuple[slice, slice] = _ALL) -> Rings:
    """Tally the bins of a grid, or those of it whose rows and columns are owned; `reach` as in `local_density`."""
    ring = around.ring[owned]
    within = ring >= 0
    ring, counts = ring[within], around.counts[owned][within]
    wide = np.minimum(around.wide[owned][within], _MOST_WIDE)
    n_rings = round(reach) + 1
    n_bins, total = np.bincount(ring, minlength=n_rings), np.zeros(n_rings, np.int64)
    np.add.at(total, ring, counts)
    width = int(wide.max(initial=0)) + 1
    by_wide = np.bincount(ring * width + wide, minlength=n_rings * width).reshape(n_rings, width)
    return Rings(n_bins, total, by_wide)


def levels_of(rings: Rings, *, radius: float) -> Levels:
    """How densely transcripts lie in cells and outside, and how far cells reach; without the spread.

    The mean density at a distance d from the nuclei, λ(d) = f(d) λ_cell + (1 - f(d)) λ_background, gives the share f(d)
    that lies in cells. λ_cell is the density where it is highest, since it may rise from a nucleus poor in transcripts
    to a cytoplasm rich in them; λ_background is the median around r, which a few cells without a nucleus do not raise.
    f does not rise with d, and is 1 up to where cells are densest.
    """
    n_bins, total = rings.n_bins, rings.total
    near, far = max(1, round(_NEAR * radius)), min(round(_FAR * radius), len(n_bins) - 1)
    nucleus, close = (total[at].sum() / max(1, n_bins[at].sum()) for at in (slice(1), slice(1, near + 1)))
    densest, cell = _densest(n_bins, total)
    cell = max(close, cell)
    while far > 1 and n_bins[far:].sum() < _LEAST_FAR * n_bins[1:].sum():
        far -= 1
    background = min(_median(rings.wide[far:].sum(axis=0)) / _side(radius / 2) ** 2, cell / 2)
    share = (total / np.maximum(n_bins, 1) - background) / max(cell - background, 1e-9)
    share[: densest + 1] = 1
    share = _falling(share, n_bins)
    return Levels(float(nucleus), float(close), float(cell), float(background), tuple(share.tolist()), near, far)


def _densest(n_bins: np.ndarray, total: np.ndarray) -> tuple[int, float]:
    """The ring of the highest mean with the two beside it, and that, counts a bin; small rings do not count."""
    n_bins, total = n_bins[1:], total[1:]
    if not n_bins.any():
        return 0, 0.0
    many = n_bins > _LEAST_RING * n_bins.sum()
    n_bins, total = (np.convolve(np.pad(each, 1), np.ones(3, np.int64), mode="valid") for each in (n_bins, total))
    mean = np.where(many, total / np.maximum(n_bins, 1), 0.0)
    return int(mean.argmax()) + 1, float(mean.max())


def _falling(share: np.ndarray, n_bins: np.ndarray) -> np.ndarray:
    """The shares nearest to those of the rings, each as heavy as its bins are many, that do not rise with distance."""
    rings = np.flatnonzero(n_bins[1:]) + 1
    falling = np.zeros(len(n_bins))
    if len(rings):
        fit = isotonic_regression(np.clip(share[rings], 0, 1), weights=n_bins[rings], increasing=False)
        falling = np.interp(np.arange(len(n_bins)), rings, fit.x)
    falling[0] = 1
    return falling


def _median(histogram: np.ndarray) -> float:
    """Median of whole numbers from 0, within the middle one in proportion."""
    below = np.cumsum(histogram)
    middle = int(np.searchsorted(below, below[-1] / 2))
    inside = (below[-1] / 2 - (below[middle] - histogram[middle])) / max(1, histogram[middle])
    return max(0.0, middle - 0.5 + float(inside))


def tally_spread(
    around: LocalDensity, levels: Levels, *, radius: float, owned: tuple[slice, slice] = _ALL
) -> np.ndarray:
    """What the shares that densities tell add up to, close to nuclei and far from them; of parts of a chip it adds up.

    One row for either place, int64 (2, 4): number of bins, and sums of the shares, of their squares and of the variance
    that counting explains, in whole numbers of 1/4096, so that the sums are exact and free of order.
    """
    observed, variance = (values[owned] for values in density_shares(around, levels, radius=radius))
    ring = around.ring[owned]
    rows = []
    for at in ((ring > 0) & (ring <= levels.near), ring >= levels.far):
        share, expected = (
            np.rint(np.clip(x[at], -_MOST, _MOST) * _SCALE).astype(np.int64) for x in (observed, variance)
        )
        rows.append([np.count_nonzero(at), share.sum(), (share**2).sum(), expected.sum()])
    return np.array(rows, np.int64)


def with_spread(levels: Levels, tally: np.ndarray) -> Levels:
    """The levels with the spread that `tally_spread` found in the whole tissue."""
    spread = []
    for n, total, squares, expected in tally.tolist():
        n = max(1, n)
        spread.append(max(0.0, squares / n / _SCALE**2 - (total / n / _SCALE) ** 2 - expected / n / _SCALE))
    return replace(levels, spread=tuple(spread))


def measure_levels(around: LocalDensity, *, radius: float, reach: float) -> Levels:
    """The levels of a tissue that is seen as a whole."""
    levels = levels_of(tally_rings(around, reach=reach), radius=radius)
    return with_spread(levels, tally_spread(around, levels, radius=radius))


def cell_densities(around: LocalDensity, levels: Levels) -> np.ndarray:
    """Counts a bin in the cell of each bin's nearest nucleus, (rows, columns); that of all cells where there is none.

    Estimated from the nucleus and the bins close to it, and drawn to the tissue's mean where they hold few counts.
    """
    ring, label = around.ring, around.nuclei[0]
    known = (ring >= 0) & (ring <= levels.near)
    ids, member = np.unique(label[known], return_inverse=True)
    nucleus, close = max(levels.nucleus, 1e-9), max(levels.close, 1e-9)
    in_nucleus = ring[known] == 0
    counts = around.counts[known]
    total, nuclear = (np.bincount(member, of, len(ids)) for of in (counts, counts * in_nucleus))
    prior = _PRIOR_COUNTS / nucleus
    relative = (nuclear / nucleus + (total - nuclear) / close + prior) / (
        np.bincount(member, minlength=len(ids)) + prior
    )
    return levels.cell * np.where(label > 0, np.append(relative, 1.0)[np.searchsorted(ids, label)], 1.0)


def density_shares(around: LocalDensity, levels: Levels, *, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """What share of each bin's window is cell, by the density there alone, and its variance as counting explains it.

    The share is (λ - λ_background) / (λ_cell - λ_background), λ_cell that of the nearest nucleus: unbiased, noisy, and
    not bound to lie between 0 and 1. Both are (rows, columns).
    """
    cell = np.maximum(cell_densities(around, levels), max(_CONTRAST * levels.background, 1e-9))
    side = _side(_WINDOW * radius)
    weight = np.convolve(np.ones(side), np.ones(side)) / side**2
    n_bins = 1 / float((weight**2).sum()) ** 2  # of equal weight, that would average as well
    observed = (around.density - levels.background) / (cell - levels.background)
    return observed, np.maximum(around.density, cell / 4) / n_bins / (cell - levels.background) ** 2


def cell_share(around: LocalDensity, levels: Levels, *, radius: float) -> np.ndarray:
    """Probability of each bin to lie in the cell of its nearest nucleus, (rows, columns).

    The linear Bayes estimate: the share f(d) that is usual at the bin's distance d, moved towards what the density
    tells by v / (v + noise), with v = f (1 - f) the variance of in or out at d, and for noise that of counting and that
    among cells or among places outside them.
    """
    observed, variance = density_shares(around, levels, radius=radius)
    distance = np.minimum(around.distance[0], len(levels.share))
    usual = np.interp(distance, np.arange(len(levels.share)), levels.share)
    noise = variance + usual * levels.spread[0] + (1 - usual) * levels.spread[1]
    between = usual * (1 - usual)
    share = usual + between / (between + noise) * (np.clip(observed, 0, 1) - usual)
    return np.where(distance == 0, 1.0, np.where(around.nuclei[0] > 0, share, 0.0))
