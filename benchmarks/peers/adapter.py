"""What every adapter in this folder is given and gives back.

    PYTHON ADAPTER INPUT.npz OUTPUT.npz [NAME=VALUE ...]

An adapter is a function of the nuclei (y, x) and the transcripts, their positions ``yx`` (n, 2) in pixels, genes (n,)
and the pixel's side in microns; what stands behind on the command line are its own settings. It returns labels (y, x),
or the cell of each transcript (n,), 0 = none. It runs in the peer's own environment, of which it needs numpy beside the
peer, and knows nothing of sslcst. What the process took is written beside the result, on Linux.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Tissue(NamedTuple):
    nuclei: np.ndarray
    yx: np.ndarray
    gene: np.ndarray
    pixel_size: float

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


def main(segment: Callable[..., np.ndarray]) -> None:
    source, target, *settings = sys.argv[1:]
    with np.load(source) as data:
        tissue = Tissue(data["nuclei"], data["yx"], data["gene"], float(data["pixel_size"]))
    cells = segment(tissue, **dict(setting.split("=", 1) for setting in settings))
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    np.savez(target, cells=cells, cpu_seconds=sum(os.times()[:4]), peak_gib=int(peak) / 2**20)
