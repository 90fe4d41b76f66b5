"""`sslcst.tl.segment` without its work: the results are constants, so that tests of the store take no time."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel

import sslcst
from sslcst.tl import _segment

KINDS = {"nuclei": "labels", "cells": "labels", "boundaries": "shapes", "transcripts": "points", "table": "tables"}


def tissue() -> sd.SpatialData:
    """A stain, two nuclei, and some transcripts."""
    labels = np.zeros((8, 8), np.uint32)
    labels[1:3, 1:3], labels[5:7, 5:7] = 1, 2
    places = pd.DataFrame({"x": [1.5, 2.5, 5.5, 6.5], "y": [1.5, 2.5, 5.5, 6.5], "gene": list("abab")})
    return sd.SpatialData.init_from_elements(
        {
            "stain": Image2DModel.parse(np.arange(64, dtype=np.uint16).reshape(1, 8, 8), dims=("c", "y", "x")),
            "given": Labels2DModel.parse(labels, dims=("y", "x")),
            "molecules": PointsModel.parse(places, feature_key="gene"),
        }
    )


def result(kind: str, value: int, region: str = "sslcst_cells"):
    """An element whose content tells of which run it is."""
    if kind == "labels":
        return Labels2DModel.parse(np.full((8, 8), value, np.uint32), dims=("y", "x"))
    if kind == "shapes":
        return ShapesModel.parse(np.full((3, 2), float(value)), geometry=0, radius=1.0)
    if kind == "points":
        return PointsModel.parse(pd.DataFrame({"x": np.full(3, float(value)), "y": np.full(3, float(value))}))
    obs = pd.DataFrame({"cell_id": [value], "region": pd.Categorical([region])}, index=[str(value)])
    table = anndata.AnnData(np.full((1, 2), value, np.float32), obs=obs)
    table = TableModel.parse(table, region=region, region_key="region", instance_key="cell_id")
    table.uns["sslcst"] = {"seed": value}
    return table


def value_of(sdata: sd.SpatialData, name: str) -> int:
    """Of which run an element is."""
    element = sdata[name]
    if name in sdata.labels:
        return int(element.to_numpy()[0, 0])
    if name in sdata.shapes:
        return int(element.geometry.iloc[0].x)
    return int(element.compute()["x"].iloc[0]) if name in sdata.points else int(element.X[0, 0])


def without_work(patch: pytest.MonkeyPatch, *, meanwhile=lambda: None) -> None:
    """Have runs do nothing but what is told."""

    def run(sources, params, call, model, scratch, about, **_):
        meanwhile()
        results = about["results"]
        cells = next(name for name in results if name.endswith("_cells"))
        made = {name: result(kind, about["seed"], cells) for name, kind in results.items()}
        made[cells.replace("_cells", "_table")].uns["sslcst"] |= _segment._storable(about)
        return made

    patch.setattr(_segment, "_run", run)


def segment(sdata: sd.SpatialData, seed: int = 1, **kwargs) -> None:
    """One run; its results are of its seed."""
    sslcst.tl.segment(sdata, **{"nuclei_key": "given", "points_key": "molecules", "seed": seed} | kwargs)


def results_in(sdata: sd.SpatialData, key: str = "sslcst") -> dict[str, int]:
    """What there is of a prefix, and of which run."""
    names = [name for name in (f"{key}_{ending}" for ending in KINDS) if name in sdata]
    return {name.removeprefix(f"{key}_"): value_of(sdata, name) for name in names}
