"""Elements of a SpatialData object: which one is meant, read as arrays, and added."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from xarray import DataArray

from sslcst._logging import logger
from sslcst._sdata.field_names import of_same_field
from sslcst._sdata.labels import GivenLabels, NucleusSource
from sslcst._sdata.listing import check_case, present
from sslcst._sdata.raster import Raster, as_labels, plane, systems_of
from sslcst._sdata.shapes import DrawnShapes, Outlines
from sslcst._sdata.source_ids import add_table, check_free, of_labels, table_name
from sslcst.core.threads import check_process
from sslcst.errors import DataError, KeyMissingError, did_you_mean
from sslcst.names import check_name

# What the readers of spatialdata-io call them, as regular expressions.
STAINS = ("morphology_focus(-.+)?", ".*_regist(-.+)?")  # xenium, stereoseq; with a sample of spatialdata.concatenate
TRANSCRIPTS = ("transcripts(-.+)?", "bin1_genes(-.+)?")  # xenium, stereoseq
NUCLEAR_CHANNELS = ("(?i)dapi|hoechst.*|ssdna|dna|nucle(i|us)",)
# Of whole cells, the first of which there is one: membranes before cytoplasm.
CELL_CHANNELS = (
    "(?i)ATP1A1/CD45/E-Cadherin",  # Xenium
    "(?i).*membrane.*|boundary",  # CosMx
    *(f"(?i)cellbound[ _-]?{n}" for n in (1, 2, 3)),  # MERSCOPE
    "(?i)pan-?ck",
    "(?i)cyto.*",
    "(?i)18S",
    "(?i)poly-?t",
)


def choose_key(
    candidates: Iterable[str],
    key: str | None,
    *,
    kind: str,
    argument: str,
    usual: Iterable[str] = (),
    of: str = "",
    beside: str | None = None,
    noted: object = None,
) -> str:
    """The asked-for name, or the only candidate, or the only one whose name matches a usual one.

    Or else the only one that is named as of the same field of view, or sample, as an element `beside` it; or else the
    one that a reader, such as those of sopa, `noted` in the object's attributes. `KeyMissingError`, which lists the
    candidates, where there is none such, or several could be meant. Messages call it "kind 'key'", or "kind of ...
    named 'key'".
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
    if len(known) != 1 and beside is not None:
        known = of_same_field(candidates, beside)
    if len(known) != 1 and noted in candidates:
        known = [noted]
    if len(known) == 1:
        logger.info("The %s is %r, unless %s= says otherwise; there are: %s.", kind, known[0], argument, listed)
        return known[0]
    what = f"There is no {kind}" if not candidates else f"Several could be the {kind}"
    raise KeyMissingError(f"{what}: choose with {argument}=; there are: {listed}.")


def choose_image(
    sdata: SpatialData, image_key: str | None, *, beside: str | None = None, finds_nuclei: bool = False
) -> str:
    """The asked-for image, the only one, that which readers of spatialdata-io name as the stain, or that `beside`."""
    if finds_nuclei and not sdata.images and (given := [*sdata.labels, *sdata.shapes]):
        raise KeyMissingError(
            "There is no image to find nuclei in. Nuclei that are there already, as labels or shapes, are taken with "
            f"nuclei_key=; there are: {', '.join(map(repr, given))}."
        )
    what = {"kind": "image", "argument": "image_key", "noted": sdata.attrs.get("cell_segmentation_image")}
    return choose_key(sdata.images, image_key, **what, usual=STAINS, beside=beside)


def choose_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> str:
    """The asked-for channel, the only one, or the one that is named as a stain of nuclei."""
    names = _channels(plane(sdata, image_key))
    if channel is None and names == ["r", "g", "b"] and sdata.attrs.get("spatialdata_io_reader") == "cosmx":
        logger.info("The blue of the composite image %r shows nuclei, unless channel= says otherwise.", image_key)
        return "b"
    channel = None if channel is None else channel_name(names, channel)
    what = {"kind": "channel", "of": f"of image {image_key!r}", "argument": "channel"}
    return choose_key(names, channel, **what, usual=NUCLEAR_CHANNELS)


def choose_cell_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> str:
    """The asked-for channel, or the one that is named as a stain of whole cells; else a `KeyMissingError`."""
    names = _channels(plane(sdata, image_key))
    if channel is not None:
        name, of = channel_name(names, channel), f"of image {image_key!r}"
        return choose_key(names, name, kind="channel", of=of, argument="channels")
    known = [name for pattern in CELL_CHANNELS for name in names if re.fullmatch(pattern, name)]
    listed = ", ".join(map(repr, names))
    if not known:
        raise KeyMissingError(
            f"No channel of image {image_key!r} is named as a stain of whole cells: name that, and then that of "
            f"nuclei, with channels=; there are: {listed}."
        )
    said = "Whole cells are stained by channel %r, unless channels= says otherwise; there are: %s."
    logger.info(said, known[0], listed)
    return known[0]


def channel_name(names: Sequence[str], channel: str | int) -> str:
    """The name of a channel that is told by its name or else by its place, counted from 0, be it as text."""
    name = str(channel)
    is_place = name not in names and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(names)
    return names[int(name)] if is_place else name


def choose_points(sdata: SpatialData, points_key: str | None, *, beside: str | None = None) -> str:
    """The asked-for points, the only ones, those that a reader of spatialdata-io names as transcripts, or `beside`."""
    if not sdata.points and sdata.attrs.get("spatialdata_io_reader") == "visium_hd":
        raise DataError(
            "This is a Visium HD run: its counts are of square bins of 2 micron or more, too coarse to tell where in "
            "a cell they lie, and it has no single transcripts. Take the cells that Space Ranger 4 finds "
            "(spatialdata_io.visium_hd with load_segmentations_only=True), or join bins by nuclei, as bin2cell does."
        )
    candidates = [name for name in sdata.points if points_key is not None or not is_result(name, sdata.points[name])]
    what = {"kind": "points element", "argument": "points_key", "noted": sdata.attrs.get("transcripts_dataframe")}
    return choose_key(candidates, points_key, **what, usual=TRANSCRIPTS, beside=beside)


