"""Transcripts: a partition at a time gives what all at once gives, and what is left out is what was asked for."""

from __future__ import annotations

import logging
import pickle

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from spatialdata.models import PointsModel, TableModel
from spatialdata.transformations import Affine, Identity

import sslcst._sdata.transcripts
from sslcst._sdata.raster import Raster, apply_affine
from sslcst._sdata.transcripts import Transcripts, columns_of, open_transcripts, read_transcripts
from sslcst.errors import DataError, KeyMissingError
from sslcst.params import TranscriptParams

RASTER = Raster((50, 60), np.array([[0.5, 0, 3], [0, 0.25, -2], [0, 0, 1]]), "global", {})
NAMES = ["Actb", "Blank-1", "Cd3e", "NegControlProbe_00042", "Xist"]
CONTROLS = {"Blank-1", "NegControlProbe_00042"}
WHERE = {"gene_key": None, "count_key": None, "raster": RASTER}


def frame_of(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": rng.uniform(0, 30, n),
            "x": rng.uniform(0, 20, n),
            "gene": rng.choice(NAMES, n),
            "count": rng.integers(1, 9, n),
            "qv": rng.choice([5.0, 19.9, 20.0, 40.0], n),
        }
    )


def points_of(parts: list[pd.DataFrame]) -> sd.SpatialData:
    """Points of these partitions, each of which knows its own genes alone, as where they are read from files."""
    ends = np.cumsum([0, *map(len, parts)])
    parts = [
        part.assign(gene=part["gene"].astype("category")).set_axis(range(start, end))
        for part, start, end in zip(parts, ends, ends[1:], strict=False)
    ]
    meta = parts[0].assign(gene=parts[0]["gene"].cat.set_categories([dd.utils.UNKNOWN_CATEGORIES])).iloc[:0]
    frame = dd.from_map(lambda i: parts[i], range(len(parts)), meta=meta)
    points = PointsModel.parse(frame, feature_key="gene", transformations={"global": Identity()})
    return sd.SpatialData(points={"transcripts": points})


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=25)
def test_partitions_are_the_rows_that_pandas_keeps(sizes: list[int], seed: int) -> None:
    """Positions, genes, counts and row numbers, against a selection in pandas on the concatenated rows."""
    parts = [frame_of(n, seed + i) for i, n in enumerate(sizes)]
    rows = pd.concat(parts, ignore_index=True)
    kept = rows[(rows["qv"] >= 20) & ~rows["gene"].isin(CONTROLS)]
    if kept.empty:
        with pytest.raises(DataError, match=r"'transcripts' are empty|is kept"):
            open_transcripts(points_of(parts), "transcripts", **WHERE)
        return
    source = open_transcripts(points_of(parts), "transcripts", **WHERE)
    assert source.genes.tolist() == sorted(kept["gene"].unique())
    assert source.n_partitions == len(parts)
    ends = np.cumsum([0, *sizes])
    for i, part in enumerate(source.partitions()):
        expected = kept[(kept.index >= ends[i]) & (kept.index < ends[i + 1])]
        assert part.row.tolist() == expected.index.tolist()
        assert part.genes[part.gene].tolist() == expected["gene"].tolist()
        assert part.count.tolist() == expected["count"].tolist()
        pixels = np.column_stack([(expected["y"] - 3) / 0.5, (expected["x"] + 2) / 0.25])
        np.testing.assert_allclose(part.yx, pixels.reshape(-1, 2), atol=1e-9)


