"""`sslcst.io.read_gem`: every count of the file arrives, at the centre of its spot, and what is no GEM is refused."""

from __future__ import annotations

import gc
import gzip
import pickle
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import Identity, get_transformation

from sslcst.errors import DataError, KeyMissingError, StoreError
from sslcst.io import read_gem
from sslcst.io._partitions import SCHEMA, spool

ROWS = "b\t3\t4\t2\nNA\t0\t9\t1\nb\t7\t4\t300\n"


def make(path: Path, *, header: str = "", columns: str = "geneID\tx\ty\tMIDCount", rows: str = ROWS) -> Path:
    path.write_text(f"{header}{columns}\n{rows}")
    return path


def transcripts(sdata: SpatialData) -> pd.DataFrame:
    return sdata.points["transcripts"].compute()


def matrix(sdata: SpatialData, system: str) -> np.ndarray:
    return get_transformation(sdata.points["transcripts"], system).to_affine_matrix(("x", "y"), ("x", "y"))


def test_reads_every_row(tmp_path: Path) -> None:
    """Centres of spots; a gene named NA is a gene; genes in alphabetical order and known to dask."""
    sdata = read_gem(make(tmp_path / "a.gem"))
    points = transcripts(sdata)
    assert points[["x", "y"]].to_numpy().tolist() == [[3.5, 4.5], [0.5, 9.5], [7.5, 4.5]]
    assert points["gene"].tolist() == ["b", "NA", "b"]
    assert points["gene"].cat.categories.tolist() == ["NA", "b"]
    assert points["count"].tolist() == [2, 1, 300]
    assert points["count"].dtype == np.uint32
    assert sdata.points["transcripts"]["gene"].cat.known


def test_real_file_is_conserved(shared: Path, tmp_path: Path) -> None:
    """The whole table equals a reading with nothing but gzip and str.split, before and after a round trip to disk."""
    path = shared / "data" / "stereoseq_gem" / "SS200000135TL_D1_bin1_small.gem.gz"
    with gzip.open(path, "rt") as file:
        lines = [line.rstrip("\n").split("\t") for line in file][1:]
    expected = Counter((gene, int(x), int(y), int(count)) for gene, x, y, count in lines)
    assert len(lines) == 77_634

    sdata = read_gem(path)
    sdata.write(tmp_path / "a.zarr")
    for source in (sdata, read_zarr(tmp_path / "a.zarr")):
        points = transcripts(source)
        spots = np.floor(points[["x", "y"]].to_numpy()).astype(int).T
        assert Counter(zip(points["gene"], *spots, points["count"], strict=True)) == expected
        assert points["gene"].nunique() == len({line[0] for line in lines}) == 10_631
        assert np.allclose(matrix(source, "micron"), np.diag([0.5, 0.5, 1]))


@pytest.mark.parametrize("members", [1, 2])
def test_gzip_is_seen_by_content(tmp_path: Path, members: int) -> None:
    """Plain, gzipped, and gzipped in several members (as bgzip writes) are read alike, whatever the name says."""
    plain = make(tmp_path / "a.gem")
    text = plain.read_bytes()
    cuts = np.linspace(0, len(text), members + 1).astype(int)
    parts = [gzip.compress(text[start:stop]) for start, stop in pairwise(cuts)]
    (tmp_path / "zipped.txt").write_bytes(b"".join(parts))
    pd.testing.assert_frame_equal(transcripts(read_gem(tmp_path / "zipped.txt")), transcripts(read_gem(plain)))


@pytest.mark.parametrize("count", ["MIDCount", "MIDCounts", "UMICount", "UMICounts"])
def test_count_column_names(tmp_path: Path, count: str) -> None:
    """Each name in use is read, wherever it stands; the exon counts, a part of it, are not taken instead."""
    path = make(tmp_path / "a.gem", columns=f"x\ty\tExonCount\tgeneID\t{count}", rows="1\t2\t5\tg\t9\n")
    assert transcripts(read_gem(path))["count"].tolist() == [9]


def test_gene_column(tmp_path: Path) -> None:
    """Genes are told apart by id unless names are asked for; genes of one name are then one."""
    columns, rows = "geneID\tgeneName\tx\ty\tMIDCount\tExonCount", "E1\tA\t1\t2\t3\t3\nE2\tA\t1\t2\t4\t0\n"
    path = make(tmp_path / "a.gem", columns=columns, rows=rows)
    assert transcripts(read_gem(path))["gene"].tolist() == ["E1", "E2"]
    assert transcripts(read_gem(path, gene_column="geneName"))["gene"].tolist() == ["A", "A"]
    with pytest.raises(KeyMissingError, match=r"'symbol'.*geneName"):
        read_gem(path, gene_column="symbol")


def test_header_and_offset(tmp_path: Path) -> None:
    """The header is kept, also on disk; its offset leads to the chip and leaves "global" as the file counts."""
    header = "#FileFormat=GEMv0.1\n#BinSize=1\n#Stereo-seqChip=SS2\n#OffsetX=100\n#OffsetY=-20\n# a remark\n"
    sdata = read_gem(make(tmp_path / "a.gem", header=header), spot_size=0.7)
    sdata.write(tmp_path / "a.zarr")
    sdata = read_zarr(tmp_path / "a.zarr")
    assert sdata.attrs["gem_header"]["Stereo-seqChip"] == "SS2"
    assert transcripts(sdata)["x"].tolist() == [3.5, 0.5, 7.5]
    assert matrix(sdata, "global").tolist() == np.eye(3).tolist()
    assert matrix(sdata, "chip").tolist() == [[1, 0, 100], [0, 1, -20], [0, 0, 1]]
    assert np.allclose(matrix(sdata, "micron"), np.diag([0.7, 0.7, 1]))


