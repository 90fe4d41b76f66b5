"""The parameters of the method: one frozen dataclass for each section of the paper, bounds checked once.

Lengths are in units of the coordinate system that `tl.segment` was told to work in (microns or pixels); ``None`` means
"taken from the nuclei", so that the defaults serve every platform alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from sslcst._section import Section, check, check_positive, check_share


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


@dataclass(frozen=True, kw_only=True)
class SamplingParams(Section):
    """Positive and negative samples (paper: "Cell correction").

    Parameters
    ----------
    labels
        What tells which spots lie in a cell. ``"density"``: the density of transcripts around each, as a probability,
        for spots anywhere. ``"nuclei"``: the paper's, cores of nuclei and spots far from all nuclei.
    negative_distance
        Negative samples lie farther than this many expected cell radii from every nucleus centroid.
    negative_density
        Negative samples have at most this share of the median density of counts around positive samples ("little or no
        gene expression").
    farthest
        Where too few negatives remain: the share of spots outside nuclei, the farthest ones, that is taken instead.
    max_samples
        At most so many samples of each kind.
    max_squares
        For the field encoder they come from at most so many squares of tissue (`TrainingParams.crop`), on which the
        memory of the training depends.
    validation
        Share of the nuclei whose samples, with the negatives nearest to them, are set apart for validation.
    """

    labels: Literal["density", "nuclei"] = "density"
    negative_distance: float = 1.25
    negative_density: float = 0.5
    farthest: float = 0.05
    max_samples: int = 20_000
    max_squares: int = 64
    validation: float = 0.1

    def _check_bounds(self) -> None:
        check(self.labels in ("density", "nuclei"), "labels", self.labels, "must be 'density' or 'nuclei'")
        check_positive(self, "negative_distance", "max_samples", "max_squares")
        check_share(self, "negative_density", "farthest")
        check_positive(self, "farthest")
        check(0 < self.validation < 1, "validation", self.validation, "must lie strictly between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class EncoderParams(Section):
    """The network (paper: eq. 5-11, Algorithm 2).

    Parameters
    ----------
    kind
        ``"field"``: each spot is one token, which attends to its nearest spots at each layer, so that one pass serves
        all. ``"spot"``: the paper's, which reads each spot with its nearest ones by itself, and costs some 100 times as
        much.
    distance, position
        Whether it reads, beside a spot's genes, its distance to the nearest nucleus and the position of its neighbours.
        One is left out to see what it is worth (paper: fig. 9).
    width
        Size D of a token.
    depth
        Number of blocks. ``None``: 4 of the field encoder, 8 (the paper's) of the spot encoder.
    heads
        Attention heads; must divide `width`. ``None``: 2 of the field encoder, 1 of the spot encoder.
    hidden
        Widths of the RMLP's layers, each followed by GELU and dropout; a last one leads back to `width`.
    noise
        Scale of the RMLP's random reparameterisation at each training step, relative to the weights' initial spread; 0
        is a plain MLP.
    dropout
        Share of activations dropped in the RMLP while training.
    """

    kind: Literal["field", "spot"] = "field"
    distance: bool = True
    position: bool = True
    width: int = 64
    depth: int | None = None
    heads: int | None = None
    hidden: tuple[int, ...] = (128,)
    noise: float = 0.1
    dropout: float = 0.1

    def _check_bounds(self) -> None:
        check(self.kind in ("field", "spot"), "kind", self.kind, "must be 'field' or 'spot'")
        for name, usual in {"depth": {"field": 4, "spot": 8}, "heads": {"field": 2, "spot": 1}}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual[self.kind])
        check_positive(self, "width", "depth", "heads")
        check(self.width % self.heads == 0, "heads", self.heads, f"must divide width={self.width}")
        check(all(size > 0 for size in self.hidden), "hidden", self.hidden, "each must be above 0")
        check(self.noise >= 0, "noise", self.noise, "must not be negative")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingParams(Section):
    """Training (paper: Algorithm 2 and "Experimental setup").

    Parameters
    ----------
    learning_rate
        Of Adam.
    schedule
        ``"cosine"``: the learning rate falls to 0 over `max_epochs` along a half cosine. ``"constant"``: the paper's.
    warm_up
        Steps of the first epoch over which the learning rate rises from 0.
    batch_size
        Samples a step of the spot encoder.
    crop
        Side of the squares of tissue that the field encoder learns from, in expected cell radii.
    field_size
        Spots a step of the field encoder: as many squares as hold them.
    max_epochs
        At most so many passes over the samples.
    min_steps
        Where the samples are few, an epoch is as many passes as make so many steps.
    patience
        Training ends after this many epochs without a lower validation loss; the best state is kept.
    """

    learning_rate: float = 3e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: int = 30
    batch_size: int = 256
    crop: float = 6.0
    field_size: int = 6000
    max_epochs: int = 6
    min_steps: int = 50
    patience: int = 10

    def _check_bounds(self) -> None:
        check(self.schedule in ("cosine", "constant"), "schedule", self.schedule, "must be 'cosine' or 'constant'")
        check_positive(self, "learning_rate", "warm_up", "batch_size", "crop", "field_size", "max_epochs", "patience")
        check_positive(self, "min_steps")


@dataclass(frozen=True, kw_only=True)
class PriorParams(Section):
    """The expected cell radius and what follows from it (paper: eq. 13-15).

    Parameters
    ----------
    radius
        Expected cell radius r. ``None``: twice the median radius of the nuclei.
    sigma
        Tolerance, in units of r (paper: a quarter).
    density
        Weight, beside the network's, of what the density of transcripts tells of a spot's probability to lie in a
        cell. 0: the paper's, the network alone.
    """

    radius: float | None = None
    sigma: float = 0.25
    density: float = 0.75

    def _check_bounds(self) -> None:
        check_positive(self, "radius")
        check(self.sigma >= 0, "sigma", self.sigma, "must not be negative")
        check_share(self, "density")


@dataclass(frozen=True, kw_only=True)
class FlowParams(Section):
    """From predictions to cells: by the nuclei near each bin, or by smoothing and gradient flow tracking.

    Parameters
    ----------
    decoding
        ``"nuclei"``: each bin in a cell goes to one of the nuclei near it, by distance and by its transcripts.
        ``"flow"``: the paper's, the predicted directions are followed to a nucleus.
    smoothing
        Of the flow. ``"confidence"``: a spot's prediction gives way to its neighbours' as far as it is unsure.
        ``"mean"``: the paper's mean over the 3 x 3 bins around.
    threshold
        Spots with at least this probability belong to a cell.
    step
        Bins that one step of the tracking goes.
    orphans
        Keep cells that the flow forms around no nucleus, under ids of their own; only with ``decoding="flow"``.
    min_orphan_area
        Orphans of fewer bins are dropped.
    """

    decoding: Literal["nuclei", "flow"] = "nuclei"
    smoothing: Literal["confidence", "mean"] = "confidence"
    threshold: float = 0.5
    step: float = 2.0
    orphans: bool = False
    min_orphan_area: int = 50

    def _check_bounds(self) -> None:
        check(self.decoding in ("nuclei", "flow"), "decoding", self.decoding, "must be 'nuclei' or 'flow'")
        check(self.decoding == "flow" or not self.orphans, "orphans", self.orphans, 'needs flow.decoding="flow"')
        check(self.smoothing in ("confidence", "mean"), "smoothing", self.smoothing, "must be 'confidence' or 'mean'")
        check_share(self, "threshold")
        check(self.step >= 1, "step", self.step, "must be at least 1")
        check(self.min_orphan_area >= 1, "min_orphan_area", self.min_orphan_area, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TileParams(Section):
    """How a chip is cut. Memory depends on it, and the time a little; the result does not depend on `size`.

    Parameters
    ----------
    size
        Side of a tile in bins, rounded up to whole blocks.
    block
        Side in bins of the squares that go through the encoder at once; a multiple of 16. Rounding may depend on it.
    image_size
        Side in pixels of the tiles in which nuclei are segmented; an image no larger is segmented as one.
    """

    size: int = 2048
    block: int = 512
    image_size: int = 4096

    def _check_bounds(self) -> None:
        check_positive(self, "size", "block")
        check(self.block % 16 == 0, "block", self.block, "must be a multiple of 16")
        check(self.image_size >= 64, "image_size", self.image_size, "must be at least 64")


@dataclass(frozen=True, kw_only=True)
class Params:
    """All parameters of `sslcst.tl.segment`, a section for each step.

    Examples
    --------
    >>> Params.of({"training": {"max_epochs": 20}}).training.max_epochs
    20
    """

    transcripts: TranscriptParams = field(default_factory=TranscriptParams)
    nuclei: NucleiParams = field(default_factory=NucleiParams)
    erosion: ErosionParams = field(default_factory=ErosionParams)
    spots: SpotParams = field(default_factory=SpotParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    encoder: EncoderParams = field(default_factory=EncoderParams)
    training: TrainingParams = field(default_factory=TrainingParams)
    prior: PriorParams = field(default_factory=PriorParams)
    flow: FlowParams = field(default_factory=FlowParams)
    tiles: TileParams = field(default_factory=TileParams)

    @classmethod
    def of(cls, params: Params | Mapping[str, Mapping[str, Any]] | str | None) -> Params:
        """Parameters from themselves, from nested mappings that name what differs from the defaults, or from nothing.

        ``"paper"`` stands for what the paper does where the defaults depart from it.

        Raises
        ------
        ParameterError
            A section or a parameter that does not exist, or a value out of bounds.
        """
        if isinstance(params, Params):
            return params
        if isinstance(params, str):
            check(params == "paper", "params", params, 'must be "paper", or map sections to parameters')
            params = _PAPER
        changed = cls()
        for section, values in (params or {}).items():
            known = {f.name for f in fields(cls)}
            check(section in known, "params", section, f"no such section; there are {', '.join(sorted(known))}")
            check(isinstance(values, Mapping), section, values, "must map parameters to values")
            current = getattr(changed, section)
            names = {f.name for f in fields(current)}
            for name in values:
                check(name in names, section, name, f"no such parameter; there are {', '.join(sorted(names))}")
            changed = replace(changed, **{section: type(current)(**values)})
        return changed

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The parameters as plain nested dictionaries, which `of` reads back."""
        return asdict(self)


_PAPER = {
    "sampling": {"labels": "nuclei"},
    "encoder": {"kind": "spot"},
    "training": {"learning_rate": 1e-4, "schedule": "constant", "warm_up": 1, "max_epochs": 200, "min_steps": 1},
    "prior": {"density": 0.0},
    "flow": {"decoding": "flow", "smoothing": "mean", "step": 1.0},
}
