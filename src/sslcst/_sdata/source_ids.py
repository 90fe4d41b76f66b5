"""Ids of nuclei and cells as others gave them: cells are numbered, and the original of each number is kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import TableModel

from sslcst._logging import logger
from sslcst.errors import KeyMissingError

LARGEST = np.iinfo(np.uint32).max
COLUMN = "source_id"


def number(ids: pd.Index, what: str) -> tuple[np.ndarray, pd.Series | None]:
    """A number, uint32, for each id: itself where all are distinct whole numbers from 1 to 2^32 - 1, else 1, 2, ...

    And the ids by their numbers, None where they are the same. `what` says whose they are, where several are alike.
    """
    if pd.api.types.is_integer_dtype(ids) and ids.is_unique and ids.min() > 0 and ids.max() <= LARGEST:
        return ids.to_numpy(np.uint32), None
    alike = int(ids.duplicated(keep=False).sum())
    if alike:
        logger.warning("%s: %d ids stand for more than one; each is numbered by itself.", what, alike)
    numbers = np.arange(1, len(ids) + 1, dtype=np.uint32)
    return numbers, by_number(ids, numbers)


def by_number(ids: pd.Index | np.ndarray, numbers: np.ndarray) -> pd.Series:
    """Ids by their numbers, in a type that a store holds: numbers and truth values as they are, all else as text."""
    if isinstance(ids, pd.MultiIndex):
        ids = ids.map(lambda levels: "_".join(map(str, levels)))
    values = pd.Series(np.asarray(ids)).infer_objects()
    if values.dtype.kind not in "iufb":
        values = values.astype(str).where(values.notna()).astype("category")
    return values.set_axis(pd.Index(numbers, name="cell_id")).rename(COLUMN)


def of_cells(source_ids: pd.Series, cells: np.ndarray) -> pd.Series:
    """The original id of each cell, missing for those that have none."""
    if source_ids.dtype.kind in "iub" and not np.isin(cells, source_ids.index).all():
        source_ids = source_ids.convert_dtypes()  # floats, which could say "missing" too, would round large ids
    return source_ids.reindex(cells)


def add_table(sdata: SpatialData, labels_key: str, source_ids: pd.Series | None) -> None:
    """Have a table annotate labels with their original ids; one of earlier labels of that name goes.

    Labels have no place of their own for it that a store keeps.
    """
    name = table_name(labels_key)
    if _is_of(sdata.tables.get(name), labels_key):
        del sdata.tables[name]
    if source_ids is None or source_ids.empty:
        return
    obs = pd.DataFrame(
        {"cell_id": source_ids.index.to_numpy(), "region": pd.Categorical([labels_key] * len(source_ids))}
    )
    table = AnnData(obs=obs.set_index(source_ids.index.astype(str).rename(None)))
    table = TableModel.parse(table, region=labels_key, region_key="region", instance_key="cell_id")
    table.obs[COLUMN] = source_ids.array
    sdata.tables[name] = table


def check_free(sdata: SpatialData, labels_key: str) -> None:
    """Raise a `KeyMissingError` where there is something else of the name of the table that `add_table` adds."""
    name = table_name(labels_key)
    if name in sdata and not _is_of(sdata.tables.get(name), labels_key):
        raise KeyMissingError(f"{name!r}, which would hold the original ids, exists: choose another key_added.")


def table_name(labels_key: str) -> str:
    """Name of the table that holds the original ids of labels."""
    return f"{labels_key}_ids"


def of_labels(sdata: SpatialData, labels_key: str) -> pd.Series | None:
    """What `add_table` kept, by number."""
    table = sdata.tables.get(table_name(labels_key))
    return table.obs.set_index("cell_id")[COLUMN] if _is_of(table, labels_key) else None


def _is_of(table: AnnData | None, labels_key: str) -> bool:
    about = {} if table is None else table.uns.get("spatialdata_attrs", {})
    return about.get("region") in (labels_key, [labels_key]) and {"cell_id", COLUMN} <= set(table.obs)
