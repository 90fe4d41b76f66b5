"""Cores of the nuclei in a window: each nucleus that reaches into it is eroded as a whole."""

from __future__ import annotations

import numpy as np

from sslcst.core.spots import in_ranges, ranges_of, within
from sslcst.methods.base import Window
from sslcst.methods.ssl_cst.erosion import erode_and_report
from sslcst.methods.ssl_cst.params import ErosionParams
from sslcst.methods.ssl_cst.sampling import DENSITY_BINS

MARGIN = DENSITY_BINS // 2  # bins around a window over which its spots' density is told
_RING = 8  # pixels around a nucleus that its erosion may look at


def cores_of(window: Window, params: ErosionParams, seed: int) -> tuple[np.ndarray, int, int]:
    """Core labels of the bins in view, and how many of the window's own nuclei have a core too small or too irregular.

    A nucleus is the own of the window that holds its centroid.
    """
    tissue, grid = window.tissue, window.grid
    extent = (tissue.regions.high - tissue.regions.low).max(axis=0) + _RING
    wide = tuple(
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(grid.pixels(), extent.tolist(), grid.raster_shape, strict=True)
    )
    cores, report = erode_and_report(
        window.source.nuclei(wide), image=window.source.stain(wide), params=params, seed=seed
    )
    inner = within(ranges_of(*grid.pixels()), ranges_of(*wide))
    own = tissue.regions.ids[in_ranges(tissue.centers, window.own)]
    n_small, n_irregular = (int(np.isin(ids, own).sum()) for ids in (report.too_small, report.irregular))
    return grid.from_raster(cores[inner]), n_small, n_irregular
