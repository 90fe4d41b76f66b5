"""A registered stain of Stereo-seq, read in bands."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import tifffile
import zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import BaseTransformation, Sequence, Translation
from xarray import DataArray

from sslcst.errors import DataError

_CHUNK = 1024  # pixels
_STAINS = ("ssDNA", "DAPI")  # as SAW writes them into the names of its images


def read_stain(path: Path, offset: tuple[float, float], transformations: dict[str, BaseTransformation]) -> DataArray:
    """An image (c, y, x) whose pixel (x, y) is the spot (x, y) plus the offset; no more than bands of it are held.

    It is a TIFF of one channel, whose name tells the channel's: "ssDNA" or "DAPI", else "stain". Transformations are
    those from spots.
    """
    path, place = path.absolute(), Translation(list(map(float, offset)), axes=("x", "y"))
    try:
        with tifffile.TiffFile(path) as file:
            page, n_pages = file.pages[0], len(file.series[0].levels[0].pages)
            shape, dtype = page.shape, np.dtype(page.dtype)
        if page.axes != "YX" or n_pages != 1:
            raise DataError(f"{path} has shape {shape} ({page.axes}) and {n_pages} pages: the stain has one channel.")
        _read_rows(path, shape[0] - 1, shape[0])
    except DataError:
        raise
    except (tifffile.TiffFileError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TIFF: {error}.") from error
    bands = tuple(min(_CHUNK, shape[0] - start) for start in range(0, shape[0], _CHUNK))
    image = da.map_blocks(_read_band, path=path, chunks=(bands, shape[1:]), dtype=dtype, meta=np.empty((0, 0), dtype))
    return Image2DModel.parse(
        image[None],
        dims=("c", "y", "x"),
        c_coords=[next((name for name in _STAINS if name.lower() in path.name.lower()), "stain")],
        chunks=(1, _CHUNK, _CHUNK),
        transformations={name: Sequence([place, step]) for name, step in transformations.items()},
    )


def _read_band(path: Path, block_info: dict) -> np.ndarray:
    return _read_rows(path, *block_info[None]["array-location"][0])


def _read_rows(path: Path, start: int, stop: int) -> np.ndarray:
    """Rows of the first page; without compression nothing but these is read, else the strips or tiles they lie in."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.is_memmappable:
            return np.array(page.asarray(out="memmap")[start:stop], page.dtype)
        with page.aszarr() as store:
            return zarr.open_array(store, mode="r")[start:stop]
