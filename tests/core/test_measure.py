"""The measures of cells: the same as loops and group-bys, of the whole or of parts."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcst.core.measure import Cells, measure

SHAPE, N_GENES = (14, 17), 4
IDS = np.array([0, 3, 7, 70_000, 4_000_000_000], np.uint32)


def tissue(seed: int, *, counted: bool) -> dict:
    """Cells of any shape; each pixel of one may lie in its nucleus. Transcripts and spots, on the raster and off it."""
    rng = np.random.default_rng(seed)
    cells = IDS[rng.integers(0, len(IDS), SHAPE)]
    return {
        "cells": cells,
        "nuclei": np.where(rng.random(SHAPE) < 0.3, cells, 0).astype(np.uint32),
        "pixel": rng.integers(-1, np.add(SHAPE, 1), (200, 2)),
        "gene": rng.integers(0, N_GENES, 200),
        "count": rng.integers(1, 100_000, 200) if counted else None,
        "spot": rng.uniform(0, SHAPE, (60, 2)),
        "inside": rng.random(60).astype(np.float32),
    }


def measured(data: dict, **window) -> Cells:
    return measure(**(data | window), raster_shape=SHAPE, n_genes=N_GENES)


def at(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Label of each place, 0 off the raster."""
    on = ((places >= 0) & (places < SHAPE)).all(axis=1)
    rows, columns = np.where(on[:, None], places, 0).astype(int).T
    return np.where(on, labels[rows, columns], 0)


@given(seed=st.integers(0, 2**32 - 1), counted=st.booleans())
@settings(max_examples=40)
def test_measures_are_those_of_a_group_by(seed: int, counted: bool) -> None:
    data = tissue(seed, counted=counted)
    found = measured(data)
    row, column = np.indices(SHAPE)
    edge = (row == 0) | (column == 0) | (row == SHAPE[0] - 1) | (column == SHAPE[1] - 1)
    pixels = pd.DataFrame(
        {
            "cell": data["cells"].ravel(),
            "y": row.ravel() + 0.5,
            "x": column.ravel() + 0.5,
            "edge": edge.ravel(),
            "in_nucleus": data["nuclei"].ravel() > 0,
        }
    )
    by_cell = pixels[pixels["cell"] > 0].groupby("cell")
    assert found.id.tolist() == list(by_cell.groups)
    assert found.area.tolist() == by_cell.size().tolist()
    assert found.nucleus_area.tolist() == by_cell["in_nucleus"].sum().tolist()
    assert found.center == pytest.approx(by_cell[["y", "x"]].mean().to_numpy(), rel=1e-12)
    assert found.touches_border.tolist() == by_cell["edge"].any().tolist()

    spots = pd.DataFrame({"cell": at(data["cells"], data["spot"]), "inside": data["inside"].astype(float)})
    of_spots = spots.groupby("cell")["inside"].agg(["size", "mean"]).reindex(found.id)
    assert found.n_spots.tolist() == of_spots["size"].fillna(0).tolist()
    assert found.mean_prob == pytest.approx(of_spots["mean"].to_numpy(), rel=1e-6, nan_ok=True)

    molecules = pd.DataFrame({"gene": data["gene"], "count": data["count"] if counted else 1})
    for name, labels in (("counts", data["cells"]), ("nuclear", data["nuclei"])):
        molecules["cell"] = at(labels, data["pixel"])
        expected = molecules.pivot_table(index="cell", columns="gene", values="count", aggfunc="sum", fill_value=0)
        expected = expected.reindex(index=found.id, columns=range(N_GENES), fill_value=0)
        assert np.array_equal(getattr(found, name).toarray(), expected.to_numpy())


def same(one: Cells, other: Cells) -> bool:
    for each in fields(Cells):
        a, b = getattr(one, each.name), getattr(other, each.name)
        if each.name in ("counts", "nuclear"):
            a, b = a.toarray(), b.toarray()
        if not np.array_equal(a, b, equal_nan=each.name == "mean_prob"):
            return False
    return True


def strips(seed: int) -> tuple[dict, list[np.ndarray]]:
    """Cells in the upper and in the lower half of a tissue, and the ids of each half."""
    data = tissue(seed, counted=True)
    half = SHAPE[0] // 2
    lower = np.isin(data["cells"], IDS[3:])
    lower[:half] = ~lower[:half]
    data["cells"] = np.where(lower, data["cells"], 0)
    data["nuclei"] = np.where(lower, data["nuclei"], 0)
    return data, [IDS[1:3], IDS[3:]]


def joined(parts: list[Cells]) -> Cells:
    return Cells.join(lambda name: (getattr(part, name) for part in parts))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_parts_join_to_the_whole(seed: int) -> None:
    """Each measures the cells that are wanted, from a window that holds them and what lies on them, to the last bit."""
    data, (of_upper, of_lower) = strips(seed)
    whole, half = measured(data), SHAPE[0] // 2
    parts = [
        measured(data | {"cells": data["cells"][rows], "nuclei": data["nuclei"][rows]}, corner=corner, wanted=wanted)
        for rows, corner, wanted in (
            (np.s_[half - 2 :], (half - 2, 0), of_lower),
            (np.s_[: half + 1], (0, 0), of_upper),
        )
    ]
    assert same(joined(parts[::-1]), whole)
    assert same(joined(parts), whole)


def test_only_wanted_cells_that_are_in_view_are_measured() -> None:
    data = tissue(0, counted=False)
    found = measured(data, wanted=np.array([1, 7, 4_000_000_000, 4_000_000_001]))
    assert found.id.tolist() == [7, 4_000_000_000]
    assert len(measured(data, wanted=np.array([5]))) == 0


def test_a_tissue_without_cells_has_no_measures() -> None:
    data = tissue(0, counted=False)
    empty = np.zeros(SHAPE, np.uint32)
    found = measured(data | {"cells": empty, "nuclei": empty})
    assert len(found) == 0
    assert found.counts.shape == found.nuclear.shape == (0, N_GENES)
    assert len(joined([found, measured(data)])) == 4
