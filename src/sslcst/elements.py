"""Elements of a SpatialData object read as arrays: which element is meant, and where it lies on the raster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sslcst._logging import logger
from sslcst.errors import DataError, KeyMissingError

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray

GENE_COLUMNS = ("gene", "feature_name", "target", "geneID", "name")  # ours, xenium, cosmx, GEM, seqfish
COUNT_COLUMNS = ("count", "MIDCount", "MIDCounts")
YX = ("y", "x")


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
    """

    shape: tuple[int, int]
    to_system: np.ndarray
    coordinate_system: str
    transformations: dict[str, Any]

    @property
    def pixel_sides(self) -> np.ndarray:
        """Length of a pixel along its y and its x axis, in units of the coordinate system, (2,)."""
        return np.linalg.norm(self.to_system[:2, :2], axis=0)

    @property
    def pixel_size(self) -> float:
        """Side of a square of a pixel's area, in units of the coordinate system."""
        return float(np.sqrt(abs(np.linalg.det(self.to_system[:2, :2]))))


@dataclass(frozen=True)
class Transcripts:
    """Transcripts on a raster.

    Parameters
    ----------
    yx
        Positions (n, 2) in pixels of the raster.
    gene
        Index into `genes`, (n,).
    count
        Molecules of each (n,), or None for one each.
    genes
        Names of the genes.
    """

    yx: np.ndarray
    gene: np.ndarray
    count: np.ndarray | None
    genes: pd.Index


def apply_affine(matrix: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Positions (n, 2) under an affine matrix (3, 3)."""
    return yx @ matrix[:2, :2].T + matrix[:2, 2]


def choose_key(
    candidates: Iterable[str], key: str | None, *, kind: str, argument: str, usual: Iterable[str] = ()
) -> str:
    """The asked-for name, or the only candidate, or the only one with a usual name.

    Raises
    ------
    KeyMissingError
        There is no such name, or several could be meant; the message lists the candidates.
    """
    candidates = list(candidates)
    listed = ", ".join(map(repr, candidates)) or "none"
    if key is not None:
        if key not in candidates:
            raise KeyMissingError(f"There is no {kind} {key!r}; there are: {listed}.")
        return key
    if len(candidates) == 1:
        return candidates[0]
    known = [name for name in usual if name in candidates]
    if len(known) == 1:
        return known[0]
    what = f"There is no {kind}" if not candidates else f"Several could be the {kind}"
    raise KeyMissingError(f"{what}: choose with {argument}=; there are: {listed}.")


def choose_image(sdata: SpatialData, image_key: str | None) -> str:
    """The asked-for image, the only one, or the one that a reader of spatialdata-io names as the stain."""
    return choose_key(sdata.images, image_key, kind="image", argument="image_key", usual=("morphology_focus",))


def choose_points(sdata: SpatialData, points_key: str | None) -> str:
    """The asked-for points, the only ones, or those that a reader of spatialdata-io names as the transcripts."""
    return choose_key(sdata.points, points_key, kind="points element", argument="points_key", usual=("transcripts",))


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
    return choose_key(
        shared, coordinate_system, kind=f"coordinate system shared by {named}", argument="coordinate_system"
    )


def affine_matrix(element: Any, coordinate_system: str) -> np.ndarray:
    """Affine matrix (3, 3) on (y, x) from an element's own coordinates to the coordinate system."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, to_coordinate_system=coordinate_system).to_affine_matrix(YX, YX)


def full_scale(element: Any) -> DataArray:
    """A raster element itself, or the finest scale of a multiscale one."""
    from xarray import DataTree

    if isinstance(element, DataTree):
        return next(iter(next(iter(element.children.values())).data_vars.values()))
    return element


def raster_of(sdata: SpatialData, key: str, coordinate_system: str) -> Raster:
    """The pixel grid of an image or labels element.

    Raises
    ------
    DataError
        The transformation flattens the raster to a line or a point.
    """
    from spatialdata.transformations import get_transformation

    element = full_scale(sdata[key])
    matrix = affine_matrix(element, coordinate_system)
    if abs(np.linalg.det(matrix)) < 1e-12:
        raise DataError(
            f"The transformation of {key!r} to {coordinate_system!r} cannot be inverted: {matrix.tolist()}."
        )
    sizes = element.sizes
    return Raster((sizes["y"], sizes["x"]), matrix, coordinate_system, get_transformation(element, get_all=True))


def choose_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> DataArray:
    """One channel (y, x) of an image, not yet read.

    Raises
    ------
    DataError
        The image is three-dimensional.
    KeyMissingError
        There is no such channel, or several and none was chosen.
    """
    image = full_scale(sdata.images[image_key])
    if "z" in image.dims:
        raise DataError(f"Image {image_key!r} is three-dimensional: project it to (c, y, x) first.")
    names = list(image.coords["c"].values)
    by_name = {str(name): i for i, name in enumerate(names)}
    name = choose_key(
        by_name,
        None if channel is None else str(channel),
        kind=f"channel of image {image_key!r}",
        argument="channel",
        usual=("DAPI", "dapi", "ssDNA", "DNA", "nuclei"),
    )
    return image.isel(c=by_name[name])


def read_channel(sdata: SpatialData, image_key: str, channel: str | int | None) -> np.ndarray:
    """One channel (y, x) of an image, see `choose_channel`."""
    return choose_channel(sdata, image_key, channel).to_numpy()


def read_nuclei(sdata: SpatialData, nuclei_key: str, raster: Raster) -> np.ndarray:
    """Labels as they are, or shapes drawn on the raster: uint32 (y, x).

    Raises
    ------
    DataError
        Negative, fractional or too large labels; no nucleus on the raster.
    """
    if nuclei_key in sdata.labels:
        labels = full_scale(sdata.labels[nuclei_key]).to_numpy()
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"Labels {nuclei_key!r} are {labels.dtype}: they must be integers.")
        if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.uint32).max):
            raise DataError(f"Labels {nuclei_key!r} must lie between 0 and 2^32 - 1.")
    else:
        labels = _draw_shapes(sdata, nuclei_key, raster)
    if not labels.any():
        raise DataError(f"There are no nuclei in {nuclei_key!r}: every pixel is background.")
    return labels.astype(np.uint32)


