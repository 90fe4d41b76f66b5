"""A coordinate system in microns for elements that are there."""

from __future__ import annotations

from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._logging import logger
from sslcst._sdata.elements import STAINS, choose_key
from sslcst._sdata.microns import AS_ONE, NAME, add_system, check_unit, find_microns, is_in_microns, pixel_side
from sslcst._sdata.raster import systems_of
from sslcst._sdata.transformations import write_transformations
from sslcst.errors import KeyMissingError


@checked
def add_microns(
    sdata: SpatialData,
    *,
    pixel_size: float | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
) -> str:
    """Have the elements lie in a coordinate system in microns too.

    No pixel, point or polygon changes: each element of `coordinate_system` gets one more transformation, exact, to
    ``"micron"`` (or to the system named so in which some of them lie already). In an object's store the transformations
    of these elements are written, and nothing else; a call that was stopped is made again.

    Parameters
    ----------
    sdata
        The object, and its store if it has one.
    pixel_size
        Microns along the side of a pixel. May be left out where an element lies in microns already, or where the reader
        of spatialdata-io tells: points of Xenium, MERSCOPE and seqFISH are in microns, spots of Stereo-seq are 0.5
        apart (or as its files say), a pixel of CosMx measures what Area and Area.um2 of its cells say, else 0.120280945
        (0.18 in fields of 5472 x 3648 pixels).
    image_key
        The image or labels whose pixels `pixel_size` is of; may be left out where all have the same, or one is named as
        the readers name the stain.
    coordinate_system
        The system to build on; by default "global" or the only one. Elements that do not lie in it are left alone.

    Returns
    -------
    The name of the system in microns.

    Raises
    ------
    ParameterError
        Nothing tells the size of a pixel, or `pixel_size` is not what is there says.
    KeyMissingError
        No such image or coordinate system, or several that could be meant.
    StoreError
        The store cannot be written; object and store are as they were.

    See Also
    --------
    sslcst.tl.segment : ``unit="micron"`` needs no such system in the store.
    """
    check_unit(NAME, pixel_size)
    systems = {key: systems_of(element) for kind, key, element in sdata.gen_elements() if kind != "tables"}
    if not systems:
        raise KeyMissingError("There is nothing that could lie in microns: no image, labels, points or shapes.")
    others = sorted({system for has in systems.values() for system in has if not is_in_microns(system)})
    if others:
        asked = {"kind": "coordinate system", "argument": "coordinate_system", "usual": ("global",)}
        base = choose_key(others, coordinate_system, **asked)
        systems = {key: has for key, has in systems.items() if base in has}
    rasters = [key for key in systems if key in sdata.images or key in sdata.labels]
    sides = [pixel_side(sdata, key, base) for key in rasters] if others and pixel_size is not None else []
    if image_key is not None or max(sides, default=1) > (1 + AS_ONE) * min(sides, default=1):
        image_key = choose_key(rasters, image_key, kind="image", argument="image_key", usual=STAINS)
    told = {"pixel_size": pixel_size, "coordinate_system": coordinate_system}
    found = find_microns(sdata, list(systems), raster_key=image_key or next(iter(rasters), None), **told)
    added = add_system(sdata, found)
    write_transformations(sdata, added, found.name)
    logger.info("Added coordinate system %r to %s.", found.name, ", ".join(map(repr, added)) or "none: all lie in it")
    return found.name
