"""Chips small enough for a second, segmented by tiles or as a whole; several test files use them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import spatialdata as sd
from spatialdata.models import Labels2DModel, PointsModel
from spatialdata.transformations import Identity, get_transformation

import sslcst
from sslcst.core.polygons import polygons

QUICK = {  # of "ssl-cst"
    "encoder": {"width": 16, "depth": 2, "hidden": (16,)},
    "training": {"max_epochs": 1, "min_steps": 2, "field_size": 2000},
    "sampling": {"max_samples": 300},
    "inputs": {"n_neighbors": 12},
    "tiles": {"size": 32, "block": 32},
}


def chip(seed: int = 0, *, n_cells: int = 120) -> sd.SpatialData:
    """Nuclei and transcripts, in memory: many small cells, so that a tile sees but a part of them."""
    whole = _simulated(seed, n_cells)
    return sd.SpatialData.init_from_elements({name: whole[name] for name in ("stain", "true_nuclei", "transcripts")})


@lru_cache(maxsize=8)
def _simulated(seed: int, n_cells: int) -> sd.SpatialData:
    return sslcst.datasets.simulate(n_cells=n_cells, n_genes=50, counts_per_cell=60, cell_diameter=6, seed=seed)


def with_nuclei(sdata: sd.SpatialData, nuclei: np.ndarray) -> sd.SpatialData:
    """The chip with other nuclei."""
    transformations = dict(get_transformation(sdata["true_nuclei"], get_all=True))
    sdata["true_nuclei"] = Labels2DModel.parse(
        nuclei.astype(np.uint32), dims=("y", "x"), transformations=transformations
    )
    return sdata


def with_transcripts(sdata: sd.SpatialData, frame: pd.DataFrame, npartitions: int = 1) -> sd.SpatialData:
    """The chip with other transcripts."""
    del sdata.points["transcripts"]
    sdata["transcripts"] = PointsModel.parse(
        frame.reset_index(drop=True),
        feature_key="gene",
        npartitions=npartitions,
        transformations={"global": Identity()},
    )
    return sdata


def params_of(*changes: dict) -> dict:
    """The quick parameters with some sections changed; of a section, what is named."""
    params = dict(QUICK)
    for change in changes:
        params |= {name: params.get(name, {}) | to for name, to in change.items()}
    return params


def segment_whole(sdata: sd.SpatialData, params: dict = QUICK, method="ssl-cst", **kwargs) -> object:
    """Segment as a whole, step by step; the model."""
    sslcst.pp.import_nuclei(sdata, "true_nuclei")
    sslcst.pp.bin_spots(sdata, params=params)
    model = sslcst.tl.train(sdata, method=method, params=params, **kwargs)
    sslcst.tl.predict(sdata, model, params=params)
    sslcst.tl.track(sdata, model, params=params)
    sslcst.tl.aggregate(sdata, params=params)
    return model


def segment(sdata: sd.SpatialData, params: dict = QUICK, **kwargs) -> None:
    """Segment by tiles, with all that can be asked for."""
    asked = {"nuclei_key": "true_nuclei", "method": "ssl-cst", "shapes": True, "assign_points": True}
    sslcst.tl.segment(sdata, params=params, **asked | kwargs)


def assert_same_cells(one: sd.SpatialData, other: sd.SpatialData) -> None:
    """Labels and tables are the same to the last bit."""
    for name in ("sslcst_nuclei", "sslcst_cells"):
        np.testing.assert_array_equal(one[name].to_numpy(), other[name].to_numpy())
    a, b = one["sslcst_table"], other["sslcst_table"]
    assert list(a.var_names) == list(b.var_names)
    pd.testing.assert_frame_equal(a.obs, b.obs, check_exact=True, check_categorical=False)
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])
    for x, y in ((a.X, b.X), (a.layers["nuclear"], b.layers["nuclear"])):
        assert x.dtype == y.dtype
        assert (x != y).nnz == 0


def assert_whole(sdata: sd.SpatialData, whole: sd.SpatialData, model: object) -> None:
    """What was segmented by tiles is what was segmented as a whole, model, boundaries and owners too."""
    if hasattr(model, "sha256"):
        assert sdata["sslcst_table"].uns["sslcst"]["model"]["sha256"] == model.sha256()
    assert_same_cells(sdata, whole)
    cells = whole["sslcst_cells"].to_numpy()
    rings = polygons(cells)
    boundaries = sdata["sslcst_boundaries"]
    assert boundaries.index.tolist() == sorted(rings)
    for name, boundary in boundaries.geometry.items():
        np.testing.assert_array_equal(np.array(boundary.exterior.coords)[:-1, ::-1], rings[name])
    points, spots = sdata["sslcst_transcripts"].compute(), whole["sslcst_spots"]
    before = whole["transcripts"].compute().drop(columns="cell_id", errors="ignore")
    pd.testing.assert_frame_equal(points[before.columns], before, check_categorical=False)
    pixel = np.floor(points[["y", "x"]].to_numpy(np.float64) / 0.5)
    on = ((pixel >= 0) & (pixel < cells.shape)).all(axis=1)
    owner = np.zeros(len(points), np.uint32)
    owner[on] = cells[tuple(pixel[on].astype(int).T)]
    np.testing.assert_array_equal(points["cell_id"], owner)
    bins = np.floor(points[["y", "x"]].to_numpy(np.float64) / 0.5 / spots.uns["sslcst"]["step"]).astype(int)
    inside = pd.Series(spots.obs["probability"].to_numpy(), pd.MultiIndex.from_frame(spots.obs[["row", "column"]]))
    expected = inside.reindex(pd.MultiIndex.from_arrays(bins.T)).to_numpy()
    np.testing.assert_array_equal(points["probability"], np.where(on, expected, 0))
