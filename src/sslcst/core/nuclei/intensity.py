"""Intensity normalisation with percentiles of the whole image, so that a tile of it is scaled as the whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sslcst.errors import DataError, ParameterError

_LARGEST = 1e30  # no camera counts that far; sums and squares of more overflow
_BEYOND = 1e6  # times the range of the percentiles, at which a stray pixel ends
_BLOCKS, _SIDE = 16, 16  # blocks along the longer side of an image; pixels along that of a block, at least
_SAMPLE = 512  # rows from which the noise is told
_TOP, _MIDDLE = 98, 20  # percentiles of a block: its nuclei, but no stray pixel; what lies between nuclei
_STANDS_OUT = 12  # times the noise, as no texture of the background does
_COMMON = 0.25  # share of the blocks that must show nuclei, for the others to be judged by them
_FAR_BRIGHTER = 5  # times their median, as nuclei are in no image of DSB2018


def check_image(image: NDArray[np.generic], name: str = "the stain image") -> NDArray[np.generic]:
    """Return a stain image, (y, x), as integers or as floats of at least single precision, if it can be segmented.

    A `DataError`, which calls it by its name, says why it cannot: it is not one channel of real numbers, is empty, not
    finite everywhere, beyond all measure somewhere, or the same everywhere.
    """
    image, name = np.asarray(image), name[0].upper() + name[1:]
    if image.ndim != 2:
        raise DataError(f"{name} has the shape {image.shape}: give one channel as a (y, x) array.")
    if image.size == 0:
        raise DataError(f"{name} is empty: its shape is {image.shape}.")
    if image.dtype.kind not in "buif":
        raise DataError(f"{name} is of type {image.dtype}: give integers, floats or booleans.")
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    elif image.dtype.kind == "f":
        image = image.astype(np.promote_types(image.dtype, np.float32), copy=False)
        check_finite(image, name)
    low, high = image.min(), image.max()
    if max(abs(float(low)), abs(float(high))) > _LARGEST:
        raise DataError(
            f"{name} reaches from {low:g} to {high:g}. Does that mark missing pixels? "
            "Give them the value of the background first."
        )
    if low == high:
        raise DataError(f"{name} has no contrast: every pixel is {image.flat[0]}. Is it the right channel?")
    return image


def check_finite(image: NDArray[np.generic], name: str) -> None:
    """Raise a `DataError` where pixels of an image, or of a part of it, are not finite."""
    if bad := image.size - np.count_nonzero(np.isfinite(image)):
        raise DataError(
            f"{name[0].upper()}{name[1:]} has {bad} of {image.size} pixels that are NaN or infinite: give them the "
            "value of the background first."
        )


def intensity_range(image: NDArray[np.generic], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Intensities of an image (y, x) that become 0 and 1: its percentiles.

    They are the least and the greatest intensity if the percentiles coincide, as they do where fewer pixels are stained
    than lie above the upper one. Where that is far brighter than the nuclei of the median block of the image, it comes
    from debris, fibres, folds or saturation; blocks with such are then left out.
    """
    low, high = np.percentile(image, percentiles)
    if low == high:
        low, high = image.min(), image.max()
    blocks = _blocks(image)
    top, middle = np.array([np.percentile(block, (_TOP, _MIDDLE)) for block in blocks]).T
    shows_nuclei = top - middle > _STANDS_OUT * _noise(image)
    if shows_nuclei.mean() >= _COMMON:
        limit = low + _FAR_BRIGHTER * (np.median(top[shows_nuclei]) - low)
        if high > limit:
            rest = [block.ravel() for block, value in zip(blocks, top, strict=True) if value <= limit]
            high = np.percentile(np.concatenate(rest), percentiles[1])
    return float(low), float(high)


def _blocks(image: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    side = max(_SIDE, -(-max(image.shape) // _BLOCKS))
    rows, columns = (range(0, size, side) for size in image.shape)
    return [image[row : row + side, column : column + side] for row, column in product(rows, columns)]


def _noise(image: NDArray[np.generic]) -> float:
    """Standard deviation of the noise, by differences of neighbours, and at least a step of the camera's.

    Infinite where a sample does not tell, so that nothing stands out.
    """
    sample = image[:: -(-image.shape[0] // _SAMPLE)].astype(np.float64)
    differences, steps = np.abs(np.diff(sample, axis=1)), np.diff(np.unique(sample))
    return max(float(np.median(differences)), float(steps.min())) if differences.size and steps.size else np.inf


def scale_intensity(image: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """Map `low` to 0 and `high` to 1 linearly; what lies beyond them stays beyond, up to a million."""
    scaled = np.subtract(image, low, dtype=np.float64) / (high - low)
    return np.clip(scaled, -_BEYOND, _BEYOND, out=scaled).astype(np.float32)


def channels_of(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """The channels (n, y, x) of an image, which is (y, x) if it is one."""
    return image.reshape(-1, *image.shape[-2:])


def scale_channels(image: NDArray[np.generic], ranges: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """An image, (y, x) or (channels, y, x), each channel of which is scaled by its own range."""
    parts = zip(channels_of(image), ranges, strict=True)
    return np.stack([scale_intensity(part, *ends) for part, ends in parts]).reshape(image.shape)


def merge_channels(channels: Sequence[NDArray[np.generic]], percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """Merge channels (y, x) of one shape that show nuclei: each is scaled, and at each pixel the brightest is taken.

    Raises a `ParameterError` without a channel, and a `DataError` where one cannot be segmented (`check_image`).
    """
    if not len(channels):
        raise ParameterError("channel: name at least one.")
    checked = map(check_image, channels)
    return reduce(np.maximum, (scale_intensity(image, *intensity_range(image, percentiles)) for image in checked))
