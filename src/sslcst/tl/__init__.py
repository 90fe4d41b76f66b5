"""Tools: the whole segmentation, its steps, and how good a result is."""

from sslcst.tl._aggregate import aggregate
from sslcst.tl._annotate import annotate
from sslcst.tl._compare import Comparison, compare
from sslcst.tl._intensities import intensities
from sslcst.tl._plan import Plan, plan
from sslcst.tl._quality import quality
from sslcst.tl._segment import segment
from sslcst.tl._steps import predict, track, train

__all__ = [
    "Comparison",
    "Plan",
    "aggregate",
    "annotate",
    "compare",
    "intensities",
    "plan",
    "predict",
    "quality",
    "segment",
    "track",
    "train",
]
