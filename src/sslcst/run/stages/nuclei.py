"""Nuclei of a chip, or whole cells: found in its stain tile by tile, or copied; and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from skimage.segmentation import relabel_sequential

from sslcst._logging import progress
from sslcst._sdata.labels import NucleusSource, read_part
from sslcst._sdata.raster import Raster
from sslcst._sdata.scratch import Scratch
from sslcst.core.covered import Covered
from sslcst.core.geometry import Regions
from sslcst.core.nuclei import Segmenter, load_backend, segment_nuclei
from sslcst.core.nuclei.diameter import estimate_diameter
from sslcst.core.nuclei.intensity import channels_of, check_finite, check_image, intensity_range, scale_channels
from sslcst.core.nuclei.sslcst import DIAMETER, some_of, typical_diameter
from sslcst.core.spots import Ranges, in_ranges, overlap, slices, widened
from sslcst.params import NucleiParams, Params
from sslcst.run.execute import run
from sslcst.run.tiling import squares
from sslcst.run.warnings import warn
from sslcst.run.workspace import NUCLEI

CHUNK = 1024  # pixels
_HALO = 8  # diameters of a nucleus that are seen around a tile
_LOOK = 2**22  # pixels from which percentiles are taken
_WINDOW = 1024  # pixels along the side of a window in which diameters are measured
_SEAM = 3  # pixels by which a nucleus' centroid may lie beyond its tile; both tiles then offer it

Scale = list[tuple[float, float]]  # of each channel, the intensities that become 0 and 1


@dataclass(frozen=True)
class Stain:
    """What the tiles of a stain have in common."""

    image: Any  # (y, x) or (channels, y, x), read by slices
    name: str  # what errors call it
    scratch: Scratch  # where the tiles' nuclei go
    to: str  # and under what name
    scale: Scale  # intensities of each channel that become 0 and 1
    diameter: float  # of a nucleus in pixels
    params: Params  # of the nuclei
    device: str  # where networks run
    covered: Covered | None


def find(
    source: NucleusSource | None,
    stain: Any | None,
    raster: Raster,
    scratch: Scratch,
    params: Params,
    *,
    device: str,
    name: str,
    covered: Covered | None,
    to: str = NUCLEI,
) -> Regions:
    """Where the nuclei lie, or whole cells: copied where they are given, else found in a stain; but once.

    The stain, which warnings call by its name, is all of the image, of which the raster may be a part; it has two
    channels for whole cells. Nuclei of an image of one tile are segmented as one. Else intensities and the diameter are
    told by a sample of all; each tile then sees some nuclei beyond its border, and gives those whose centroid it holds.
    Of two that overlap by half, the later one is dropped. None reaches beyond what is covered.
    """
    if scratch.is_finished(_beside(to, ".done")):
        return Regions(**scratch.load(_beside(to, ".npz")))
    out = create(scratch, raster.shape, to)
    if source is not None:
        return _copy(source, out, scratch, params.tiles.image_size, to)
    image, shape, side = on_raster(stain, raster), raster.shape, params.tiles.image_size
    how = {"pixel_size": raster.pixel_size, "params": params.nuclei, "device": device}
    every, labels = tuple((0, size) for size in shape), None
    if to == NUCLEI and raster.window is None and max(shape) <= side:
        with progress(_in_words(to)):
            labels = _within(covered, segment_nuclei(read_part(image, *slices(every)), **how, name=name), every)
    if labels is None or params.nuclei.diameters:
        sample = sample_stain(stain, stain.shape[-2:], params.nuclei, name)
        if to == NUCLEI and (warning := doubt_of_size(sample, name=name, **how)):
            warn(scratch, warning)
    if labels is not None:
        _write(out, every, labels)
        return _finish(scratch, Regions.of(labels), to)
    diameter = nucleus_diameter(sample, **how)
    job = Stain(image, name, scratch, to, sample.scale, diameter, params, device, covered)
    tiles = [
        (f"{Path(to).stem}/{row:03}-{column:03}.npz", ranges)
        for row, column, ranges in squares(shape, side)
        if covered is None or covered.meets(ranges)
    ]
    left = [tile for tile in tiles if not scratch.is_finished(_beside(tile[0], ".done"))]
    run(_in_words(to), _segment_tile, job, left)
    return _merge(job, tiles, out)


def on_raster(stain: Any | None, raster: Raster) -> Any | None:
    """What of a stain lies on a raster, which may be a part of the image's."""
    return stain if stain is None or raster.window is None else stain[..., *raster.window]


