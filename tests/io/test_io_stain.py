"""The stain beside the counts: each pixel on its spot, read in bands, from any layout of TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import get_transformation

from sslcst.errors import DataError
from sslcst.io import read_gem

PIXELS = np.random.default_rng(0).integers(0, 60_000, (150, 90)).astype(np.uint16)


def read(tmp_path: Path, name: str = "ssDNA_SS2_regist.tif", **kwargs) -> SpatialData:
    """A GEM with one count at each of some spots whose number is the stain's value there."""
    spots = [(20, 30), (0, 0), (89, 149)]
    rows = "".join(f"g\t{x}\t{y}\t{PIXELS[y, x]}\n" for x, y in spots)
    (tmp_path / "a.gem").write_text(f"#OffsetX=100\n#OffsetY=-20\ngeneID\tx\ty\tMIDCount\n{rows}")
    return read_gem(tmp_path / "a.gem", image=tmp_path / name, **kwargs)


def at_counts(sdata: SpatialData, system: str) -> list[int]:
    """The stain at the counts, both carried to a coordinate system."""
    axes = ("x", "y")
    points = sdata.points["transcripts"]
    to_system, from_system = (
        get_transformation(element, system).to_affine_matrix(axes, axes) for element in (points, sdata.images["stain"])
    )
    xy = points[["x", "y"]].compute().to_numpy()
    pixel = np.linalg.inv(from_system) @ to_system @ np.c_[xy, np.ones(len(xy))].T
    x, y = np.floor(pixel[:2]).astype(int)
    return sdata.images["stain"].to_numpy()[0, y, x].tolist()


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({}, id="contiguous"),
        pytest.param({"rowsperstrip": 7}, id="strips"),
        pytest.param({"rowsperstrip": 7, "compression": "zlib"}, id="compressed strips"),
        pytest.param({"compression": "zlib"}, id="compressed"),
        pytest.param({"tile": (64, 32)}, id="tiles"),
        pytest.param({"tile": (64, 32), "compression": "zlib"}, id="compressed tiles"),
        pytest.param({"byteorder": ">", "bigtiff": True}, id="big-endian"),
    ],
)
def test_every_pixel_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict) -> None:
    """In several bands, and after a round trip to disk, where it lies on its spot in every coordinate system."""
    monkeypatch.setattr("sslcst.io._stain._CHUNK", 64)
    tifffile.imwrite(tmp_path / "ssDNA_SS2_regist.tif", PIXELS, **layout)
    sdata = read(tmp_path)
    assert sdata.images["stain"].data.chunksize == (1, 64, 64)
    sdata.write(tmp_path / "a.zarr")
    for source in (sdata, read_zarr(tmp_path / "a.zarr")):
        stain = source.images["stain"]
        assert stain.dtype == np.uint16
        assert (stain.to_numpy()[0] == PIXELS).all()
        assert stain.c.values.tolist() == ["ssDNA"]
        for system in ("global", "micron", "chip"):
            assert at_counts(source, system) == transcripts_count(source)


def transcripts_count(sdata: SpatialData) -> list[int]:
    return sdata.points["transcripts"]["count"].compute().tolist()


def test_offset_is_the_spot_under_the_first_pixel(tmp_path: Path) -> None:
    y, x = 10, 4
    padded = np.pad(PIXELS, ((y, 0), (x, 0)))
    tifffile.imwrite(tmp_path / "dapi.tif", padded)
    sdata = read(tmp_path, "dapi.tif", image_offset=(-x, -y))
    for system in ("global", "micron", "chip"):
        assert at_counts(sdata, system) == transcripts_count(sdata)
    assert sdata.images["stain"].c.values.tolist() == ["DAPI"]


def test_refuses_what_is_no_stain(tmp_path: Path) -> None:
    """Colours, several pages, other files, files cut short."""
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((2, 9, 9), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "cut.tif", PIXELS)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-500])
    (tmp_path / "text.tif").write_text("no image")
    for name, message in (("he", "one channel"), ("pages", "one channel"), ("cut", "read"), ("text", "read")):
        with pytest.raises(DataError, match=message) as error:
            read(tmp_path, f"{name}.tif")
        assert f"{name}.tif" in str(error.value)
