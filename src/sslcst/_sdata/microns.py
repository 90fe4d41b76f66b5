"""A coordinate system in microns: one that elements lie in, or one built on what is known of their pixels."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation, set_transformation

from sslcst._logging import logger
from sslcst._sdata.elements import choose_coordinate_system, choose_key
from sslcst._sdata.raster import followed, full_scale, matrix_of, systems_of
from sslcst._section import check
from sslcst.errors import ParameterError

NAME = "micron"  # of a system that is added
_NAMED = re.compile(r"(?i)(?:.*[^\W\d_][\W_]+)?(?:[u\u00b5\u03bc]m|microns?|micromet(?:er|re)s?)(?:[\W_].*)?")
AS_ONE = 0.01  # by which two sizes of a pixel may differ
_IN_MICRONS = ("xenium", "merscope")  # whose reader leaves points in microns, with a transformation to pixels
_SPOT = 0.5  # microns from one spot of Stereo-seq to the next
_COSMX = 0.120280945  # microns a pixel, of the instruments that are sold
_COSMX_FIELDS = {(4256, 4256): _COSMX, (3648, 5472): 0.18}  # by the pixels of a field of view: 0.18 of those before


@dataclass(frozen=True)
class Microns:
    """A coordinate system in microns, and how it follows from another one."""

    name: str  # of the system
    base: str  # the one that it follows from
    step: np.ndarray  # affine matrix (3, 3) on (y, x) from there
    why: str  # what tells so, in words

    @property
    def scale(self) -> float:
        """Microns of a unit of the other system."""
        return _side(self.step)


def check_unit(unit: str | None, pixel_size: float | None) -> None:
    """Raise ParameterError unless a unit, and the size of a pixel, can be meant."""
    check(unit in (None, NAME), "unit", unit, f'must be "{NAME}", or left out for that of the coordinate system')
    check(pixel_size is None or 0 < pixel_size < np.inf, "pixel_size", pixel_size, "must be above 0, in microns")
    check(pixel_size is None or unit is not None, "pixel_size", pixel_size, f'goes with unit="{NAME}"')


def find_microns(
    sdata: SpatialData,
    keys: list[str],
    *,
    raster_key: str | None,
    pixel_size: float | None = None,
    coordinate_system: str | None = None,
) -> Microns:
    """The system in microns that elements lie in, or else one that can be built for them; what tells it is logged.

    It is told by a system named as one in microns that one of the elements lies in, else by `pixel_size`, microns along
    the side of a pixel, else by what the reader of spatialdata-io leaves. Pixels are those of the element `raster_key`;
    without one, a unit of the system it is built on counts as one. `coordinate_system` is the one in microns, or the
    one to build on; by default "global" or the only one.
    """
    named = {key: sorted(filter(is_in_microns, systems_of(sdata[key]))) for key in keys}
    wanted = coordinate_system if coordinate_system and is_in_microns(coordinate_system) else None
    shared = set.intersection(*map(set, named.values()))
    if shared and coordinate_system and not wanted:
        raise ParameterError(
            f"coordinate_system={coordinate_system!r}: leave it out, since the elements lie in {min(shared)!r}, or "
            f'leave out unit="{NAME}".'
        )
    if shared and wanted in (None, *shared):
        usual, of = (NAME,), f"in microns, of {' and '.join(map(repr, keys))}"
        base = choose_key(shared, wanted, kind="coordinate system", argument="coordinate_system", usual=usual, of=of)
        found = Microns(base, base, np.eye(3), f"{' and '.join(map(repr, keys))} lie in it")
    else:
        base = choose_coordinate_system(sdata, keys, None if wanted else coordinate_system)
        lying = [(key, name) for key, names in named.items() for name in names if wanted in (None, name)]
        found = through(sdata, lying[0][0], base, lying[0][1]) if lying else None
    side = 1.0 if raster_key is None else pixel_side(sdata, raster_key, base)
    pixel = "a unit" if raster_key is None else f"a pixel of {raster_key!r}"
    if found is None and pixel_size is not None:
        found = Microns(wanted or NAME, base, _scale(pixel_size / side), "pixel_size")
    found = found or _of_reader(sdata, keys, base)
    if found is None:
        raise ParameterError(
            f'unit="{NAME}": nothing tells how many microns {pixel} of coordinate system {base!r} measures; give '
            "pixel_size=, as 0.2125 with Xenium, 0.108 with MERSCOPE, 0.12028 with CosMx or 0.5 with Stereo-seq."
        )
    measured = side * found.scale
    if pixel_size is not None and not np.isclose(measured, pixel_size, rtol=AS_ONE):
        raise ParameterError(
            f"pixel_size={pixel_size!r}: {pixel} measures {measured:.4g} microns in {found.name!r} ({found.why}). "
            "Leave pixel_size out, or remove that coordinate system if it is wrong."
        )
    logger.info("Units are microns: %s measures %.4g in %r (%s).", pixel, measured, found.name, found.why)
    return found


def add_system(sdata: SpatialData, found: Microns) -> list[str]:
    """Have all elements of an object that lie in the base lie in the system too; the names of those that did not."""
    added = []
    for kind, key, element in sdata.gen_elements():
        if kind == "tables" or found.base not in systems_of(element) or found.name in systems_of(element):
            continue
        systems = dict(get_transformation(element, get_all=True))
        systems[found.name] = followed(systems[found.base], found.step)
        set_transformation(element, systems, set_all=True)
        added.append(key)
    return added


def in_system(sdata: SpatialData, found: Microns) -> SpatialData:
    """An object of the same elements, which lie in the system too; those of the first object stay as they are."""
    elements: dict[str, dict[str, Any]] = {}
    for kind, key, element in sdata.gen_elements():
        copied = element if kind == "tables" else element.copy() if kind == "points" else element.copy(deep=False)
        elements.setdefault(kind, {})[key] = copied
    view = of_elements(elements, sdata.attrs)
    add_system(view, found)
    return view


def of_elements(elements: Mapping[str, Mapping[str, Any]], attrs: Mapping[str, Any]) -> SpatialData:
    """An object of elements by kinds and names, whose tables may annotate others too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The table is annotating", UserWarning)
        return SpatialData(**elements, attrs=attrs)


