"""What every adapter in this folder is given and gives back.

    PYTHON ADAPTER INPUT.npz OUTPUT.npz [NAME=VALUE ...]

An adapter is a function of the nuclei (y, x) and the transcripts, their positions ``yx`` (n, 2) in pixels, genes (n,)
and the pixel's side in microns, and of the stain where that is at hand; what stands behind on the command line are its
own settings. It returns labels (y, x), or the cell of each transcript (n,), 0 = none; or both, where a peer gives both
and they need not agree. It runs in the peer's own environment, of which it needs numpy beside the peer, and knows
nothing of sslcst. What the process and its children took is written beside the result, on Linux: the peak is of the
larger of them.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Tissue(NamedTuple):
    nuclei: np.ndarray
    yx: np.ndarray
    gene: np.ndarray
    pixel_size: float
    image: np.ndarray | None = None

    def owner_of_nuclei(self) -> np.ndarray:
        """Nucleus that each transcript lies in, 0 = none."""
        place = np.clip(np.floor(self.yx).astype(int), 0, np.array(self.nuclei.shape) - 1)
        return self.nuclei[tuple(place.T)]

    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and centroids (m, 2) of the nuclei, in pixels."""
        rows, columns = np.nonzero(self.nuclei)
        ids, member, area = np.unique(self.nuclei[rows, columns], return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(member, axis + 0.5) for axis in (rows, columns)], axis=1)
        return ids, sums / area[:, None]


def main(segment: Callable[..., np.ndarray | tuple[np.ndarray, np.ndarray]]) -> None:
    source, target, *settings = sys.argv[1:]
    with np.load(source) as data:
        pixel_size = float(data["pixel_size"])
        tissue = Tissue(data["nuclei"], data["yx"], data["gene"], pixel_size, data.get("image"))
    start = time.perf_counter()
    found = segment(tissue, **dict(setting.split("=", 1) for setting in settings))
    seconds = time.perf_counter() - start
    cells, owner = found if isinstance(found, tuple) else (found, None)
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = max(int(peak), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    took = {"seconds": seconds, "cpu_seconds": sum(os.times()[:4]), "peak_gib": peak / 2**20}
    np.savez(target, cells=cells, **({} if owner is None else {"owner": owner}), **took)
