"""The sections of parameters: what is taken of a tissue, how large cells are, how a chip is cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sslcst._section import Section, bounded, check


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

    min_quality: float = bounded(20.0, least=0, most=10**6)
    exclude: str = (
        r"NegControl(Probe|Codeword)_|(Unassigned|Deprecated)Codeword_|Intergenic_Region_|antisense_|BLANK_"  # Xenium
        r"|Blank-"  # MERSCOPE
        r"|NegPrb|Negative\d|SystemControl|FalseCode"  # CosMx
    )

    def _check_bounds(self) -> None:
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
    diameters: tuple[float, ...] = bounded((), above=0, most=10**6)
    flow_threshold: float = bounded(0.9, above=0, most=1000)  # 0 would switch Cellpose's test off
    cellprob_threshold: float = bounded(0.0, between=(-1000, 1000))
    percentiles: tuple[float, float] = (1.0, 99.8)

    def _check_bounds(self) -> None:
        check(len(self.percentiles) == 2, "percentiles", self.percentiles, "must be two numbers")
        low, high = self.percentiles
        check(0 <= low < high <= 100, "percentiles", self.percentiles, "must rise and lie between 0 and 100")
        check(len(self.diameters) <= 100, "diameters", self.diameters, "must be at most 100, each of which is tried")


@dataclass(frozen=True, kw_only=True)
class SpotParams(Section):
    """Spots: the bins of a square grid that hold transcripts.

    Parameters
    ----------
    bin_size
        Side of a bin. ``None``: a sixteenth of the median nucleus diameter, in whole pixels of the labels and at least
        one.
    """

    bin_size: float | None = bounded(None, above=0, most=10**6)


@dataclass(frozen=True, kw_only=True)
class CellParams(Section):
    """How large cells are expected to be.

    Parameters
    ----------
    radius
        Expected cell radius r. ``None``: twice the median radius of the nuclei.
    max_distance
        How far from its nucleus a cell may reach, in units of r. ``None``: as the method has it, 1.25 with
        ``"density"`` and ``"ssl-cst"`` (paper: r + sigma, with a sigma of r / 4), and 2 with ``"network"``.
    min_counts, min_area
        Cells of fewer molecules, or of a smaller area in square units of the coordinate system, are left out of all
        results, with their nuclei. 0: none is.
    """

    radius: float | None = bounded(None, above=0, most=10**6)
    max_distance: float | None = bounded(None, between=(1, 10))
    min_counts: int = bounded(0, least=0, most=2**32)
    min_area: float = bounded(0.0, least=0, most=10**12)


@dataclass(frozen=True, kw_only=True)
class TileParams(Section):
    """How a tissue is cut. Memory depends on it, and the time a little; the result does not depend on `size`.

    Parameters
    ----------
    size
        Side of a tile in bins, rounded up to whole blocks.
    block
        Side in bins of the squares that go through a network at once; a multiple of 16. Rounding may depend on it.
    image_size
        Side in pixels of the tiles in which nuclei are segmented; an image no larger is segmented as one.
    """

    size: int = bounded(2048, above=0, most=2**20)
    block: int = bounded(512, above=0, most=2**16)
    image_size: int = bounded(2048, least=64, most=2**20)

    def _check_bounds(self) -> None:
        check(self.block % 16 == 0, "block", self.block, "must be a multiple of 16")
