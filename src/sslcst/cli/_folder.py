"""The output folder of an instrument, of whichever vendor: which reader reads it is seen by its files."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from sslcst._files import check_folder
from sslcst._logging import logger
from sslcst._sdata.store import UNREADABLE
from sslcst._section import check
from sslcst.errors import BackendError, DataError, SslcstError, StoreError
from sslcst.io import read_gef, read_gem
from sslcst.params import check_known, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

# Of each reader, files that no other vendor's folder holds. Those of spatialdata-io bear its names, two are our own.
MARKS = {
    "xenium": ("experiment.xenium",),
    "merscope": ("detected_transcripts.csv",),
    "cosmx": ("*fov_positions_file.csv*", "*tx_file.csv*"),
    "seqfish": ("*_TranscriptList.csv",),
    "stereoseq": ("02.count/*.gef",),
    "gef": ("*.gef", "feature_expression/*.gef", "outs/feature_expression/*.gef"),
    "gem": ("*.gem", "*.gem.gz"),
}
_OWN: dict[str, Callable[..., SpatialData]] = {"gef": read_gef, "gem": read_gem}
_STAINS = ("*_regist.tif*", "image/*_regist.tif*", "outs/image/*_regist.tif*")
_CELL_BINS = ".cellbin.gef"


def recognise(path: Path) -> str:
    """The reader of a folder, or of a GEF or GEM file."""
    if not path.exists():
        raise DataError(f"There is no {path}.")
    found = _readers_of(path)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path} holds files of several readers: choose with --reader, one of {', '.join(found)}.")
    if path.is_file():
        raise DataError(f"{path} is neither a GEF nor a GEM file: give the folder that the instrument has written.")
    below = {folder.name: _readers_of(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    hint = "".join(f"; its folder {name!r} is of {readers[0]}: give that" for name, readers in below.items() if readers)
    marks = ", ".join(f"{files[0]} ({name})" for name, files in MARKS.items())
    raise DataError(f"{path} is of no instrument that is known{hint}. Looked for {marks}; --reader tells which it is.")


def _readers_of(path: Path) -> list[str]:
    if path.is_file():
        return [name for name in _OWN if any(path.match(mark) for mark in MARKS[name])]
    return [name for name, marks in MARKS.items() if any(next(path.glob(mark), None) for mark in marks)]


def read_folder(path: Path, *, reader: str | None = None, options: Mapping[str, Any] | None = None) -> SpatialData:
    """Read what an instrument has written, its folder or a GEF or GEM file, by one of `MARKS` (`recognise`)."""
    options = dict(options or {})
    if reader is None:
        reader = recognise(path)
        logger.info("%s is of %s.", path, reader)
    check_known("reader", "--reader", reader, MARKS)
    read = _OWN.get(reader) or _of_spatialdata_io(reader)
    arguments = [name for name in inspect.signature(read).parameters if name != "path"]
    for name, value in options.items():
        rule = f"no such argument of reader {reader!r}; {listed(arguments, name)}"
        check(name in arguments, f"--option {name}", value, rule)
    if reader in _OWN and path.is_dir():
        options = _registered_stain(path) | options
        path = _one_file(path, reader)
    if reader == "merscope" and "z_layers" not in options:
        options |= _middle_layer(path)
    try:
        with redirect_stdout(sys.stderr):  # where some readers tell of their progress; stdout is for results
            return read(path, **options)
    except SslcstError:
        raise
    except UNREADABLE as error:
        raise DataError(
            f"{path} could not be read by {reader} ({type(error).__name__}: {error}). Is the folder whole, as the "
            "instrument wrote it? Another reader is told with --reader."
        ) from error


def write_new(sdata: SpatialData, out: Path) -> None:
    """Write a store that was not there (`check_new`), whole or not at all."""
    part = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        sdata.write(part / "new.zarr")
        check_new(out)  # in the meantime something may have come
        (part / "new.zarr").rename(out)
    except SslcstError:
        raise
    except UNREADABLE as error:
        raise StoreError(f"{out} could not be written ({type(error).__name__}: {error}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(out: Path) -> None:
    """Raise StoreError unless a store can be written here, where nothing is yet."""
    if out.exists() or out.is_symlink():
        raise StoreError(f"{out} exists, and is not written over: choose another name, or delete it.")
    check_folder(out)


def _of_spatialdata_io(reader: str) -> Callable[..., SpatialData]:
    if find_spec("spatialdata_io") is None:
        raise BackendError(f"Reader {reader!r} is spatialdata-io's: pip install 'sslcst[io]'.")
    import spatialdata_io

    return getattr(spatialdata_io, reader)


def _one_file(folder: Path, reader: str) -> Path:
    """The file of a folder: of GEFs no cell bins and, of several, that of the tissue."""
    files = sorted(file for mark in MARKS[reader] for file in folder.glob(mark) if not file.name.endswith(_CELL_BINS))
    of_tissue = [file for file in files if ".tissue." in file.name]
    files = of_tissue if len(of_tissue) == 1 else files
    if len(files) != 1:
        names = ", ".join(str(file.relative_to(folder)) for file in files) or "none of square bins"
        raise DataError(f"{folder} must hold one {reader.upper()} file, and holds {names}: give the file itself.")
    return files[0]


def _registered_stain(folder: Path) -> dict[str, Path]:
    """The stain that lies on the spots, if there is one beside them."""
    stains = [file for mark in _STAINS for file in folder.glob(mark)]
    if len(stains) == 1:
        logger.info("The stain is %s, unless --option image=FILE says otherwise.", stains[0].name)
        return {"image": stains[0]}
    if stains:
        names = ", ".join(sorted(file.name for file in stains))
        raise DataError(f"{folder} holds several registered stains: choose with --option image=FILE, one of {names}.")
    logger.warning(
        "There is no stain *_regist.tif beside the counts: --option image=FILE tells of one, else bring nuclei."
    )
    return {}


def _middle_layer(folder: Path) -> dict[str, int]:
    """The layer of the images to read, where the one that the reader takes by itself, 3, is not there."""
    found = (re.search(r"_z(\d+)\.tiff?$", file.name) for file in (folder / "images").glob("mosaic_*"))
    layers = sorted({int(match[1]) for match in found if match})
    if not layers or 3 in layers:
        return {}
    middle = layers[len(layers) // 2]
    logger.info("The image is of layer z%d, unless --option z_layers= says otherwise; there are %s.", middle, layers)
    return {"z_layers": middle}