def _copy(source: NucleusSource, out: zarr.Array, scratch: Scratch, side: int, to: str) -> Regions:
    parts = []
    tiles = list(squares(out.shape, side))
    with progress(_in_words(to), len(tiles), unit="tile") as bar:
        for _, _, ranges in tiles:
            labels = source.read(*slices(ranges))
            _write(out, ranges, labels)
            parts.append(Regions.of(labels, tuple(start for start, _ in ranges)))
            bar.update()
    regions = Regions.join(parts)
    source.check(regions.ids, _in_words(to).split()[-1])
    return _finish(scratch, regions, to)


@dataclass(frozen=True)
class StainSample:
    """What stands for a large stain."""

    scale: Scale  # intensities of each channel that become 0 and 1
    windows: list[np.ndarray]  # some parts of it, so scaled


def sample_stain(
    image: Any, shape: tuple[int, int], params: NucleiParams, name: str = "the stain image"
) -> StainSample:
    """Intensities by pixels on a regular grid over all of the image, and some windows that show much."""
    step = int(np.ceil(np.sqrt(np.prod(shape) / _LOOK)))
    coarse = np.asarray(image[..., step // 2 :: step, step // 2 :: step])
    scale = [intensity_range(check_image(channel, name), params.percentiles) for channel in channels_of(coarse)]
    coarse = np.clip(scale_channels(coarse, scale), 0, 1)

    def contrast(ranges: Ranges) -> float:
        return float(coarse[..., *(slice(start // step, -(-stop // step)) for start, stop in ranges)].std())

    tiles = [ranges for _, _, ranges in squares(shape, _WINDOW)]
    shown = some_of(tiles, [contrast(ranges) for ranges in tiles])
    windows = [scale_channels(read_part(image, *slices(ranges)), scale) for ranges in shown]
    return StainSample(scale, windows)


def nucleus_diameter(sample: StainSample, *, pixel_size: float, params: NucleiParams, device: str) -> float:
    """The diameter of nuclei in pixels.

    Of those that the parameters give, the one with which nuclei cover most of the windows, or else that of the nuclei
    found there.
    """
    segment = load_backend(params, device=device)
    if len(params.diameters) == 1:
        return params.diameters[0] / pixel_size
    tried = {d: _try(segment, sample.windows, d) for d in [d / pixel_size for d in params.diameters] or [None]}
    diameter = max(tried, key=lambda d: sum(map(np.count_nonzero, tried[d])))
    return diameter or typical_diameter(*tried[None]) or DIAMETER


def doubt_of_size(
    sample: StainSample, *, pixel_size: float, params: NucleiParams, device: str, name: str
) -> str | None:
    """A warning where each of the diameters that were told is less than half or more than twice what a stain shows."""

    def is_off(measured: float | None) -> bool:
        return measured is not None and not any(d / 2 <= measured * pixel_size <= 2 * d for d in told)

    told = params.diameters
    if not told:
        return None
    if not any(is_off(estimate_diameter(window)) for window in sample.windows):
        return None
    segment = load_backend(params, device=device)
    measured = typical_diameter(*_try(segment, sample.windows, None))
    if not is_off(measured):
        return None
    return (
        f"nuclei.diameters={told} was told, while nuclei measure about {measured * pixel_size:.3g} ({measured:.3g} "
        f"pixels) in {name}. Diameters are in units of the coordinate system, in which a pixel measures "
        f"{pixel_size:.4g}: are they given in microns where the units are pixels, or the other way round? Leave "
        "nuclei.diameters out to have them measured, and look at the nuclei with sslcst.pl.nuclei."
    )


def _try(segment: Segmenter, windows: list[np.ndarray], diameter: float | None) -> list[np.ndarray]:
    return [relabel_sequential(segment(window, diameter))[0] for window in windows]


def _segment_tile(stain: Stain, tile: tuple[str, Ranges]) -> None:
    """Nuclei around a tile whose centroid lies in it or next to its border."""
    name, ranges = tile
    shape = stain.image.shape[-2:]
    wide = overlap(widened(ranges, int(_HALO * stain.diameter)), tuple((0, size) for size in shape))
    image = scale_channels(read_part(stain.image, *slices(wide)), stain.scale)
    check_finite(image, stain.name)  # of a large stain the sample has not seen all
    segment = load_backend(stain.params.nuclei, device=stain.device)
    labels = _within(stain.covered, segment(image, stain.diameter), wide)
    labels = relabel_sequential(labels)[0].astype(np.uint32)
    corner = np.array(wide)[:, 0]
    regions = Regions.of(labels, tuple(corner.tolist()))
    own = in_ranges(regions.centers, widened(ranges, _SEAM))
    kept = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    kept[regions.ids[own]] = np.arange(1, own.sum() + 1)
    stain.scratch.save(name, {"labels": kept[labels], "corner": corner})
    stain.scratch.finish(_beside(name, ".done"), [name])


def _within(covered: Covered | None, labels: np.ndarray, ranges: Ranges) -> np.ndarray:
    return labels if covered is None else np.where(covered.pixels(ranges), labels, 0)


def _merge(stain: Stain, tiles: list[tuple[str, Ranges]], out: zarr.Array) -> Regions:
    """Lay the tiles' nuclei down one tile after the other, and number them."""
    n = 0
    for name, _ in tiles:
        part = stain.scratch.load(name)
        new, corner = part["labels"], part["corner"]
        place = tuple(slice(start, start + size) for start, size in zip(corner.tolist(), new.shape, strict=True))
        there = out[place]
        areas = np.bincount(new.ravel())
        hidden = np.bincount(new[there > 0], minlength=len(areas))
        dropped = 2 * hidden >= areas
        new = np.where(dropped[new] | (there > 0), 0, new)
        numbers = np.zeros(len(areas), np.uint32)
        kept = np.unique(new[new > 0])
        numbers[kept] = n + 1 + np.arange(len(kept))
        n += len(kept)
        out[place] = np.where(new > 0, numbers[new], there)
    parts = [Regions.of(out[slices(ranges)], tuple(start for start, _ in ranges)) for _, ranges in tiles]
    return _finish(stain.scratch, Regions.join(parts), stain.to)


def create(scratch: Scratch, shape: tuple[int, int], to: str) -> zarr.Array:
    """An array of that shape for labels, all background."""
    chunks = tuple(min(CHUNK, size) for size in shape)
    return zarr.create_array(
        scratch.path(to), shape=shape, chunks=chunks, dtype=np.uint32, fill_value=0, overwrite=True
    )


def _write(out: zarr.Array, ranges: Ranges, labels: np.ndarray) -> None:
    out[slices(ranges)] = labels


def _finish(scratch: Scratch, regions: Regions, to: str) -> Regions:
    file = _beside(to, ".npz")
    scratch.save(file, vars(regions))
    scratch.finish(_beside(to, ".done"), [file, to])
    return regions


def _beside(to: str, ending: str) -> str:
    return str(Path(to).with_suffix(ending))


def _in_words(to: str) -> str:
    return Path(to).stem.replace("_", " ")
