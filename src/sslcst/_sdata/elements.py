"""Elements of a SpatialData object read as arrays: which element is meant, and where it lies on the raster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sslcst._logging import logger
from sslcst._sdata.labels import GivenLabels, NucleusSource
from sslcst._sdata.listing import present
from sslcst._sdata.shapes import DrawnShapes, Outlines
from sslcst._sdata.source_ids import add_table, check_free, of_labels, table_name
from sslcst.core.counts import owners
from sslcst.core.threads import check_process
from sslcst.errors import DataError, KeyMissingError, did_you_mean
from sslcst.names import check_name

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray

YX = ("y", "x")
_SCALES, _FLATTENED = (1e-9, 1e9), 1e4  # of a transformation: bounds, and the most that its axes may differ
# A grid without an image may have so many squares of pixels; more where this share of them holds points; never more.
_SQUARE, _SQUARES, _HELD, _MOST_SQUARES = 256, 1000, 0.01, 8_000_000
# What the readers of spatialdata-io call them, as regular expressions.
STAINS = ("morphology_focus", ".*_regist")  # xenium, stereoseq
TRANSCRIPTS = ("transcripts", "bin1_genes")  # xenium, stereoseq
NUCLEAR_CHANNELS = ("(?i)dapi|hoechst.*|ssdna|dna|nucle(i|us)",)


@dataclass(frozen=True)
class Raster:
    """The pixel grid that labels lie on.

    Parameters
    ----------
    shape
        Pixels (height, width).
    to_system
        Affine matrix (3, 3) from pixels (y, x) to the coordinate system.
    coordinate_system
        Its name.
    transformations
        Of the element the raster was taken from, to all its coordinate systems.
    scale_factors
        Of the scales of that element, from one to the next; empty where there is one alone.
    """

    shape: tuple[int, int]
    to_system: np.ndarray
    coordinate_system: str
    transformations: dict[str, Any]
    scale_factors: tuple[int, ...] = ()

    @property
    def pixel_sides(self) -> np.ndarray:
        """Length of a pixel along its y and its x axis, in units of the coordinate system, (2,)."""
        return np.linalg.norm(self.to_system[:2, :2], axis=0)

    @property
    def pixel_size(self) -> float:
        """Side of a square of a pixel's area, in units of the coordinate system."""
        return float(np.sqrt(abs(np.linalg.det(self.to_system[:2, :2]))))

    def pair(self, key: str, points_key: str) -> str:
        """What must lie on one another, in words: an image or nuclei on this raster, and points."""
        side = f"a pixel measures {self.pixel_size:.4g} there"
        return f"{key!r} and the points {points_key!r} in coordinate system {self.coordinate_system!r} ({side})"


