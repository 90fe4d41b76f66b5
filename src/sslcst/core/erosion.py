"""Algorithm 1: dynamic adaptive erosion of nuclei with a randomly turned structuring element."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import relabel_sequential
from skimage.transform import AffineTransform, warp

from sslcst.params import ErosionParams


def turned_element(angle: float, length: float) -> np.ndarray:
    """A bar, 1 pixel wide and `length` pixels long, turned by an angle in radians: bool, odd square.

    The turn is the paper's affine warp of the element with a rotation matrix M.
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


def erode_nuclei(labels: np.ndarray, *, params: ErosionParams = ErosionParams(), seed: int = 0) -> np.ndarray:
    """Cores of the nuclei: each eroded step by step until a further step would leave less than its share.

    Parameters
    ----------
    labels
        Nuclei (y, x), 0 is background.
    params
        When the erosion stops and which cores are dropped.
    seed
        Of the element's angles.

    Returns
    -------
    Labels of the same shape and type; a nucleus whose core is too small or too irregular has none.

    Notes
    -----
    Algorithm 1 of the paper, which leaves open when to stop; here every nucleus stops by itself at ``params.keep`` of
    its area, so that small and large ones lose alike.
    """
    rng = np.random.default_rng(seed)
    numbered, _, ids = relabel_sequential(labels)  # ids may be too large to count by
    cores = numbered.astype(np.int32)
    least = np.maximum(params.keep * np.bincount(cores.ravel()), 1)
    eroding = np.arange(len(least)) > 0
    while eroding.any():
        eroded = erode_once(cores, turned_element(rng.uniform(0, np.pi), params.length))
        eroding &= np.bincount(eroded.ravel(), minlength=len(least)) >= least
        cores = np.where(eroding[cores], eroded, cores)
    return ids[_drop_irregular(cores, params)].astype(labels.dtype)


def _drop_irregular(cores: np.ndarray, params: ErosionParams) -> np.ndarray:
    keep = np.zeros(int(cores.max(initial=0)) + 1, bool)
    for region in regionprops(cores):
        keep[region.label] = region.area >= params.min_area and region.solidity >= params.min_solidity
    return np.where(keep[cores], cores, 0)
