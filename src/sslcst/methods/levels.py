"""What methods that learn from density share: how densely transcripts lie in cells and outside, and how that varies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from math import isfinite
from operator import add
from typing import Any, ClassVar, Self

import numpy as np

from sslcst.core.density import Levels, Rings, halo, levels_of, tally_rings, tally_spread, with_spread
from sslcst.errors import DataError
from sslcst.methods.base import Method, Part, Pass, Tissue, Window, check_scale
from sslcst.methods.model_file import check_names


@dataclass(frozen=True)
class LevelsFit:
    """What the density of transcripts tells of a tissue; each method has a class of its own, which names it."""

    bin_size: float  #: Side of the bins in units of the coordinate system
    levels: Levels  #: Densities in cells and outside, and how far cells reach

    def card(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return {name: float(value) for name, value in vars(self).items() if name != "levels"} | {
            "levels": asdict(self.levels)
        }

    def sha256(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(json.dumps(self.card(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Self:
        """What `card` gave; raises `DataError` where it is not sound."""
        check_names("the card", card, cls)
        numbers = {name: _number(name, value) for name, value in card.items() if name != "levels"}
        return cls(levels=_levels(card["levels"]), **numbers)


def _levels(values: object) -> Levels:
    check_names("levels", values, Levels)
    lists = {"share": None, "spread": 2}
    numbers = {name: _number(name, value) for name, value in values.items() if name not in lists}
    for name, length in lists.items():
        items = values[name]
        if not (isinstance(items, list) and items and length in (None, len(items))):
            raise DataError(f"{name} must be a list of {length or 'several'} numbers.")
        numbers[name] = tuple(_number(name, item) for item in items)
    return Levels(**numbers)


def _number(name: str, value: object) -> float | int:
    """A number of a card, which is finite and not negative."""
    if type(value) not in (int, float) or not (0 <= value < 1e12 and isfinite(value)):
        raise DataError(f"{name} must hold finite numbers that are not negative, and holds {value!r}.")
    return value


class LevelsMethod(Method):
    """A method whose model is the levels of a tissue."""

    Fit: ClassVar[type[LevelsFit]]

    @property
    def learning(self) -> list[Pass]:
        """How densely transcripts lie, and how much that varies."""
        return [
            Pass("density of transcripts", _tally_rings, fit=self._of_rings),
            Pass("spread of density", _tally_spread, density_halo, _with_spread),
        ]

    def halo(self, tissue: Tissue, fit: LevelsFit) -> int:
        """A cell spans its nucleus, and the largest distance on either side."""
        return int(np.ceil(tissue.extent + 2 * tissue.max_distance)) + 2

    def fit_of(self, model: LevelsFit, tissue: Tissue) -> LevelsFit:
        """The levels of a tissue whose bins are as large."""
        check_scale(model.bin_size, tissue.grid)
        return model

    @classmethod
    def pack(cls, model: LevelsFit) -> tuple[dict[str, Any], None]:
        """All of it."""
        return model.card(), None

    @classmethod
    def unpack(cls, card: Mapping[str, Any], weights: bytes | None) -> LevelsFit:
        """The model of `pack`."""
        return cls.Fit.of(card)

    def about(self, model: LevelsFit) -> dict[str, Any]:
        """The levels."""
        return {"levels": asdict(model.levels)}

    def _of_rings(self, parts: Sequence[dict], tissue: Tissue, fit: None) -> LevelsFit:
        rings = reduce(add, (Rings(**part) for part in parts))
        return self.Fit(tissue.grid.bin_size, levels_of(rings, radius=tissue.radius))


def density_halo(tissue: Tissue, fit: LevelsFit) -> int:
    """Bins beyond a window whose local density bears on the density of its cells."""
    return halo(tissue.extent, radius=tissue.radius, max_distance=tissue.max_distance)


def _tally_rings(window: Window, fit: None) -> Part:
    return Part(vars(tally_rings(window.local_density, reach=window.tissue.max_distance, owned=window.own_bins)))


def _tally_spread(window: Window, fit: LevelsFit) -> Part:
    tally = tally_spread(window.local_density, fit.levels, radius=window.tissue.radius, owned=window.own_bins)
    return Part({"tally": tally})


def _with_spread(parts: Sequence[dict], tissue: Tissue, fit: LevelsFit) -> LevelsFit:
    return replace(fit, levels=with_spread(fit.levels, sum(part["tally"] for part in parts)))
