"""The coordinate systems of a Stereo-seq chip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spatialdata.transformations import BaseTransformation, Identity, Scale, Translation

from sslcst._section import check
from sslcst.errors import DataError


def chip_systems(spot_size: float, chip_offset: tuple[int, int] | None) -> dict[str, BaseTransformation]:
    """From spots to "global" (spots), "micron" and, where the offset is known, "chip" (spots of the whole chip)."""
    check(0 < spot_size < math.inf, "spot_size", spot_size, "must be a positive number of microns")
    systems: dict[str, BaseTransformation] = {"global": Identity(), "micron": Scale([spot_size] * 2, axes=("x", "y"))}
    if chip_offset is not None:
        systems["chip"] = Translation(list(chip_offset), axes=("x", "y"))
    return systems


def chip_offset(path: Path, header: Mapping[str, Any], names: tuple[str, str]) -> tuple[int, int] | None:
    """Place (x, y) on the chip of a file's spot (0, 0), if both fields of the header say so."""
    if not set(names) <= set(header):
        return None
    offset = []
    for name in names:
        try:
            value = float(header[name])
        except (TypeError, ValueError):
            value = math.nan
        if not (value.is_integer() and abs(value) < 2**31):
            raise DataError(f"{path}: {name} of the header must be a whole number, and is {header[name]!r}.")
        offset.append(int(value))
    x, y = offset
    return x, y
