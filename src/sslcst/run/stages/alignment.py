"""Whether the nuclei of a chip lie where its transcripts say that cells are."""

from __future__ import annotations

import numpy as np

from sslcst.core.alignment import Alignment, coarse_counts, coarse_mean, coarse_step, find_alignment
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.workspace import Chip, read_nuclei

_BAND = 2048  # pixels of the labels that are read at once


def check(chip: Chip, *, pixel_size: float) -> Alignment:
    """Compare nuclei and transcripts on coarse maps of the whole chip (`sslcst.pp.check_alignment`).

    Parameters
    ----------
    chip
        The chip, its transcripts in their blocks.
    pixel_size
        Side of a pixel in units of the coordinate system.
    """
    shape = chip.grid.raster_shape
    across = chip.regions.diameter
    step = coarse_step(shape, across)
    band = step * -(-_BAND // step)
    bands = [(slice(start, start + band), slice(0, shape[1])) for start in range(0, shape[0], band)]
    nuclei = [coarse_mean(read_nuclei(chip.scratch, pixels) > 0, step) for pixels in bands]
    counts = np.zeros([-(-size // step) for size in shape])
    for _, ranges in chip.blocks(chip.grid.ranges):
        seen = transcripts_in(ranges, chip.grid, chip.scratch, chip.params.tiles.block)
        counts += coarse_counts(seen.pixels + 0.5, seen.count, shape, step)
    return find_alignment(
        np.concatenate(nuclei), counts, diameter=across * pixel_size, bin_size=step * pixel_size, whole=False
    )
