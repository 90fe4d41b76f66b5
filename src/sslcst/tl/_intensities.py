"""How bright the stains are in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import choose_image
from sslcst._sdata.labels import read_part
from sslcst._sdata.provenance import Used, result_name, run_of
from sslcst._sdata.raster import apply_affine, centers, is_identity, plane, raster_of
from sslcst.core.counts import owners
from sslcst.core.spots import Ranges, slices
from sslcst.errors import DataError
from sslcst.run.execute import run, with_real_paths
from sslcst.run.tiling import squares

_SIDE = 2048  # pixels of a block, which is one task


@checked
def intensities(sdata: SpatialData, *, key: str = "sslcst", image_key: str | None = None) -> None:
    """Measure the mean intensity of each channel of an image in each cell.

    The image is read by blocks, which are tasks of the active `dask.distributed` client, or of threads.

    Parameters
    ----------
    sdata
        Holds the labels ``{key}_cells`` and the table ``{key}_table``, whose ``obsm["intensities"]`` becomes the means:
        a row for each cell, a column for each channel, by its name (with ``_`` for ``/``, which no store can hold). A
        pixel is of the cell that its centre lies in, whatever the grid of the labels; a cell that holds none is NaN.
        The table in the object is changed; a store on disk is not touched.
    key
        The `key_added` of the segmentation; of one of several fields all are measured, each on the image that it was
        made of.
    image_key
        The image (c, y, x), of which the finest scale counts; by default the one the cells were made of, else as in
        `sslcst.tl.segment`.

    Raises
    ------
    KeyMissingError
        An element is not there, several could be the image, or image and labels share no coordinate system.
    DataError
        No cell lies on the image; two channels have one name; an image of three dimensions.
    """
    keys, table = run_of(sdata, key)
    keys = [result_name(sdata, each, "cells") for each in keys]
    parts, channels, images = zip(*(_sums(sdata, cells_key, image_key) for cells_key in keys), strict=True)
    if any(not each.equals(channels[0]) for each in channels):
        raise DataError(f"The channels of the images {', '.join(map(repr, images))} differ: name them alike.")
    sums = pd.concat(parts).groupby(level=0).sum().reindex(table.obs["cell_id"])
    n = sums.pop("n")
    if n.isna().all():
        system = Used.by(sdata, keys[0]).system([keys[0], images[0]], None)
        raise DataError(f"No cell of {keys[0]!r} lies on image {images[0]!r} in coordinate system {system!r}.")
    table.obsm["intensities"] = sums.div(n, axis=0).set_axis(channels[0], axis=1).set_axis(table.obs_names)
    named = ", ".join(map(repr, images))
    logger.info("Mean intensities of %d channels of image %s in %d cells.", sums.shape[1], named, n.notna().sum())


def _sums(sdata: SpatialData, cells_key: str, image_key: str | None) -> tuple[pd.DataFrame, pd.Index, str]:
    """The sums of the channels in each cell, and the number ``n`` of its pixels; the channels, and the image."""
    used = Used.by(sdata, cells_key)
    image_key = choose_image(sdata, used.image(image_key))
    sdata, system = used.sdata, used.system([cells_key, image_key], None)
    own, other = (raster_of(sdata, name, system) for name in (image_key, cells_key))
    image = plane(sdata, image_key)
    channels = pd.Index([str(name).replace("/", "_") for name in image.coords["c"].values])
    if not channels.is_unique:
        raise DataError(f"Image {image_key!r} has channels of one name: {', '.join(map(repr, channels))}. Rename them.")
    to_labels = np.linalg.inv(other.to_system) @ own.to_system
    job = _Job(
        with_real_paths(image.transpose("c", "y", "x").data),
        with_real_paths(plane(sdata, cells_key).data),
        None if own.shape == other.shape and is_identity(to_labels) else to_labels,
    )
    parts = run("intensities", _of_block, job, [ranges for _, _, ranges in squares(own.shape, _SIDE)], unit="block")
    return pd.concat(parts).groupby(level=0).sum(), channels, image_key


@dataclass(frozen=True)
class _Job:
    image: Any  # (c, y, x)
    labels: Any  # (y, x)
    to_labels: np.ndarray | None  # from pixels of the image to those of the labels, where they differ


def _of_block(job: _Job, ranges: Ranges) -> pd.DataFrame:
    """The sums of the channels in each cell that reaches into a block, and the number ``n`` of its pixels."""
    labels = _labels_of(job, ranges).ravel()
    inside = np.flatnonzero(labels)
    cell, ids = pd.factorize(labels[inside])
    sums = {"n": np.bincount(cell, minlength=len(ids)).astype(float)}
    if len(ids):
        for i, channel in enumerate(job.image):
            values = read_part(channel, *slices(ranges)).ravel()[inside]
            sums[i] = np.bincount(cell, values, minlength=len(ids))
    return pd.DataFrame(sums, index=ids, columns=["n", *range(len(job.image))], dtype=float)


def _labels_of(job: _Job, ranges: Ranges) -> np.ndarray:
    """The label at the centre of each pixel of a block of the image."""
    if job.to_labels is None:
        return read_part(job.labels, *slices(ranges))
    corners = apply_affine(job.to_labels, np.stack(np.meshgrid(*ranges), axis=-1).reshape(-1, 2).astype(float))
    low, high = (np.clip(np.floor(f(corners, axis=0)), 0, job.labels.shape).astype(int) for f in (np.min, np.max))
    seen = read_part(job.labels, *(slice(start, stop + 1) for start, stop in zip(low, high, strict=True)))
    corner, shape = np.array([start for start, _ in ranges]), tuple(stop - start for start, stop in ranges)
    out = np.empty(shape, seen.dtype)
    for rows, yx in centers(shape, np.eye(3)):
        out[rows] = owners(apply_affine(job.to_labels, yx + corner) - low, seen).reshape(-1, shape[1])
    return out
