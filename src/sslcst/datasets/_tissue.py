"""Cells, nuclei and their stain, on arrays.

Cells come from an anisotropic Voronoi packing: each has a seed and an ellipse, and a pixel belongs to the cell whose
ellipse it lies deepest in. A bent coordinate plane makes outlines irregular; seeds drawn by a density field make
crowded, sparse and empty regions; and a cut at a quantile of the depth sets how much of the field the cells cover.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree
from skimage.measure import label
from skimage.segmentation import find_boundaries

from sslcst.datasets._params import TissueParams


class Tissue(NamedTuple):
    """Cells 1..n and their nuclei (uint32 labels, (y, x)), and each cell's type (n,)."""

    cells: np.ndarray
    nuclei: np.ndarray
    cell_type: np.ndarray


class _Ellipses(NamedTuple):
    """One ellipse a cell: centre (n, 2) and semi-axes (n, 2) as (y, x), and the angle (n,) they are turned by."""

    centre: np.ndarray
    axes: np.ndarray
    angle: np.ndarray

    def depth(self, points: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Distance of each point (p, 2) from the centre of ellipse `index` (p,), in units of its semi-axes."""
        y, x = (points - self.centre[index]).T
        cos, sin = np.cos(self.angle)[index], np.sin(self.angle)[index]
        return np.hypot((cos * y - sin * x) / self.axes[index, 0], (sin * y + cos * x) / self.axes[index, 1])

    def point(self, direction: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Points (n, 2) a share `reach` of the way from centre to outline, in a direction relative to the axes."""
        y, x = (reach * self.axes.T) * (np.cos(direction), np.sin(direction))
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.centre + np.stack([cos * y + sin * x, cos * x - sin * y], axis=1)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Gaussian random field of mean 0 and variance 1, smoothed over `sigma` pixels (at most a quarter of the field)."""
    spectrum = fft.rfft2(rng.standard_normal(shape))
    noise = fft.irfft2(ndimage.fourier_gaussian(spectrum, min(sigma, min(shape) / 4), n=shape[1]), s=shape)
    return (noise - noise.mean()) / noise.std()


def simulate_tissue(params: TissueParams, rng: np.random.Generator) -> Tissue:
    """Cells and nuclei in a field of `params.field_shape`."""
    shape, diameter = params.field_shape, params.pixels_across
    plane = _bent_plane(rng, shape, diameter)
    grid, density = _seeding_grid(rng, shape, diameter)
    seeds = rng.choice(grid, params.n_cells, replace=False, p=density / density.sum())
    cell_type = _draw_types(rng, seeds, params)
    ellipses = _draw_ellipses(rng, plane, seeds, cell_type, params)
    for _ in range(3):
        seeds = _relax(ellipses, plane, grid, density)
        ellipses = ellipses._replace(centre=plane[seeds])
    cells = _largest_parts(_fill(ellipses, plane, seeds, shape, params.coverage))
    return Tissue(cells, _place_nuclei(rng, cells, plane, params.nuclear_shift), cell_type)


def _bent_plane(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> np.ndarray:
    """Coordinates (pixels, 2) of each pixel on a plane bent by smooth noise, so that ellipses in it look irregular."""
    bends = [
        0.09 * diameter * smooth_noise(rng, shape, 0.3 * diameter)
        + 0.012 * diameter * smooth_noise(rng, shape, 0.09 * diameter)
        for _ in shape
    ]
    return (np.indices(shape) + bends).reshape(2, -1).T


def _seeding_grid(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (flat indices) on a grid of about 8 steps a cell, and how densely cells lie there."""
    step = max(2, int(diameter // 8))
    grid = np.arange(math.prod(shape)).reshape(shape)[:-1:step, :-1:step].ravel()
    crowding = smooth_noise(rng, shape, 2.0 * diameter).ravel()[grid]
    lumen = smooth_noise(rng, shape, 1.2 * diameter).ravel()[grid] > 1.6
    density = 0.25 + 0.75 / (1 + np.exp(-4 * (crowding + 0.6)))
    return grid, np.where(lumen, 1e-6, density)


def _draw_types(rng: np.random.Generator, seeds: np.ndarray, params: TissueParams) -> np.ndarray:
    """Type (n,) of each cell: the strongest of one random field a type, or any type for the share `mixing` of cells."""
    shape = params.field_shape
    affinity = [smooth_noise(rng, shape, 3.5 * params.pixels_across).ravel()[seeds] for _ in range(params.n_types)]
    anyone = rng.integers(params.n_types, size=len(seeds))
    return np.where(rng.random(len(seeds)) < params.mixing, anyone, np.argmax(affinity, axis=0))


def _draw_ellipses(
    rng: np.random.Generator, plane: np.ndarray, seeds: np.ndarray, cell_type: np.ndarray, params: TissueParams
) -> _Ellipses:
    """Outlines before packing: size and elongation by type, turned along a smooth field of fibre directions."""
    n, n_types, diameter, shape = len(seeds), params.n_types, params.pixels_across, params.field_shape
    size = rng.lognormal(0, 0.1, n_types)[cell_type] * rng.lognormal(0, 0.15, n)
    elongation = 1 + rng.uniform(0.1, 1.8, n_types)[cell_type] * rng.gamma(4, 1 / 4, n)
    stretch = np.sqrt(np.minimum(elongation, 3))
    axes = diameter / 2 * size[:, None] * np.stack([stretch, 1 / stretch], axis=1)
    fibre = np.arctan2(*(smooth_noise(rng, shape, 3 * diameter).ravel()[seeds] for _ in shape)) / 2
    return _Ellipses(plane[seeds], axes, fibre + rng.normal(0, 0.3, n))


def _deepest(ellipses: _Ellipses, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ellipse, of the 8 with the nearest centres, that each point (p, 2) lies deepest in, and how deep."""
    n_near = min(8, len(ellipses.centre))
    near = cKDTree(ellipses.centre).query(points, k=range(1, n_near + 1))[1]
    owner, depth = near[:, 0], np.full(len(points), np.inf)
    for candidate in near.T:
        candidate_depth = ellipses.depth(points, candidate)
        deeper = candidate_depth < depth
        owner, depth = np.where(deeper, candidate, owner), np.where(deeper, candidate_depth, depth)
    return owner, depth


def _relax(ellipses: _Ellipses, plane: np.ndarray, grid: np.ndarray, density: np.ndarray) -> np.ndarray:
    """New seeds by a step of Lloyd's algorithm. Each is a pixel of its own cell, so no two meet and no cell is lost."""
    points = plane[grid]
    owner, _ = _deepest(ellipses, points)
    total = np.bincount(owner, density)
    mean = np.stack([np.bincount(owner, density * axis) / total for axis in points.T], axis=1)
    order = np.lexsort((np.linalg.norm(points - mean[owner], axis=1), owner))
    return grid[order[np.searchsorted(owner[order], np.arange(len(total)))]]


def _fill(
    ellipses: _Ellipses, plane: np.ndarray, seeds: np.ndarray, shape: tuple[int, int], coverage: float
) -> np.ndarray:
    """Label (y, x) of the cell at each pixel; pixels that lie too far out for any cell are left empty."""
    owner, depth = _deepest(ellipses, plane)
    labels = np.where(depth <= np.quantile(depth, coverage), owner + 1, 0).astype(np.uint32)
    # However hard it is pressed, a cell keeps the 2 x 2 pixels at its seed: room for a nucleus and some cytoplasm.
    for offset in (0, 1, shape[1], shape[1] + 1):
        labels[seeds + offset] = np.arange(1, len(seeds) + 1)
    return labels.reshape(shape)


def _largest_parts(labels: np.ndarray) -> np.ndarray:
    """The largest connected part of each label; the rest becomes background."""
    parts = label(labels, connectivity=1)
    owner = np.zeros(parts.max() + 1, labels.dtype)
    owner[parts] = labels
    by_size = np.lexsort((np.bincount(parts.ravel()), owner))
    largest = by_size[np.searchsorted(owner[by_size], np.unique(owner), side="right") - 1]
    return np.where(np.isin(parts, largest), labels, 0)


def _body_ellipses(points: np.ndarray, owner: np.ndarray) -> _Ellipses:
    """The ellipse of the same centre and second moments as the pixels `points` (p, 2) of each cell."""
    area = np.bincount(owner)
    centre = np.stack([np.bincount(owner, axis) / area for axis in points.T], axis=1)
    y, x = (points - centre[owner]).T
    yy, yx, xx = (np.bincount(owner, product) / area for product in (y * y, y * x, x * x))
    pixel = np.eye(2) / 12  # the second moments of one pixel, so that no axis is 0
    variance, direction = np.linalg.eigh(np.moveaxis(np.array([[yy, yx], [yx, xx]]), 2, 0) + pixel)
    return _Ellipses(centre, 2 * np.sqrt(variance[:, ::-1]), np.arctan2(-direction[:, 1, 1], direction[:, 0, 1]))


def _place_nuclei(rng: np.random.Generator, cells: np.ndarray, plane: np.ndarray, shift: float) -> np.ndarray:
    """Nuclei (labels like `cells`): a share of each cell's pixels, those deepest in a shifted, rounder ellipse.

    The pixels along the membrane come last, so that a nucleus is pressed flat against it rather than cut by it.
    """
    inside = np.flatnonzero(cells)
    owner, points = cells.ravel()[inside].astype(np.intp) - 1, plane[inside]
    area, body = np.bincount(owner), _body_ellipses(points, owner)
    n = len(area)
    centre = body.point(rng.uniform(0, 2 * np.pi, n), shift * rng.uniform(0, 2, n))
    axes = body.axes**0.7 * rng.lognormal(0, 0.08, (n, 2))
    depth = _Ellipses(centre, axes, body.angle + rng.normal(0, 0.25, n)).depth(points, owner)
    membrane = find_boundaries(cells, connectivity=1, mode="inner").ravel()[inside]
    order = np.lexsort((depth, membrane, owner))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - (np.cumsum(area) - area)[owner[order]]
    diameter_share = np.clip(rng.normal(0.6, 0.05, n), 0.45, 0.75)
    n_pixels = np.clip(np.rint(area * diameter_share**2), 1, area - 1)
    nuclei = np.where(rank < n_pixels[owner], owner + 1, 0)
    labels = np.zeros_like(cells)
    labels.ravel()[inside] = nuclei
    return _largest_parts(labels)


def simulate_stain(tissue: Tissue, pixel_size: float, rng: np.random.Generator) -> np.ndarray:
    """Nuclear stain (y, x), uint16, as a camera sees it: blurred, textured, unevenly lit and noisy."""
    nuclei, n_labels = tissue.nuclei, len(tissue.cell_type) + 1
    shape = nuclei.shape
    inward = ndimage.distance_transform_edt(nuclei)
    half_width = ndimage.maximum(inward, nuclei, np.arange(n_labels))
    half_width[0] = 1
    thickness = np.sqrt(1 - (1 - inward / half_width[nuclei]) ** 2)
    chromatin = np.exp(
        0.3 * smooth_noise(rng, shape, 0.4 / pixel_size) + 0.3 * smooth_noise(rng, shape, 1.1 / pixel_size)
    )
    light = thickness * chromatin * rng.lognormal(0, 0.35, n_labels)[nuclei]
    in_focus = rng.beta(3, 1, n_labels)[nuclei]
    seen = (
        ndimage.gaussian_filter(light * in_focus, 0.35 / pixel_size)
        + ndimage.gaussian_filter(light * (1 - in_focus), 1.2 / pixel_size)
        + 0.1 * ndimage.gaussian_filter(light, 6 / pixel_size)
    )
    background = 0.04 * np.exp(0.4 * smooth_noise(rng, shape, 30 / pixel_size)) + 0.02 * (tissue.cells > 0)
    lamp = np.exp(0.12 * smooth_noise(rng, shape, 60 / pixel_size))
    photons = rng.poisson(150 * lamp * (seen + background))
    return np.clip(20 * (photons + rng.normal(0, 2, shape)) + 200, 0, 65535).astype(np.uint16)
