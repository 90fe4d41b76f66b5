"""`pp.read_owners` and `pp.import_cells`: others' cells as they write them."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel
from spatialdata.transformations import Scale, Sequence, Translation

from sslcst import metrics
from sslcst.datasets import simulate
from sslcst.errors import DataError, KeyMissingError, ParameterError
from sslcst.pp import import_cells, read_owners


def points(column, name: str = "cell", **coordinates) -> SpatialData:
    """Transcripts in a row, one for each entry of a column of cell ids."""
    frame = pd.DataFrame({"x": np.arange(len(column)) + 0.5, "y": 0.5} | coordinates).assign(**{name: column})
    return SpatialData(points={"transcripts": PointsModel.parse(frame, npartitions=2)})


@pytest.mark.parametrize(
    ("column", "owner", "names"),
    [
        pytest.param(
            [3, 0, -1, 3, 7], [3, 0, 0, 3, 7], {3: 3, 7: 7}, id="numbers, 0 and -1 are none (MERSCOPE, CosMx)"
        ),
        pytest.param([3.0, np.nan, 5.0], [3, 0, 5], {3: 3, 5: 5}, id="floats with gaps"),
        pytest.param(np.array([1, 2**32 - 1, 9], np.uint32), [1, 0, 9], {1: 1, 9: 9}, id="largest uint32 (proseg)"),
        pytest.param([2**40, 0, 2**39], [2, 0, 1], {1: 2**39, 2: 2**40}, id="numbers too large are numbered anew"),
        pytest.param(["CRa1-12", "", "CRa1-7"], [12, 0, 7], {7: "CRa1-7", 12: "CRa1-12"}, id="Baysor"),
        pytest.param(["bbb-1", "UNASSIGNED", "aaa-1"], [2, 0, 1], {1: "aaa-1", 2: "bbb-1"}, id="Xenium"),
        pytest.param(["c_1_2_5", "c_1_2_0", "c_1_3_5"], [1, 0, 2], {1: "c_1_2_5", 2: "c_1_3_5"}, id="CosMx"),
        pytest.param(["17", "-1", "0", "nan"], [17, 0, 0, 0], {17: "17"}, id="numbers as text"),
        pytest.param(pd.Categorical([4, None, 2]), [4, 0, 2], {2: 2, 4: 4}, id="categories"),
        pytest.param(pd.array([4, None, 2], "Int64"), [4, 0, 2], {2: 2, 4: 4}, id="nullable"),
        pytest.param(["110883424764611", "x", "2"], [1, 3, 2], {1: "110883424764611", 2: "2", 3: "x"}, id="any text"),
    ],
)
def test_ids_as_others_write_them(column, owner: list, names: dict) -> None:
    found = read_owners(points(column))
    assert found.owner.dtype == np.uint32
    assert found.owner.tolist() == owner
    assert found.names.to_dict() == names


def test_what_is_unassigned_can_be_told() -> None:
    """Proseg counts its cells from 0: then they are numbered anew."""
    found = read_owners(points([0, 1, 2**32 - 1, 0], "assignment"), unassigned=[2**32 - 1])
    assert found.owner.tolist() == [1, 2, 0, 1]
    assert found.names.to_dict() == {1: 0, 2: 1}


@given(
    st.lists(st.sampled_from(["", "UNASSIGNED", "q", "CR1-5", "CR1-50", "b-5"]), min_size=1).filter(lambda c: "q" in c)
)
def test_transcripts_share_an_owner_where_they_share_a_name(column: list[str]) -> None:
    owner = read_owners(points(column)).owner
    nothing = np.isin(column, ["", "UNASSIGNED"])
    assert ((owner == 0) == nothing).all()
    same_name = np.equal.outer(np.array(column)[~nothing], np.array(column)[~nothing])
    assert (np.equal.outer(owner[~nothing], owner[~nothing]) == same_name).all()


def test_owners_of_a_simulation_are_scored_without_drawing() -> None:
    sdata = simulate(n_cells=20, seed=0)
    owner = read_owners(sdata).owner
    truth = sdata.points["transcripts"]["cell_id"].compute().to_numpy()
    assert (owner == truth).all()
    assert metrics.fraction_right(truth, owner) == 1


def test_pixels_known_by_hand() -> None:
    """Each pixel takes the nearest transcript's cell, those of no cell keep theirs, none reaches beyond 1.2."""
    sdata = points([5, 0, 9], x=[0.6, 1.6, 4.6], y=[0.4, 0.4, 0.4])
    place = Sequence([Scale([0.5, 0.5], ("x", "y")), Translation([0.1, 0.15], ("x", "y"))])
    sdata.images["stain"] = Image2DModel.parse(
        np.zeros((1, 1, 12)), dims=("c", "y", "x"), transformations={"global": place}
    )
    import_cells(sdata, "transcripts", reach=1.2)
    assert sdata.labels["imported_cells"].dtype == np.uint32
    assert sdata.labels["imported_cells"].to_numpy().tolist() == [[5, 5, 0, 0, 0, 0, 0, 9, 9, 9, 9, 0]]


