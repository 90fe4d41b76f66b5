"""What the network learns from, what it is, and how it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sslcst._section import Section, check, check_most, check_positive, check_share


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
        check_most(self, width=4096, depth=64, hidden=2**14, noise=100)
        check(len(self.hidden) <= 16, "hidden", self.hidden, "must be at most 16 layers")
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
        check_most(self, learning_rate=1e30, batch_size=10**6, crop=1000, field_size=10**7)
        check_most(self, warm_up=10**7, max_epochs=10**6, min_steps=10**7, patience=10**6)
