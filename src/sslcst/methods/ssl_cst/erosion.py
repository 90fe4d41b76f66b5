"""Algorithm 1: dynamic adaptive erosion of nuclei with a randomly turned structuring element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import expand_labels, relabel_sequential
from skimage.transform import AffineTransform, warp

from sslcst.errors import DataError
from sslcst.methods.ssl_cst.params import ErosionParams

_RING = 3  # pixels; as wide as what a nucleus is compared with around it


@dataclass(frozen=True)
class ErosionReport:
    """What became of the nuclei."""

    n_nuclei: int  #: Nuclei before the erosion
    too_small: tuple[int, ...]  #: Ids of those without a core because it had too few pixels
    irregular: tuple[int, ...]  #: Of those whose core filled too little of its convex hull, and was not too small
    share: float  #: Median share of its area that a nucleus with a core kept; NaN where there is none

    @property
    def n_cores(self) -> int:
        """Nuclei that have a core."""
        return self.n_nuclei - len(self.too_small) - len(self.irregular)

    def __str__(self) -> str:
        return (
            f"{self.n_cores} of {self.n_nuclei} nuclei have a core to learn from, of {self.share:.0%} of their area; "
            f"dropped: {len(self.too_small)} too small, {len(self.irregular)} too irregular."
        )


def turned_element(angle: float, length: float) -> np.ndarray:
    """A bar, 1 pixel wide and `length` pixels long, turned by an angle in radians: bool, odd square.

    The turn is the paper's affine warp of the element with a rotation matrix M. Of a short bar that lies askew, the
    ends may be spread over several pixels, none of them by half: the middle alone is left, which erodes nothing.
    """
    half = int(np.ceil(length / 2))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    bar = ((np.abs(y) <= 0.5) & (np.abs(x) <= length / 2)).astype(float)
    to_middle = AffineTransform(translation=(-half, -half))
    turn = to_middle + AffineTransform(rotation=angle) + to_middle.inverse
    return warp(bar, turn.inverse, order=1) >= 0.5


def erode_once(labels: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Erosion of every label at once: a pixel stays if all pixels under the element carry its label.

    This is Algorithm 1's minimum over the element, taken of each nucleus' own mask; touching nuclei part. Outside
    the image is background.
    """
    low = ndimage.minimum_filter(labels, footprint=element, mode="constant")
    high = ndimage.maximum_filter(labels, footprint=element, mode="constant")
    return np.where(low == high, labels, 0)


def erode_and_report(
    labels: np.ndarray, *, image: np.ndarray | None = None, params: ErosionParams = ErosionParams(), seed: int = 0
) -> tuple[np.ndarray, ErosionReport]:
    """Cores of the nuclei: each eroded step by step until a further step would leave less than its share (Algorithm 1).

    Nuclei (y, x) that stand out less from the image, the stain that they were found in, keep less; without it all count
    as standing out. The paper leaves open when to stop; here every nucleus stops by itself at its share of its area
    (`shares`). Labels of the same shape and type: a nucleus whose core is too small or too irregular has none. The seed
    is that of the element's angles.
    """
    rng = np.random.default_rng(seed)
    numbered, _, ids = relabel_sequential(labels)  # ids may be too large to count by
    nuclei = cores = numbered.astype(np.int32)
    areas = np.bincount(nuclei.ravel())
    least = np.maximum(shares(nuclei, image=image, params=params) * areas, 1)
    eroding = np.arange(len(least)) > 0
    while eroding.any():
        eroded = erode_once(cores, turned_element(rng.uniform(0, np.pi), params.length))
        eroding &= np.bincount(eroded.ravel(), minlength=len(least)) >= least
        cores = np.where(eroding[cores], eroded, cores)

    kept = np.bincount(cores.ravel(), minlength=len(areas))
    small = kept < params.min_area
    irregular = ~small & ~_are_solid(cores, params.min_solidity)
    small[0] = irregular[0] = False
    dropped = small | irregular
    with_core = ~dropped[1:]
    report = ErosionReport(
        n_nuclei=len(areas) - 1,
        too_small=tuple(ids[np.flatnonzero(small)].tolist()),
        irregular=tuple(ids[np.flatnonzero(irregular)].tolist()),
        share=float(np.median((kept[1:] / areas[1:])[with_core])) if with_core.any() else float("nan"),
    )
    return ids[np.where(dropped[cores], 0, cores)].astype(labels.dtype), report


