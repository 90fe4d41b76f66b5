"""Whether the nuclei of a tissue lie where its transcripts say that cells are."""

from __future__ import annotations

import numpy as np

from sslcst.core.alignment import Alignment, coarse_counts, coarse_mean, coarse_step, find_alignment
from sslcst.core.geometry import Regions
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.workspace import Workspace

_BAND = 2048  # pixels of the labels that are read at once


def check(workspace: Workspace, regions: Regions, *, pixel_size: float) -> Alignment:
    """Compare nuclei and transcripts on coarse maps of the whole tissue (`sslcst.pp.check_alignment`).

    Parameters
    ----------
    workspace
        Holds nuclei and transcripts.
    regions
        Where the nuclei lie.
    pixel_size
        Side of a pixel in units of the coordinate system.
    """
    shape = workspace.grid.raster_shape
    across = regions.diameter
    step = coarse_step(shape, across)
    band = step * -(-_BAND // step)
    bands = [(slice(start, start + band), slice(0, shape[1])) for start in range(0, shape[0], band)]
    nuclei = [coarse_mean(workspace.nuclei(pixels) > 0, step) for pixels in bands]
    counts = np.zeros([-(-size // step) for size in shape])
    for _, ranges in workspace.blocks(workspace.grid.ranges):
        seen = transcripts_in(ranges, workspace.grid, workspace.scratch, workspace.block)
        counts += coarse_counts(seen.pixels + 0.5, seen.count, shape, step)
    return find_alignment(
        np.concatenate(nuclei), counts, diameter=across * pixel_size, bin_size=step * pixel_size, whole=False
    )