def same(one: Transcripts, other: Transcripts) -> None:
    for name in ("yx", "gene", "count", "row"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.genes.equals(other.genes)


def test_a_source_goes_to_another_process_before_and_after_a_store(tmp_path) -> None:
    """What is pickled reads the same, in any order; rows and genes outlive the way through a store."""
    sdata = points_of([frame_of(40, i) for i in range(3)])
    source = open_transcripts(sdata, "transcripts", **WHERE)
    sdata.write(tmp_path / "a.zarr")
    stored = open_transcripts(sd.read_zarr(tmp_path / "a.zarr"), "transcripts", **WHERE)
    for other in (pickle.loads(pickle.dumps(stored)), stored):
        for i in (2, 0, 1):
            same(other.partition(i), source.partition(i))
    whole = read_transcripts(sdata, "transcripts", **WHERE)
    assert whole.row.tolist() == np.concatenate([part.row for part in stored.partitions()]).tolist()
    assert whole.yx.shape == (len(whole.row), 2)


def test_what_is_left_out_can_be_changed_and_is_counted(caplog) -> None:
    sdata = points_of([frame_of(200, 0), frame_of(100, 1)])
    rows = pd.concat([frame_of(200, 0), frame_of(100, 1)])
    low = (rows["qv"] < 20).sum()
    controls = ((rows["qv"] >= 20) & rows["gene"].isin(CONTROLS)).sum()
    with caplog.at_level(logging.INFO, "sslcst"):
        source = open_transcripts(sdata, "transcripts", **WHERE)
    dropped = f"Dropped {low + controls} of 300 transcripts of points 'transcripts'"
    assert f"{dropped}: {low} of quality below 20, {controls} of control probes." in caplog.text
    assert sum(len(part.row) for part in source.partitions()) == 300 - low - controls

    everything = TranscriptParams(min_quality=0, exclude="")
    assert read_transcripts(sdata, "transcripts", **WHERE, params=everything).row.tolist() == list(range(300))
    one = TranscriptParams(min_quality=0, exclude="A|X")
    assert read_transcripts(sdata, "transcripts", **WHERE, params=one).genes.tolist() == NAMES[1:4]
    none = TranscriptParams(exclude=".")
    with pytest.raises(
        DataError, match=r"None of the 300 transcripts of points 'transcripts' is kept.*transcripts\.exclude"
    ):
        open_transcripts(sdata, "transcripts", **WHERE, params=none)


@pytest.mark.parametrize(
    "name",
    [
        *("NegControlProbe_00042", "NegControlCodeword_0500", "UnassignedCodeword_0001", "DeprecatedCodeword_0563"),
        *("Intergenic_Region_14000", "BLANK_0069", "antisense_PROKR2"),  # Xenium
        *("Blank-1", "Blank-49"),  # MERSCOPE
        *("NegPrb01", "Negative1", "SystemControl11", "FalseCode3"),  # CosMx
    ],
)
def test_the_vendors_controls_are_no_genes(name: str) -> None:
    sdata = points_of([frame_of(9).assign(qv=40.0, gene=["NEGR1", "BLNK", "antisense"] * 2 + [name] * 3)])
    assert read_transcripts(sdata, "transcripts", **WHERE).genes.tolist() == ["BLNK", "NEGR1", "antisense"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", np.nan, "have 2 rows with NaN or infinite x or y: drop them"),
        ("y", np.inf, "have 2 rows with NaN or infinite x or y: drop them"),
        ("gene", None, "have 2 rows without a gene"),
        ("count", 0.5, "Column 'count' of points 'transcripts' must hold counts"),
    ],
)
def test_a_fault_in_any_partition_is_found_at_the_opening(column: str, value: object, message: str) -> None:
    parts = [frame_of(5, i).astype({"count": float}) for i in range(4)]
    for part in parts[2:]:
        part.loc[3, column] = value
    with pytest.raises(DataError, match=message):
        open_transcripts(points_of(parts), "transcripts", **WHERE)


@pytest.fixture
def places() -> tuple[sd.SpatialData, pd.DataFrame]:
    """Places annotated by a table in another order, and the same counts one by one."""
    rng = np.random.default_rng(0)
    yx = pd.DataFrame(rng.uniform(0, 20, (30, 2)), columns=["y", "x"])
    order = rng.permutation(30)[:25]
    counts = rng.poisson(0.6, (25, len(NAMES)))
    obs = pd.DataFrame({"instance": order, "region": pd.Categorical(["bins"] * 25)}, index=order.astype(str))
    var = pd.DataFrame(index=NAMES[::-1])
    table = TableModel.parse(
        AnnData(sparse.csr_matrix(counts), obs=obs, var=var),
        region="bins",
        region_key="region",
        instance_key="instance",
    )
    points = PointsModel.parse(yx, transformations={"global": Identity()})
    place, gene = counts.nonzero()
    entries = pd.DataFrame({"row": order[place], "gene": var.index[gene], "count": counts[place, gene]})
    return sd.SpatialData(points={"bins": points}, tables={"table": table}), entries.join(yx, on="row")


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_places_with_a_table_are_read_in_blocks(places, block: int, monkeypatch) -> None:
    """Each entry of the table once, with the row of its place, whatever the size of a block."""
    sdata, entries = places
    monkeypatch.setattr(sslcst._sdata.transcripts, "_BLOCK", block)
    source = open_transcripts(sdata, "bins", **WHERE)
    assert source.n_partitions > 1 or block == 10_000
    parts = list(pickle.loads(pickle.dumps(source)).partitions())
    found = pd.concat(
        [pd.DataFrame({"row": p.row, "gene": p.genes[p.gene], "count": p.count, "y": p.yx[:, 0]}) for p in parts]
    )
    expected = entries[~entries["gene"].isin(CONTROLS)].assign(y=lambda e: (e["y"] - 3) / 0.5)
    by = ["row", "gene"]
    pd.testing.assert_frame_equal(
        found.sort_values(by, ignore_index=True),
        expected.sort_values(by, ignore_index=True)[["row", "gene", "count", "y"]],
    )