def shares(
    nuclei: np.ndarray, *, image: np.ndarray | None = None, params: ErosionParams = ErosionParams()
) -> np.ndarray:
    """Share of its area that each nucleus is to keep: keep^e, with an exponent e by its size and contrast.

    An outline is uncertain within a rim of some pixels, whatever the size of the nucleus. To lose a rim of width w
    leaves a share of about exp(-2 w / radius); e = size / diameter is therefore the same rim for all nuclei wider than
    `params.size`, and smaller ones, which would vanish, lose as if they were of that size. Where a nucleus stands out
    less from its surroundings, its rim is wider: e grows by `params.contrast` times (1 - contrast).

    Nuclei (y, x) are numbered from 1 without gaps, and the first of the shares stands for the background.
    """
    diameter = 2 * np.sqrt(np.bincount(nuclei.ravel()) / np.pi)
    exponent = np.minimum(1, params.size / np.maximum(diameter, 1))
    if image is not None and params.contrast:
        exponent = exponent * (1 + params.contrast * (1 - contrasts(nuclei, image)))
    return params.keep**exponent


def contrasts(nuclei: np.ndarray, image: np.ndarray) -> np.ndarray:
    """How far each nucleus stands out from what is around it: correlation of brightness with being inside.

    It goes from 0 (no brighter inside than around) to 1 (two clean levels, or nothing around), whatever the gain and
    offset of the camera. Around a nucleus are the pixels within 3 of it that are nearer to it than to any other. Nuclei
    (y, x) are numbered from 1 without gaps, and the first number stands for the background.
    """
    if image.shape != nuclei.shape:
        raise DataError(
            f"The image has shape {image.shape}, the nuclei {nuclei.shape}: both must lie on the same grid."
        )
    surroundings = np.where(nuclei > 0, 0, expand_labels(nuclei, _RING))
    brightness = image.astype(np.float64)
    n_nuclei = int(nuclei.max(initial=0)) + 1

    def moments(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = np.bincount(labels.ravel(), minlength=n_nuclei)
        mean = np.bincount(labels.ravel(), brightness.ravel(), n_nuclei) / np.maximum(count, 1)
        deviation = (brightness - mean[labels]) ** 2
        return count, mean, np.bincount(labels.ravel(), deviation.ravel(), n_nuclei)

    n_inside, inside, scatter_inside = moments(nuclei)
    n_around, around, scatter_around = moments(surroundings)
    between = n_inside * n_around / np.maximum(n_inside + n_around, 1) * (inside - around) ** 2
    total = between + scatter_inside + scatter_around
    correlation = np.where(inside > around, np.sqrt(between / np.where(total > 0, total, 1)), 0)
    return np.where(n_around > 0, correlation, 1)


def _are_solid(cores: np.ndarray, min_solidity: float) -> np.ndarray:
    """Whether each core fills that share of its convex hull.

    The hull lies in an octagon that is known at once for all cores; regionprops, slow, only looks at those which
    would not fill that share of the octagon.
    """
    solid = _solidity_at_least(cores) >= min_solidity
    for region in regionprops(np.where(solid[cores], 0, cores)):
        solid[region.label] = region.solidity >= min_solidity
    return solid


def _solidity_at_least(cores: np.ndarray) -> np.ndarray:
    """Lower bound of the solidity of each core: its pixels over those of its octagon.

    The octagon is what is left of the bounding box when its corners are cut along the diagonals that touch the core.
    The cuts do not overlap, for between them there is the core.
    """
    y, x = np.nonzero(cores)
    number = cores[y, x]
    n_cores = int(cores.max(initial=0)) + 1

    def range_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(n_cores, cores.size), np.full(n_cores, -cores.size)
        np.minimum.at(low, number, values)
        np.maximum.at(high, number, values)
        return low, high

    (top, bottom), (left, right) = range_of(y), range_of(x)
    (first, last), (lowest, highest) = range_of(y + x), range_of(y - x)
    # Diagonals of pixels cut off at the top left, bottom right, top right and bottom left.
    cuts = (first - top - left, bottom + right - last, lowest - top + right, bottom - left - highest)
    octagon = (bottom - top + 1) * (right - left + 1) - sum(cut * (cut + 1) // 2 for cut in cuts)
    return np.bincount(number, minlength=n_cores) / np.maximum(octagon, 1)
