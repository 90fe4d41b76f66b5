"""GEM and GEF with numbers and names that are not as the format has them: read exactly, or refused with words."""

from __future__ import annotations

import gzip
import resource
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation

import sslcst
from sslcst.errors import DataError, ParameterError
from sslcst.io import read_gef, read_gem

FAR = 1_000_000_000


def write_gem(path: Path, text: str, *, encoding: str = "utf-8", head: str = "geneID\tx\ty\tMIDCount\n") -> Path:
    path.write_bytes((head + text).encode(encoding))
    return path


def transcripts(sdata: SpatialData) -> pd.DataFrame:
    return sdata.points["transcripts"].compute()


def write_gef(
    path: Path, *, count: object = (1, 2, 3), x: object = (1, 2, 3), names: object = (b"a", b"b"), **attrs
) -> Path:
    """Three rows of two genes."""
    count, x = np.asarray(count), np.asarray(x)
    expression = np.zeros(3, [("x", x.dtype), ("y", "<i4"), ("count", count.dtype)])
    expression["x"], expression["count"] = x, count
    gene = np.zeros(2, [("geneID", "S64"), ("offset", "<u4"), ("count", "<u4")])
    gene["geneID"], gene["offset"], gene["count"] = names, (0, 2), (2, 1)
    with h5py.File(path, "w") as file:
        file["geneExp/bin1/expression"], file["geneExp/bin1/gene"] = expression, gene
        file["geneExp/bin1/expression"].attrs.update({"resolution": 500, "minX": -7, "minY": 5} | attrs)
    return path


def chip(sdata: SpatialData) -> list[float]:
    return get_transformation(sdata["transcripts"], "chip").to_affine_matrix(("x", "y"), ("x", "y"))[:2, 2].tolist()


# --- GEM


def test_places_far_out_stay_apart(tmp_path: Path) -> None:
    rows = f"a\t{FAR}\t-{FAR}\t1\na\t{FAR + 20}\t2147483647\t1\n"
    points = transcripts(read_gem(write_gem(tmp_path / "a.gem", rows)))
    assert points[["x", "y"]].to_numpy().tolist() == [[FAR + 0.5, 0.5 - FAR], [FAR + 20.5, 2147483647.5]]


@pytest.mark.parametrize(
    "row", ["a\t2147483648\t1\t1", "a\t1\t1\t4294967296", "a\tnan\t1\t1", "a\t1\tinf\t1", "a\t1\t1\t1e3"]
)
def test_numbers_beyond_the_format_are_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match=r"a\.gem is no GEM.*of 32 bits"):
        read_gem(write_gem(tmp_path / "a.gem", f"a\t1\t1\t1\n{row}\n"))


@pytest.mark.parametrize("name", ["", " "])
def test_rows_without_a_gene_are_counted_and_refused(tmp_path: Path, name: str) -> None:
    rows = f"a\t1\t1\t1\n{name}\t2\t1\t1\nb\t2\t1\t1\n{name}\t3\t1\t1\n"
    with pytest.raises(DataError, match=r"a\.gem has 2 rows without a gene in column 'geneID'"):
        read_gem(write_gem(tmp_path / "a.gem", rows), cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["", "#FileFormat=GEMv0.1\n#OffsetX= 100.0\n#OffsetY = -3\n#BinSize=1.0\n"])
def test_byte_order_mark_line_ends_and_spellings(tmp_path: Path, encoding: str, end: str, header: str) -> None:
    """Columns in any order and case; an offset written as a float."""
    text = f"{header}Y\tmidcount\tx \tGeneID\n4\t2\t3\tNA\n".replace("\n", end)
    sdata = read_gem(write_gem(tmp_path / "a.gem", text, encoding=encoding, head=""))
    assert transcripts(sdata).to_numpy().tolist() == [[3.5, 4.5, "NA", 2]]
    assert set(sdata.attrs["gem_header"]) == ({"FileFormat", "OffsetX", "OffsetY", "BinSize"} if header else set())
    assert not header or chip(sdata) == [100, -3]


@pytest.mark.parametrize("value", ["100.5", "nan", "inf", "1e300", "", "a"])
def test_an_offset_that_is_no_whole_number_is_refused(tmp_path: Path, value: str) -> None:
    path = write_gem(tmp_path / "a.gem", f"#OffsetX={value}\n#OffsetY=0\ngeneID\tx\ty\tMIDCount\na\t1\t1\t1\n", head="")
    with pytest.raises(DataError, match=r"a\.gem: OffsetX of the header must be a whole number"):
        read_gem(path)


