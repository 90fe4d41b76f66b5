"""What a method declares, and what it sees of a tissue.

A method looks at a tissue in passes: each maps a window of it to statistics, from which `fit` learns what holds for the
whole tissue, or to values of spots and bins, which later passes see. In the end `decide` says which bin is whose. A
window is arrays, wherever they come from: the runner cuts a chip into tiles, and a tissue in memory is one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy import sparse

from sslcst._section import check
from sslcst.core.cells import to_pixels
from sslcst.core.density import LocalDensity
from sslcst.core.geometry import Regions
from sslcst.core.spots import Grid, Ranges, Spots, overlap, widened, within
from sslcst.errors import DataError
from sslcst.params import NucleiParams, Sections

Fit = Any  # what a method learns of the whole tissue; its own matter
_TAKEN = ("cells", "fit", "spots", "transcripts")  # names of what a run makes beside the passes


class Model(Protocol):
    """What a method has learnt that serves other tissues too; its class names the method."""

    method: ClassVar[str]

    def sha256(self) -> str:
        """Hash of all that bears on the cells that it makes; without it, that of what `Method.pack` gives is taken."""


@dataclass(frozen=True)
class Tissue:
    """What is known of a tissue before a method looks at it. Lengths are in bins."""

    grid: Grid  #: All bins
    regions: Regions  #: The nuclei, or the cells of a method that takes whole ones, in pixels
    radius: float  #: Expected cell radius r
    max_distance: float  #: How far from its nucleus a cell may reach
    genes: np.ndarray  #: Names of the genes, (n_genes,)
    gene_total: np.ndarray  #: Transcripts of each gene on the raster, int64 (n_genes,)
    n_spots: int  #: Occupied bins
    spacing: float  #: Half the mean spacing of the spots within nuclei, at least 1: how far a prediction speaks for
    block: int  #: Side of the squares that go through a network at once

    @property
    def centers(self) -> np.ndarray:
        """Centroids of these regions (n, 2)."""
        return self.regions.centers / self.grid.step

    @property
    def extent(self) -> int:
        """Longest side of a region's bounding box."""
        return self.regions.extent(self.grid.step)

    @property
    def first_free_id(self) -> int:
        """Ids from here on are no nucleus': such a cell's id is this plus the key of the bin that it is named after."""
        return int(self.regions.ids[-1]) + 1


class Source(Protocol):
    """Where a window's arrays come from. Ranges are rows and columns (start, stop) of bins."""

    def spots(self, ranges: Ranges, *, counts: bool) -> Spots:
        """The occupied bins, with or without their counts of genes."""

    def local_density(self, ranges: Ranges) -> LocalDensity:
        """Nuclei and counts around all bins."""

    def of_spots(self, name: str, ranges: Ranges) -> np.ndarray:
        """Values of the occupied bins (n, ...) that an earlier pass gave."""

    def of_bins(self, name: str, ranges: Ranges) -> np.ndarray:
        """Values of all bins (rows, columns) that an earlier pass gave."""

    def has_of_bins(self, name: str) -> bool:
        """Whether an earlier pass gave such values of the bins."""

    def nuclei(self, pixels: tuple[slice, slice]) -> np.ndarray:
        """Nucleus labels of some pixels, uint32."""

    def whole_cells(self, pixels: tuple[slice, slice]) -> np.ndarray:
        """Labels of some pixels, uint32, of the cells that are there before: of methods that take such."""

    def stain(self, pixels: tuple[slice, slice]) -> np.ndarray | None:
        """The stain of some pixels; None where nuclei were given."""


