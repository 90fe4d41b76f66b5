"""What is taken of a tissue: transcripts, nuclei, their cores, spots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sslcst._section import Section, check, check_most, check_positive, check_share


@dataclass(frozen=True, kw_only=True)
class TranscriptParams(Section):
    """Which transcripts are taken; the others are in no spot and no count.

    Parameters
    ----------
    min_quality
        Lowest quality, where points have a column ``qv`` (Xenium; the vendor's own tables start at 20). 0 takes all.
    exclude
        Regular expression; genes whose name starts with it are left out. The default finds the controls of Xenium,
        MERSCOPE and CosMx, which stand for no gene. An empty one leaves out none.
    """

    min_quality: float = 20.0
    exclude: str = (
        r"NegControl(Probe|Codeword)_|(Unassigned|Deprecated)Codeword_|Intergenic_Region_|antisense_|BLANK_"  # Xenium
        r"|Blank-"  # MERSCOPE
        r"|NegPrb|Negative\d|SystemControl|FalseCode"  # CosMx
    )

    def _check_bounds(self) -> None:
        check(self.min_quality >= 0, "min_quality", self.min_quality, "must not be negative")
        check_most(self, min_quality=10**6)
        check(len(self.exclude) <= 10_000, "exclude", f"{self.exclude[:20]}...", "must be at most 10,000 characters")
        try:
            re.compile(self.exclude)
        except re.error as error:
            check(False, "exclude", self.exclude, f"must be a regular expression ({error})")


@dataclass(frozen=True, kw_only=True)
class NucleiParams(Section):
    """Nuclei segmentation (paper: "Nuclei segmentation").

    Parameters
    ----------
    method
        ``"sslcst"`` (the network that comes with this package), ``"watershed"`` (no network), or one of a package to
        be installed: ``"cellpose"`` (the paper's), ``"stardist"``, ``"instanseg"``, ``"deepcell"``. ``None`` takes
        ``"cellpose"`` where it and the weights of its default model are on this machine, and ``"sslcst"`` otherwise.
    model
        What the method calls its models, or the path of weights that fit it; only with a method. ``None`` takes the
        method's default: with cellpose 3 the paper's ``"cyto2"`` (it also has ``"cyto3"`` and ``"nuclei"``), with
        cellpose 4 ``"cpsam"``, ``"2D_versatile_fluo"`` of StarDist, ``"fluorescence_nuclei_and_cells"`` of InstanSeg.
    diameters
        Expected nucleus diameters. With several, each is tried and the one whose nuclei cover most is kept; empty:
        estimated from the image (``"sslcst"`` also measures what it finds; cellpose 4, which works at any scale, does
        without).
    flow_threshold
        Cellpose: largest flow error of a nucleus that is kept. The paper's code uses 0.9.
    cellprob_threshold
        Cellpose: pixels above it are foreground.
    percentiles
        Intensity percentiles of the whole image that become 0 and 1.
    """

    method: str | None = None
    model: str | None = None
    diameters: tuple[float, ...] = ()
    flow_threshold: float = 0.9
    cellprob_threshold: float = 0.0
    percentiles: tuple[float, float] = (1.0, 99.8)

    def _check_bounds(self) -> None:
        check(all(d > 0 for d in self.diameters), "diameters", self.diameters, "each must be above 0")
        check_positive(self, "flow_threshold")  # 0 would switch Cellpose's test off
        check(len(self.percentiles) == 2, "percentiles", self.percentiles, "must be two numbers")
        low, high = self.percentiles
        check(0 <= low < high <= 100, "percentiles", self.percentiles, "must rise and lie between 0 and 100")
        check_most(self, diameters=10**6, flow_threshold=1000)
        check(len(self.diameters) <= 100, "diameters", self.diameters, "must be at most 100, each of which is tried")
        threshold = self.cellprob_threshold
        check(abs(threshold) <= 1000, "cellprob_threshold", threshold, "must lie between -1000 and 1000")


@dataclass(frozen=True, kw_only=True)
class ErosionParams(Section):
    """Dynamic adaptive erosion of the nuclei to high-confidence cores (paper: Algorithm 1).

    Parameters
    ----------
    keep
        Share of a nucleus' area at which its erosion stops, for nuclei up to `size` wide that stand out fully.
    size
        Diameter in pixels. Of wider nuclei as wide a rim is taken as of one of this size, so that they keep more:
        ``keep ** (size / diameter)``.
    contrast
        By how much more a nucleus is eroded that does not stand out from the stain around it, between 0 (not at all)
        and 4: ``keep ** (1 + contrast * (1 - c))`` with c from 0 to 1. Only where the stain is at hand.
    length
        Length in pixels of the structuring element, a bar 1 pixel wide.
    min_area
        Cores of fewer pixels are dropped.
    min_solidity
        Cores whose area is a smaller share of their convex hull are dropped as irregular.
    """

    keep: float = 0.6
    size: float = 24.0
    contrast: float = 0.5
    length: float = 3.0
    min_area: int = 9
    min_solidity: float = 0.8

    def _check_bounds(self) -> None:
        check_share(self, "keep", "min_solidity")
        check_positive(self, "size")
        check(0 <= self.contrast <= 4, "contrast", self.contrast, "must lie between 0 and 4")
        check(self.length >= 3, "length", self.length, "must be at least 3")
        check(self.min_area >= 0, "min_area", self.min_area, "must not be negative")
        check_most(self, size=10**6, length=1000, min_area=10**9)


@dataclass(frozen=True, kw_only=True)
class SpotParams(Section):
    """Spots: the bins of a square grid that hold transcripts.

    Parameters
    ----------
    bin_size
        Side of a bin. ``None``: a sixteenth of the median nucleus diameter, in whole pixels of the labels and at least
        one.
    n_genes
        Most variable genes that the encoder reads; counts in the table always cover all genes.
    n_neighbors
        Nearest occupied spots that are read with each spot.
    window
        Neighbours lie at most this many bins away along each axis; a spot with fewer neighbours than `n_neighbors`
        there is read with those.
    """

    bin_size: float | None = None
    n_genes: int = 2000
    n_neighbors: int = 50
    window: int = 24

    def _check_bounds(self) -> None:
        check_positive(self, "bin_size", "n_genes", "n_neighbors", "window")
        check_most(self, bin_size=10**6, n_genes=10**6, n_neighbors=1024, window=512)
