"""Nuclei and whole cells that were found apart: which nucleus is of which cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shared:
    """How many pixels each nucleus has in each cell, and in none; of the parts of an image they add up."""

    nucleus: np.ndarray  #: Ids, (n,)
    cell: np.ndarray  #: Ids, 0 being none, (n,); each pair occurs once, by rising nuclei and cells
    pixels: np.ndarray  #: Their numbers, int64 (n,)

    @classmethod
    def of(cls, nuclei: np.ndarray, cells: np.ndarray) -> Shared:
        """From labels (y, x) of one part."""
        inside = nuclei > 0
        pairs, pixels = np.unique(_as_one(nuclei[inside], cells[inside]), return_counts=True)
        return cls(*_apart(pairs), pixels.astype(np.int64))

    @classmethod
    def join(cls, parts: Sequence[Shared]) -> Shared:
        """Of the whole, from its parts."""
        every = np.concatenate([_as_one(part.nucleus, part.cell) for part in parts])
        pairs, place = np.unique(every, return_inverse=True)
        pixels = np.zeros(len(pairs), np.int64)
        np.add.at(pixels, place, np.concatenate([part.pixels for part in parts]))
        return cls(*_apart(pairs), pixels)

    def match(self) -> tuple[np.ndarray, np.ndarray]:
        """Each nucleus, ids (m,), and the cell that is its (m,): where most of its pixels lie, be that 0, in no cell.

        Of cells with as many, it is the one of the least id; none comes last.
        """
        order = np.lexsort((self.cell, self.cell == 0, -self.pixels, self.nucleus))
        nuclei, first = np.unique(self.nucleus[order], return_index=True)
        return nuclei, self.cell[order][first]


def as_cells(labels: np.ndarray, cells: np.ndarray, nuclei: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Labels of nuclei (y, x) with the ids of their cells, as far as they lie in them, by what `Shared.match` gives."""
    inside = labels > 0
    out = np.zeros_like(cells)
    out[inside] = owner[np.searchsorted(nuclei, labels[inside])]
    return np.where(out == cells, out, 0)


def _as_one(nucleus: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return nucleus.astype(np.uint64) << np.uint64(32) | cell.astype(np.uint64)


def _apart(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.uint32)
