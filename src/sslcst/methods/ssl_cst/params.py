"""The parameters of the paper's method, a section for each of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

from sslcst._section import Section, bounded, check
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

    keep: float = bounded(0.6, between=(0, 1))
    size: float = bounded(24.0, above=0, most=10**6)
    contrast: float = bounded(0.5, between=(0, 4))
    length: float = bounded(3.0, least=3, most=1000)
    min_area: int = bounded(9, least=0, most=10**9)
    min_solidity: float = bounded(0.8, between=(0, 1))


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

    n_genes: int = bounded(2000, above=0, most=10**6)
    n_neighbors: int = bounded(50, above=0, most=1024)
    window: int = bounded(24, above=0, most=512)


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

    negative_distance: float = bounded(1.25, above=0, most=1000)
    negative_density: float = bounded(0.5, between=(0, 1))
    farthest: float = bounded(0.05, above=0, most=1)
    max_samples: int = bounded(20_000, above=0, most=10**8)
    max_squares: int = bounded(64, above=0, most=10**6)
    validation: float = bounded(0.1, above=0, below=1)


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
    width: int = bounded(64, above=0, most=4096)
    depth: int | None = bounded(None, above=0, most=64)
    heads: int | None = bounded(None, above=0)
    hidden: tuple[int, ...] = bounded((128,), above=0, most=2**14)
    noise: float = bounded(0.1, least=0, most=100)
    dropout: float = bounded(0.1, least=0, below=1)

    def _check_bounds(self) -> None:
        for name, usual in {"depth": {"field": 4, "spot": 8}, "heads": {"field": 2, "spot": 1}}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual[self.kind])
        check(len(self.hidden) <= 16, "hidden", self.hidden, "must be at most 16 layers")
        check(self.width % self.heads == 0, "heads", self.heads, f"must divide width={self.width}")


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

    learning_rate: float | None = bounded(None, above=0, most=1e30)
    schedule: Literal["cosine", "constant"] | None = None
    warm_up: int | None = bounded(None, above=0, most=10**7)
    batch_size: int = bounded(256, above=0, most=10**6)
    crop: float = bounded(6.0, above=0, most=1000)
    field_size: int = bounded(6000, above=0, most=10**7)
    max_epochs: int | None = bounded(None, above=0, most=10**6)
    min_steps: int | None = bounded(None, above=0, most=10**7)
    patience: int = bounded(10, above=0, most=10**6)


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
    threshold: float = bounded(0.5, between=(0, 1))
    step: float | None = bounded(None, between=(1, 1000))
    orphans: bool = False
    min_orphan_area: int = bounded(50, least=1, most=10**9)


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
