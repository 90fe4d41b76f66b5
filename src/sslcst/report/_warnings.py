"""What is conspicuous in a segmentation, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sslcst.report._result import Result

# Bounds of experience, not of theory: a good segmentation may cross one, and then for a reason that is worth knowing.
FEW_CELLS = 20
FEW_COUNTS = 20  # of a cell; with less, types of cells can hardly be told
HARDLY_ANY, MANY_WITH_HARDLY_ANY = 10, 0.05
LOW_SHARE_OF_COUNTS = 0.4
MANY_EMPTY = 0.02
MANY_AT_BORDER = 0.2
MANY_UNGROWN = 0.3
MANY_WITHOUT_CORE = 0.3
UNSURE = 0.8
LOW_DIRECTION_ACCURACY = 0.5  # of 16 directions, chance finds 0.06
LOW_INSIDE_ACCURACY = 0.85


class Warn(NamedTuple):
    """Something conspicuous: what it is, and what to do."""

    what: str
    advice: str


def warnings_of(result: Result) -> list[Warn]:
    """The warnings, none where nothing is conspicuous."""
    return [*_of_run(result), *_of_counts(result), *_of_cells(result), *_of_training(result)]


def _of_run(result: Result) -> Iterator[Warn]:
    """What the run itself warned of: the first sentence says what, the others what to do."""
    for warning in result.about.get("warnings", "").splitlines():
        what, _, advice = warning.partition(". ")
        yield Warn(f"{what.removesuffix('.')}.", advice)


def _of_counts(result: Result) -> Iterator[Warn]:
    counts, total = result.counts, result.about.get("total_counts")  # of the whole tissue
    if np.median(counts) < FEW_COUNTS:
        yield Warn(
            f"Half of the cells have {np.median(counts):.0f} counts or fewer.",
            "Types of cells will be hard to tell. See whether all transcripts were read (gene_key, count_key), and "
            "whether the nuclei are right (sslcst.pl.nuclei).",
        )
    elif (poor := (counts < HARDLY_ANY).mean()) > MANY_WITH_HARDLY_ANY:
        yield Warn(
            f"{100 * poor:.1f} % of the cells have hardly any counts, fewer than {HARDLY_ANY}.",
            "They are nuclei of another plane, debris, or lie where transcripts were not measured, and blur what comes "
            "after: drop them (cells.min_counts, or scanpy.pp.filter_cells).",
        )
    if total and counts.sum() < LOW_SHARE_OF_COUNTS * total:
        yield Warn(
            f"Only {100 * counts.sum() / total:.1f} % of the counts lie in cells.",
            "See whether nuclei were missed, and whether stain and transcripts lie over each other: draw "
            "sslcst.pl.segmentation with points_key. Else set nuclei.diameters, or a larger cells.radius. Where a "
            "tissue has much between its cells, it is no fault.",
        )
    empty = (counts == 0).mean()
    if empty > MANY_EMPTY:
        yield Warn(
            f"{100 * empty:.1f} % of the cells have no counts.",
            "There are nuclei where there are no transcripts: debris, or a part of the stain that was not measured. "
            "Filter these cells out (scanpy.pp.filter_cells), or crop the image.",
        )


def _of_cells(result: Result) -> Iterator[Warn]:
    if result.table.n_obs < FEW_CELLS:
        yield Warn(
            f"There are only {result.table.n_obs} cells.",
            "Few nuclei teach little. Set nuclei.diameters, try another nuclei.method, or use a model that was "
            "trained on a larger chip.",
        )
    border = result.column("touches_border")
    if border is not None and border.mean() > MANY_AT_BORDER:
        yield Warn(
            f"{100 * border.mean():.1f} % of the cells are cut by the border.",
            "Their counts and sizes are too low. Leave them out by obs['touches_border'] where that matters.",
        )
    ungrown = result.ungrown
    if ungrown is not None and ungrown.mean() > MANY_UNGROWN:
        yield Warn(
            f"{100 * ungrown.mean():.1f} % of the cells are no larger than their nucleus.",
            "What surrounds them was taken to lie outside. Lower the method's threshold (density.threshold, "
            "network.threshold, flow.threshold); of ssl-cst, or raise sampling.negative_distance.",
        )
    probability = result.column("mean_prob")
    known = np.array([]) if probability is None else probability[np.isfinite(probability)]
    if len(known) and np.median(known) < UNSURE:
        yield Warn(
            f"The median of the cells' mean probabilities is {np.median(known):.2f}.",
            "The model is unsure what lies in a cell. Train for longer (training.max_epochs), or on coarser spots "
            "(spots.bin_size).",
        )


def _of_training(result: Result) -> Iterator[Warn]:
    nuclei, cores = (result.about.get(name) for name in ("n_nuclei", "n_cores"))
    if nuclei and cores is not None and nuclei - cores > MANY_WITHOUT_CORE * nuclei:
        yield Warn(
            f"{nuclei - cores:,} of {nuclei:,} nuclei have no core to learn from.",
            "They are small or irregular: look at them with sslcst.pl.nuclei. If they are right, lower "
            "erosion.min_area or erosion.min_solidity.",
        )
    if result.history is None:
        return
    direction, inside = (result.history[f"{name}_accuracy"][result.best_epoch] for name in ("direction", "inside"))
    if direction < LOW_DIRECTION_ACCURACY:
        yield Warn(
            f"Only {100 * direction:.1f} % of the directions are right, of samples set apart.",
            "Boundaries between neighbours are not to be trusted. Train for longer (training.max_epochs), on coarser "
            "spots (spots.bin_size) where transcripts are sparse, and see whether stain and transcripts lie over each "
            "other.",
        )
    if inside < LOW_INSIDE_ACCURACY:
        yield Warn(
            f"Only {100 * inside:.1f} % of in or out of a cell are right, of samples set apart.",
            "Spots in nuclei and spots far from all look alike. See whether stain and transcripts lie over each other, "
            "and whether nuclei were missed.",
        )