@dataclass(frozen=True)
class Window:
    """A part of a tissue, read where it is asked for."""

    tissue: Tissue  #: The whole
    own: Ranges  #: Rows and columns of the bins that the window is for
    ranges: Ranges  #: Those in view: its own, and the halo around as far as the tissue goes
    source: Source  #: Where the arrays come from

    @property
    def grid(self) -> Grid:
        """The bins in view."""
        return self.tissue.grid.view(self.ranges)

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column in view."""
        (row, _), (column, _) = self.ranges
        return row, column

    def part(self, ranges: Ranges, halo: int) -> Window:
        """The window of some rows and columns, with a halo around as far as this one goes."""
        return Window(self.tissue, ranges, overlap(widened(ranges, halo), self.ranges), self.source)

    @property
    def own_bins(self) -> tuple[slice, slice]:
        """Where its own bins lie among those in view."""
        return within(self.own, self.ranges)

    @cached_property
    def spots(self) -> Spots:
        """The occupied bins in view, with their counts."""
        return self.source.spots(self.ranges, counts=True)

    @cached_property
    def places(self) -> Spots:
        """The occupied bins in view, without counts, which are most of what there is to read."""
        return self.source.spots(self.ranges, counts=False)

    @cached_property
    def owned(self) -> np.ndarray:
        """Which of the spots in view are the window's own, bool (n,)."""
        return self.places.within(self.own)

    @cached_property
    def local_density(self) -> LocalDensity:
        """Nuclei and counts around the bins in view."""
        return self.source.local_density(self.ranges)

    @cached_property
    def nuclei(self) -> np.ndarray:
        """Nucleus labels of the bins in view, uint32 (rows, columns)."""
        return self.local_density.in_nucleus

    @cached_property
    def probability(self) -> np.ndarray:
        """Probability of the spots in view to lie in a cell (n,), whether `prediction` gave it of spots or of bins."""
        if self.source.has_of_bins("probability"):
            return self.of_bins("probability")[self.places.place]
        return self.of_spots("probability")

    def of_spots(self, name: str) -> np.ndarray:
        """What an earlier pass gave for the spots in view, (n, ...)."""
        return self.source.of_spots(name, self.ranges)

    def of_bins(self, name: str) -> np.ndarray:
        """What an earlier pass gave for the bins in view, (rows, columns)."""
        return self.source.of_bins(name, self.ranges)


@dataclass(frozen=True)
class Part:
    """What a pass finds in a window."""

    statistics: Mapping[str, Any] = field(default_factory=dict)  #: Arrays and sparse matrices by their names, for `fit`
    #: Values (n, ...) of the window's own spots, for later passes and `decide`
    of_spots: Mapping[str, np.ndarray] = field(default_factory=dict)
    #: Values (rows, columns) of the window's own bins, likewise
    of_bins: Mapping[str, np.ndarray] = field(default_factory=dict)


def _same(parts: Sequence[Mapping[str, Any]], tissue: Tissue, fit: Fit) -> Fit:
    return fit


@dataclass(frozen=True)
class Pass:
    """One look at the tissue."""

    name: str  #: Written before the progress bar; of the files that it leaves
    map: Callable[[Window, Fit], Part]  #: Called with a window and the fit so far
    #: Bins beyond a window that bear on what `map` says of its own, from the tissue and the fit so far
    halo: Callable[[Tissue, Fit], int] = lambda tissue, fit: 0
    #: From the statistics of all windows, the tissue and the fit so far to the fit
    fit: Callable[[Sequence[Mapping[str, Any]], Tissue, Fit], Fit] = _same

    def look(self, window: Window, fit: Fit) -> Part:
        """What `map` finds in a window; a `ParameterError` unless it is what a `Part` may hold."""
        part = self.map(window, fit)
        for name in (*part.statistics, *part.of_spots, *part.of_bins):
            check(name.isidentifier(), f"pass {self.name!r}", name, "what a pass gives is named as variables are")
        for name, value in part.statistics.items():
            plain = sparse.issparse(value) or np.asarray(value).dtype != object
            check(plain, f"{self.name}: {name}", value, "statistics are numbers, arrays or sparse matrices")
        for name, values in part.of_bins.items():
            self._check_shape(name, values.shape, window.grid.view(window.own).shape, "the window's own bins")
        for name, values in part.of_spots.items():
            self._check_shape(name, values.shape[:1], (np.count_nonzero(window.owned),), "the window's own spots")
        return part

    def _check_shape(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...], of: str) -> None:
        check(shape == wanted, f"{self.name}: {name}", shape, f"must be of the shape {wanted}, a value of each of {of}")


def check_passes(method: Method) -> None:
    """Raise a `ParameterError` unless a method's passes have names of their own, of which files can be made."""
    names = [each.name for each in (*method.learning, method.prediction)]
    for name in names:
        ok = re.fullmatch(r"\w[\w -]*", name) and name not in _TAKEN and names.count(name) == 1
        rule = f"is made of letters, digits, '_', '-' and spaces, and is no other's, nor one of {', '.join(_TAKEN)}"
        check(bool(ok), "method", method.name, f"the name of a pass {rule}; one is {name!r}")


