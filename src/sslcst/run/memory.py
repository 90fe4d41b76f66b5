"""A tissue in memory: one window, on which the passes of a method run as they do on tiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sslcst.core.cells import Occupancy
from sslcst.core.density import LocalDensity, local_density
from sslcst.core.geometry import Regions
from sslcst.core.spots import Ranges, Spots
from sslcst.methods.base import Fit, Method, Part, Tissue, Window


@dataclass(frozen=True)
class InMemory:
    """Arrays of a whole tissue; a source of its one window (`sslcst.methods.base.Source`)."""

    spots_: Spots  # the occupied bins
    radius: float  # expected cell radius, in bins
    max_distance: float  # how far from its nucleus a cell may reach, in bins
    labels: np.ndarray  # nucleus labels (y, x)
    image: np.ndarray | None  # the stain (y, x), if there is one
    by_spot: dict[str, np.ndarray] = field(default_factory=dict)  # what passes gave
    by_bin: dict[str, np.ndarray] = field(default_factory=dict)  # likewise

    @cached_property
    def _around(self) -> LocalDensity:
        nuclei = self.spots_.grid.from_raster(self.labels)
        scale = {"radius": self.radius, "reach": self.max_distance}
        return local_density(self.spots_.totals(), nuclei, n_nearest=1, **scale)

    def spots(self, ranges: Ranges, *, counts: bool) -> Spots:
        """See `Source`."""
        return self.spots_

    def local_density(self, ranges: Ranges) -> LocalDensity:
        """See `Source`."""
        return self._around

    def of_spots(self, name: str, ranges: Ranges) -> np.ndarray:
        """See `Source`."""
        return self.by_spot[name]

    def of_bins(self, name: str, ranges: Ranges) -> np.ndarray:
        """See `Source`."""
        return self.by_bin[name]

    def has_of_bins(self, name: str) -> bool:
        """See `Source`."""
        return name in self.by_bin

    def nuclei(self, pixels: tuple[slice, slice]) -> np.ndarray:
        """See `Source`."""
        return self.labels[pixels]

    def stain(self, pixels: tuple[slice, slice]) -> np.ndarray | None:
        """See `Source`."""
        return None if self.image is None else self.image[pixels]

    def window(self, genes: np.ndarray, block: int) -> Window:
        """The one window, of the tissue."""
        grid, spots = self.spots_.grid, self.spots_
        nuclei = self._around.in_nucleus
        tissue = Tissue(
            grid=grid,
            regions=Regions.of(self.labels),
            radius=self.radius,
            max_distance=self.max_distance,
            genes=genes,
            gene_total=np.asarray(spots.counts.sum(axis=0), np.int64).ravel(),
            n_spots=len(spots),
            spacing=Occupancy.of(nuclei, nuclei[spots.place]).spacing,
            block=block,
        )
        return Window(tissue, grid.ranges, grid.ranges, self)


def learn(method: Method, window: Window) -> Fit:
    """The fit of a method to a tissue in memory."""
    fit = None
    for each in method.learning:
        part = each.look(window, fit)
        _keep(window, part)
        fit = each.fit([part.statistics], window.tissue, fit)
    return fit


def predict(method: Method, window: Window, fit: Fit) -> Part:
    """The method's last pass."""
    part = method.prediction.look(window, fit)
    _keep(window, part)
    return part


def _keep(window: Window, part: Part) -> None:
    window.source.by_spot.update(part.of_spots)
    window.source.by_bin.update(part.of_bins)
