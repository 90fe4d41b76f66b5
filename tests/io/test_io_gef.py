"""`sslcst.io.read_gef`: a GEF and a GEM of one chip are read alike, whatever the version, and others are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from spatialdata import SpatialData, read_zarr
from spatialdata.transformations import get_transformation

from sslcst.errors import DataError, KeyMissingError
from sslcst.io import read_gef, read_gem

# Sorted by gene; the last two genes share a name.
ROWS = pd.DataFrame(
    {
        "geneID": list("aabcc"),
        "geneName": list("xxyyy"),
        "x": [3, 0, 7, 7, 1],
        "y": [4, 9, 4, 0, 0],
        "n": [2, 1, 300, 1, 9],
    }
)


def write_gef(path: Path, rows: pd.DataFrame, *, version: int = 4, silent: tuple[str, ...] = (), **attrs: int) -> Path:
    """A file as geftools lays it out: the smallest type that holds the counts, names of 64 bytes, genes with no row."""
    width = next(t for t in (np.uint8, np.uint16, np.uint32) if rows["n"].max() <= np.iinfo(t).max)
    expression = np.zeros(len(rows), [("x", "<i4"), ("y", "<i4"), ("count", width)])
    for field, column in (("x", "x"), ("y", "y"), ("count", "n")):
        expression[field] = rows[column]
    by_gene = rows.groupby("geneID", sort=False)
    ids = [*silent[:1], *by_gene.groups, *silent[1:]]
    names = [("geneID", "S64"), ("geneName", "S64")] if version > 3 else [("gene", "S64")]
    gene = np.zeros(len(ids), [*names, ("offset", "<u4"), ("count", "<u4")])
    gene[names[0][0]] = [each.encode() for each in ids]
    if version > 3:
        gene["geneName"] = [
            by_gene.get_group(each)["geneName"].iloc[0] if each in by_gene.groups else each for each in ids
        ]
    gene["count"] = [len(by_gene.groups.get(each, ())) for each in ids]
    gene["offset"] = np.cumsum(gene["count"]) - gene["count"]
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.array([version], np.uint32)
        file.attrs["omics"] = np.bytes_("Transcriptomics")
        counts = file.create_dataset("geneExp/bin1/expression", data=expression)
        file["geneExp/bin1/gene"] = gene
        file["geneExp/bin1/exon"] = np.ones(len(rows), np.uint8)
        file["geneExp/bin50/expression"] = expression[:1]
        for name, value in ({"minX": 100, "minY": -20, "resolution": 500} | attrs).items():
            counts.attrs[name] = np.array([value], np.int32)
    return path


def write_gem(path: Path, rows: pd.DataFrame) -> Path:
    with path.open("w") as file:
        file.write("#BinSize=1\n#OffsetX=100\n#OffsetY=-20\n")
        rows.rename(columns={"n": "MIDCount"}).to_csv(file, sep="\t", index=False)
    return path


def transcripts(sdata: SpatialData) -> pd.DataFrame:
    return sdata.points["transcripts"].compute()


def matrices(sdata: SpatialData) -> dict[str, list]:
    steps = get_transformation(sdata.points["transcripts"], get_all=True)
    return {name: step.to_affine_matrix(("x", "y"), ("x", "y")).tolist() for name, step in steps.items()}


def same(a: SpatialData, b: SpatialData) -> None:
    pd.testing.assert_frame_equal(transcripts(a), transcripts(b))
    assert matrices(a) == matrices(b)


@pytest.mark.parametrize(("version", "gene_column"), [(2, None), (4, None), (4, "geneID"), (4, "geneName")])
def test_gef_and_gem_of_one_chip_are_read_alike(tmp_path: Path, version: int, gene_column: str | None) -> None:
    """Rows, genes and systems; a gene without rows is no gene."""
    gef = write_gef(tmp_path / "a.gef", ROWS, version=version, silent=("0", "zz"))
    gem = write_gem(tmp_path / "a.gem", ROWS)
    same(read_gef(gef, gene_column=gene_column), read_gem(gem, gene_column=gene_column or "geneID"))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_partitions_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Partitions that cut a gene, hold several, or end with one."""
    path = write_gef(tmp_path / "a.gef", ROWS)
    whole = read_gef(path)
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", size)
    parts = read_gef(path)
    points = parts.points["transcripts"]
    assert points.npartitions == -(-len(ROWS) // size)
    assert points["gene"].cat.known
    assert points.divisions[-1] == len(ROWS) - 1
    same(parts, whole)


def test_real_counts_survive_the_way_through_gef_and_store(shared: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", 20_000)
    with gzip.open(next((shared / "data" / "stereoseq_gem").glob("*.gem.gz"))) as file:
        rows = pd.read_csv(file, sep="\t", keep_default_na=False).sort_values(
            "geneID", kind="stable", ignore_index=True
        )
    rows.columns = ["geneID", "x", "y", "n"]
    sdata = read_gef(write_gef(tmp_path / "a.gef", rows, version=2))
    same(sdata, read_gem(write_gem(tmp_path / "a.gem", rows)))
    sdata.write(tmp_path / "a.zarr")
    stored = read_zarr(tmp_path / "a.zarr")
    assert stored.points["transcripts"].npartitions == 4
    assert (transcripts(stored)["count"].to_numpy() == rows["n"]).all()
    assert (transcripts(stored)["gene"].astype(str).to_numpy() == rows["geneID"]).all()
    assert stored.attrs["gef_header"] == {
        "version": 2, "omics": "Transcriptomics", "minX": 100, "minY": -20, "resolution": 500
    }  # fmt: skip


def test_spot_size_is_the_files_resolution_unless_given(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef", ROWS, resolution=715)
    assert matrices(read_gef(path))["micron"][0][0] == pytest.approx(0.715)
    assert matrices(read_gef(path, spot_size=0.5))["micron"][0][0] == 0.5
    with pytest.raises(DataError, match="resolution"):
        read_gef(write_gef(tmp_path / "b.gef", ROWS, resolution=0))


def test_names_end_at_the_first_zero_byte(tmp_path: Path) -> None:
    """geftools leaves what was in memory behind it."""
    path = write_gef(tmp_path / "a.gef", ROWS)
    with h5py.File(path, "r+") as file:
        gene = file["geneExp/bin1/gene"][:]
        gene["geneID"] = [b"a\0\xff\x01", b"b\0b", b"c"]
        file["geneExp/bin1/gene"][...] = gene
    assert transcripts(read_gef(path))["gene"].tolist() == list("aabcc")


def test_what_is_read_later_is_found_wherever_one_works_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files were named by relative paths: the GEF itself, a stain, the cache of a GEM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sslcst.io._partitions.ROWS_PER_PARTITION", 2)
    tifffile.imwrite("a.tif", np.ones((4, 5), np.uint8))
    found = [
        read_gef(write_gef(Path("a.gef"), ROWS), image="a.tif"),
        read_gem(write_gem(Path("a.gem"), ROWS), image="a.tif", cache="cache"),
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for sdata in found:
        assert len(transcripts(sdata)) == len(ROWS)
        assert sdata["stain"].to_numpy().sum() == 20


def test_attributes_of_any_kind_go_into_a_store(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef", ROWS)
    with h5py.File(path, "r+") as file:
        file.attrs["kits"], file.attrs["sizes"] = np.array([b"v1", b"v1.3"]), np.array([1, 2])
        file.attrs["remark"] = h5py.Empty("S9")
    read_gef(path).write(tmp_path / "a.zarr")
    header = read_zarr(tmp_path / "a.zarr").attrs["gef_header"]
    assert (header["kits"], header["sizes"], header["remark"]) == (["v1", "v1.3"], [1, 2], [])
    assert header["omics"] == "Transcriptomics"


def damage(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value


def test_refuses_what_is_no_gef(tmp_path: Path) -> None:
    """The error names the file and what is wrong in it."""
    (tmp_path / "text.gef").write_text("geneID\tx\ty\n")
    with pytest.raises(DataError, match=r"text\.gef is no HDF5"):
        read_gef(tmp_path / "text.gef")
    with pytest.raises(FileNotFoundError):
        read_gef(tmp_path / "none.gef")
    path = write_gef(tmp_path / "a.gef", ROWS)
    with pytest.raises(KeyMissingError, match=r"'symbol'.*geneName"):
        read_gef(path, gene_column="symbol")
    damage(path, "geneExp/bin1/gene", None)
    with pytest.raises(DataError, match="single spots"):
        read_gef(path)


@pytest.mark.parametrize("field", ["offset", "count"])
def test_refuses_genes_that_do_not_fit_the_rows(tmp_path: Path, field: str) -> None:
    path = write_gef(tmp_path / "a.gef", ROWS)
    with h5py.File(path) as file:
        gene = file["geneExp/bin1/gene"][:]
    gene[field][1] += 1
    damage(path, "geneExp/bin1/gene", gene)
    with pytest.raises(DataError, match="offsets of its 3 genes do not fit its 5 rows"):
        read_gef(path)


def test_refuses_a_file_without_counts(tmp_path: Path) -> None:
    path = write_gef(tmp_path / "a.gef", ROWS)
    with h5py.File(path) as file:
        none, gene = file["geneExp/bin1/expression"][:0], file["geneExp/bin1/gene"][:0]
    damage(path, "geneExp/bin1/expression", none)
    damage(path, "geneExp/bin1/gene", gene)
    with pytest.raises(DataError, match="no counts"):
        read_gef(path)
