"""Spots of each tile, what they add up to over the chip, and the samples and their surroundings to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from sslcst._logging import logger
from sslcst.core.cells import Occupancy
from sslcst.core.counts import narrow
from sslcst.core.erosion import erode_and_report
from sslcst.core.features import Features, Gathering, gather, join
from sslcst.core.fit import square_side
from sslcst.core.relations import relate
from sslcst.core.sampling import DENSITY_BINS, Samples, Survey, choose_samples, draw, survey
from sslcst.core.spots import GeneMoments, Grid, Spots, sum_spots
from sslcst.labels import read_part
from sslcst.tiles.buckets import transcripts_in
from sslcst.tiles.chip import Chip, read_nuclei
from sslcst.tiles.density import Told, measure_density, membership
from sslcst.tiles.execute import computing, run
from sslcst.tiles.plan import Tile

_RING = 8  # pixels around a nucleus that its erosion may look at


@dataclass(frozen=True)
class Surveyed:
    """What is known of a chip before there is a model.

    Parameters
    ----------
    samples
        See `sslcst.core.sampling.Survey`.
    told
        What densities tell, and the genes that are read.
    occupancy
        How densely spots lie in nuclei.
    n_spots, n_counts, n_cores
        Numbers of spots, of molecules in them, and of nuclei that have a core.
    """

    samples: Survey
    told: Told
    occupancy: Occupancy
    n_spots: int
    n_counts: int
    n_cores: int


def survey_chip(chip: Chip, tiles: list[Tile]) -> Surveyed:
    """Make the spots of all tiles, and add up what is to be known of them."""
    run("spots", _survey_tile, chip, [tile for tile in tiles if not chip.scratch.is_finished(_mark(tile))])
    parts = [chip.scratch.load(_name(tile)) for tile in tiles]
    n_cores, n_small, n_irregular, n_spots = (
        sum(int(part[name]) for part in parts) for name in ("n_cores", "n_small", "n_irregular", "n_spots")
    )
    logger.info(
        "%d of %d nuclei have a core to learn from; dropped: %d too small, %d too irregular.",
        n_cores,
        len(chip.regions),
        n_small,
        n_irregular,
    )
    moments = reduce(add, (GeneMoments(int(p["n_blocks"]), p["total"], p["squares"]) for p in parts))
    genes = moments.variable(chip.params.spots.n_genes)
    return Surveyed(
        samples=reduce(add, (Survey(p["positive"], p["far"], p["outside"]) for p in parts)),
        told=measure_density(chip, tiles, genes, moments.total[genes]),
        occupancy=reduce(add, (Occupancy(int(p["n_bins"]), int(p["n_occupied"])) for p in parts)),
        n_spots=n_spots,
        n_counts=int(moments.total.sum()),
        n_cores=n_cores,
    )


def choose_lessons(chip: Chip, tiles: list[Tile], surveyed: Surveyed) -> tuple[Samples, np.ndarray, Features]:
    """The samples of the whole chip; the keys and the features of the spots that are read with them.

    Raises
    ------
    DataError
        As `sslcst.core.sampling.choose_samples`.
    """
    offers = run("samples", _offer, (chip, surveyed), tiles)
    whole_squares = square_side(chip.params, chip.layout.radius) > 1
    samples = draw(offers, params=chip.params.sampling, whole_squares=whole_squares, seed=chip.seed)
    return samples, *join(run("lessons", _gather, (chip, surveyed.told.genes, samples), tiles))


def _offer(job: tuple[Chip, Surveyed], tile: Tile) -> Samples:
    chip, surveyed = job
    by_density = chip.params.sampling.labels == "density"
    spots, relations = chip.spots(tile.ranges if by_density else tile.around(DENSITY_BINS // 2, chip.grid.whole_shape))
    return choose_samples(
        spots,
        relations,
        surveyed.samples,
        radius=chip.layout.radius,
        params=chip.params.sampling,
        square=square_side(chip.params, chip.layout.radius),
        seed=chip.seed,
        owned=spots.within(tile.ranges),
        membership=membership(chip, surveyed.told.levels, tile, spots.index) if by_density else None,
    )


def _gather(job: tuple[Chip, np.ndarray, Samples], tile: Tile) -> Gathering:
    chip, genes, samples = job
    spots, relations = chip.spots(tile.around(chip.params.spots.window, chip.grid.whole_shape), genes)
    with computing:
        return gather(
            spots,
            samples,
            spots.counts,
            relations.distance,
            radius=chip.layout.radius,
            params=chip.params,
            owned=spots.within(tile.ranges),
        )


def _name(tile: Tile) -> str:
    return f"survey/{tile.name}.npz"


def _mark(tile: Tile) -> str:
    return f"survey/{tile.name}.done"


def _survey_tile(chip: Chip, tile: Tile) -> None:
    margin = DENSITY_BINS // 2
    grid = chip.grid.view(tile.around(margin, chip.grid.whole_shape))
    seen = transcripts_in(grid.ranges, chip.grid, chip.scratch, chip.params.tiles.block)
    with computing:
        spots = sum_spots(seen.bins, seen.gene, seen.count, n_genes=chip.n_genes, grid=grid)
        nuclei, cores, dropped = _cores_of(chip, grid)
        relations = relate(spots, nuclei, cores, chip.regions)
        owned = spots.within(tile.ranges)
        surveyed = survey(spots, relations, radius=chip.layout.radius, params=chip.params.sampling, owned=owned)
    files = [_name(tile)]
    for name, ranges in chip.blocks(tile.ranges):
        chosen = np.flatnonzero(spots.within(ranges))
        if len(chosen):
            kept = {key: value[chosen] for key, value in vars(relations).items()}
            counts = narrow(spots.counts[chosen])
            files.append(f"spots/{name}.npz")
            chip.scratch.save(files[-1], {"index": spots.index[chosen], "counts": counts} | kept)
    own_nuclei = nuclei[tuple(slice(*r) for r in np.array(tile.ranges) - grid.corner[:, None])]
    occupancy = Occupancy.of(own_nuclei, relations.nucleus[owned])
    mine = chip.regions.ids[tile.holds(chip.centers)]
    n_small, n_irregular = (int(np.isin(ids, mine).sum()) for ids in dropped)
    moments = GeneMoments.of(Spots(chip.grid.view(tile.ranges), spots.index[owned], spots.counts[owned]))
    chip.scratch.save(
        _name(tile),
        vars(surveyed)
        | vars(moments)
        | {"n_bins": occupancy.n_bins, "n_occupied": occupancy.n_spots, "n_spots": int(owned.sum())}
        | {"n_cores": len(mine) - n_small - n_irregular, "n_small": n_small, "n_irregular": n_irregular},
    )
    chip.scratch.finish(_mark(tile), files)


def _cores_of(chip: Chip, grid: Grid) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Nuclei and their cores on the bins in view, and the ids of nuclei whose core is too small, or too irregular.

    A nucleus that reaches into view is eroded as a whole.
    """
    extent = (chip.regions.high - chip.regions.low).max(axis=0) + _RING
    rows, columns = (
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(grid.pixels(), extent.tolist(), grid.raster_shape, strict=True)
    )
    labels = read_nuclei(chip.scratch, (rows, columns))
    image = None if chip.image is None else read_part(chip.image, rows, columns)
    cores, report = erode_and_report(labels, image=image, params=chip.params.erosion, seed=chip.seed)
    inner = tuple(
        slice(part.start - wide.start, part.stop - wide.start)
        for part, wide in zip(grid.pixels(), (rows, columns), strict=True)
    )
    nuclei, cores = (grid.from_raster(values[inner]) for values in (labels, cores))
    return nuclei, cores, (np.array(report.too_small, np.int64), np.array(report.irregular, np.int64))