def test_drawn_cells_hold_their_transcripts() -> None:
    """Without an image too; 0.5 micron pixels of a simulated tissue lose next to no transcript, and little area."""
    sdata = simulate(n_cells=40, diffusion=0, ambient=0, counts_per_cell=600, seed=0)
    truth = sdata.labels["true_cells"].to_numpy()
    import_cells(sdata, "transcripts", image_key="stain")
    drawn = sdata.labels["imported_cells"].to_numpy()
    assert metrics.mean_best_iou(truth, drawn) > 0.9
    del sdata.images["stain"]
    import_cells(sdata, "transcripts", key_added="on_points")
    frame = sdata.points["transcripts"].compute()
    from sslcst._sdata.raster import raster_of
    from sslcst.core.counts import owners

    to_system = raster_of(sdata, "on_points", "global").to_system
    yx = (frame[["y", "x"]].to_numpy() - to_system[:2, 2]) / np.diag(to_system)[:2]
    owner = owners(yx, sdata.labels["on_points"].to_numpy())
    assert np.mean(owner == frame["cell_id"].to_numpy()) > 0.97


def test_labels_and_shapes() -> None:
    cells = np.zeros((8, 8), np.uint32)
    cells[2:4, 1:5] = 7
    shapes = ShapesModel.parse(gpd.GeoDataFrame(geometry=[box(1, 2, 5, 4)], index=[7]))
    image = Image2DModel.parse(np.zeros((1, 8, 8)), dims=("c", "y", "x"))
    sdata = SpatialData(
        images={"stain": image},
        labels={"mine": Labels2DModel.parse(cells, dims=("y", "x"))},
        shapes={"outlines": shapes},
    )
    import_cells(sdata, "mine", key_added="a")
    import_cells(sdata, "outlines", key_added="b")
    assert (sdata.labels["a"].to_numpy() == cells).all()
    assert (sdata.labels["b"].to_numpy() == cells).all()


def test_the_columns_of_real_data(shared: Path) -> None:
    """The cell ids of a real Xenium file, where there is such a column: as many cells as names."""
    frame = pd.read_parquet(shared / "data" / "xenium_prime_prostate" / "transcripts.parquet")
    column = next(name for name in ("cell_id", "cell") if name in frame)
    sdata = points(frame[column].to_numpy(), x=frame["x_location"].to_numpy(), y=frame["y_location"].to_numpy())
    owners = read_owners(sdata)
    assigned = frame[column][owners.owner > 0]
    assert assigned.nunique() == len(owners.names) == len(np.unique(owners.owner)) - 1
    assert "UNASSIGNED" not in set(assigned)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: read_owners(s, points_key="no"), KeyMissingError, "no points element 'no'"),
        (lambda s: read_owners(s, cell_key="no"), KeyMissingError, "no cell column.*'no'.*'cell'"),
        (lambda s: read_owners(s, unassigned=[1, 2]), DataError, "no transcript into a cell"),
        (lambda s: read_owners(points([0.5, 1])), DataError, "fractional"),
        (lambda s: read_owners(points(["", "None"])), DataError, "no transcript into a cell"),
        (lambda s: read_owners(points([1], "nucleus")), KeyMissingError, "choose with cell_key="),
        (lambda s: import_cells(s, "no"), KeyMissingError, "'no'.*'transcripts'"),
        (lambda s: import_cells(s, "transcripts", reach=0), ParameterError, "reach=0"),
        (lambda s: import_cells(s, "transcripts", coordinate_system="mm"), KeyMissingError, "'mm'"),
        (lambda s: import_cells(points([1, 1], x=[1.0, 1.0]), "transcripts"), DataError, "all at one place"),
        (lambda s: import_cells(points([1, 1], x=[1, np.nan]), "transcripts"), DataError, "not finite"),
        (lambda s: import_cells(simulate(n_cells=5), "true_cells", reach=1), ParameterError, "reach=1 is for points"),
    ],
)
def test_refuses_what_is_wrong(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(points([1, 2]))
