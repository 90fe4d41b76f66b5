"""Whether the nuclei of a tissue lie where its transcripts say that cells are."""

from __future__ import annotations

import numpy as np

from sslcst.core.alignment import coarse_counts, coarse_mean, coarse_step, find_alignment, share_without_nuclei
from sslcst.core.geometry import Regions
from sslcst.run.stages.transcripts import transcripts_in
from sslcst.run.warnings import warn
from sslcst.run.workspace import Workspace

_BARE = 0.5  # share of the transcripts, far from nuclei, at which these are too few
_BAND = 2048  # pixels of the labels that are read at once


def check(workspace: Workspace, regions: Regions, *, whole_cells: bool, pixel_size: float, pair: str) -> None:
    """Compare nuclei, or whole cells, and transcripts on coarse maps (`sslcst.pp.check_alignment`); warn of doubts.

    A pixel measures `pixel_size` units of the coordinate system, and `pair` names what is compared.
    """
    shape = workspace.grid.raster_shape
    across = regions.diameter
    step = coarse_step(shape, across)
    band = step * -(-_BAND // step)
    bands = [(slice(start, start + band), slice(0, shape[1])) for start in range(0, shape[0], band)]
    what, read = ("cells", workspace.whole_cells) if whole_cells else ("nuclei", workspace.nuclei)
    nuclei = [coarse_mean(read(pixels) > 0, step) for pixels in bands]
    counts = np.zeros([-(-size // step) for size in shape])
    for _, ranges in workspace.blocks(workspace.grid.ranges):
        seen = transcripts_in(ranges, workspace.grid, workspace.scratch, workspace.block)
        counts += coarse_counts(seen.pixels + 0.5, seen.count, shape, step)
    nuclei = np.concatenate(nuclei)
    alignment = find_alignment(nuclei, counts, diameter=across * pixel_size, bin_size=step * pixel_size, whole=False)
    if alignment.misaligned:
        warn(workspace.scratch, f"{alignment} These are {pair}: sslcst.pp.align brings them together.")
    elif alignment.is_doubtful(len(regions)):
        warn(
            workspace.scratch,
            f"Nothing tells that {what} and transcripts lie on one another, as {len(regions)} {what} should. "
            f"Check {pair}: their transformations and units (pixels taken for microns?), whether the image is flipped, "
            "turned, of another section or of another channel, and draw both with sslcst.pl.segmentation. "
            "sslcst.pp.check_alignment searches farther (max_shift, max_angle).",
        )
    bare = share_without_nuclei(nuclei, counts, across / step)
    if bare > _BARE:
        look = (
            "look at {0} with sslcst.pl.segmentation, and whether channels= names the stain of whole cells."
            if whole_cells
            else "look at {0} with sslcst.pl.nuclei, check channel=, and set nuclei.diameters (a nucleus measures "
            "{1:.3g} now) or another nuclei.method."
        )
        warn(
            workspace.scratch,
            f"{bare:.0%} of the transcripts lie far from all of the {len(regions)} {what}, and as dense as in "
            f"cells. See whether {what} were missed: {look.format(pair, across * pixel_size)}",
        )
