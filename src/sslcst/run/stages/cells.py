"""From a model to cells, tile by tile: predictions of each block, then tracking, counting and owners."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from sslcst.core.cells import cells_near_nuclei, find_cells, halo, halo_near_nuclei, to_pixels
from sslcst.core.density import cell_share
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.inputs import make_inputs
from sslcst.core.measure import Cells, measure
from sslcst.methods.ssl_cst.model import Model, take_genes
from sslcst.core.polygons import polygons
from sslcst.methods.ssl_cst.prior import density_posterior, direction_posterior, direction_prior
from sslcst.core.spots import Spots
from sslcst.methods.ssl_cst.model_file import read_model
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.workspace import Chip
from sslcst.run.density import Told, membership, surroundings
from sslcst.run.execute import computing, run
from sslcst.run.tiling import Ranges, Tile

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Segmentation:
    """What the tasks that make cells have in common.

    Parameters
    ----------
    chip
        The chip, in whose scratch folder the model lies.
    genes
        Indices of the model's genes among those of the chip, in the model's order; -1 for one that is not there.
    told
        What densities tell.
    spacing
        How far a prediction speaks for, in bins.
    device
        Where torch computes.
    sha256
        Of the model.
    shapes
        Whether the cells are outlined.
    owners
        Whether the owner of each transcript is kept.
    """

    chip: Chip
    genes: np.ndarray
    told: Told
    spacing: float
    device: str
    sha256: str
    shapes: bool
    owners: bool

    @property
    def halo(self) -> int:
        """Bins around a tile beyond which nothing bears on its cells."""
        chip = self.chip
        if chip.params.flow.decoding == "nuclei":
            return halo_near_nuclei(chip.extent, radius=chip.layout.radius, reach=chip.reach)
        return halo(chip.extent, reach=chip.reach, spacing=self.spacing, orphans=chip.params.flow.orphans)


def find(job: Segmentation, tiles: list[Tile]) -> None:
    """Predict, track and count all tiles that are not done yet."""
    for stage, task, mark in (("predict", _predict_tile, _predicted), ("cells", _cells_of_tile, _measured)):
        run(stage, task, job, [tile for tile in tiles if not job.chip.scratch.is_finished(mark(tile))])


def is_done(chip: Chip, tile: Tile) -> bool:
    """Whether the cells of a tile are there."""
    return chip.scratch.is_finished(_measured(tile))


def _predicted(tile: Tile) -> str:
    return f"predicted/{tile.name}.done"


def _measured(tile: Tile) -> str:
    return f"cells/{tile.name}.done"


def cells_file(tile: Tile) -> str:
    """Name of the file of a tile's cells: `labels` of its own pixels, and the measures of its own cells."""
    return f"cells/{tile.name}.npz"


@lru_cache(maxsize=1)
def _load_model(path: Path, sha256: str, device: str) -> Model:
    """The model, once in each process; a later run may have another one in the same place."""
    model = read_model(path)
    model.encoder.to(device)
    return model


def _predict_tile(job: Segmentation, tile: Tile) -> None:
    chip = job.chip
    with computing:
        model = _load_model(chip.scratch.folder / MODEL, job.sha256, job.device)
    around = model.encoder_params.depth * model.window if model.encoder_params.kind == "field" else model.window
    spots, relations = chip.spots(tile.around(around, chip.grid.whole_shape), job.genes)
    owned = spots.within(tile.ranges)
    with computing:
        features = Features.of(
            spots,
            counts=spots.counts,
            distance=relations.distance,
            n_neighbors=model.n_neighbors,
            window=model.window,
        )
        inputs = make_inputs(model.encoder_params, features, radius=model.radius, device=job.device)
        direction, inside = predict_spots(model.encoder, inputs, block=chip.params.tiles.block, wanted=owned)
    index = spots.index[owned]
    if chip.params.prior.direction:
        low, high = np.array(tile.ranges).T
        near = ((chip.centers >= low - chip.reach - 1) & (chip.centers < high + chip.reach + 1)).all(axis=1)
        direction = direction_posterior(direction, direction_prior(index + 0.5, chip.centers[near], chip.reach))
    weight = chip.params.prior.density
    if weight > 0:
        inside = density_posterior(inside, membership(chip, job.told.levels, tile, index).share, weight)
    own = Spots(spots.grid, index, spots.counts[owned])
    files = []
    for name, ranges in chip.blocks(tile.ranges):
        chosen = own.within(ranges)
        if chosen.any():
            arrays = {"index": index, "direction": direction, "inside": inside}
            files.append(f"predicted/{name}.npz")
            chip.scratch.save(files[-1], {key: value[chosen] for key, value in arrays.items()})
    chip.scratch.finish(_predicted(tile), files)