def _draw_shapes(sdata: SpatialData, key: str, raster: Raster) -> np.ndarray:
    """Polygons and circles as labels: the integer index of the shapes where it is positive, else 1, 2, ..."""
    from skimage.draw import polygon2mask

    shapes = sdata.shapes[key]
    to_pixel = np.linalg.inv(raster.to_system) @ affine_matrix(shapes, raster.coordinate_system)
    outlines = shapes.geometry.buffer(shapes["radius"]) if "radius" in shapes else shapes.geometry
    ids = shapes.index
    if not (pd.api.types.is_integer_dtype(ids) and ids.is_unique and ids.min() > 0):
        ids = range(1, len(shapes) + 1)
    labels = np.zeros(raster.shape, np.uint32)
    for number, outline in zip(ids, outlines, strict=True):
        for part in getattr(outline, "geoms", [outline]):
            yx = apply_affine(to_pixel, np.asarray(part.exterior.coords)[:, 1::-1]) - 0.5  # pixel centres at integers
            low = np.clip(np.floor(yx.min(axis=0)).astype(int), 0, raster.shape)
            high = np.clip(np.ceil(yx.max(axis=0)).astype(int) + 1, low, raster.shape)
            window = labels[low[0] : high[0], low[1] : high[1]]
            if window.size:
                window[polygon2mask(window.shape, yx - low)] = number
    return labels


def raster_over_points(sdata: SpatialData, points_key: str, coordinate_system: str, pixel_size: float) -> Raster:
    """A pixel grid that just holds the points, where there is no image."""
    from spatialdata.transformations import Affine

    points = sdata.points[points_key]
    yx = apply_affine(affine_matrix(points, coordinate_system), points[list(YX)].compute().to_numpy(np.float64))
    if not np.isfinite(yx).all():
        raise DataError(f"Points {points_key!r} have coordinates that are not finite.")
    if not len(yx):
        raise DataError(f"Points {points_key!r} are empty: there is no transcript.")
    origin = np.floor(yx.min(axis=0) / pixel_size) * pixel_size
    height, width = (int(n) for n in np.floor((yx.max(axis=0) - origin) / pixel_size) + 1)
    matrix = np.array([[pixel_size, 0, origin[0]], [0, pixel_size, origin[1]], [0, 0, 1.0]])
    return Raster((height, width), matrix, coordinate_system, {coordinate_system: Affine(matrix, YX, YX)})


def read_transcripts(
    sdata: SpatialData, points_key: str, *, gene_key: str | None, count_key: str | None, raster: Raster
) -> Transcripts:
    """Transcripts of a points element: molecules with a gene each, or places with a table of counts.

    Raises
    ------
    DataError
        No transcripts; coordinates that are not finite; missing genes; counts that are no whole numbers.
    KeyMissingError
        No column of genes, or several that could be meant.
    """
    points = sdata.points[points_key]
    table_key = annotating_table(sdata, points_key)
    if gene_key is None and table_key is not None and not set(GENE_COLUMNS) & set(points.columns):
        yx, gene, count, genes = _read_annotated(sdata, points_key, table_key)
    else:
        yx, gene, count, genes = _read_molecules(points, points_key, gene_key, count_key)
    if not len(yx):
        raise DataError(f"Points {points_key!r} are empty: there is no transcript.")
    if not np.isfinite(yx).all():
        raise DataError(
            f"Points {points_key!r} have {(~np.isfinite(yx)).any(axis=1).sum()} rows with NaN or infinite x or y."
        )
    to_pixel = np.linalg.inv(raster.to_system) @ affine_matrix(points, raster.coordinate_system)
    return Transcripts(apply_affine(to_pixel, yx), gene, count, genes)


