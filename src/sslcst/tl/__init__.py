"""Tools: the whole segmentation, and its steps."""

from sslcst.tl._aggregate import aggregate
from sslcst.tl._predict import predict
from sslcst.tl._segment import segment
from sslcst.tl._track import track
from sslcst.tl._train import train

__all__ = ["aggregate", "predict", "segment", "track", "train"]
