"""What a run has learnt, kept in its table, so that a run that differs in what comes after need not learn again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spatialdata import SpatialData

from sslcst._logging import logger
from sslcst.errors import DataError
from sslcst.methods.base import Method, Model
from sslcst.methods.model_file import pack, sha256_of, unpack
from sslcst.run.results import keep, kept_in

_LATE = {"cells.min_counts", "cells.min_area"}  # parameters of what comes after learning, whatever the method


def keep_model(method: Method, model: Model) -> dict[str, Any]:
    """What a method has learnt, as a table keeps it; nothing where the method keeps none."""
    kept = pack(type(method), model)
    return {} if kept is None else {"sha256": sha256_of(type(method), model)} | keep(kept)


def learning_params(method: Method, params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of a run's parameters, by sections, that bear on what is learnt."""
    late = _LATE | method.after_learning
    return {
        section: {name: value for name, value in values.items() if f"{section}.{name}" not in late}
        for section, values in params.items()
    }


def learnt_before(sdata: SpatialData, table: str, learning: str, method: Method) -> Model | None:
    """What the run that a table is of has learnt, if that is what this run would learn."""
    if table not in sdata.tables or sdata.tables[table].uns.get("sslcst", {}).get("learning") != learning:
        return None
    kept = kept_in(sdata.tables[table])
    if kept is None:
        return None
    try:
        model = unpack(kept, f"What table {table!r} keeps", type(method))
    except DataError as error:
        logger.warning("%s It is learnt anew.", error)
        return None
    logger.info("Nothing is learnt anew: input and parameters of learning are those of the run that is replaced.")
    return model