@pytest.mark.parametrize("value", ["50.0", "bin50", "0", "-1", ""])
def test_a_bin_size_that_is_not_1_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="holds bins of"):
        read_gem(write_gem(tmp_path / "a.gem", f"#BinSize={value}\ngeneID\tx\ty\tMIDCount\na\t1\t1\t1\n", head=""))


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"several columns of one name: \['x'\]"):
        read_gem(write_gem(tmp_path / "a.gem", "a\t1\t1\t1\t2\n", head="geneID\tx\ty\tMIDCount\tX\n"))


@pytest.mark.parametrize("head", [b"geneID\tx\ty\tMIDCount\na\t1\t1\t1\n", b"", b"#A=", b"#a=1\n" * 300_000])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path, head: bytes) -> None:
    """100 MiB in a gzip file of 100 kB; among the rows, as the first line, in the header, as a header."""
    with gzip.open(tmp_path / "a.gem", "wb", 1) as file:
        file.write(head)
        for _ in range(100):
            file.write(b"A" * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"1,048,576 bytes"):
        read_gem(tmp_path / "a.gem")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10  # KiB


def test_lines_are_as_long_as_their_bound_wherever_they_are_cut(tmp_path: Path, monkeypatch) -> None:
    """Whatever a block holds: lines of the bound are read, longer ones are not."""
    monkeypatch.setattr("sslcst.io._gem._LONGEST", 40)
    for block in (41, 50, 64, 1000):
        monkeypatch.setattr("sslcst.io._gem._BLOCK", block)
        rows = [f"{'a' * (i % 33 + 1)}\t1\t1\t1\n" for i in range(200)]
        assert len(transcripts(read_gem(write_gem(tmp_path / "a.gem", "".join(rows))))) == 200
        with pytest.raises(DataError, match="more than 40 bytes"):
            read_gem(write_gem(tmp_path / "a.gem", "".join([*rows, f"{'a' * 60}\t1\t1\t1\n", *rows])))


def test_garbage_behind_a_gzip_file_is_damage(tmp_path: Path) -> None:
    text = write_gem(tmp_path / "a.gem", "a\t1\t1\t1\n" * 100).read_bytes()
    (tmp_path / "b.gem").write_bytes(gzip.compress(text) + b"garbage")
    with pytest.raises(DataError, match=r"b\.gem is cut short or damaged"):
        read_gem(tmp_path / "b.gem")


# --- GEF


def test_counts_and_places_of_other_types_are_read_exactly(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef", count=np.array([1, 2**32 - 1, 3], np.int64), x=np.array([FAR, FAR + 20, -3.0]))
    points = transcripts(read_gef(path))
    assert points["count"].tolist() == [1, 2**32 - 1, 3]
    assert points["x"].tolist() == [FAR + 0.5, FAR + 20.5, -2.5]
    assert chip(read_gef(path)) == [-7, 5]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("count", [1, -3, 3]),
        ("count", [1, 0.5, 3]),
        ("count", [1, np.nan, 3]),
        ("count", [1, np.inf, 3]),
        ("count", [1, 1e19, 3]),
        ("count", np.array([1, 2**63, 3], np.uint64)),
        ("count", np.array([b"1", b"2", b"3"])),
        ("x", [1, 0.5, 3]),
        ("x", [1, np.nan, 3]),
        ("x", [1, 2**31, 3]),
        ("x", [1, -(2**31) - 1, 3]),
    ],
)
def test_counts_and_places_that_cannot_be_are_refused_at_once(tmp_path: Path, field: str, values: object) -> None:
    path = write_gef(tmp_path / "a.gef", **{field: values})
    with pytest.raises(DataError, match=rf"Field '{field}' of geneExp/bin1/expression in .*a\.gef must hold"):
        read_gef(path)


@pytest.mark.parametrize("names", [(b"a", b""), (b"a", b" "), (b"a", b"\0x")])
def test_a_gene_without_a_name_is_refused(tmp_path: Path, names: tuple[bytes, bytes]) -> None:
    with pytest.raises(DataError, match=r"a\.gef has 1 rows without a gene"):
        read_gef(write_gef(tmp_path / "a.gef", names=names))


def test_names_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    points = transcripts(read_gef(write_gef(tmp_path / "a.gef", names=(b"g\xff", b"g\xfe"))))
    assert points["gene"].tolist() == ["g\\xff", "g\\xff", "g\\xfe"]


@pytest.mark.parametrize("value", [0, -500, np.nan, np.inf, "500", [500, 500]])
def test_a_resolution_that_is_none(tmp_path: Path, value: object) -> None:
    path = write_gef(tmp_path / "a.gef", resolution=value)
    with pytest.raises(DataError, match="does not say its resolution: give spot_size"):
        read_gef(path)
    assert read_gef(path, spot_size=0.5).coordinate_systems


