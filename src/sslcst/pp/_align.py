"""Whether a stain and its nuclei lie on the transcripts, and their transformation where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import block_reduce
from spatialdata import SpatialData, transformations
from spatialdata.transformations import Affine, get_transformation, set_transformation
from xarray import DataArray

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import (
    channel_in_words,
    channel_of,
    choose_coordinate_system,
    choose_image,
    choose_key,
    choose_points,
)
from sslcst._sdata.raster import YX, Raster, affine_matrix, full_scale, raster_of, systems_of
from sslcst._sdata.transcripts import TranscriptSource, open_transcripts
from sslcst._section import check
from sslcst.core.alignment import Alignment, coarse_counts, coarse_mean, coarse_step, find_alignment
from sslcst.core.geometry import Regions
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import check_image, intensity_range, scale_intensity
from sslcst.errors import DataError

_SAMPLE = 2048  # pixels along the sides of the sample that tells the size of nuclei; rows that are read at once


@checked
def check_alignment(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    nuclei_key: str | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    coordinate_system: str | None = None,
    diameter: float | None = None,
    max_shift: float | None = None,
    max_angle: float = 5.0,
    whole: bool = False,
) -> Alignment:
    """Compare how nuclei lie to transcripts with shifted and turned copies of them.

    Parameters
    ----------
    sdata
        Holds transcripts, and nuclei or a stain.
    image_key, channel
        The stain, where there are no nuclei yet: nuclei are what is brighter than Otsu's threshold. May be left out if
        there is only one.
    nuclei_key
        Labels of nuclei, which are used instead.
    points_key, gene_key, count_key
        The transcripts, as in `sslcst.tl.segment`.
    coordinate_system
        Where both meet, and whose units count; by default "global" or the only one.
    diameter
        Of a nucleus; by default that of the nuclei, or as estimated from the stain.
    max_shift
        How far to search; by default 16 diameters, at most a quarter of the image.
    max_angle
        How far to turn, in degrees, from 0 to 45.
    whole
        Whether to refine over the whole of a large image; by default the part that holds most transcripts tells.

    Returns
    -------
    Share of the transcripts in nuclei as placed and at best, the shift (along the image's y and x, in units) and angle
    that lead there, and whether the elements are misaligned beyond doubt.

    Raises
    ------
    KeyMissingError
        No such element, column, channel or coordinate system, or several that could be meant.
    ParameterError
        A length or angle is out of its bounds.
    DataError
        No nuclei, or no transcripts on the image; the size of nuclei cannot be told.
    """
    for name, value in (("diameter", diameter), ("max_shift", max_shift)):
        check(value is None or 0 < value < inf, name, value, "must be above 0")
    check(0 <= max_angle <= 45, "max_angle", max_angle, "must lie between 0 and 45 degrees")
    _, key, points_key, raster = _choose(sdata, image_key, nuclei_key, points_key, coordinate_system)
    pixels = full_scale(sdata[key]) if key == nuclei_key else channel_of(sdata, key, channel)
    finest = coarse_step(raster.shape)
    transcripts = open_transcripts(sdata, points_key, gene_key=gene_key, count_key=count_key, raster=raster)
    counts = _count_map(transcripts, raster.shape, finest)
    sample = _sample(pixels, key, counts, finest)
    threshold, across = (0, Regions.of(sample).diameter) if key == nuclei_key else _stain_size(sample, key)
    if diameter is not None:
        across = diameter / raster.pixel_size
    elif across is None:
        raise DataError(f"The size of the nuclei cannot be told from {key!r}: give diameter, in units.")
    step = coarse_step(raster.shape, across)
    nuclear, counts = _nuclear_map(pixels, threshold, step), block_reduce(counts, step // finest, np.sum)
    lengths = {"diameter": across * raster.pixel_size, "bin_size": step * raster.pixel_size, "max_shift": max_shift}
    placement = find_alignment(nuclear, counts, **lengths, max_angle=max_angle, whole=whole)
    logger.info("%s", placement)
    return placement


@checked
def align(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    nuclei_key: str | None = None,
    labels_keys: Sequence[str] = (),
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    coordinate_system: str | None = None,
    diameter: float | None = None,
    max_shift: float | None = None,
    max_angle: float = 5.0,
) -> Alignment:
    """Lay a stain, and what was derived from it, on the transcripts: by a transformation, no pixel is resampled.

    The transformations to all coordinate systems that image and points share are replaced by the old ones followed by
    the shift and turn that `check_alignment` finds. They are set in the object;
    ``sdata.write_transformations()`` writes them to its store.

    Parameters
    ----------
    sdata, channel, points_key, gene_key, count_key, coordinate_system, diameter, max_shift
        See `check_alignment`, which is asked with ``whole=True``.
    image_key
        The stain to move. It may be left out if it is the only one, or to move nuclei alone.
    nuclei_key
        Labels of its nuclei, if there are: they decide, and move as well.
    labels_keys
        Further labels that belong to the image and move with it.
    max_angle
        How far to turn, in degrees; 0 only shifts.

    Returns
    -------
    What was found; the elements have been moved by its shift and angle.

    Raises
    ------
    KeyMissingError, ParameterError
        See `check_alignment`.
    DataError
        As there; or no placement stands out from chance, so that nothing was moved.
    """
    for key in labels_keys:
        choose_key(sdata.labels, key, kind="labels element", argument="labels_keys")
    image_key, key, points_key, raster = _choose(sdata, image_key, nuclei_key, points_key, coordinate_system)
    what = {"image_key": image_key, "channel": channel, "nuclei_key": nuclei_key, "points_key": points_key}
    what |= {"gene_key": gene_key, "count_key": count_key, "coordinate_system": raster.coordinate_system}
    bounds = {"diameter": diameter, "max_shift": max_shift, "max_angle": max_angle}
    placement = check_alignment(sdata, **what, **bounds, whole=True)
    if not placement.found:
        raise DataError(f"{placement} Nothing was moved.")
    scale = np.diag([raster.pixel_size, raster.pixel_size, 1])
    on_pixels = np.linalg.inv(scale) @ placement.matrix @ scale
    steps = {}
    for system in systems_of(sdata.points[points_key]) & set(raster.transformations):
        to_system = affine_matrix(full_scale(sdata[key]), system)
        steps[system] = Affine(to_system @ on_pixels @ np.linalg.inv(to_system), YX, YX)
    moving = [each for each in dict.fromkeys([image_key, nuclei_key, *labels_keys]) if each is not None]
    for each in moving:
        old = get_transformation(sdata[each], get_all=True)
        new = {system: transformations.Sequence([old[system], steps[system]]) for system in old.keys() & steps}
        set_transformation(sdata[each], old | new, set_all=True)
    logger.info("Moved %s.", ", ".join(moving))
    return placement


def _choose(
    sdata: SpatialData, image_key: str | None, nuclei_key: str | None, points_key: str | None, system: str | None
) -> tuple[str | None, str, str, Raster]:
    """The image if there is one to move, the element that shows the nuclei, the points, and that element's raster."""
    if nuclei_key is not None:
        choose_key(sdata.labels, nuclei_key, kind="labels element", argument="nuclei_key")
    if nuclei_key is None or image_key is not None:
        image_key = choose_image(sdata, image_key, finds_nuclei=nuclei_key is None)
    key = nuclei_key or image_key
    points_key = choose_points(sdata, points_key)
    system = choose_coordinate_system(sdata, [key, points_key], system)
    return image_key, key, points_key, raster_of(sdata, key, system)


def _nuclear_map(pixels: DataArray, threshold: float, step: int) -> np.ndarray:
    """Share of each bin of `step` pixels that lies above the threshold."""
    bands = range(0, pixels.shape[0], step * -(-_SAMPLE // step))
    return np.concatenate(
        [coarse_mean(pixels[start : start + bands.step].to_numpy() > threshold, step) for start in bands]
    )


def _sample(pixels: DataArray, key: str, counts: np.ndarray, step: int) -> np.ndarray:
    """The part of an image or labels where most transcripts lie."""
    size = np.minimum(pixels.shape, _SAMPLE)
    dense = ndimage.uniform_filter(counts, np.maximum(1, size // step), mode="constant")
    peak = np.multiply(np.unravel_index(np.argmax(dense), dense.shape), step)
    start = np.clip(peak - size // 2, 0, pixels.shape - size)
    sample = pixels[tuple(slice(low, low + n) for low, n in zip(start, size, strict=True))].to_numpy()
    if sample.min() == sample.max():
        raise DataError(f"There are no nuclei in {key!r} where most transcripts lie: every pixel is the same.")
    return sample


def _stain_size(sample: np.ndarray, key: str) -> tuple[float, float | None]:
    """Above what a pixel of a stain is nucleus, and the diameter of nuclei in pixels, where that can be told."""
    sample = check_image(sample, channel_in_words(key, None))
    return threshold_otsu(sample), estimate_diameter(scale_intensity(sample, *intensity_range(sample, (1, 99.8))))


def _count_map(transcripts: TranscriptSource, shape: tuple[int, int], step: int) -> np.ndarray:
    """Molecules in each bin of `step` pixels of a raster (height, width)."""
    total = np.zeros([-(-size // step) for size in shape])
    for part in transcripts.partitions():
        total += coarse_counts(part.yx, part.count, shape, step)
    return total
