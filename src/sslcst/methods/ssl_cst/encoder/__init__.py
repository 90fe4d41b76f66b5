"""The networks, one interface (paper: eq. 5-11, fig. 1c, Algorithm 2).

``"spot"`` is the paper's: for each spot, self-attention over the spot and its nearest ones. ``"field"`` attends to the
same nearest spots, but each spot is one token that all spots around share, so that one pass serves all of them.
"""

import torch

from sslcst.methods.ssl_cst.encoder.field import Field, FieldEncoder
from sslcst.methods.ssl_cst.encoder.parts import Encoder
from sslcst.methods.ssl_cst.encoder.spot import SpotEncoder, Tokens
from sslcst.methods.ssl_cst.params import EncoderParams

__all__ = ["Encoder", "Field", "FieldEncoder", "SpotEncoder", "Tokens", "make_encoder"]


def make_encoder(
    n_genes: int, params: EncoderParams = EncoderParams(), generator: torch.Generator | None = None
) -> Encoder:
    """A new network of the kind and the sizes that `params` name, to read `n_genes` genes; see `Encoder`."""
    return {"spot": SpotEncoder, "field": FieldEncoder}[params.kind](n_genes, params, generator or torch.Generator())
