"""A stain that cannot be segmented is refused by its name, wherever in it the pixels lie that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from tiny_chips import chip

import sslcst
from sslcst._sdata import mosaic
from sslcst.core.nuclei.sslcst import load
from sslcst.errors import DataError
from sslcst.run.stages import nuclei

TILED = {"nuclei": {"method": "watershed", "diameters": [4]}, "tiles": {"image_size": 64}}


def missing_at(yx: tuple[int, int], *, prefixes: tuple[str, ...] = ("",), channel: int = 0) -> sd.SpatialData:
    """A chip, or several side by side, with two channels; one pixel of the last image is missing."""
    whole = chip()
    stain = np.repeat(whole["stain"].to_numpy().astype(np.float32), 2, axis=0)
    elements = {}
    for prefix in prefixes:
        values = stain.copy()
        if prefix == prefixes[-1]:
            values[channel, *yx] = np.nan
        names = {"dims": ("c", "y", "x"), "c_coords": ["DAPI", "membrane"]}
        systems = {"transformations": dict(sd.transformations.get_transformation(whole["stain"], get_all=True))}
        elements[f"{prefix}stain"] = Image2DModel.parse(values, **names, **systems)
        elements[f"{prefix}transcripts"] = whole["transcripts"]
    return sd.SpatialData.init_from_elements(elements)


@pytest.mark.parametrize("yx", [(3, 3), (70, 90)])
def test_the_error_names_image_and_channel(yx: tuple[int, int]) -> None:
    for call in (sslcst.tl.segment, sslcst.tl.plan):
        with pytest.raises(DataError, match=r"Image 'stain', channel 'DAPI' has 1 of \d+ pixels that are NaN"):
            call(missing_at(yx))
    with pytest.raises(DataError, match=r"Image 'stain' has 1 of \d+ pixels that are NaN"):
        sslcst.pp.segment_nuclei(missing_at(yx))
    with pytest.raises(DataError, match=r"Image 'stain', channel 'membrane' has 1 of"):
        sslcst.pp.segment_nuclei(missing_at(yx, channel=1), channel=["DAPI", "membrane"])
    with pytest.raises(DataError, match=r"Image 'stain' has 1 of"):
        sslcst.pp.check_alignment(missing_at(yx), channel="DAPI")


def test_a_pixel_that_the_sample_of_a_large_stain_misses_is_met_in_its_tile(monkeypatch) -> None:
    """Else its surroundings would have no nuclei, and nobody would be told."""
    for module in (nuclei, mosaic):
        monkeypatch.setattr(module, "_LOOK", 1000)
    with pytest.raises(DataError, match=r"Image 'stain', channel 'DAPI' has 1 of \d+ pixels"):
        sslcst.tl.segment(missing_at((70, 90)), params=TILED)
    with pytest.raises(DataError, match=r"Image '2_stain', channel 'DAPI' has 1 of \d+ pixels"):
        sslcst.tl.segment(missing_at((70, 90), prefixes=("1_", "2_")), fields="all", params=TILED)


def test_the_field_is_named_whose_image_it_is() -> None:
    with pytest.raises(DataError, match=r"Image '2_stain', channel 'DAPI' has 1 of \d+ pixels"):
        sslcst.tl.segment(missing_at((70, 90), prefixes=("1_", "2_")), fields="all", params=TILED)


def test_both_channels_are_named_where_whole_cells_are_found(monkeypatch) -> None:
    monkeypatch.setattr("sslcst.core.nuclei.cellpose.load", load)
    how = {"method": "stain", "params": TILED | {"stain": {"method": "cellpose"}}}
    with pytest.raises(DataError, match=r"Image 'stain', channels 'membrane' and 'DAPI' has 1 of"):
        sslcst.tl.segment(missing_at((70, 90), channel=1), **how)
