"""What a method has learnt: with the cells that it made, and in files."""

from __future__ import annotations

import os

from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._sdata.provenance import result_name, table_of
from sslcst.errors import KeyMissingError
from sslcst.methods import model_file
from sslcst.methods.base import Model
from sslcst.run.results import kept_in


@checked
def write_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model, to be used on other tissues.

    Parameters
    ----------
    model
        From `read_model` or `sslcst.tl.train`.
    path
        The file, ending in ``.json``: a card that can be read. The model of ``"ssl-cst"`` has weights too, which lie
        beside it, ending in ``.safetensors``; either name may be given.

    Raises
    ------
    ParameterError
        The model is of a method of your own.
    StoreError
        A file of that name exists, or cannot be written.
    """
    model_file.write_model(model, path)


@checked
def read_model(path: SpatialData | str | os.PathLike[str], *, key: str = "sslcst") -> Model:
    """Give back what a method has learnt, for `sslcst.tl.segment` and `sslcst.tl.predict` on other tissues.

    Parameters
    ----------
    path
        An object that `sslcst.tl.segment` has segmented, or a file of `write_model`.
    key
        The `key_added` of the segmentation; of an object.

    Raises
    ------
    KeyMissingError
        There is no such table, or it holds no model: it was not made by `sslcst.tl.segment`, or by a method of your
        own. What the steps learn, `sslcst.tl.train` returns.
    StoreError
        There is no such file, or one of two files is missing.
    DataError
        The model is damaged, of another format, changed, or its files do not belong together.
    """
    if isinstance(path, str | os.PathLike):
        return model_file.read_model(path)
    name = result_name(path, key, "table")
    kept = kept_in(table_of(path, key))
    if kept is None:
        raise KeyMissingError(
            f"Table {name!r} holds no model: it was not made by sslcst.tl.segment, or by a method of your own. Segment "
            "anew; in steps, sslcst.tl.train returns the model."
        )
    return model_file.unpack(kept, f"What table {name!r} keeps")