def choose_column(
    points: Any, points_key: str, key: str | None, *, kind: str, holds: str, argument: str, usual: Collection[str]
) -> str:
    """The asked-for column of points, or the one of a usual name; one alone need not be what is meant."""
    columns = [name for name in points.columns if name not in ("x", "y", "z")]
    if key is None and not set(columns) & set(usual):
        raise KeyMissingError(
            f"No column of points {points_key!r} is known to hold {holds}: choose with {argument}=; "
            f"columns: {', '.join(map(repr, columns)) or 'none'}."
        )
    return choose_key(columns, key, kind=kind, of=f"of points {points_key!r}", argument=argument, usual=usual)


def is_result(name: str, points: Any) -> bool:
    """Whether points are transcripts to which `sslcst.tl.segment` has added their cells."""
    added = {"cell_id": "uint32", "probability": "float32"}
    return name.endswith("_transcripts") and added.items() <= points.dtypes.astype(str).to_dict().items()


def regions_of(table: AnnData) -> list[str]:
    """The elements that a table annotates."""
    region = table.uns.get("spatialdata_attrs", {}).get("region")
    return [region] if isinstance(region, str) else list(region or [])


def choose_coordinate_system(sdata: SpatialData, keys: Iterable[str], coordinate_system: str | None) -> str:
    """The coordinate system that all these elements share: the asked-for one, else "global", else the only one."""
    systems = {key: systems_of(sdata[key]) for key in keys}
    shared = sorted(set.intersection(*systems.values()))
    named = " and ".join(f"{key!r} (in {', '.join(map(repr, sorted(has)))})" for key, has in systems.items())
    if not shared:
        raise KeyMissingError(f"{named} share no coordinate system: relate them with spatialdata's set_transformation.")
    if coordinate_system is None and "global" in shared:
        return "global"
    of = f"shared by {named}" if len(systems) > 1 else f"of {named}"
    usual = ("global-.+",)  # of a sample of spatialdata.concatenate
    what = {"kind": "coordinate system", "argument": "coordinate_system", "of": of, "usual": usual}
    return choose_key(shared, coordinate_system, **what)


def channel_of(sdata: SpatialData, image_key: str, channel: str | int | None) -> DataArray:
    """One channel (y, x) of an image, not read yet."""
    image = plane(sdata, image_key)
    return image.isel(c=_channels(image).index(choose_channel(sdata, image_key, channel)))


def channels_of(sdata: SpatialData, image_key: str, names: Sequence[str]) -> DataArray:
    """Some channels (c, y, x) of an image by their names, not read yet."""
    image = plane(sdata, image_key)
    return image.isel(c=[_channels(image).index(name) for name in names])


def _channels(image: DataArray) -> list[str]:
    return [str(name) for name in image.coords["c"].values]


def channel_in_words(image_key: str, channel: object) -> str:
    """What warnings and errors call a stain."""
    if isinstance(channel, list):
        return f"image {image_key!r}, channels {' and '.join(map(repr, channel))}"
    return f"image {image_key!r}" + ("" if channel is None else f", channel {channel!r}")


def read_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> np.ndarray:
    """One channel (y, x) of an image."""
    return channel_of(sdata, image_key, channel).to_numpy()


def open_nuclei(sdata: SpatialData, nuclei_key: str, raster: Raster) -> NucleusSource:
    """Labels, or shapes to be drawn on the raster."""
    if nuclei_key in sdata.labels:
        data = plane(sdata, nuclei_key).data
        return GivenLabels.of(nuclei_key, data[raster.window or ...], of_labels(sdata, nuclei_key))
    shapes = sdata.shapes[nuclei_key]
    to_pixel = raster.to_pixel(shapes, nuclei_key)
    return DrawnShapes.of(Outlines.of(shapes, nuclei_key), raster.shape, to_pixel, part=raster.window is not None)


def read_nuclei(sdata: SpatialData, nuclei_key: str, raster: Raster) -> np.ndarray:
    """Labels, or shapes drawn on the raster: uint32 (y, x)."""
    return read_with_ids(sdata, nuclei_key, raster)[0]


def read_with_ids(sdata: SpatialData, nuclei_key: str, raster: Raster) -> tuple[np.ndarray, pd.Series | None]:
    """What `read_nuclei` reads, and the original ids of what was found by label, where these differ."""
    source = open_nuclei(sdata, nuclei_key, raster)
    labels = source.read(*(slice(0, size) for size in raster.shape))
    found = pd.unique(labels.ravel())
    source.check(found[found > 0])
    ids = source.source_ids
    return labels, None if ids is None else ids[ids.index.isin(found)]


def check_addable(sdata: SpatialData, kind: str, name: str) -> None:
    """See, before any work, that an element of a kind can be added under a name: no other one has it, case apart."""
    check_name(name)
    for other_kind, other in sorted(present(sdata)):
        check_case(other_kind, other, name)
        if other == name and other_kind != kind:
            raise KeyMissingError(f"{name!r} exists and is none of the {kind}: choose another key_added.")


def add_element(sdata: SpatialData, kind: str, name: str, element: Any) -> None:
    """Add an element to the object, in place of one of that name and kind."""
    check_addable(sdata, kind, name)
    elements = getattr(sdata, kind)
    elements.pop(name, None)
    elements[name] = element


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
