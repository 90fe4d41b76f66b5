"""Which element of the cells their table annotates."""

from __future__ import annotations

from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._sdata.boundaries import boundaries_of
from sslcst._sdata.elements import add_element, check_addable
from sslcst._sdata.provenance import note_made, result_name, result_table, run_of
from sslcst._section import check

_ELEMENTS = ("boundaries", "cells")


@checked
def annotate(sdata: SpatialData, element: str = "boundaries", *, key: str = "sslcst") -> None:
    """Have the table annotate the boundaries of the cells, or their labels again.

    A table annotates one element, and other packages take its columns for that one alone: spatialdata-plot colours the
    labels after a run, and after this call the boundaries; `sopa.io.explorer.write` wants the boundaries.

    Parameters
    ----------
    sdata
        Holds the labels ``{key}_cells`` and the table ``{key}_table``. The object is changed; a store on disk is not
        touched.
    element
        ``"boundaries"``: the shapes ``{key}_boundaries``, which are made of the labels where there are none; or
        ``"cells"``: the labels.
    key
        The `key_added` of the segmentation, of whatever fields.

    Raises
    ------
    KeyMissingError
        An element is not there, or something else has the name of the boundaries.
    ParameterError
        There is no such element to annotate.
    DataError
        The table has cells that the labels lack.
    """
    check(element in _ELEMENTS, "element", element, f"must be one of {', '.join(_ELEMENTS)}")
    keys, table = run_of(sdata, key)
    annotated = {}
    for each in keys:
        own, cells_key = result_table(sdata, each), result_name(sdata, each, "cells")
        region = result_name(sdata, each, element)
        if not len(own):
            continue
        if element == "boundaries" and region not in sdata.shapes:
            check_addable(sdata, "shapes", region)
            add_element(sdata, "shapes", region, boundaries_of(sdata, cells_key, own.obs["cell_id"].to_numpy()))
            note_made(table, region, "shapes", beside=cells_key)
        annotated |= dict.fromkeys(own.obs["region"].unique(), region)
    table.obs["region"] = table.obs["region"].astype(str).map(annotated).astype("category")
    regions = list(annotated.values())
    region = regions[0] if len(regions) == 1 else regions
    columns = {"region_key": "region", "instance_key": "cell_id"}
    sdata.set_table_annotates_spatialelement(result_name(sdata, key, "table"), region, **columns)
