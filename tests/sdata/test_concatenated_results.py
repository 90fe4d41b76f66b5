"""Results that `spatialdata.concatenate` has put beside other samples are named by their key and the sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tiny_chips import chip as shared_chip

import sslcst
from sslcst.errors import DataError, KeyMissingError
from sslcst.params import Params

HOW = {"method": "density", "nuclei_key": "true_nuclei", "image_key": "stain"}


def chip(seed: int = 0) -> sd.SpatialData:
    """A tissue of its own: `spatialdata.concatenate` renames coordinate systems in place."""
    return sd.deepcopy(shared_chip(seed))


@pytest.mark.parametrize(("key", "sample"), [("sslcst", "old"), ("my-run", "2nd-of-two")])
def test_all_that_looks_at_a_result_finds_it_and_what_it_was_made_of(key: str, sample: str, tmp_path: Path) -> None:
    sdata = chip()
    sslcst.tl.segment(sdata, **HOW, key_added=key)
    before = sslcst.tl.quality(sdata, key=key)
    both = sd.concatenate({sample: sdata, "other": chip(1)})
    name, cells = f"{key}-{sample}", f"{key}_cells-{sample}"
    pd.testing.assert_frame_equal(sslcst.tl.quality(both, key=name), before)
    pd.testing.assert_frame_equal(sslcst.tl.quality(both, cells_key=cells, key="none"), before)
    table = both[f"{key}_table-{sample}"]
    sslcst.tl.intensities(both, key=name)
    assert table.obsm["intensities"].notna().to_numpy().all()
    sslcst.tl.annotate(both, key=name)
    assert table.obs["region"].unique().tolist() == [f"{key}_boundaries-{sample}"]
    sslcst.tl.annotate(both, "cells", key=name)
    assert table.obs["region"].unique().tolist() == [cells]
    sslcst.pl.segmentation(both, key=name, genes=table.var_names[0])
    sslcst.io.write_geojson(both, tmp_path / "cells.geojson", key=name)
    sslcst.report.write_report(both, tmp_path / "report.html", key=name)
    assert cells in (tmp_path / "report.html").read_text()
    assert sslcst.io.read_model(both, key=name).levels == sslcst.io.read_model(sdata, key=key).levels


def test_fields_of_a_run_too() -> None:
    fields = sd.concatenate({"a": chip(), "b": chip(1)})
    sslcst.tl.segment(fields, **HOW, fields="all")
    before = sslcst.tl.quality(fields, key="sslcst_a")
    both = sd.concatenate({"x": fields, "y": chip(2)})
    pd.testing.assert_frame_equal(sslcst.tl.quality(both, key="sslcst_a-x"), before)
    sslcst.tl.intensities(both, key="sslcst-x")
    assert np.isfinite(both["sslcst_table-x"].obsm["intensities"].to_numpy()).all()
    with pytest.raises(KeyMissingError, match=r"choose one of them with key=, among 'sslcst_a-x', 'sslcst_b-x'"):
        sslcst.tl.quality(both, key="sslcst-x")
    with pytest.raises(KeyMissingError, match="one field of a run: give key='sslcst-x'"):
        sslcst.tl.annotate(both, key="sslcst_a-x")


def test_a_table_of_another_version_is_told() -> None:
    """Not by a `TypeError`, where that version had parameters of transcripts which this one does not know."""
    sdata = chip()
    sslcst.tl.segment(sdata, **HOW)
    sdata["sslcst_table"].uns["sslcst"]["params"]["transcripts"]["new"] = 1
    with pytest.raises(DataError, match=r"'sslcst_cells' tells is of another version of sslcst: .*no such parameter"):
        sslcst.tl.quality(sdata)


def test_spots_are_binned_by_parameters_of_either_kind() -> None:
    sdata = chip()
    sslcst.pp.import_nuclei(sdata, "true_nuclei")
    for params in ({"spots": {"bin_size": 1.0}}, Params.of({"spots": {"bin_size": 1.0}})):
        sslcst.pp.bin_spots(sdata, params=params)
        assert sdata["sslcst_spots"].uns["sslcst"]["bin_size"] == 1


def test_tables_that_were_joined_give_each_sample_its_cells(tmp_path: Path) -> None:
    """They tell nothing of how they were made: what is named as of the same sample is taken."""
    samples = {"old": chip(), "new": chip(1)}
    for sdata in samples.values():
        sslcst.tl.segment(sdata, **HOW)
    before = sslcst.tl.quality(samples["new"])
    both = sd.concatenate(samples, concatenate_tables=True)
    pd.testing.assert_frame_equal(sslcst.tl.quality(both, key="sslcst-new"), before)
    table = both["sslcst_table"]
    table.obs["type"] = pd.Categorical(np.where(table.obs["region"] == "sslcst_cells-new", "ours", "theirs"))
    ax = sslcst.pl.segmentation(both, key="sslcst-new", color="type")
    assert ax.get_legend().get_texts()[0].get_text() == "ours"
    sslcst.io.write_geojson(both, tmp_path / "cells.geojson", key="sslcst-new", class_key="type")
    assert (tmp_path / "cells.geojson").read_text().count('"ours"') == before.shape[0]