def _predictions(chip: Chip, ranges: Ranges) -> tuple[Spots, np.ndarray, np.ndarray]:
    """Spots in these rows and columns, without counts, their directions and probabilities."""
    names = (f"predicted/{name}.npz" for name, _ in chip.blocks(ranges))
    parts = [chip.scratch.load(name) for name in names if chip.scratch.has(name)]
    index = np.concatenate([part["index"] for part in parts] or [np.zeros((0, 2), np.int32)])
    spots = Spots(chip.grid.view(ranges), index, None)
    chosen = np.flatnonzero(spots.within(ranges))
    chosen = chosen[np.argsort(spots.keys[chosen])]
    direction, inside = (
        np.concatenate([part[name] for part in parts] or [empty])[chosen]
        for name, empty in (("direction", np.zeros((0, 16), np.float32)), ("inside", np.zeros(0, np.float32)))
    )
    return Spots(spots.grid, index[chosen], None), direction, inside


def _cells_of_tile(job: Segmentation, tile: Tile) -> None:
    chip = job.chip
    ranges = tile.around(job.halo, chip.grid.whole_shape)
    spots, direction, inside = _predictions(chip, ranges)
    seen = transcripts_in(ranges, chip.grid, chip.scratch, chip.params.tiles.block)
    nuclei = chip.nuclei(spots.grid)
    if chip.params.flow.decoding == "nuclei":
        on_grid = _cells_near_nuclei(job, ranges, inside)
    else:
        with computing:
            on_grid = find_cells(
                spots,
                direction=direction,
                inside=inside,
                nuclei=spots.grid.from_raster(nuclei),
                reach=chip.reach,
                spacing=job.spacing,
                first_orphan=int(chip.regions.ids[-1]) + 1,
                params=chip.params.flow,
            )
    with computing:
        labels = to_pixels(on_grid, spots.grid, nuclei)
    pixels = spots.grid.pixels()
    corner = (pixels[0].start, pixels[1].start)
    measured = measure(
        labels,
        nuclei,
        corner=corner,
        raster_shape=chip.grid.raster_shape,
        pixel=seen.pixels,
        gene=seen.gene,
        count=seen.count,
        n_genes=chip.n_genes,
        spot=spots.grid.centers(spots.index),
        inside=inside,
        wanted=_own_ids(chip, tile, labels),
    )
    files = [cells_file(tile)]
    if job.shapes:
        files.append(outlines_file(tile))
        chip.scratch.save(files[-1], _outline(labels, measured.id, corner))
    if job.owners:
        mine = tile.holds(seen.bins)
        owner = labels[tuple((seen.pixels[mine] - corner).T)]
        probability = inside[np.searchsorted(spots.keys, spots.grid.keys(seen.bins[mine]))]
        files.append(owners_file(tile))
        chip.scratch.save(files[-1], {"row": seen.transcript[mine], "owner": owner, "probability": probability})
    own = chip.grid.view(tile.ranges).owned_pixels()
    own = tuple(slice(part.start - start, part.stop - start) for part, start in zip(own, corner, strict=True))
    chip.scratch.save(cells_file(tile), {"labels": labels[own]} | vars(measured))
    chip.scratch.finish(_measured(tile), files)


def _cells_near_nuclei(job: Segmentation, ranges: Ranges, inside: np.ndarray) -> np.ndarray:
    chip, told = job.chip, job.told
    around, spots = surroundings(chip, ranges)
    with computing:
        return cells_near_nuclei(
            around,
            replace(spots, counts=take_genes(spots.counts, told.genes)),
            share=cell_share(around, told.levels, radius=chip.layout.radius),
            predicted=inside,
            gene_total=told.gene_total,
            trust=told.trust,
            radius=chip.layout.radius,
            threshold=chip.params.flow.threshold,
        )


def _own_ids(chip: Chip, tile: Tile, labels: np.ndarray) -> np.ndarray:
    """Ids of the cells that this tile measures: where the nucleus' centroid, or the summit of an orphan, lies."""
    ids = chip.regions.ids[tile.holds(chip.centers)]
    if not chip.params.flow.orphans:
        return ids
    first = int(chip.regions.ids[-1]) + 1
    seen = np.unique(labels)
    orphans = seen[seen >= first]
    summits = np.stack(np.divmod(orphans.astype(np.int64) - first, chip.grid.whole_shape[1]), axis=1)
    return np.concatenate([ids, orphans[tile.holds(summits)]])


def outlines_file(tile: Tile) -> str:
    """Name of the file of the outlines of a tile's own cells: `id`, `corners` of all, `size`: how many each has."""
    return f"outlines/{tile.name}.npz"


def owners_file(tile: Tile) -> str:
    """Name of the file of the `owner` of each `row` of the points that lies in a tile, and its `probability`."""
    return f"owners/{tile.name}.npz"


def _outline(labels: np.ndarray, ids: np.ndarray, corner: tuple[int, int]) -> dict[str, np.ndarray]:
    rings = [ring + corner for ring in polygons(labels, ids).values()]
    corners = np.concatenate([*rings, np.zeros((0, 2), np.int64)])
    return {"id": ids, "corners": corners, "size": np.array([len(ring) for ring in rings], np.int64)}


def read_cells(chip: Chip, tile: Tile) -> tuple[np.ndarray, Cells]:
    """Labels of the tile's own pixels, and the measures of its own cells."""
    arrays = chip.scratch.load(cells_file(tile))
    return arrays.pop("labels"), Cells(**arrays)
