"""Nuclei that are given, read by parts; labels are read here, shapes by `sslcst._sdata.shapes`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import ndimage

from sslcst._sdata.source_ids import LARGEST, by_number
from sslcst.errors import DataError

_BAND = 1024  # rows that are looked at at once
_MASK = "A mask does not tell nuclei apart: skimage.measure.label does."


def read_part(array: Any, rows: slice, columns: slice) -> np.ndarray:
    """A part of an array (..., y, x), which may be one of dask, computed in this thread: the caller's is the pool."""
    part = array[..., rows, columns]
    return np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)


class NucleusSource(Protocol):
    """Nuclei that are there already, read by parts."""

    source_ids: pd.Series | None  # their original ids by their labels, where these differ

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The labels of some pixels, uint32 (y, x)."""
        ...

    def check(self, found: np.ndarray, what: str = "nuclei") -> None:
        """Say what is not among the labels that were found once all was read; raise a `DataError` where none was."""
        ...


@dataclass(frozen=True)
class GivenLabels:
    """Labels as they are; where some are above 2^32 - 1, numbered in their order."""

    key: str  # name of the labels
    data: Any  # (y, x), of numpy or dask
    source_ids: pd.Series | None  # their original ids by the labels that are read, where these differ
    ids: np.ndarray | None  # the labels that occur, rising, where they are numbered

    @classmethod
    def of(cls, key: str, data: Any, source_ids: pd.Series | None) -> GivenLabels:
        """Labels (y, x) of a name, whole numbers from 0, and the original ids that are known of them."""
        if not np.issubdtype(data.dtype, np.integer):
            hint = f" {_MASK}" if data.dtype == bool else ""
            raise DataError(f"Labels {key!r} are {data.dtype}: they must be integers, one for each nucleus.{hint}")
        ids = None
        if data.size and not np.can_cast(data.dtype, np.uint32):
            low, high = _over_rows(data, lambda part: np.array([part.min(), part.max()]), lambda a: (a.min(), a.max()))
            if low < 0:
                raise DataError(f"Labels {key!r} hold {low}: they must not be negative, and background is 0.")
            if high > LARGEST:
                ids = _over_rows(data, np.unique, np.unique)
                ids = ids[ids > 0]
                source_ids = by_number(ids, np.arange(1, len(ids) + 1, dtype=np.uint32))
        return cls(key, data, source_ids, ids)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The labels of some pixels, uint32 (y, x)."""
        labels = read_part(self.data, rows, columns)
        if self.ids is None:
            return labels.astype(np.uint32)
        return np.where(labels > 0, np.searchsorted(self.ids, labels) + 1, 0).astype(np.uint32)

    def check(self, found: np.ndarray, what: str = "nuclei") -> None:
        """See that there is a label, and that a single one is not that of a mask of many."""
        if not len(found):
            raise DataError(f"There are no {what} in {self.key!r}: every pixel is background.")
        if len(found) == 1:
            areas = _over_rows(self.data, lambda part: np.bincount(ndimage.label(part)[0].ravel())[1:], np.asarray)
            if areas.max() < areas.sum() / 2:  # a band may cut a piece in two
                raise DataError(f"Labels {self.key!r} hold one id for {len(areas)} pieces that lie apart. {_MASK}")


def _over_rows(data: Any, of_part: Callable, of_all: Callable) -> Any:
    """What is told of an array by what is told of bands of its rows, so that little is in memory."""
    bands = (slice(start, start + _BAND) for start in range(0, data.shape[0], _BAND))
    return of_all(np.concatenate([of_part(read_part(data, rows, slice(None))) for rows in bands]))