def check_scale(bin_size: float, grid: Grid) -> None:
    """Raise a `DataError` unless spots are as large as those that a model was learnt on."""
    if not np.isclose(grid.bin_size, bin_size, rtol=0.05):
        raise DataError(
            f"The spots are bins of {grid.bin_size:.4g}, the model was trained on bins of {bin_size:.4g}: "
            f"set spots.bin_size={bin_size:.4g}."
        )


@contextmanager
def _silent(name: str, total: int, *, unit: str) -> Iterator[None]:
    yield None


@dataclass(frozen=True)
class Method(ABC):
    """How cells come about."""

    params: Sections  #: The method's own parameters
    seed: int = 0  #: Of whatever is drawn
    device: str = "cpu"  #: Where torch computes
    #: Makes a progress bar, as ``sslcst._logging.progress`` does, for what takes long within a pass' `fit`
    progress: Callable[..., AbstractContextManager] = _silent

    name: ClassVar[str]
    Params: ClassVar[type[Sections]]
    max_distance: ClassVar[float] = 1.25  # how far from its nucleus a cell may reach, in r, unless parameters say
    bytes_per_spot: ClassVar[int] = 140  # of memory, about, in a window that it looks at: what `sslcst.tl.plan` tells
    has_weights: ClassVar[bool] = False  # whether its models are kept with weights
    whole_cells: ClassVar[bool] = False  # whether it takes cells that are there before: given, or found in a stain

    def reach(self, max_distance: float | None, radius: float) -> float:
        """How far from its nucleus a cell may reach, in bins; `max_distance`, in r, is what the parameters say."""
        return (max_distance or self.max_distance) * radius

    def check_grid(self, grid: Grid, first_free_id: int) -> None:  # noqa: B027 (most methods take any)
        """Raise a `DataError`, before any transcript is looked at, where cells cannot be made on such a grid.

        Ids from the first free one on are no nucleus'.
        """

    @property
    @abstractmethod
    def learning(self) -> Sequence[Pass]:
        """Passes that lead to the fit."""

    @property
    def after_learning(self) -> set[str]:
        """Parameters, as ``"section.name"``, that do not bear on what is learnt."""
        return set()

    @property
    def anywhere(self) -> bool:
        """Whether cells may lie where no nucleus is within reach, and no transcript: all of a tissue is looked at."""
        return False

    @property
    @abstractmethod
    def prediction(self) -> Pass:
        """The pass that gives ``probability``, of lying in a cell, of the spots or of the bins, and what else helps."""

    @abstractmethod
    def halo(self, tissue: Tissue, fit: Fit) -> int:
        """Bins beyond a window that bear on the cells that reach into it."""

    @abstractmethod
    def decide(self, window: Window, fit: Fit) -> np.ndarray:
        """Labels of the bins in view (rows, columns), each with the id of its nucleus; 0 in no cell."""

    def label_pixels(self, window: Window, fit: Fit, nuclei: np.ndarray) -> np.ndarray:
        """Labels of the pixels in view (y, x) by what is decided of bins; those of nuclei, given likewise, stay."""
        cells = self.decide(window, fit)
        check(
            cells.shape == window.grid.shape, "decide", cells.shape, f"must be of the bins in view, {window.grid.shape}"
        )
        return to_pixels(cells, window.grid, nuclei)

    @property
    def cell_params(self) -> NucleiParams | None:
        """How whole cells are found in a stain; None where they are given, or not taken."""
        return None

    def model(self, fit: Fit) -> Model:
        """What of a fit serves other tissues too."""
        return fit

    def fit_of(self, model: Model, tissue: Tissue) -> Fit:
        """The fit of a model to a tissue that it may not have been learnt on; raises `DataError` where it is unfit."""
        return model

    def keep(self, model: Model, folder: Path) -> None:  # noqa: B027 (most methods learn in no time)
        """Write a model that took long to learn, so that a stopped run need not learn it again."""

    def recall(self, folder: Path) -> Model | None:
        """What `keep` wrote."""
        return None

    @classmethod
    def pack(cls, model: Model) -> tuple[dict[str, Any], bytes | None] | None:
        """A model as plain values, and weights in safetensors if it has any; None: it is not kept with the cells."""
        return None

    @classmethod
    def unpack(cls, card: Mapping[str, Any], weights: bytes | None) -> Model:
        """The model of what `pack` gave, which may have been changed; raises `DataError` where it is unsound."""
        raise DataError(f"method {cls.name!r} keeps no models.")

    def about(self, model: Model) -> dict[str, Any]:
        """What a table's provenance says of the model, in types that a store holds."""
        return {}