def annotating_table(sdata: SpatialData, points_key: str) -> str | None:
    """The one table that annotates these points, if there is."""
    keys = []
    for key, table in sdata.tables.items():
        region = table.uns.get("spatialdata_attrs", {}).get("region")
        if points_key in ([region] if isinstance(region, str) else region or []):
            keys.append(key)
    return choose_key(keys, None, kind=f"table of points {points_key!r}", argument="gene_key") if keys else None


def gene_column(points: Any, points_key: str, gene_key: str | None) -> str:
    """The column that holds the genes: as asked, as the element says, or of a usual name."""
    columns = [name for name in points.columns if name not in ("x", "y", "z")]
    if gene_key is None:
        gene_key = points.attrs.get("spatialdata_attrs", {}).get("feature_key")
    if gene_key is None and not set(columns) & set(GENE_COLUMNS):
        listed = ", ".join(map(repr, columns)) or "none"
        raise KeyMissingError(
            f"No column of points {points_key!r} is known to hold genes: choose with gene_key=; columns: {listed}."
        )
    return choose_key(
        columns, gene_key, kind=f"gene column of points {points_key!r}", argument="gene_key", usual=GENE_COLUMNS
    )


def _read_molecules(
    points, points_key, gene_key, count_key
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, pd.Index]:
    gene_key = gene_column(points, points_key, gene_key)
    if count_key is None:
        count_key = next((name for name in COUNT_COLUMNS if name in points.columns), None)
        if count_key is not None:
            logger.info("Counts are taken from column %r of points %r.", count_key, points_key)
    elif count_key not in points.columns:
        raise KeyMissingError(
            f"Points {points_key!r} have no column {count_key!r}: choose count_key among {list(points.columns)}."
        )
    columns = [*YX, gene_key] + ([count_key] if count_key else [])
    frame = points[columns].compute()
    gene = frame[gene_key].astype("category").cat.remove_unused_categories()
    if gene.isna().any():
        raise DataError(f"Points {points_key!r} have {gene.isna().sum()} rows without a gene in {gene_key!r}.")
    count = (
        None
        if count_key is None
        else _whole(frame[count_key].to_numpy(), f"Column {count_key!r} of points {points_key!r}")
    )
    names = pd.Index(gene.cat.categories.astype(str), name=None)
    return frame[list(YX)].to_numpy(np.float64), gene.cat.codes.to_numpy(np.int64), count, names


def _read_annotated(sdata, points_key, table_key) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.Index]:
    table = sdata.tables[table_key]
    places = sdata.points[points_key][list(YX)].compute()
    instance = table.obs[table.uns["spatialdata_attrs"]["instance_key"]]
    region = table.obs[table.uns["spatialdata_attrs"]["region_key"]]
    of_points = (region == points_key).to_numpy()
    row_of = pd.Index(places.index).get_indexer(instance)
    if (row_of[of_points] < 0).any():
        raise DataError(f"Table {table_key!r} has rows for which points {points_key!r} have no instance.")
    counts = sparse.coo_matrix(table.X[of_points])
    row = row_of[of_points][counts.row]
    count = _whole(counts.data, f"X of table {table_key!r}")
    return places.to_numpy(np.float64)[row], counts.col.astype(np.int64), count, pd.Index(table.var_names.astype(str))


def _whole(values: np.ndarray, what: str) -> np.ndarray:
    whole = np.asarray(values, np.float64)
    if not (np.isfinite(whole) & (whole >= 0) & (whole == np.floor(whole))).all():
        raise DataError(f"{what} must hold counts: whole numbers that are not negative.")
    return whole.astype(np.int64)


def add_element(sdata: SpatialData, kind: str, name: str, element: Any) -> None:
    """Add an element to the object, in place of one of that name and kind ("labels" or "tables").

    Raises
    ------
    KeyMissingError
        An element of that name is of another kind.
    """
    elements = getattr(sdata, kind)
    if name in sdata and name not in elements:
        raise KeyMissingError(f"{name!r} exists and is none of the {kind}: choose another key_added.")
    elements.pop(name, None)
    elements[name] = element


def add_labels(sdata: SpatialData, name: str, labels: np.ndarray, raster: Raster) -> None:
    """Add labels (y, x) on a raster to the object."""
    from spatialdata.models import Labels2DModel

    # A copy, since parsing keeps the dict it is given.
    element = Labels2DModel.parse(labels, dims=YX, transformations=dict(raster.transformations))
    add_element(sdata, "labels", name, element)
