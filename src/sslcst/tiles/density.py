"""What the density of transcripts around the nuclei tells of a chip, from sums over its tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from sslcst.core import composition, density
from sslcst.core.composition import compare_mixes, tally_ratios, trust_of
from sslcst.core.density import (
    Levels,
    Membership,
    Rings,
    Surroundings,
    cell_share,
    levels_of,
    look_around,
    tally_rings,
    tally_spread,
    with_spread,
)
from sslcst.core.model import take_genes
from sslcst.core.spots import Spots
from sslcst.tiles.chip import Chip
from sslcst.tiles.execute import computing, run
from sslcst.tiles.plan import Ranges, Tile


@dataclass(frozen=True)
class Told:
    """What is known of a chip's densities and mixes of genes.

    Parameters
    ----------
    levels
        See `sslcst.core.density.Levels`.
    trust
        See `sslcst.core.composition.trust_of`.
    genes, gene_total
        Indices of the genes by which cells are told apart, and their counts in the chip.
    """

    levels: Levels
    trust: float
    genes: np.ndarray
    gene_total: np.ndarray


def measure_density(chip: Chip, tiles: list[Tile], genes: np.ndarray, gene_total: np.ndarray) -> Told:
    """Add up the tiles: first how densely transcripts lie, then how much that varies, then what mixes of genes tell."""
    levels = levels_of(reduce(add, run("density", _rings, chip, tiles)), radius=chip.layout.radius)
    levels = with_spread(levels, reduce(add, run("spread", _spread, (chip, levels), tiles)))
    told = Told(levels, 0.0, genes, gene_total)
    return replace(told, trust=trust_of(reduce(add, run("mixes", _ratios, (chip, told), tiles))))


def surroundings(chip: Chip, ranges: Ranges) -> tuple[Surroundings, Spots]:
    """Surroundings of all bins in these rows and columns, and the spots there with the counts of all genes."""
    spots, _ = chip.spots(ranges)
    nuclei = spots.grid.from_raster(chip.nuclei(spots.grid))
    with computing:
        return look_around(spots.totals(), nuclei, radius=chip.layout.radius, reach=chip.reach), spots


def membership(chip: Chip, levels: Levels, tile: Tile, index: np.ndarray) -> Membership:
    """What the density tells of spots in a tile, from their row and column (n, 2)."""
    ranges = tile.around(_halo(chip, density), chip.grid.whole_shape)
    around, spots = surroundings(chip, ranges)
    share = cell_share(around, levels, radius=chip.layout.radius)
    place = tuple((index - spots.grid.corner).T)
    return Membership(around.nuclei[0][place], share[place])


def _halo(chip: Chip, module) -> int:
    return module.halo(chip.extent, radius=chip.layout.radius, reach=chip.reach)


def _seen(chip: Chip, tile: Tile, module) -> tuple[Surroundings, Spots, tuple[slice, slice]]:
    """Surroundings and spots of a tile with the halo of a step, and where its own bins lie among them."""
    ranges = tile.around(_halo(chip, module), chip.grid.whole_shape)
    own = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(tile.ranges, ranges, strict=True))
    return *surroundings(chip, ranges), own


def _rings(chip: Chip, tile: Tile) -> Rings:
    around, _, own = _seen(chip, tile, density)
    return tally_rings(around, reach=chip.reach, owned=own)


def _spread(job: tuple[Chip, Levels], tile: Tile) -> np.ndarray:
    chip, levels = job
    around, _, own = _seen(chip, tile, density)
    return tally_spread(around, levels, radius=chip.layout.radius, owned=own)


def _ratios(job: tuple[Chip, Told], tile: Tile) -> np.ndarray:
    chip, told = job
    around, spots, own = _seen(chip, tile, composition)
    radius = chip.layout.radius
    share = cell_share(around, told.levels, radius=radius)
    inside = (share >= chip.params.flow.threshold) | (around.distance[0] == 0)
    with computing:
        likelihood = compare_mixes(
            around,
            replace(spots, counts=take_genes(spots.counts, told.genes)),
            inside,
            gene_total=told.gene_total,
            radius=radius,
        )
    return tally_ratios(around, likelihood, inside, radius=radius, owned=own)
