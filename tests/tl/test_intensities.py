"""Mean intensities of the stains in each cell: the same as by loops, on any grids, by blocks, in a store."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

import sslcst
from sslcst.errors import DataError, KeyMissingError
from sslcst.tl import _intensities

CHANNELS = ["DAPI", "ATP1A1/CD45", "18S"]
IDS = np.array([0, 3, 7, 70_000, 4_000_000_000], np.uint32)


def made(image=None, labels=None, transformation=None, **kwargs) -> sd.SpatialData:
    """Cells of random pixels on an image of three channels; the table lacks one cell, and has one without a pixel."""
    rng = np.random.default_rng(0)
    if image is None:
        image = rng.integers(0, 65_535, (3, 50, 70)).astype(np.uint16)
    if labels is None:
        labels = IDS[rng.integers(0, len(IDS), (50, 70))]
    ids = [70_000, 3, 4_000_000_000, 9]
    obs = pd.DataFrame({"cell_id": np.array(ids, np.uint32), "region": pd.Categorical(["sslcst_cells"] * len(ids))})
    table = AnnData(np.ones((len(ids), 2), np.float32), obs=obs.set_axis(list("wxyz")))
    where = {"global": transformation or Identity()}
    return sd.SpatialData.init_from_elements(
        {
            "stain": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=CHANNELS, **kwargs),
            "sslcst_cells": Labels2DModel.parse(labels, dims=("y", "x"), transformations=where),
            "sslcst_table": TableModel.parse(table, "sslcst_cells", "region", "cell_id"),
        }
    )


def expected(image, labels) -> np.ndarray:
    """With cells in the order of the table."""
    rows = [image[:, labels == cell].astype(float).mean(axis=1) for cell in (70_000, 3, 4_000_000_000)]
    return np.stack([*rows, [np.nan] * 3])


@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_means_are_those_of_each_cell_whatever_the_blocks(kind, side, monkeypatch):
    monkeypatch.setattr(_intensities, "_SIDE", side)
    image = np.random.default_rng(1).integers(0, 200, (3, 50, 70)).astype(kind)
    sdata = made(da.from_array(image, chunks=(1, 20, 30)))
    sslcst.tl.intensities(sdata)
    table = sdata["sslcst_table"]
    found = table.obsm["intensities"]
    np.testing.assert_array_equal(found, expected(image, sdata["sslcst_cells"].to_numpy()))
    assert list(found.columns) == ["DAPI", "ATP1A1_CD45", "18S"]
    assert list(found.index) == list(table.obs_names) == list("wxyz")


def test_in_a_store_of_several_scales(tmp_path):
    """Which the table can be written to, with channels as Xenium names them; nothing is written unasked."""
    sdata = made(scale_factors=[2])
    sdata.write(tmp_path / "a.zarr")
    sdata = sd.read_zarr(tmp_path / "a.zarr")
    sslcst.tl.intensities(sdata)
    image = next(iter(sdata["stain"]["scale0"].data_vars.values())).to_numpy()
    np.testing.assert_array_equal(
        sdata["sslcst_table"].obsm["intensities"], expected(image, sdata["sslcst_cells"].to_numpy())
    )
    assert not sd.read_zarr(tmp_path / "a.zarr")["sslcst_table"].obsm
    sdata.delete_element_from_disk("sslcst_table")
    sdata.write_element("sslcst_table")
    again = sd.read_zarr(tmp_path / "a.zarr")["sslcst_table"].obsm["intensities"]
    pd.testing.assert_frame_equal(again, sdata["sslcst_table"].obsm["intensities"])


@pytest.mark.parametrize(
    "to_image",
    [
        Scale([2.0, 2.0], ("x", "y")),
        Translation([-5.0, 8.0], ("x", "y")),
        Affine([[0, -1.0, 60], [1.0, 0, 3], [0, 0, 1]], ("x", "y"), ("x", "y")),
        Sequence([Scale([0.7, 1.3], ("x", "y")), Translation([4.5, -3.2], ("x", "y"))]),
    ],
    ids=["coarser", "moved", "turned", "stretched"],
)
def test_labels_on_another_grid(to_image, monkeypatch):
    """A pixel of the image is of the cell that its centre lies in."""
    monkeypatch.setattr(_intensities, "_SIDE", 32)
    sdata = made(transformation=to_image)
    sslcst.tl.intensities(sdata)
    image, cells = (sdata[name].to_numpy() for name in ("stain", "sslcst_cells"))
    back = np.linalg.inv(to_image.to_affine_matrix(("y", "x"), ("y", "x")))
    at = np.zeros(image.shape[1:], np.uint32)
    for y, x in np.ndindex(at.shape):
        row, column = np.floor(back[:2] @ (y + 0.5, x + 0.5, 1)).astype(int)
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
            at[y, x] = cells[row, column]
    np.testing.assert_array_equal(sdata["sslcst_table"].obsm["intensities"], expected(image, at))


def test_after_a_run_the_cells_are_told_apart_by_their_stain():
    sdata = sslcst.datasets.simulate(n_cells=20, n_genes=20, seed=0)
    sslcst.tl.segment(sdata, nuclei_key="true_nuclei", key_added="mine")
    sslcst.tl.intensities(sdata, key="mine")
    [found] = sdata["mine_table"].obsm["intensities"].to_numpy().T
    assert found.min() > sdata["stain"].to_numpy()[0][sdata["mine_cells"].to_numpy() == 0].mean()


def test_what_cannot_be_measured():
    with pytest.raises(DataError, match="No cell of 'sslcst_cells' lies on image 'stain'"):
        sslcst.tl.intensities(made(transformation=Translation([1000.0, 0.0], ("x", "y"))))
    sdata = made()
    with pytest.raises(KeyMissingError, match="There is no labels element 'other_cells'"):
        sslcst.tl.intensities(sdata, key="other")
    with pytest.raises(KeyMissingError, match="There is no image 'dapi'"):
        sslcst.tl.intensities(sdata, image_key="dapi")
    sdata["stain"] = sdata["stain"].assign_coords(c=["a/b", "a_b", "c"])
    with pytest.raises(DataError, match="channels of one name"):
        sslcst.tl.intensities(sdata)


def test_where_there_is_no_image_nothing_is_said_of_nuclei():
    """Nuclei that are there already would not help: there is no such argument."""
    sdata = made()
    del sdata.images["stain"]
    with pytest.raises(KeyMissingError, match=r"There is no image.*image_key=; there are: none"):
        sslcst.tl.intensities(sdata)
