"""The coordinate systems of a Stereo-seq chip."""

from __future__ import annotations

import math

from spatialdata.transformations import BaseTransformation, Identity, Scale, Translation

from sslcst.errors import ParameterError


def chip_systems(spot_size: float, chip_offset: tuple[int, int] | None) -> dict[str, BaseTransformation]:
    """From spots to "global" (spots), "micron" and, where the offset is known, "chip" (spots of the whole chip).

    Raises
    ------
    ParameterError
        The spot size is not a positive number.
    """
    if not 0 < spot_size < math.inf:
        raise ParameterError(f"spot_size={spot_size!r}: must be a positive number of microns.")
    systems: dict[str, BaseTransformation] = {"global": Identity(), "micron": Scale([spot_size] * 2, axes=("x", "y"))}
    if chip_offset is not None:
        systems["chip"] = Translation(list(chip_offset), axes=("x", "y"))
    return systems