def test_no_offset_no_chip(tmp_path: Path) -> None:
    """Without an offset the place on the chip is unknown, not zero."""
    assert sorted(read_gem(make(tmp_path / "a.gem")).coordinate_systems) == ["global", "micron"]


def test_large_file_is_cut_into_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows, read in several blocks and kept in several partitions, are all there and in order."""
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", 100_000)
    n = 250_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"geneID": rng.integers(0, 3000, n).astype(str), "x": np.arange(n), "y": 5, "MIDCount": 1})
    frame.to_csv(tmp_path / "a.gem", sep="\t", index=False)
    sdata = read_gem(tmp_path / "a.gem")
    points = transcripts(sdata)
    assert sdata.points["transcripts"].npartitions == 3
    assert (points["x"].to_numpy() == frame["x"] + 0.5).all()
    assert (points["gene"].astype(str).to_numpy() == frame["geneID"]).all()
    assert points["gene"].cat.categories.is_monotonic_increasing


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GEM of three partitions, read in many blocks."""
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", 1000)
    monkeypatch.setattr("sslcst.io._gem._BLOCK", 1000)
    return make(tmp_path / "many.gem", rows=ROWS * 900)


def test_temporary_rows_go_with_the_last_that_reads_them(many: Path, tmp_path: Path, monkeypatch) -> None:
    """Neither the object nor what was derived from it loses its rows; a copy in another process does not own them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    sdata = read_gem(many)
    (folder,) = (tmp_path / "temporary").iterdir()
    points = sdata.points["transcripts"]
    assert len(pickle.loads(pickle.dumps(points)).compute()) == 2700
    late = points[points["count"] > 100]["x"]
    del sdata, points
    gc.collect()
    assert (late.compute() == 7.5).all()
    assert len(late) == 900
    del late
    gc.collect()
    assert not folder.exists()


def test_cache_is_kept_and_never_replaced(many: Path, tmp_path: Path) -> None:
    sdata = read_gem(many, cache=tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["many.gem.parquet"]
    with pytest.raises(StoreError, match="exists"):
        read_gem(many, cache=tmp_path / "cache")
    assert transcripts(sdata)["count"].sum() == 303 * 900
    with pytest.raises(StoreError, match="cannot be written"):
        read_gem(many, cache=many / "below_a_file")


def test_a_file_that_turns_bad_leaves_nothing_behind(many: Path, tmp_path: Path) -> None:
    with many.open("a") as file:
        file.write("b\t1\t2\t-1\n")
    with pytest.raises(DataError, match="'-1'"):
        read_gem(many, cache=tmp_path / "cache")
    cut = tmp_path / "cut.gem.gz"
    text = many.read_bytes().rpartition(b"b\t1\t2\t-1\n")[0]
    cut.write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(DataError, match="cut short"):
        read_gem(cut, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_memory_is_bounded_by_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrow holds while rows stream by is the same with 5 partitions and with 25."""
    rows = 20_000
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", rows)
    held = []

    def blocks(n: int) -> Iterator[pa.RecordBatch]:
        for _ in range(n):
            held.append(pa.total_allocated_bytes())
            numbers = pa.array(np.arange(rows // 4))
            gene = numbers.cast(pa.string()).dictionary_encode()
            yield pa.record_batch(
                [numbers.cast(pa.int32()), numbers.cast(pa.int32()), gene, numbers.cast(pa.uint32())], SCHEMA
            )

    peaks = []
    for n in (20, 100):
        held.clear()
        points = spool(blocks(n), tmp_path, f"{n}.parquet", {"global": Identity()})
        assert points.npartitions == n // 4
        peaks.append(max(held) - held[0])
    assert rows * 16 < peaks[0] < 10 * rows * 16
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"rows": "g\t1\t2\t-3\n"}, "'-3'", id="negative count"),
        pytest.param({"rows": "g\t1\t2\t1.5\n"}, "'1.5'", id="count with a fraction"),
        pytest.param({"rows": "g\t1\t2\t\n"}, "integers from 0", id="empty count"),
        pytest.param({"rows": "g\t1.5\t2\t1\n"}, "'1.5'", id="coordinate with a fraction"),
        pytest.param({"rows": "g\t1\t2\n"}, "Expected 4 columns, got 3", id="short row"),
        pytest.param({"rows": ""}, "Empty", id="no rows"),
        pytest.param({"rows": "\n\n"}, "no rows", id="blank rows"),
        pytest.param({"columns": "geneID\trow\ty\tcount"}, r"lacks .*'x', 'MIDCount or .*'row'", id="columns missing"),
        pytest.param({"columns": "geneID,x,y,MIDCount"}, "tab-separated", id="commas"),
        pytest.param({"header": "#BinSize=50\n"}, "bins of 50", id="large bins"),
        pytest.param({"header": "#OffsetX=a\n#OffsetY=0\n"}, "OffsetX", id="offset that is no number"),
    ],
)
def test_refuses_what_is_no_gem(tmp_path: Path, content: dict[str, str], message: str) -> None:
    """The error names the file and what is wrong in it."""
    with pytest.raises(DataError, match=message) as error:
        read_gem(make(tmp_path / "bad.gem", **content))
    assert "bad.gem" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe not text"])
def test_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    """Empty or binary: an error of ours, not of a parser."""
    (tmp_path / "bad.gem").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.gem"):
        read_gem(tmp_path / "bad.gem")
