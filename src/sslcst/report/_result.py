"""What a report is about: the table of a segmentation and what is known of the run, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from sslcst._sdata.elements import channel_in_words, choose_key
from sslcst._sdata.provenance import Used, result_name, result_table
from sslcst.errors import DataError, KeyMissingError


@dataclass(frozen=True)
class Result:
    """A segmentation."""

    sdata: SpatialData  # where it is
    key: str  # what it is called
    table: AnnData  # its cells x genes
    about: dict[str, Any]  # ``uns["sslcst"]`` of the table, in plain Python types; empty where the table lacks it
    coordinate_system: str  # whose units its lengths are in
    image_key: str | None  # the stain of the pictures, None where there is no image
    channel: str | int | list[str] | None  # its channel, or channels
    truth_key: str | None = None  # labels or shapes of a reference; None without one

    @classmethod
    def of(
        cls,
        sdata: SpatialData,
        key: str,
        image_key: str | None,
        channel: str | int | None = None,
        truth_key: str | None = None,
    ) -> Result:
        """Read it; raise KeyMissingError or DataError where there is nothing, or no telling which image is meant."""
        cells_key, table_key = (result_name(sdata, key, kind) for kind in ("cells", "table"))
        if table_key not in sdata.tables and cells_key not in sdata.labels:
            raise KeyMissingError(
                f"There is no table {table_key!r} to report of: run sslcst.tl.segment, or give the key of another "
                f"segmentation; tables: {', '.join(map(repr, sdata.tables)) or 'none'}."
            )
        table = result_table(sdata, key, cells_key)
        if truth_key is not None:
            kind = "labels or shapes element"
            choose_key([*sdata.labels, *sdata.shapes], truth_key, kind=kind, argument="truth_key")
        used = Used.by(sdata, cells_key, truth_key)
        image_key = used.image(image_key)
        if not table.n_obs:
            raise DataError(f"Table {table_key!r} has no cells, so that there is nothing to report.")
        about = plain(table.uns.get("sslcst", {}))
        system = used.system([cells_key, image_key, truth_key], None)
        channel = None if image_key is None else used.channel(image_key, channel)
        return cls(sdata, key, table, about, system, image_key, channel, truth_key)

    def named(self, kind: str) -> str:
        """The name of its cells, or its table."""
        return result_name(self.sdata, self.key, kind)

    @property
    def name(self) -> str:
        return Path(self.sdata.path).name if self.sdata.path is not None else "an object in memory"

    @property
    def origin(self) -> str:
        """What it was made of, when and by what, in words, as far as that is known."""
        about, parts = self.about, []
        if "image_key" in about:
            parts.append(channel_in_words(about["image_key"], about.get("channel")))
        parts += [f"{name[:-4]} {about[name]!r}" for name in ("cells_key", "nuclei_key", "points_key") if name in about]
        made = f", of {' and '.join(parts)}" if parts else ""
        made += f", on {about['date'][:10]}" if "date" in about else ""
        version = about.get("versions", {}).get("sslcst", "of unknown version")
        return f"{made}, by sslcst {version.partition('+')[0]}"

    def column(self, name: str) -> NDArray[Any] | None:
        """Values of a column of obs, None where there is none."""
        return self.table.obs[name].to_numpy() if name in self.table.obs else None

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Counts of each cell; of X only where obs does not hold them, since X may have been normalised."""
        counts = self.column("n_counts")
        return (np.asarray(self.table.X.sum(axis=1)).ravel() if counts is None else counts).astype(np.int64)

    @property
    def ungrown(self) -> NDArray[np.bool_] | None:
        """Which cells are no larger than their nucleus."""
        area, nucleus_area = self.column("area"), self.column("nucleus_area")
        return None if area is None or nucleus_area is None else np.isclose(area, nucleus_area)

    @property
    def history(self) -> dict[str, list[float]] | None:
        return self.about.get("history")

    @property
    def best_epoch(self) -> int | None:
        """Place in the history of the epoch whose state is the model's."""
        return None if self.history is None else int(np.argmin(self.history["validation_loss"]))


def plain(value: Any) -> Any:
    """Nested dictionaries, lists, numbers and words, whatever a store made of them."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
