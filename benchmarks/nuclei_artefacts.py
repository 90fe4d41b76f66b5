"""How many nuclei are found beside what spoils a stain: saturation, debris, fibres, folds, holes, borders, gradients.

    python benchmarks/nuclei_artefacts.py [--method METHOD ...] [--cells N] [--seed SEED]

A simulated stain (`sslcst.datasets.simulate`) is spoilt in one way after the other, on shares of its area. Of nuclei
that are found in the clean stain, those that what spoils it does not touch should be found again. Prints a table in
Markdown: how many of them there are, how many are found there, and how many of them with an IoU above 0.5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, line

from sslcst import datasets
from sslcst.core.nuclei import segment_nuclei
from sslcst.core.nuclei.sslcst import typical_diameter
from sslcst.params import NucleiParams

FULL = 65535
Image = NDArray[np.float64]
Spoilt = tuple[Image, NDArray[np.bool_]]  # and what of it is touched
SHARES = (0.005, 0.02, 0.05)


def squares(shape: tuple[int, int], share: float, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    side = int(np.sqrt(share / n * mask.size))
    for _ in range(n):
        row, column = (rng.integers(0, size - side) for size in shape)
        mask[row : row + side, column : column + side] = True
    return mask


def band(shape: tuple[int, int], share: float, start: float = 0) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    first = int(start * shape[1])
    mask[:, first : first + max(1, round(share * shape[1]))] = True
    return mask


def added(image: Image, mask: NDArray[np.bool_], blur: float, value: float, times: float = 1) -> Spoilt:
    soft = ndimage.gaussian_filter(mask.astype(float), blur)
    return image * (1 + (times - 1) * soft) + value * soft, soft > 0.02


def saturated(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = squares(image.shape, share, 1, rng)
    return np.where(mask, FULL, image), mask


def four_saturated(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = squares(image.shape, share, 4, rng)
    return np.where(mask, FULL, image), mask


def bright_and_noisy(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = squares(image.shape, share, 1, rng)
    return np.where(mask, 30_000 + rng.normal(0, 2000, image.shape), image), mask


def debris(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = np.zeros(image.shape, bool)
    while mask.mean() < share:
        centre = [rng.uniform(0, size) for size in image.shape]
        mask[disk(centre, rng.uniform(4, 16), shape=image.shape)] = True
    return added(image, mask, 1.5, 40_000)


def fibres(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = np.zeros(image.shape, bool)
    while mask.mean() < share:
        (top, bottom), (left, right) = (rng.integers(0, size, 2) for size in image.shape)
        thread = np.zeros(image.shape, bool)
        thread[line(top, left, bottom, right)] = True
        mask |= ndimage.binary_dilation(thread, iterations=2)
    return added(image, mask, 1, 30_000)


def fold(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    return added(image, band(image.shape, share, 0.3), 3, 5000, times=5)


def hot_columns(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = band(image.shape, share, 0.3)
    return np.where(mask, FULL, image), mask


def hot_rows(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    spoilt, mask = hot_columns(image.T, share, rng)
    return spoilt.T, mask.T


def white_margin(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = band(image.shape, share)
    return np.where(mask, FULL, image), mask


def empty_part(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = band(image.shape, share)
    return np.where(mask, 0, image), mask


def empty_squares(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    mask = squares(image.shape, share, 9, rng)
    return np.where(mask, 0, image), mask


def dark_border(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    inner = (1 - np.sqrt(1 - share)) / 2
    edges = [int(inner * size) for size in image.shape]
    mask = np.ones(image.shape, bool)
    mask[tuple(slice(edge, size - edge) for edge, size in zip(edges, image.shape, strict=True))] = False
    return np.where(mask, rng.integers(0, 5, image.shape), image), mask


def slope(image: Image, share: float, rng: np.random.Generator) -> Spoilt:
    """Rises over the image to twice the brightest pixel's share."""
    return image + np.linspace(0, share * image.max(), image.shape[1]), np.zeros(image.shape, bool)


CASES: list[tuple[Callable[[Image, float, np.random.Generator], Spoilt], tuple[float, ...]]] = [
    *((spoil, SHARES) for spoil in (saturated, four_saturated, bright_and_noisy, debris, fibres, fold)),
    *((spoil, SHARES) for spoil in (hot_rows, hot_columns, white_margin)),
    *((spoil, (0.05, 0.3, 0.7)) for spoil in (empty_part, empty_squares, dark_border)),
    (slope, (0.5, 2.0)),
]


def apart(labels: NDArray[np.integer], touched: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Nuclei that lie wholly beside what is touched."""
    return np.setdiff1d(np.unique(labels), np.append(np.unique(labels[touched]), 0))


def best_iou(truth: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of each nucleus of the one, that of the best of the other; index 0 is the background."""
    width = int(labels.max()) + 1
    both = np.bincount(
        truth.ravel().astype(np.int64) * width + labels.ravel(), minlength=(int(truth.max()) + 1) * width
    )
    both = both.reshape(-1, width)
    union = both.sum(axis=1)[:, None] + both.sum(axis=0) - both
    return (both / np.maximum(union, 1))[:, 1:].max(axis=1, initial=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=["sslcst", "watershed"])
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    stain = datasets.simulate(n_cells=args.cells, n_genes=5, seed=args.seed)["stain"].to_numpy()[0].astype(float)
    print("| method | spoilt by | share | nuclei beside it | found there | with IoU > 0.5 |\n|---|---|---|---|---|---|")
    for method in args.method:
        params = NucleiParams(method=method)
        clean = segment_nuclei(stain.astype(np.uint16), params=params)
        around = round(typical_diameter(clean) / 2)
        for spoil, shares in CASES:
            for share in shares:
                image, touched = spoil(stain, share, np.random.default_rng(args.seed))
                labels = segment_nuclei(np.clip(np.round(image), 0, FULL).astype(np.uint16), params=params)
                touched = ndimage.binary_dilation(touched, iterations=around)
                true, name = apart(clean, touched), spoil.__name__.replace("_", " ")
                hits = np.mean(best_iou(clean, labels)[true] > 0.5)
                print(
                    f"| {method} | {name} | {share:g} | {len(true)} | {len(apart(labels, touched))} | {hits:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