@pytest.mark.parametrize("value", [0.5, np.nan, "a", [1, 2], 2**31])
def test_a_place_on_the_chip_that_is_no_whole_number(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"a\.gef: minX of the header must be a whole number"):
        read_gef(write_gef(tmp_path / "a.gef", minX=value))


@pytest.mark.parametrize("name", ["expression", "gene"])
@pytest.mark.parametrize("value", [None, np.arange(3), np.zeros((3, 2)), 1])
def test_tables_that_are_none(tmp_path: Path, name: str, value: object) -> None:
    """A group, a plain list, two dimensions, a number."""
    path = write_gef(tmp_path / "a.gef")
    with h5py.File(path, "r+") as file:
        del file[f"geneExp/bin1/{name}"]
        if value is None:
            file.create_group(f"geneExp/bin1/{name}")
        else:
            file[f"geneExp/bin1/{name}"] = value
    with pytest.raises(DataError, match=rf"a\.gef is no GEF.*{name}"):
        read_gef(path)


@pytest.mark.parametrize("offset", [(0, 2.5), (-1, 2), (0, 2**40), (0, np.nan)])
def test_offsets_that_cannot_be(tmp_path: Path, offset: tuple) -> None:
    path = write_gef(tmp_path / "a.gef")
    with h5py.File(path, "r+") as file:
        gene = file["geneExp/bin1/gene"][:]
        wide = gene.astype([("geneID", "S64"), ("offset", "f8"), ("count", "u4")])
        wide["offset"] = offset
        del file["geneExp/bin1/gene"]
        file["geneExp/bin1/gene"] = wide
    with pytest.raises(DataError, match=r"'offset' of geneExp/bin1/gene in .*a\.gef must count rows"):
        read_gef(path)


def test_rows_of_no_gene(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef")
    with h5py.File(path, "r+") as file:
        gene = file["geneExp/bin1/gene"][:0]
        del file["geneExp/bin1/gene"]
        file["geneExp/bin1/gene"] = gene
    with pytest.raises(DataError, match="offsets of its 0 genes do not fit its 3 rows"):
        read_gef(path)


# --- both


@pytest.mark.parametrize("offset", [(np.nan, 0), (0, np.inf), (1,), (1, 2, 3), "ab", 5, None])
def test_an_image_offset_is_two_finite_numbers(tmp_path: Path, offset: object) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5), np.uint8))
    path = write_gem(tmp_path / "a.gem", "a\t1\t1\t1\n")
    with pytest.raises(ParameterError, match="image_offset"):
        read_gem(path, image=tmp_path / "a.tif", image_offset=offset)


@pytest.mark.parametrize("spot_size", ["0.5", [0.5], 1j, 0, -0.5, np.nan, np.inf])
def test_a_spot_size_is_a_positive_number(tmp_path: Path, spot_size: object) -> None:
    with pytest.raises(ParameterError, match="spot_size"):
        read_gem(write_gem(tmp_path / "a.gem", "a\t1\t1\t1\n"), spot_size=spot_size)
    with pytest.raises(ParameterError, match="spot_size"):
        read_gef(write_gef(tmp_path / "a.gef"), spot_size=spot_size)


@pytest.mark.parametrize("read", ["gem", "gef"])
@pytest.mark.parametrize("run", [sslcst.tl.segment, sslcst.tl.plan])
def test_a_file_that_keeps_the_numbers_of_the_chip_is_told_of_image_offset(tmp_path: Path, read: str, run) -> None:
    """Off the image that was cut out of the chip: both elements, the coordinate system, and what to give."""
    stain = np.random.default_rng(0).normal(100, 5, (80, 80))
    y, x = np.mgrid[:80, :80]
    for row, column in ((20, 20), (20, 60), (60, 20), (60, 60)):
        stain[(y - row) ** 2 + (x - column) ** 2 < 64] += 900
    tifffile.imwrite(tmp_path / "a.tif", stain.astype(np.uint16))
    if read == "gem":
        path = write_gem(tmp_path / "a.gem", "a\t5000\t5000\t1\nb\t5002\t5000\t1\n")
        sdata = read_gem(path, image=tmp_path / "a.tif")
    else:
        sdata = read_gef(write_gef(tmp_path / "a.gef", x=(5000, 5001, 5002)), image=tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"None of the \d transcripts.*'stain'.*'transcripts'.*'global'.*image_offset="):
        run(sdata, params={"nuclei": {"method": "watershed"}})