def apply_affine(matrix: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Positions (n, 2) under an affine matrix (3, 3)."""
    return yx @ matrix[:2, :2].T + matrix[:2, 2]


def choose_key(
    candidates: Iterable[str], key: str | None, *, kind: str, argument: str, usual: Iterable[str] = (), of: str = ""
) -> str:
    """The asked-for name, or the only candidate, or the only one whose name matches a usual one.

    Messages call it "kind 'key'", or "kind of ... named 'key'".

    Raises
    ------
    KeyMissingError
        There is no such name, or several could be meant; the message lists the candidates.
    ProcessError
        This process cannot compute, nor read.
    """
    check_process()
    candidates = list(candidates)
    listed = ", ".join(map(repr, candidates)) or "none"
    if key is not None:
        if key not in candidates:
            hint = did_you_mean(key, candidates)
            raise KeyMissingError(f"There is no {kind} {of and of + ' named '}{key!r}; there are: {listed}{hint}.")
        return key
    if len(candidates) == 1:
        return candidates[0]
    kind = f"{kind} {of}".strip()
    known = [name for name in candidates if any(re.fullmatch(pattern, name) for pattern in usual)]
    if len(known) == 1:
        logger.info("The %s is %r, unless %s= says otherwise; there are: %s.", kind, known[0], argument, listed)
        return known[0]
    what = f"There is no {kind}" if not candidates else f"Several could be the {kind}"
    raise KeyMissingError(f"{what}: choose with {argument}=; there are: {listed}.")


def choose_image(sdata: SpatialData, image_key: str | None) -> str:
    """The asked-for image, the only one, or the one that a reader of spatialdata-io names as the stain."""
    if not sdata.images and (given := [*sdata.labels, *sdata.shapes]):
        raise KeyMissingError(
            "There is no image to find nuclei in. Nuclei that are there already, as labels or shapes, are taken with "
            f"nuclei_key=; there are: {', '.join(map(repr, given))}."
        )
    return choose_key(sdata.images, image_key, kind="image", argument="image_key", usual=STAINS)


def choose_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> str:
    """The asked-for channel, the only one, or the one that is named as a stain of nuclei.

    Raises
    ------
    KeyMissingError
        There is no such channel, or several and none was chosen.
    """
    names = [str(name) for name in _plane(sdata, image_key).coords["c"].values]
    if channel is None and names == ["r", "g", "b"] and sdata.attrs.get("spatialdata_io_reader") == "cosmx":
        logger.info("The blue of the composite image %r shows nuclei, unless channel= says otherwise.", image_key)
        return "b"
    return choose_key(
        names,
        None if channel is None else channel_name(names, channel),
        kind="channel",
        of=f"of image {image_key!r}",
        argument="channel",
        usual=NUCLEAR_CHANNELS,
    )


def channel_name(names: Sequence[str], channel: str | int) -> str:
    """The name of a channel that is told by its name or else by its place, counted from 0, be it as text."""
    name = str(channel)
    is_place = name not in names and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(names)
    return names[int(name)] if is_place else name


def choose_points(sdata: SpatialData, points_key: str | None) -> str:
    """The asked-for points, the only ones, or those that a reader of spatialdata-io names as the transcripts.

    Raises
    ------
    KeyMissingError
        There are no such points, or several that could be meant.
    DataError
        It is a Visium HD run, which has no points.
    """
    if not sdata.points and sdata.attrs.get("spatialdata_io_reader") == "visium_hd":
        raise DataError(
            "This is a Visium HD run: its counts are of square bins of 2 micron or more, too coarse to tell where in "
            "a cell they lie, and it has no single transcripts. Take the cells that Space Ranger 4 finds "
            "(spatialdata_io.visium_hd with load_segmentations_only=True), or join bins by nuclei, as bin2cell does."
        )
    candidates = [name for name in sdata.points if points_key is not None or not _is_result(name, sdata.points[name])]
    return choose_key(candidates, points_key, kind="points element", argument="points_key", usual=TRANSCRIPTS)


def _is_result(name: str, points: Any) -> bool:
    """Whether points are transcripts to which `sslcst.tl.segment` has added their cells."""
    added = {"cell_id": "uint32", "probability": "float32"}
    return name.endswith("_transcripts") and added.items() <= points.dtypes.astype(str).to_dict().items()


def choose_coordinate_system(sdata: SpatialData, keys: Iterable[str], coordinate_system: str | None) -> str:
    """The coordinate system that all these elements share: the asked-for one, else "global", else the only one.

    Raises
    ------
    KeyMissingError
        They share none, or not the asked-for one, or several of which none is "global".
    """
    from spatialdata.transformations import get_transformation

    systems = {key: set(get_transformation(sdata[key], get_all=True)) for key in keys}
    shared = sorted(set.intersection(*systems.values()))
    named = " and ".join(f"{key!r} (in {', '.join(map(repr, sorted(has)))})" for key, has in systems.items())
    if not shared:
        raise KeyMissingError(f"{named} share no coordinate system: relate them with spatialdata's set_transformation.")
    if coordinate_system is None and "global" in shared:
        return "global"
    of = f"shared by {named}" if len(systems) > 1 else f"of {named}"
    return choose_key(shared, coordinate_system, kind="coordinate system", argument="coordinate_system", of=of)


def affine_matrix(element: Any, coordinate_system: str) -> np.ndarray:
    """Affine matrix (3, 3) on (y, x) from an element's own coordinates to the coordinate system."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, to_coordinate_system=coordinate_system).to_affine_matrix(YX, YX)


def invertible(matrix: np.ndarray, key: str, coordinate_system: str) -> np.ndarray:
    """An element's affine matrix, if it is finite, flattens nothing and has a sane scale; else a `DataError`."""
    sides = np.linalg.svd(matrix[:2, :2], compute_uv=False) if np.isfinite(matrix).all() else np.zeros(2)
    if not _SCALES[0] <= sides[1] <= sides[0] <= min(_SCALES[1], _FLATTENED * sides[1]):
        raise DataError(
            f"The transformation of {key!r} to {coordinate_system!r} cannot be inverted, or can hardly be meant: "
            f"{matrix.tolist()}."
        )
    return matrix


def full_scale(element: Any) -> DataArray:
    """A raster element itself, or the finest scale of a multiscale one."""
    from xarray import DataTree

    if isinstance(element, DataTree):
        return next(iter(next(iter(element.children.values())).data_vars.values()))
    return element


def _plane(sdata: SpatialData, key: str) -> DataArray:
    """An image or labels element at its finest scale, which must not be three-dimensional."""
    element = full_scale(sdata[key])
    if "z" in element.dims:
        raise DataError(
            f"{key!r} is three-dimensional, with {element.sizes['z']} planes: add one of them, or what is brightest in "
            "all, to the object as an element of its own, and name that."
        )
    return element


def raster_of(sdata: SpatialData, key: str, coordinate_system: str) -> Raster:
    """The pixel grid of an image or labels element.

    Raises
    ------
    DataError
        It is three-dimensional, or its transformation flattens it to a line or a point.
    """
    from spatialdata.transformations import get_transformation

    element = _plane(sdata, key)
    matrix = invertible(affine_matrix(element, coordinate_system), key, coordinate_system)
    sizes = element.sizes
    transformations = get_transformation(element, get_all=True)
    return Raster((sizes["y"], sizes["x"]), matrix, coordinate_system, transformations, _scale_factors(sdata[key]))


def _scale_factors(element: Any) -> tuple[int, ...]:
    """From each scale of a multiscale raster to the next, by how much it is coarser."""
    heights = [next(iter(scale.data_vars.values())).sizes["y"] for scale in getattr(element, "children", {}).values()]
    return tuple(max(1, round(fine / coarse)) for fine, coarse in pairwise(heights))


def channel_of(sdata: SpatialData, image_key: str, channel: str | int | None) -> DataArray:
    """One channel (y, x) of an image, not read yet.

    Raises
    ------
    KeyMissingError
        There is no such channel, or several and none was chosen.
    DataError
        The image has a third dimension.
    """
    image = _plane(sdata, image_key)
    name = choose_channel(sdata, image_key, channel)
    return image.isel(c=[str(each) for each in image.coords["c"].values].index(name))


def channel_in_words(image_key: str, channel: object) -> str:
    """What warnings and errors call a stain."""
    return f"image {image_key!r}" + ("" if channel is None else f", channel {channel!r}")


def read_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> np.ndarray:
    """One channel (y, x) of an image; raises what `channel_of` does."""
    return channel_of(sdata, image_key, channel).to_numpy()


def open_nuclei(sdata: SpatialData, nuclei_key: str, raster: Raster) -> NucleusSource:
    """Labels, or shapes to be drawn on the raster.

    Raises
    ------
    DataError
        Labels that are no integers, or negative; shapes of which none has an area, or that a transformation flattens.
    """
    if nuclei_key in sdata.labels:
        return GivenLabels.of(nuclei_key, _plane(sdata, nuclei_key).data, of_labels(sdata, nuclei_key))
    shapes = sdata.shapes[nuclei_key]
    to_system = invertible(affine_matrix(shapes, raster.coordinate_system), nuclei_key, raster.coordinate_system)
    outlines = Outlines.of(shapes, nuclei_key)
    return DrawnShapes.of(outlines, raster.shape, np.linalg.inv(raster.to_system) @ to_system)


def read_nuclei(sdata: SpatialData, nuclei_key: str, raster: Raster) -> np.ndarray:
    """Labels, or shapes drawn on the raster: uint32 (y, x).

    Raises
    ------
    DataError
        As `open_nuclei`; no nucleus on the raster.
    """
    return read_with_ids(sdata, nuclei_key, raster)[0]


def read_with_ids(sdata: SpatialData, nuclei_key: str, raster: Raster) -> tuple[np.ndarray, pd.Series | None]:
    """What `read_nuclei` reads, and the original ids of what was found by label, where these differ."""
    source = open_nuclei(sdata, nuclei_key, raster)
    labels = source.read(*(slice(0, size) for size in raster.shape))
    found = pd.unique(labels.ravel())
    source.check(found[found > 0])
    ids = source.source_ids
    return labels, None if ids is None else ids[ids.index.isin(found)]


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused
def raster_over_points(sdata: SpatialData, points_key: str, coordinate_system: str, pixel_size: float) -> Raster:
    """A pixel grid that just holds the points, where there is no image.

    Raises
    ------
    DataError
        There are no points, some are not finite, or some lie so far off that nearly all of the grid would be empty.
    """
    from spatialdata.transformations import Affine

    points = sdata.points[points_key]
    matrix = invertible(affine_matrix(points, coordinate_system), points_key, coordinate_system)
    low, high, held = np.full(2, np.inf), np.full(2, -np.inf), pd.DataFrame(columns=YX, dtype=float)
    for partition in points[list(YX)].partitions:
        yx = apply_affine(matrix, partition.compute().to_numpy(np.float64))
        if not np.isfinite(yx).all():
            raise DataError(f"Points {points_key!r} have coordinates that are not finite.")
        low, high = np.minimum(low, yx.min(axis=0, initial=np.inf)), np.maximum(high, yx.max(axis=0, initial=-np.inf))
        squares = pd.DataFrame(np.floor(yx / (_SQUARE * pixel_size)), columns=YX).drop_duplicates()
        if len(held) < _MOST_SQUARES:
            held = squares if held.empty else pd.concat([held, squares]).drop_duplicates()
    if not np.isfinite(low).all():
        raise DataError(f"Points {points_key!r} are empty: there is no transcript.")
    origin = np.floor(low / pixel_size) * pixel_size
    sides = np.floor((high - origin) / pixel_size) + 1
    if not np.prod(np.ceil(sides / _SQUARE)) <= min(max(_SQUARES, len(held) / _HELD), _MOST_SQUARES):
        (top, left), (bottom, right) = low, high
        raise DataError(
            f"Points {points_key!r} reach from x={left:.6g}, y={top:.6g} to x={right:.6g}, y={bottom:.6g} in "
            f"coordinate system {coordinate_system!r}: {sides[1]:.6g} x {sides[0]:.6g} pixels of {pixel_size:.3g}, "
            "nearly all of them empty. Leave out the points that lie far off, check the units of points and shapes, "
            "or give the image or labels whose pixels count."
        )
    height, width = map(int, sides)
    matrix = np.array([[pixel_size, 0, origin[0]], [0, pixel_size, origin[1]], [0, 0, 1.0]])
    return Raster((height, width), matrix, coordinate_system, {coordinate_system: Affine(matrix, YX, YX)})


def check_addable(sdata: SpatialData, kind: str, name: str) -> None:
    """See, before any work, that an element can be added under a name.

    Raises
    ------
    ParameterError
        It is no name for an element.
    KeyMissingError
        An element of that name, case apart, is there, in the object or in its store, and none that it would replace.
    """
    check_name(name)
    for other_kind, other in sorted(present(sdata)):
        if other.lower() != name.lower() or (other_kind, other) == (kind, name):
            continue
        if other == name:
            raise KeyMissingError(f"{name!r} exists and is none of the {kind}: choose another key_added.")
        raise KeyMissingError(
            f"{other!r} exists among the {other_kind}, and {name!r} differs from it in case alone, which spatialdata "
            "does not allow: choose another key_added."
        )


def add_element(sdata: SpatialData, kind: str, name: str, element: Any) -> None:
    """Add an element to the object, in place of one of that name and kind; raises what `check_addable` does."""
    check_addable(sdata, kind, name)
    elements = getattr(sdata, kind)
    elements.pop(name, None)
    elements[name] = element


def as_labels(labels: Any, raster: Raster) -> Any:
    """Labels (y, x) on a raster as an element, of as many scales as the raster's own."""
    from spatialdata.models import Labels2DModel

    # A copy, since parsing keeps the dict it is given.
    return Labels2DModel.parse(
        labels,
        dims=YX,
        transformations=dict(raster.transformations),
        scale_factors=list(raster.scale_factors) or None,
    )


def add_labels(
    sdata: SpatialData, name: str, labels: np.ndarray, raster: Raster, source_ids: pd.Series | None = None
) -> None:
    """Add labels (y, x) on a raster to the object, and the ids that they stand for where these differ."""
    element = as_labels(labels, raster)
    if source_ids is not None:
        check_free(sdata, name)
        check_addable(sdata, "tables", table_name(name))
    add_element(sdata, "labels", name, element)
    add_table(sdata, name, source_ids)


def labels_on(labels: np.ndarray, own: Raster, other: Raster) -> np.ndarray:
    """Labels on another raster of the same coordinate system: at each pixel's centre the label there, 0 off the labels.

    Rows go through in blocks, so that positions need little memory beside the labels.
    """
    to_own = np.linalg.inv(own.to_system) @ other.to_system
    if own.shape == other.shape and np.allclose(to_own, np.eye(3), rtol=0, atol=1e-6):  # in pixels, whatever the unit
        return labels
    height, width = other.shape
    out = np.zeros(other.shape, labels.dtype)
    for start in range(0, height, 256):
        rows, columns = np.mgrid[start : min(start + 256, height), 0:width].reshape(2, -1)
        yx = apply_affine(to_own, np.column_stack([rows, columns]) + 0.5)
        out[rows, columns] = owners(yx, labels)
    return out
