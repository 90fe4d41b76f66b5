"""Several fields of view on one raster, a mosaic: as their positions on the stage say, or side by side.

What cuts a cell in two is then no longer there where fields adjoin, and all that is learnt is learnt of all fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sslcst._logging import logger
from sslcst._sdata.labels import NucleusSource, read_part
from sslcst._sdata.raster import PHASE, Raster, apply_affine
from sslcst._sdata.source_ids import by_number, of_cells
from sslcst._sdata.transcripts import ROWS_OF_A_SOURCE, Transcripts, TranscriptSource
from sslcst.core.covered import Covered
from sslcst.core.nuclei.intensity import channels_of, check_finite, check_image, intensity_range, scale_channels
from sslcst.core.spots import in_ranges, ranges_of, slices, within
from sslcst.errors import DataError

_OFF = 2.0  # pixels by which a field may lie off the pixels of its neighbour, in its corners
_SAME = 0.01  # by which the sizes of their pixels may differ
_BAND = 1024  # rows that are read at once
_REACH = 2  # pixels that may lie between two fields that adjoin
_LOOK = 2**22  # pixels of all fields of a sample, from which intensities are told


def lay_out(
    names: Sequence[str], rasters: Sequence[Raster], samples: Sequence[str], gap: float
) -> tuple[Raster, Covered]:
    """One raster for all fields, whose pixels must be of one size, and where each lies on it.

    Fields of a sample that lie in one coordinate system, by whole pixels and without lying on one another, keep their
    places to those that are nearer than the gap; all else is laid side by side, a gap apart.
    """
    first = rasters[0]
    for name, raster in zip(names, rasters, strict=True):
        if not np.allclose(raster.pixel_sides, first.pixel_sides, rtol=_SAME):
            raise DataError(
                f"A pixel of field {name!r} measures {raster.pixel_size:.4g}, and of field {names[0]!r} "
                f"{first.pixel_size:.4g}: segment them one by one, with the model= of one for the others."
            )
    shapes = np.array([raster.shape for raster in rasters])
    group, place = _places(names, rasters, samples, shapes)
    near = _pairs(group, place, place + shapes, gap)
    n, component = connected_components(coo_matrix((np.ones(len(near)), near.T), [len(rasters)] * 2), directed=False)
    members = [np.flatnonzero(component == i) for i in range(n)]
    corners = np.zeros_like(place)
    sizes = []
    for of in members:
        corners[of] = place[of] - place[of].min(axis=0)
        sizes.append((corners[of] + shapes[of]).max(axis=0))
    for of, corner in zip(members, _shelves(np.array(sizes), gap), strict=True):
        corners[of] += corner
    if n < len(rasters):
        logger.info("%d fields lie beside one another in %d places: cells go on from one to the next.", len(rasters), n)
    ends = corners + shapes
    to_system = np.eye(3)
    to_system[:2, :2] = first.to_system[:2, :2]
    height, width = ends.max(axis=0).tolist()
    rectangles = [tuple(zip(*corner, strict=True)) for corner in zip(corners.tolist(), ends.tolist(), strict=True)]
    return Raster((height, width), to_system, first.coordinate_system, {}), Covered(tuple(rectangles))


def _places(
    names: Sequence[str], rasters: Sequence[Raster], samples: Sequence[str], shapes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each field the first one on whose pixels it lies, itself if on no other's, and its corner on these."""
    group, place = np.arange(len(rasters)), np.zeros((len(rasters), 2), int)
    for i, raster in enumerate(rasters):
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * shapes[i]
        for j in np.flatnonzero(group[:i] == np.arange(i)):
            other = rasters[j]
            if (samples[i], raster.coordinate_system) != (samples[j], other.coordinate_system):
                continue
            shift = apply_affine(np.linalg.inv(other.to_system) @ raster.to_system, corners) - corners
            whole = np.rint(shift.mean(axis=0))
            if np.abs(shift - whole).max() < _OFF:
                group[i], place[i] = j, whole
                break
    ends = place + shapes
    on_another = set()
    for i, j in _pairs(group, place, ends, 0):
        sides = np.minimum(ends[i], ends[j]) - np.maximum(place[i], place[j])
        if 2 * np.prod(np.maximum(sides, 0)) > min(shapes[i].prod(), shapes[j].prod()):
            on_another |= {i, j}
    if on_another:
        named = ", ".join(repr(names[i]) for i in sorted(on_another)[:5])
        logger.info("Fields lie on one another (%s): these are no positions on a stage, and each is for itself.", named)
        return np.arange(len(rasters)), np.zeros_like(place)
    return group, place


def _pairs(group: np.ndarray, low: np.ndarray, high: np.ndarray, gap: float) -> np.ndarray:
    """Pairs (n, 2) of fields of one group that are nearer than the gap."""
    pairs = np.array([*combinations(range(len(group)), 2)], int).reshape(-1, 2)
    i, j = pairs.T
    near = ((low[i] < high[j] + gap) & (low[j] < high[i] + gap)).all(axis=1)
    return pairs[(group[i] == group[j]) & near]


