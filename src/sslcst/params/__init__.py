"""The parameters of the method: one frozen dataclass for each section of the paper, bounds checked once.

Lengths are in units of the coordinate system that `tl.segment` was told to work in (microns or pixels); ``None`` means
"taken from the nuclei", so that the defaults serve every platform alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sslcst._section import check
from sslcst.errors import ParameterError, did_you_mean
from sslcst.params._cells import FlowParams, PriorParams, TileParams
from sslcst.params._learning import EncoderParams, SamplingParams, TrainingParams
from sslcst.params._tissue import ErosionParams, NucleiParams, SpotParams, TranscriptParams

__all__ = [
    "EncoderParams",
    "ErosionParams",
    "FlowParams",
    "NucleiParams",
    "Params",
    "PriorParams",
    "SamplingParams",
    "SpotParams",
    "TileParams",
    "TrainingParams",
    "TranscriptParams",
]


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

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kind = each.default_factory
            check(isinstance(value, kind), each.name, value, f"must be {kind.__name__}; Params.of reads mappings")

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
        if isinstance(params, str) and params == "paper":
            params = _PAPER
        given = {} if params is None else params
        rule = 'must be "paper", Params, or map sections to parameters'
        check(isinstance(given, Mapping), "params", given if isinstance(given, str) else type(given), rule)
        changed = cls()
        for section, values in given.items():
            _check_known("section", "params", section, cls)
            check(isinstance(values, Mapping), section, values, "must map parameters to values")
            kind = type(getattr(changed, section))
            for name in values:
                _check_known("parameter", section, name, kind)
            try:
                changed = replace(changed, **{section: kind(**values)})
            except ParameterError as error:
                raise ParameterError(f"{section}.{error}") from None
        return changed

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The parameters as plain nested dictionaries, which `of` reads back."""
        return asdict(self)


def _check_known(what: str, where: str, name: object, kind: type) -> None:
    """Raise ParameterError unless a dataclass has a field of that name."""
    known = sorted(f.name for f in fields(kind))
    check(name in known, where, name, f"no such {what}; there are {', '.join(known)}{did_you_mean(name, known)}")


_PAPER = {
    "sampling": {"labels": "nuclei"},
    "encoder": {"kind": "spot"},
    "training": {"learning_rate": 1e-4, "schedule": "constant", "warm_up": 1, "max_epochs": 200, "min_steps": 1},
    "prior": {"density": 0.0},
    "flow": {"decoding": "flow", "smoothing": "mean", "step": 1.0},
}