def is_in_microns(system: str) -> bool:
    """Whether a coordinate system is named as one in microns."""
    return _NAMED.fullmatch(system) is not None


def _matrix(sdata: SpatialData, key: str, system: str) -> np.ndarray:
    return matrix_of(full_scale(sdata[key]), key, system)


def pixel_side(sdata: SpatialData, key: str, system: str) -> float:
    """Side of a square of the area of a pixel of a raster, in units of a system."""
    return _side(_matrix(sdata, key, system))


def _side(matrix: np.ndarray) -> float:
    """That of a square as large as what an affine matrix (3, 3) makes of one of side 1."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _scale(factor: float) -> np.ndarray:
    return np.diag([factor, factor, 1.0])


def through(sdata: SpatialData, key: str, base: str, name: str) -> Microns:
    """A system as it lies to another one, by an element that lies in both."""
    step = _matrix(sdata, key, name) @ np.linalg.inv(_matrix(sdata, key, base))
    return Microns(name, base, step, f"{key!r} lies in both")


def _of_reader(sdata: SpatialData, keys: Iterable[str], base: str) -> Microns | None:
    """What the reader of spatialdata-io that made the object, if one did, tells of its points."""
    reader = sdata.attrs.get("spatialdata_io_reader")
    for key in (key for key in keys if key in sdata.points):
        matrix = _matrix(sdata, key, base)
        if reader == "seqfish" or (reader in _IN_MICRONS and not np.allclose(matrix, np.eye(3))):
            return Microns(NAME, base, np.linalg.inv(matrix), f"those of the points {key!r}, as {reader} has them")
        if reader in _UNITS:
            size, why = _UNITS[reader](sdata)
            own = _side(matrix)
            return Microns(NAME, base, _scale(size / (1.0 if np.isclose(own, 1, rtol=1e-3) else own)), why)
    return None


def _of_stereoseq(sdata: SpatialData) -> tuple[float, str]:
    """Microns from one spot to the next, and what tells so."""
    for key, table in sdata.tables.items():
        resolution = np.ravel(table.uns.get("cellBin_attrs", {}).get("resolution", []))
        if resolution.size == 1 and resolution[0] > 0:
            return float(resolution[0]) / 1000, f"the resolution in table {key!r}"
    return _SPOT, "the spots of Stereo-seq"


def _of_cosmx(sdata: SpatialData) -> tuple[float, str]:
    """Microns along a pixel, and what tells so."""
    for key, table in sdata.tables.items():
        if {"Area", "Area.um2"} <= set(table.obs):
            ratio = np.sqrt(np.nanmedian(table.obs["Area.um2"] / table.obs["Area"]))
            if 0 < ratio < np.inf:
                return float(ratio), f"Area and Area.um2 in table {key!r}"
    shapes = {full_scale(image).shape[-2:] for image in sdata.images.values()}
    if len(shapes) == 1 and (size := _COSMX_FIELDS.get(*shapes)) is not None:
        return size, "the size of CosMx's fields of view"
    logger.warning(
        "A pixel is taken to measure %g microns, as with the CosMx that is sold; of the first published data it "
        "measures 0.18: then give pixel_size=.",
        _COSMX,
    )
    return _COSMX, "the pixels of CosMx"


_UNITS = {"stereoseq": _of_stereoseq, "cosmx": _of_cosmx}  # by readers whose points are in pixels