def _shelves(sizes: np.ndarray, gap: float) -> np.ndarray:
    """Corners (n, 2) of rectangles that are laid out in rows, the highest first, a gap apart."""
    steps = -(-(sizes + int(np.ceil(gap))) // PHASE) * PHASE
    width = max(steps[:, 1].max(), int(np.sqrt(steps.prod(axis=1).sum())))
    corners, row, column, height = np.zeros_like(steps), 0, 0, 0
    for i in np.argsort(-steps[:, 0], kind="stable"):
        if column and column + steps[i, 1] > width:
            row, column, height = row + height, 0, 0
        corners[i] = row, column
        column, height = column + steps[i, 1], max(height, steps[i, 0])
    return corners


@dataclass(frozen=True)
class MosaicImage:
    """The stains of all fields, scaled sample by sample, read by slices; 0 where there is none."""

    images: tuple  # of each field (y, x) or (channels, y, x), of numpy or dask
    names: tuple[str, ...]  # what errors call them
    ranges: tuple[list[tuple[float, float]], ...]  # intensities of each one's channels that become 0 and 1
    covered: Covered  # where they lie; where two do, the first counts
    shape: tuple[int, ...]  # of all

    @classmethod
    def of(
        cls, images: Sequence, names: Sequence[str], samples: Sequence[str], percentiles, covered: Covered, shape
    ) -> MosaicImage:
        """Scale by the percentiles of all fields of a sample; raises DataError where one cannot be segmented."""
        ranges = {}
        for sample in dict.fromkeys(samples):
            own = [i for i, of in enumerate(samples) if of == sample]
            step = int(np.ceil(np.sqrt(sum(np.prod(images[i].shape[-2:]) for i in own) / _LOOK)))
            parts = []
            for i in own:
                part = np.asarray(images[i][..., step // 2 :: step, step // 2 :: step])
                check_finite(part, names[i])
                parts.append(channels_of(part).reshape(-1, np.prod(part.shape[-2:])))
            seen = np.concatenate(parts, axis=1)
            ranges[sample] = [intensity_range(check_image(each[None], names[own[0]]), percentiles) for each in seen]
        of_each = tuple(ranges[sample] for sample in samples)
        return cls(tuple(images), tuple(names), of_each, covered, (*images[0].shape[:-2], *shape))

    def __getitem__(self, part: tuple) -> np.ndarray:
        part = part[-2:]
        wanted = [np.arange(size)[of] for size, of in zip(self.shape[-2:], part, strict=True)]
        out = np.zeros([*self.shape[:-2], *map(len, wanted)], np.float32)
        if not out.size:
            return out
        view = tuple((int(each[0]), int(each[-1]) + 1) for each in wanted)
        for i, seen in reversed(list(self.covered.in_view(view))):
            to = tuple(slice(*np.searchsorted(each, range_)) for each, range_ in zip(wanted, seen, strict=True))
            if any(each.start == each.stop for each in to):
                continue
            corner = [start for start, _ in self.covered.rectangles[i]]
            own = (
                slice(each[at.start] - start, each[at.stop - 1] + 1 - start, of.step)
                for each, at, start, of in zip(wanted, to, corner, part, strict=True)
            )
            seen = read_part(self.images[i], *own)
            check_finite(seen, self.names[i])
            out[..., *to] = scale_channels(seen, self.ranges[i])
        return out


@dataclass(frozen=True)
class MosaicNuclei:
    """Given nuclei of all fields, numbered through; those that a seam cuts are one."""

    sources: tuple[NucleusSource, ...]  # of each field
    covered: Covered  # where they lie; where two do, the first counts
    ids: tuple[np.ndarray, ...]  # the labels of each, rising
    numbers: tuple[np.ndarray, ...]  # the numbers of these
    source_ids: pd.Series  # their original ids by their numbers

    @classmethod
    def of(cls, sources: Sequence[NucleusSource], covered: Covered) -> MosaicNuclei:
        """Number the nuclei of all fields, and join what belongs together over the seams."""
        ids, originals = [], []
        for source, own in zip(sources, covered.rectangles, strict=True):
            height, width = (stop - start for start, stop in own)
            bands = (slice(top, min(top + _BAND, height)) for top in range(0, height, _BAND))
            found = np.unique(np.concatenate([pd.unique(source.read(band, slice(0, width)).ravel()) for band in bands]))
            ids.append(found[found > 0])
            known = pd.Series(ids[-1], ids[-1]) if source.source_ids is None else source.source_ids
            originals.append(of_cells(known, ids[-1]))
        ends = np.cumsum([len(each) for each in ids])
        numbers = np.split(np.arange(1, ends[-1] + 1, dtype=np.uint32), ends[:-1])
        source_ids = by_number(np.concatenate([known.to_numpy() for known in originals]), np.concatenate(numbers))
        apart = cls(tuple(sources), covered, tuple(ids), tuple(numbers), source_ids)
        joined = apart._joined(len(source_ids))
        kept = source_ids[np.unique(joined[1:])]
        return replace(apart, numbers=tuple(joined[each] for each in numbers), source_ids=kept)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The labels of some pixels, uint32 (y, x)."""
        view = ranges_of(rows, columns)
        out = np.zeros([stop - start for start, stop in view], np.uint32)
        for i, seen in reversed(list(self.covered.in_view(view))):
            labels = self.sources[i].read(*within(seen, self.covered.rectangles[i]))
            number = np.append(self.numbers[i], np.uint32(0))
            place = np.where(labels > 0, np.searchsorted(self.ids[i], labels), -1)
            out[within(seen, view)] = number[place]
        return out

    def check(self, found: np.ndarray, what: str = "nuclei") -> None:
        """Raise a `DataError` where no field has any, or one has a mask."""
        for source, ids in zip(self.sources, self.ids, strict=True):
            if not len(found) or len(ids) == 1:
                source.check(ids, what)

    def _joined(self, n: int) -> np.ndarray:
        """The number that each of n numbers becomes: one for two pieces that touch each other most along a seam.

        They do over most of what the seam cuts of either; a tip ends before the seam, so that it need not be of both.
        """
        new, joined = np.arange(n + 1, dtype=np.uint32), [np.zeros((2, 0), np.int64)]
        for i, j, inside, beyond in self._seams():
            inside, beyond = (np.where(np.isin(at, self.numbers[of]), at, 0) for at, of in ((inside, i), (beyond, j)))
            pairs, touching = np.unique(np.stack([inside, beyond]), axis=1, return_counts=True)
            cut = [np.bincount(side, touching, n + 1)[side] for side in pairs]
            touching[(pairs == 0).any(axis=0)] = 0
            one = (touching > 0) & (2 * touching > np.minimum(*cut))
            for side in pairs:
                most = np.zeros(n + 1, int)
                np.maximum.at(most, side, touching)
                one &= touching == most[side]
            joined.append(pairs[:, one].astype(np.int64))
        pairs = np.concatenate(joined, axis=1)
        graph = coo_matrix((np.ones(pairs.shape[1]), pairs), [n + 1] * 2)
        _, piece = connected_components(graph, directed=False)
        least = np.full(piece.max() + 1, n)
        np.minimum.at(least, piece, new)
        return least[piece].astype(np.uint32)

    def _seams(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Of each field's edge beside another one: both fields, and the labels along it, inside and just beyond."""
        for i, own in enumerate(self.covered.rectangles):
            for axis, side in product((0, 1), (0, 1)):
                line, view = own[axis][side], list(own)
                view[axis] = (max(line - _REACH, 0), line + _REACH)
                for j, seen in [*self.covered.in_view(tuple(view))]:
                    if i == j:
                        continue
                    along = list(view)
                    along[1 - axis] = seen[1 - axis]
                    labels = np.moveaxis(self.read(*slices(along)), axis, 0)
                    middle, (start, stop) = line - view[axis][0], np.array(seen[axis]) - view[axis][0]
                    if side == 0 and start < middle:
                        yield i, j, labels[middle], labels[min(stop, middle) - 1]
                    elif side == 1 and stop > middle:  # positions are rounded, which may leave a pixel between
                        yield i, j, labels[middle - 1], labels[max(start, middle)]


@dataclass(frozen=True)
class MosaicTranscripts:
    """The transcripts of all fields as one source (`sslcst._sdata.transcripts.TranscriptSource`)."""

    sources: tuple[TranscriptSource, ...]  # of each field
    covered: Covered  # where they lie; where two do, those of the first count
    genes: pd.Index  # those of any, sorted
    within = None

    @classmethod
    def of(cls, sources: Sequence[TranscriptSource], covered: Covered) -> MosaicTranscripts:
        """Join the sources."""
        genes = pd.Index(sorted(set().union(*(source.genes for source in sources))))
        return cls(tuple(sources), covered, genes)

    @property
    def of_gem(self) -> bool:
        """Whether `sslcst.io.read_gem` or `read_gef` read them."""
        return self.sources[0].of_gem

    @property
    def n_partitions(self) -> int:
        """Number of partitions that hold any."""
        return sum(source.n_partitions for source in self.sources)

    def partitions(self) -> Iterator[Transcripts]:
        """The partitions in turn; what lies off its field, or on one before it, lies off the raster."""
        for i, source in enumerate(self.sources):
            own = self.covered.rectangles[i]
            before = [seen for j, seen in self.covered.in_view(own) if j < i]
            genes = self.genes.get_indexer(source.genes)
            for part in source.partitions():
                yx = part.yx + [start for start, _ in own]
                off = ~in_ranges(yx, own)
                for seen in before:
                    off |= in_ranges(yx, seen)
                yx, row = np.where(off[:, None], -1.0, yx), part.row + i * ROWS_OF_A_SOURCE
                yield replace(part, yx=yx, gene=genes[part.gene], genes=self.genes, row=row)
