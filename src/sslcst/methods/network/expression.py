"""Whose a bin is by its transcripts: what they share with each of the cells that it may belong to.

A cell's expression profile is that of its nucleus and of the bins that are believed to be its own. How far profiles
tell neighbours apart differs between tissues, and is learnt at bins that clearly belong to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from sslcst.core.density import Levels, cell_share, local_density
from sslcst.core.spots import Ranges, Spots, overlap, within
from sslcst.core.threads import compiled, parallel
from sslcst.methods.network.blocks import BLOCK, INNER, MARGIN, blocks_of, cut_block
from sslcst.methods.network.inputs import REACH

_PRIOR_COUNTS = 200.0  # of the tissue's expression profile, added to those of each cell
_HALF_WINDOW = 0.2  # half the side of the square whose transcripts are compared, in expected cell radii r
# A clear bin is so far from its nucleus, at least and at most, and so much farther from others, in r.
_CLEAR = (0.1, 0.25, 0.15)
_LEVELS, _STEP = 256, 0.25  # of the histogram of log-likelihood ratios
_WEIGHTS = np.linspace(0, 1.5, 151)
NO_RATIOS = np.zeros(2 * _LEVELS + 1, np.int64)  # the histogram, empty
_N_BLOCKS = 32  # in which is learnt, of a tissue that has more


@dataclass(frozen=True)
class Expression:
    """The transcripts of a window by their genes."""

    spots: Spots  #: Those in view
    gene_total: np.ndarray  #: Counts of each gene in the whole tissue (n_genes,)
    weight: float = 1.0  #: Of what profiles tell against what the network says, from `weight_of`

    @property
    def places(self) -> np.ndarray:
        """Number of the spot in each bin in view, counted from 1; 0 where there is none (rows, columns)."""
        return self.spots.on_grid(np.arange(1, len(self.spots) + 1), 0)

    def compare(
        self,
        places: np.ndarray,
        nuclei: np.ndarray,
        owner: np.ndarray,
        candidates: np.ndarray,
        *,
        asked: np.ndarray,
        radius: float,
    ) -> np.ndarray:
        """Log-likelihood of the transcripts around bins under the profile of each candidate, relative to the tissue's.

        Parameters
        ----------
        places
            Those of some bins (rows, columns), like all that follows.
        nuclei
            Nucleus labels. Bins of nuclei are not asked about, and only tell their cell's profile.
        owner
            Label of the cell that each bin is believed to be of; 0: none. Its transcripts are of that cell's profile,
            but for the bin's own, which they are not compared with.
        candidates
            Labels of the cells that each bin may belong to (k, rows, columns), and 0.
        asked
            Bins to be told about, of those that are in cells.
        radius
            Expected cell radius r in bins.

        Returns
        -------
        float64, like `candidates`; 0 where a bin is not asked about.
        """
        outside = (nuclei == 0) & (owner > 0)
        ids = np.unique(nuclei[nuclei > 0])
        owner, candidates = (np.searchsorted(ids, labels, side="right") for labels in (owner, candidates))
        counts = self.spots.counts
        counts.sort_indices()  # sums of logarithms depend on their order
        counts = (counts.indptr, counts.indices, counts.data)
        kind = np.int32 if counts[2].sum() <= np.iinfo(np.int32).max else np.int64  # as much as all could add up to
        profile = np.zeros((len(ids) + 1, len(self.gene_total)), kind)
        _sum_profiles(places, owner, counts, profile)
        return _compare(
            candidates,
            outside & asked,
            np.where(outside, places, 0),
            owner,
            counts,
            profile,
            profile.sum(axis=1),
            (self.gene_total + 0.5) / (self.gene_total + 0.5).sum(),
            max(1, round(_HALF_WINDOW * radius)),
        )


@compiled(nogil=True)
def _sum_profiles(places, owner, counts, profile):  # pragma: no cover (compiled)
    start, gene, count = counts
    for row in range(places.shape[0]):
        for column in range(places.shape[1]):
            spot, cell = places[row, column] - 1, owner[row, column]
            if spot >= 0 and cell > 0:
                for e in range(start[spot], start[spot + 1]):
                    profile[cell, gene[e]] += count[e]


@parallel()
def _compare(candidates, asked, places, owner, counts, profile, total, mix, half):  # pragma: no cover (compiled)
    start, gene, count = counts
    n_near, height, width = candidates.shape
    out = np.zeros((n_near, height, width))
    for row in numba.prange(height):
        for column in range(width):
            if not asked[row, column]:
                continue
            for k in range(n_near):
                cell = candidates[k, row, column]
                if cell == 0:
                    continue
                for y in range(max(0, np.int64(row) - half), min(height, np.int64(row) + half + 1)):
                    for x in range(max(0, column - half), min(width, column + half + 1)):
                        spot = places[y, x] - 1
                        if spot < 0:
                            continue
                        own = owner[y, x] == cell
                        n = total[cell] + _PRIOR_COUNTS
                        if own:
                            for e in range(start[spot], start[spot + 1]):
                                n -= count[e]
                        for e in range(start[spot], start[spot + 1]):
                            share = profile[cell, gene[e]] - (count[e] if own else 0) + _PRIOR_COUNTS * mix[gene[e]]
                            out[k, row, column] += count[e] * np.log(share / n / mix[gene[e]])
    return out


def draw_blocks(own: Ranges, whole: tuple[int, int], centers: np.ndarray, *, seed: int) -> list[Ranges]:
    """Those of the blocks which reach into a window that are among the ones drawn of a tissue, to learn in them.

    Drawn are some that hold the centroid of a nucleus, of which `centers` (n, 2), in bins, are all of the tissue's.
    """
    n_columns = -(-whole[1] // BLOCK)
    occupied = np.flatnonzero(np.bincount((centers // BLOCK).astype(np.int64) @ (n_columns, 1)))
    drawn = set(np.random.default_rng(seed).permutation(occupied)[:_N_BLOCKS].tolist())
    return [
        block for block in blocks_of(own, whole) if block[0][0] // BLOCK * n_columns + block[1][0] // BLOCK in drawn
    ]


def tally_ratios(
    expression: Expression,
    counts: np.ndarray,
    nuclei: np.ndarray,
    levels: Levels,
    block: Ranges,
    *,
    radius: float,
    corner: tuple[int, int],
    own: Ranges,
) -> np.ndarray:
    """Histogram of the log-likelihood ratios between the nucleus of clear bins and their second; of parts it adds up.

    Clear are bins in a cell, by the density method, that have a second nucleus within reach, but much farther away.
    Those of a window count that lie in the block, which is in view with its margin as far as the tissue goes. The other
    parameters are those of `predict_cells`.
    """
    seen = [cut_block(values, block, corner) for values in (expression.places, counts, nuclei)]
    found = _ratios(expression, *seen, levels, radius=radius)[within(overlap(own, block), block)]
    return np.bincount(found[found >= 0], minlength=len(NO_RATIOS))


def _ratios(
    expression: Expression, places: np.ndarray, counts: np.ndarray, nuclei: np.ndarray, levels: Levels, *, radius: float
) -> np.ndarray:
    """Where in the histogram each bin of a block belongs, from what is seen with its margin; -1: it is not clear."""
    if not nuclei.any():
        return np.full([side - 2 * MARGIN for side in nuclei.shape], -1)
    around = local_density(counts, nuclei, radius=radius, reach=REACH * radius)
    inside = cell_share(around, levels, radius=radius) >= 0.5
    least, most, farther = (share * radius for share in _CLEAR)
    first, second = around.distance[:2]
    clear = inside & (first > least) & (first <= most) & np.isfinite(second)
    clear &= second > np.where(clear, first, 0) + farther
    likelihood = expression.compare(
        places, nuclei, np.where(inside, around.nuclei[0], 0), around.nuclei[:2], asked=clear, radius=radius
    )
    ratio = np.clip(np.rint((likelihood[0] - likelihood[1]) / _STEP), -_LEVELS, _LEVELS).astype(np.int64)
    return np.where(clear, ratio + _LEVELS, -1)[INNER]


def weight_of(ratios: np.ndarray) -> float:
    """How far profiles tell neighbours apart: the factor of log-likelihood ratios that best tells clear bins' own."""
    ratio = _STEP * np.arange(-_LEVELS, _LEVELS + 1)
    return float(_WEIGHTS[np.argmin([ratios @ np.logaddexp(0, -weight * ratio) for weight in _WEIGHTS])])
