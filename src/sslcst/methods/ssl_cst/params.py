"""The parameters of the paper's method, a section for each of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

from sslcst._section import Section, check, check_most, check_positive, check_share
from sslcst.params import Sections


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
class InputParams(Section):
    """What the encoder reads with each spot.

    Parameters
    ----------
    n_genes
        Most variable genes that the encoder reads; counts in the table always cover all genes.
    n_neighbors
        Nearest occupied spots that are read with each spot.
    window
        Neighbours lie at most this many bins away along each axis; a spot with fewer neighbours than `n_neighbors`
        there is read with those.
    """

    n_genes: int = 2000
    n_neighbors: int = 50
    window: int = 24

    def _check_bounds(self) -> None:
        check_positive(self, "n_genes", "n_neighbors", "window")
        check_most(self, n_genes=10**6, n_neighbors=1024, window=512)


@dataclass(frozen=True, kw_only=True)
class SamplingParams(Section):
    """Positive and negative samples (paper: "Cell correction").

    Parameters
    ----------
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

    negative_distance: float = 1.25
    negative_density: float = 0.5
    farthest: float = 0.05
    max_samples: int = 20_000
    max_squares: int = 64
    validation: float = 0.1

    def _check_bounds(self) -> None:
        check_positive(self, "negative_distance", "max_samples", "max_squares")
        check_share(self, "negative_density", "farthest")
        check_positive(self, "farthest")
        check(0 < self.validation < 1, "validation", self.validation, "must lie strictly between 0 and 1")
        check_most(self, negative_distance=1000, max_samples=10**8, max_squares=10**6)


@dataclass(frozen=True, kw_only=True)
class EncoderParams(Section):
    """The network (paper: eq. 5-11, Algorithm 2).

    Parameters
    ----------
    kind
        ``"field"``: each spot is one token, which attends to its nearest spots at each layer, so that one pass serves
        all. ``"spot"``: the paper's, which reads each spot with its nearest ones by itself, and costs some 100 times as
        much.
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

    shorthand: ClassVar[str] = "kind"

    kind: Literal["field", "spot"] = "field"
    width: int = 64
    depth: int | None = None
    heads: int | None = None
    hidden: tuple[int, ...] = (128,)
    noise: float = 0.1
    dropout: float = 0.1

    def _check_bounds(self) -> None:
        for name, usual in {"depth": {"field": 4, "spot": 8}, "heads": {"field": 2, "spot": 1}}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual[self.kind])
        check_positive(self, "width", "depth", "heads")
        check_most(self, width=4096, depth=64, hidden=2**14, noise=100)
        check(len(self.hidden) <= 16, "hidden", self.hidden, "must be at most 16 layers")
        check(self.width % self.heads == 0, "heads", self.heads, f"must divide width={self.width}")
        check(all(size > 0 for size in self.hidden), "hidden", self.hidden, "each must be above 0")
        check(self.noise >= 0, "noise", self.noise, "must not be negative")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingParams(Section):
    """Training (paper: Algorithm 2 and "Experimental setup"); what is ``None`` is as usual of the kind of encoder.

    Parameters
    ----------
    learning_rate
        Of Adam. ``None``: 1e-4 (the paper's) of the spot encoder, 3e-3 of the field encoder.
    schedule
        ``"cosine"``: the learning rate falls to 0 over `max_epochs` along a half cosine, as is usual of the field
        encoder. ``"constant"``: the paper's.
    warm_up
        Steps of the first epoch over which the learning rate rises from 0. ``None``: 1 and 30.
    batch_size
        Samples a step of the spot encoder.
    crop
        Side of the squares of tissue that the field encoder learns from, in expected cell radii.
    field_size
        Spots a step of the field encoder: as many squares as hold them.
    max_epochs
        At most so many passes over the samples. ``None``: 200 (the paper's) and 6.
    min_steps
        Where the samples are few, an epoch is as many passes as make so many steps. ``None``: 1 and 50.
    patience
        Training ends after this many epochs without a lower validation loss; the best state is kept.
    """

    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    warm_up: int | None = None
    batch_size: int = 256
    crop: float = 6.0
    field_size: int = 6000
    max_epochs: int | None = None
    min_steps: int | None = None
    patience: int = 10

    def _check_bounds(self) -> None:
        check_positive(self, "learning_rate", "warm_up", "batch_size", "crop", "field_size", "max_epochs", "patience")
        check_positive(self, "min_steps")
        check_most(self, learning_rate=1e30, batch_size=10**6, crop=1000, field_size=10**7)
        check_most(self, warm_up=10**7, max_epochs=10**6, min_steps=10**7, patience=10**6)


@dataclass(frozen=True, kw_only=True)
class FlowParams(Section):
    """From predictions to cells: smoothing, and gradient flow tracking; what is ``None`` is as usual of the encoder.

    Parameters
    ----------
    smoothing
        ``"confidence"``: a spot's prediction gives way to its neighbours' as far as it is unsure, as is usual of the
        field encoder. ``"mean"``: the paper's mean over the 3 x 3 bins around.
    threshold
        Spots with at least this probability belong to a cell.
    step
        Bins that one step of the tracking goes. ``None``: 1 (the paper's) of the spot encoder, 2 of the field encoder.
    orphans
        Keep cells that the flow forms around no nucleus, under ids of their own.
    min_orphan_area
        Orphans of fewer bins are dropped.
    """

    smoothing: Literal["confidence", "mean"] | None = None
    threshold: float = 0.5
    step: float | None = None
    orphans: bool = False
    min_orphan_area: int = 50

    def _check_bounds(self) -> None:
        check_share(self, "threshold")
        check(self.step is None or self.step >= 1, "step", self.step, "must be at least 1")
        check(self.min_orphan_area >= 1, "min_orphan_area", self.min_orphan_area, "must be at least 1")
        check_most(self, step=1000, min_orphan_area=10**9)


_USUAL = {
    "spot": {
        "training": {"learning_rate": 1e-4, "schedule": "constant", "warm_up": 1, "max_epochs": 200, "min_steps": 1},
        "flow": {"smoothing": "mean", "step": 1.0},
    },
    "field": {
        "training": {"learning_rate": 3e-3, "schedule": "cosine", "warm_up": 30, "max_epochs": 6, "min_steps": 50},
        "flow": {"smoothing": "confidence", "step": 2.0},
    },
}


@dataclass(frozen=True, kw_only=True)
class SslCstParams(Sections):
    """All parameters of the paper's method.

    With the encoder ``"spot"`` all are the paper's; with ``"field"``, a fast one, training and flow are as suits it.

    Examples
    --------
    >>> SslCstParams.of({"encoder": "spot"}).training.max_epochs
    200
    """

    erosion: ErosionParams = field(default_factory=ErosionParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    inputs: InputParams = field(default_factory=InputParams)
    encoder: EncoderParams = field(default_factory=EncoderParams)
    training: TrainingParams = field(default_factory=TrainingParams)
    flow: FlowParams = field(default_factory=FlowParams)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, usual in _USUAL[self.encoder.kind].items():
            section = getattr(self, name)
            missing = {each.name: usual[each.name] for each in fields(section) if getattr(section, each.name) is None}
            object.__setattr__(self, name, replace(section, **missing))
