"""To which of several near nuclei a bin belongs: by distance, and by what its transcripts share with each cell.

A cell's expression profile is known from its nucleus and from what surely is its cytoplasm. How far profiles tell
neighbours apart differs between tissues, and is learnt at bins that clearly belong to one of them.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

from sslcst.core import density
from sslcst.core.density import LocalDensity
from sslcst.core.spots import Spots
from sslcst.core.threads import parallel

N_GENES = 2000  # those that vary most are compared
_PRIOR_COUNTS = 200.0  # of the tissue's expression profile, added to those of each cell
_HALF_WINDOW = 0.2  # half the side of the square whose transcripts are compared, in expected cell radii r
_SOFTNESS = 0.125  # of the border between two nuclei by distance alone, in r
# A clear bin is so far from its nucleus, at least and at most, and so much farther from others, in r.
_CLEAR = (0.1, 0.25, 0.15)
_LEVELS, _STEP = 256, 0.25  # of the histogram of log-likelihood ratios
_TRUST = np.linspace(0, 1.5, 151)


def compare_profiles(
    around: LocalDensity, spots: Spots, inside: np.ndarray, *, gene_total: np.ndarray, radius: float
) -> np.ndarray:
    """Log-likelihood of the transcripts around each bin under the profile of each cell near, relative to the tissue's.

    Those in nuclei and outside cells, where `inside` (rows, columns) is False, are not asked, and a bin's own
    transcripts are taken out of the profile that they are compared with. `spots` hold the counts of the genes that are
    compared, `gene_total` those in the whole tissue (n_genes,); `radius` is r in bins. Like the nuclei of `around`,
    float64 (k, rows, columns); 0 where a bin has one nucleus alone.
    """
    owner = np.where(inside, around.nuclei[0], 0)
    of_spot = owner[spots.place]
    ids, member = np.unique(of_spot[of_spot > 0], return_inverse=True)
    held = (np.ones(len(member), np.int64), (member, np.flatnonzero(of_spot)))
    counts = spots.counts.astype(np.int64)
    counts.sort_indices()  # sums of logarithms depend on their order
    profile = (sparse.csr_matrix(held, shape=(len(ids), len(spots))) @ counts).toarray()
    places = np.searchsorted(ids, around.nuclei)
    known = (around.nuclei > 0) & (np.append(ids, 0)[places] == around.nuclei)
    return _compare(
        np.where(known, places, -1),
        np.where(around.distance[0] == 0, -1, owner.astype(np.int64)),
        around.nuclei,
        spots.on_grid(np.arange(len(spots)), -1),
        (counts.indptr, counts.indices, counts.data),
        profile,
        profile.sum(axis=1),
        (gene_total + 0.5) / (gene_total + 0.5).sum(),
        max(1, round(_HALF_WINDOW * radius)),
    )


def halo(extent: int, *, radius: float, reach: float) -> int:
    """Bins around a window beyond which nothing bears on the likelihoods of the bins in it.

    A cell near a bin of the window reaches from `reach` beyond, over its nucleus, to `reach` on its other side.
    """
    return (
        int(np.ceil(2 * reach + extent + _HALF_WINDOW * radius))
        + 1
        + density.halo(extent, radius=radius, max_distance=reach)
    )


@parallel()
def _compare(places, owner, nuclei, spot_at, counts, profile, total, mix, half):  # pragma: no cover (compiled)
    start, gene, count = counts
    n_near, height, width = places.shape
    out = np.zeros((n_near, height, width))
    for row in numba.prange(height):
        for column in range(width):
            if nuclei[1, row, column] == 0 or owner[row, column] < 0:
                continue
            for k in range(n_near):
                i = places[k, row, column]
                if i < 0:
                    continue
                for y in range(max(0, np.int64(row) - half), min(height, np.int64(row) + half + 1)):
                    for x in range(max(0, column - half), min(width, column + half + 1)):
                        spot = spot_at[y, x]
                        if spot < 0 or owner[y, x] <= 0:
                            continue
                        own = owner[y, x] == nuclei[k, row, column]
                        n = total[i]
                        if own:
                            for e in range(start[spot], start[spot + 1]):
                                n -= count[e]
                        for e in range(start[spot], start[spot + 1]):
                            share = profile[i, gene[e]] - (count[e] if own else 0) + _PRIOR_COUNTS * mix[gene[e]]
                            out[k, row, column] += count[e] * np.log(share / (n + _PRIOR_COUNTS) / mix[gene[e]])
    return out


def tally_ratios(
    around: LocalDensity,
    likelihood: np.ndarray,
    inside: np.ndarray,
    *,
    radius: float,
    owned: tuple[slice, slice] = np.s_[:, :],
) -> np.ndarray:
    """Histogram of the log-likelihood ratios between the nucleus of clear bins and their second; of parts it adds up.

    Clear are bins in a cell that have a second nucleus within reach, but much farther away. Only owned rows and columns
    count.
    """
    least, most, farther = (share * radius for share in _CLEAR)
    first, second = around.distance[:2, *owned]
    clear = inside[owned] & (first > least) & (first <= most) & np.isfinite(second)
    clear &= second > np.where(clear, first, 0) + farther
    ratio = (likelihood[0] - likelihood[1])[owned][clear]
    ratio = np.clip(np.rint(ratio / _STEP), -_LEVELS, _LEVELS).astype(np.int64)
    return np.bincount(ratio + _LEVELS, minlength=2 * _LEVELS + 1)


def trust_of(ratios: np.ndarray) -> float:
    """How far profiles can be trusted: the factor of log-likelihood ratios that best tells clear bins apart."""
    ratio = _STEP * np.arange(-_LEVELS, _LEVELS + 1)
    return float(_TRUST[np.argmin([ratios @ np.logaddexp(0, -trust * ratio) for trust in _TRUST])])


def assign_bins(around: LocalDensity, likelihood: np.ndarray, trust: float, *, radius: float) -> np.ndarray:
    """The nucleus that each bin most likely belongs to if it lies in a cell, (rows, columns); 0 beyond reach."""
    score = np.where(around.nuclei > 0, trust * likelihood - around.distance / (_SOFTNESS * radius), -np.inf)
    return np.take_along_axis(around.nuclei, score.argmax(axis=0)[None], axis=0)[0]
