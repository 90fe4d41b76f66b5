"""Genes and numbers of transcripts, whatever type their columns are of: right, or refused with words."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy import sparse
from spatialdata.models import PointsModel, TableModel
from spatialdata.transformations import Identity

from sslcst._sdata.columns import as_counts, as_numbers, gene_codes
from sslcst._sdata.raster import Raster
from sslcst._sdata.transcripts import Transcripts, read_transcripts
from sslcst.errors import DataError

WHERE = {"gene_key": None, "count_key": None, "raster": Raster((50, 60), np.eye(3), "global", {})}


def points(feature_key: str | None = "gene", **columns: object) -> sd.SpatialData:
    """Five transcripts in two partitions."""
    rows = {"x": np.arange(5.0), "y": np.arange(5.0), "gene": list("abaab")} | columns
    frame = pd.DataFrame(rows).astype({name: v.dtype for name, v in columns.items() if hasattr(v, "dtype")})
    element = PointsModel.parse(frame, feature_key=feature_key, npartitions=2, transformations={"global": Identity()})
    return sd.SpatialData(points={"rna": element})


def read(sdata: sd.SpatialData) -> Transcripts:
    return read_transcripts(sdata, "rna", **WHERE)


MISSING = {
    "object, None": pd.Series(["a", None, "b", None, "a"], dtype=object),
    "object, NaN": pd.Series(["a", np.nan, "b", np.nan, "a"], dtype=object),
    "object, NA": pd.Series(["a", pd.NA, "b", pd.NA, "a"], dtype=object),
    "string": pd.Series(["a", None, "b", None, "a"], dtype="string[python]"),
    "arrow": pd.Series(["a", None, "b", None, "a"], dtype="string[pyarrow]"),
    "categorical": pd.Series(["a", None, "b", None, "a"], dtype="category"),
    "numbers": pd.Series([1, np.nan, 2, np.nan, 1]),
    "nullable numbers": pd.Series([1, None, 2, None, 1], dtype="Int64"),
    "empty": pd.Series(["a", "", "b", "", "a"]),
    "blank": pd.Series(["a", " ", "b", "\t", "a"], dtype="category"),
}


@pytest.mark.parametrize("feature_key", ["gene", None])
@pytest.mark.parametrize("kind", MISSING)
def test_missing_genes_are_refused_in_every_type(kind: str, feature_key: str | None) -> None:
    """Also where spatialdata has made them the text "None", "nan" or "<NA>", which it does when it parses genes."""
    with pytest.raises(DataError, match="Points 'rna' have 2 rows without a gene"):
        read(points(feature_key, gene=MISSING[kind]))


@pytest.mark.parametrize("feature_key", ["gene", None])
@pytest.mark.parametrize(
    ("gene", "names"),
    [
        (pd.Series([7, 10, 7, 7, 10]), ["10", "7"]),
        (pd.Series([7, 10, 7, 7, 10], dtype="category"), ["10", "7"]),
        (pd.Series([b"a", b"b", b"a", b"a", b"b"], dtype="category"), ["a", "b"]),
        (pd.Series(["NA", "null", "NA", "NA", "null"]), ["NA", "null"]),
    ],
)
def test_genes_that_are_no_text_keep_their_names(gene: pd.Series, names: list[str], feature_key: str | None) -> None:
    transcripts = read(points(feature_key, gene=gene))
    assert transcripts.genes.tolist() == names
    assert np.bincount(transcripts.gene).tolist() == ([2, 3] if names[0] == "10" else [3, 2])


def test_genes_of_one_name_are_one_gene() -> None:
    """As text 1 and "1" are the same; bytes that are no UTF-8 stay apart."""
    codes, genes = gene_codes([1, "1", b"1", "b", b"\xff", b"\xfe"])
    assert codes.tolist() == [0, 0, 0, 3, 2, 1]
    assert genes.tolist() == ["1", "\\xfe", "\\xff", "b"]


def test_nan_is_a_gene_of_the_fly_where_no_missing_value_was_made_text() -> None:
    sdata = points(gene=pd.Series(["nan", "nan", "nos", "nos", "nos"]))
    sdata.attrs["gem_header"] = {}
    assert read(sdata).genes.tolist() == ["nan", "nos"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint64", "float16", "float32", "Int64", "int32[pyarrow]"])
def test_counts_of_every_type_are_read_exactly_and_summed_without_overflow(dtype: str) -> None:
    transcripts = read(points(count=pd.Series([100, 120, 1, 127, 100]).astype(dtype)))
    assert transcripts.count.tolist() == [100, 120, 1, 127, 100]
    assert transcripts.count.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, -3, 1, 1, 1], r"-3.* in 1 of"),
        ([1, 0.5, 1, 1, 1], r"0\.5"),
        ([1, np.nan, 1, 1, 1], "nan"),
        ([1, np.inf, 1, 1, 1], "inf"),
        ([1, 1e19, 1, 1, 1], r"1e\+19"),
        (np.array([1, 2**64 - 1, 1, 1, 1], np.uint64), r"1\.8"),
        (np.array([1, 2**32, 1, 1, 1]), "4294967296"),
        (pd.Series([1, None, 1, 1, 1], dtype="Int64"), "nan"),
    ],
)
def test_what_is_no_count_is_refused_with_the_first_of_them(values: object, found: str) -> None:
    with pytest.raises(DataError, match=f"Column 'count' of points 'rna' must hold counts.*{found}"):
        read(points(count=values))


@pytest.mark.parametrize("name", ["count", "qv"])
@pytest.mark.parametrize(
    "values", [list("12345"), [Decimal(n) for n in range(5)], pd.Series(list("12345")).astype("category")]
)
def test_columns_that_hold_no_numbers_are_refused(name: str, values: object) -> None:
    with pytest.raises(DataError, match=f"Column {name!r} of points 'rna' must hold numbers"):
        read(points(**{name: values}))


@pytest.mark.parametrize("name", ["gene", "qv"])
def test_a_column_that_is_named_twice_is_read_as_both(name: str) -> None:
    """Genes are no counts; numbers are, whatever else they tell."""
    sdata = points(qv=np.arange(20, 25))
    if name == "gene":
        with pytest.raises(DataError, match="Column 'gene' of points 'rna' must hold numbers"):
            read_transcripts(sdata, "rna", **WHERE | {"count_key": name})
    else:
        assert read_transcripts(sdata, "rna", **WHERE | {"count_key": name}).count.tolist() == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64", "float16", "Float64", "int64[pyarrow]"])
def test_numbers_of_every_type_are_floats_of_64_bits(dtype: str) -> None:
    """Unsigned ones do not wrap where they are moved below zero; what is missing is NaN, which is refused of places."""
    numbers = as_numbers(pd.Series([0, 1, 200]).astype(dtype), "x")
    assert (numbers - 10).tolist() == [-10, -9, 190]
    assert np.isnan(as_numbers(pd.Series([0, None], dtype="Float64"), "x")).tolist() == [False, True]


def test_rows_that_count_nothing_or_are_of_unknown_quality_are_dropped_and_counted(caplog) -> None:
    caplog.set_level("INFO", "sslcst")
    transcripts = read(points(count=[0, 1, 2, 0, 3], qv=[40, np.nan, 30, 1, 5]))
    assert transcripts.row.tolist() == [2]
    assert "2 of count 0, 1 of unknown quality, 1 of quality below 20" in caplog.text


def table(x: object, names: list[str]) -> sd.SpatialData:
    obs = pd.DataFrame({"instance": range(3), "region": pd.Categorical(["rna"] * 3)}, index=list("abc"))
    annotation = TableModel.parse(
        AnnData(x, obs=obs, var=pd.DataFrame(index=names)), region="rna", region_key="region", instance_key="instance"
    )
    places = pd.DataFrame({"x": [1.0, 2, 3], "y": [1.0, 2, 3]})
    return sd.SpatialData(
        points={"rna": PointsModel.parse(places, transformations={"global": Identity()})}, tables={"counts": annotation}
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_columns_of_a_table_that_share_a_name_are_summed(dtype: type) -> None:
    x = sparse.csr_matrix(np.array([[100, 0, 100], [0, 1, 0], [0, 0, 3]], dtype))
    transcripts = read(table(x, ["b", "a", "b"]))
    assert transcripts.genes.tolist() == ["a", "b"]
    assert np.bincount(transcripts.gene, transcripts.count).tolist() == [1, 203]


@pytest.mark.parametrize(
    ("x", "names", "message"),
    [
        (np.array([[1, 1], [-1, 1], [1, 1]]), ["a", "b"], "X of table 'counts' must hold counts.*-1"),
        (np.array([[1, 1], [np.nan, 1], [1, 1]]), ["a", "b"], "X of table 'counts' must hold counts.*nan"),
        (np.ones((3, 2)), ["a", ""], "3 rows without a gene"),
        (None, ["a", "b"], "'counts' of points 'rna' has no X"),
    ],
)
def test_a_table_that_is_no_counts_of_genes_is_refused(x: object, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(table(x, names))


def test_counts_go_through_as_they_are() -> None:
    assert as_counts(np.array([True, False]), "X").tolist() == [1, 0]
    assert as_counts(np.array([2**32 - 1], np.uint64), "X").tolist() == [2**32 - 1]