@pytest.mark.parametrize("feature_key", ["symbol", None])
def test_a_column_of_genes_counts_before_tables_of_the_points(places, feature_key: str | None) -> None:
    """However many others have made of them, as embeddings of transcripts: what the element names, or a usual name."""
    sdata, _ = places
    frame = sdata["bins"].compute().assign(**{feature_key or "gene": "Actb"})
    sdata["bins"] = PointsModel.parse(frame, feature_key=feature_key, transformations={"global": Identity()})
    sdata["more"] = sdata["table"].copy()
    assert columns_of(sdata, "bins", None, None) == {"gene_key": feature_key or "gene", "count_key": None}
    assert read_transcripts(sdata, "bins", **WHERE).genes.tolist() == ["Actb"]


def test_a_table_of_places_that_are_not_there_is_refused(places) -> None:
    sdata, _ = places
    sdata.tables["table"].obs["instance"] += 10
    with pytest.raises(DataError, match="Table 'table' has rows for which points 'bins' have no instance"):
        open_transcripts(sdata, "bins", **WHERE)


def test_a_transformation_is_applied_once() -> None:
    """Points in microns, turned: against the matrices multiplied by hand."""
    sdata = points_of([frame_of(20).assign(qv=40.0)])
    turn = np.array([[0, -2, 5], [3, 0, 1], [0, 0, 1.0]])
    sd.transformations.set_transformation(sdata["transcripts"], Affine(turn, ("y", "x"), ("y", "x")), "global")
    read = read_transcripts(sdata, "transcripts", **WHERE)
    own = frame_of(20)[["y", "x"]].to_numpy()[read.row]
    expected = np.linalg.solve(RASTER.to_system, turn @ np.column_stack([own, np.ones(len(own))]).T)[:2].T
    np.testing.assert_allclose(read.yx, expected, atol=1e-9)


def test_a_place_is_the_same_to_the_last_bit_whatever_is_read_with_it() -> None:
    """Else the bin of a transcript on the edge of two would depend on how a store is cut into partitions."""
    rng = np.random.default_rng(0)
    matrix = np.eye(3)
    matrix[:2] = rng.normal(0, 3, (2, 3))
    yx = rng.uniform(0, 1e4, (257, 2))
    alone = np.concatenate([apply_affine(matrix, place[None]) for place in yx])
    assert np.array_equal(apply_affine(matrix, yx), alone)
    np.testing.assert_allclose(alone, (matrix @ np.column_stack([yx, np.ones(len(yx))]).T)[:2].T)


def test_categories_without_a_row_are_no_genes() -> None:
    frame = frame_of(20)
    wider = pd.CategoricalDtype(["", "nan", *sorted(set(frame["gene"].astype(str))), "zz"])
    expected, read = (
        read_transcripts(points_of([frame.assign(gene=frame["gene"].astype(dtype))]), "transcripts", **WHERE)
        for dtype in ("category", wider)
    )
    assert read.genes.equals(expected.genes)
    assert np.array_equal(read.gene, expected.gene)


def test_no_count_column_is_one_molecule_a_row() -> None:
    sdata = points_of([frame_of(5).drop(columns="count")])
    assert read_transcripts(sdata, "transcripts", **WHERE).count is None
    with pytest.raises(KeyMissingError, match="no column 'n'"):
        open_transcripts(sdata, "transcripts", **(WHERE | {"count_key": "n"}))


def test_a_real_run_streams_to_the_same_counts(shared) -> None:
    """A crop of a Xenium Prime run in eight partitions: the counts by gene are those of the vendor's file."""
    rows = pd.read_parquet(shared / "data" / "xenium_prime_prostate" / "transcripts.parquet")
    frame = dd.from_pandas(rows.rename(columns={"x_location": "x", "y_location": "y"}), npartitions=8)
    points = PointsModel.parse(frame, feature_key="feature_name", transformations={"global": Identity()})
    source = open_transcripts(sd.SpatialData(points={"transcripts": points}), "transcripts", **WHERE)
    counts = sum(np.bincount(part.gene, minlength=len(source.genes)) for part in source.partitions())
    names = rows.loc[rows["qv"] >= 20, "feature_name"].astype(str)
    expected = names[~names.str.contains("Codeword|Control|Intergenic")].value_counts().sort_index()
    assert dict(zip(source.genes, counts, strict=True)) == expected.to_dict()
