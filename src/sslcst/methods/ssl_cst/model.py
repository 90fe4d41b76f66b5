"""A trained model: the encoder and what it must know of the spots it was trained on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sslcst._section import Section, check, check_most, check_positive
from sslcst.methods.ssl_cst.encoder import Encoder
from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.methods.ssl_cst.training import Epoch


@dataclass(frozen=True)
class Model(Section):
    """A trained encoder, and how to read spots for it."""

    method: ClassVar[str] = "ssl-cst"

    encoder: Encoder  #: The network
    encoder_params: EncoderParams  #: Its shape
    genes: tuple[str, ...]  #: Names of the genes it reads, in its order
    bin_size: float  #: Side of the bins it was trained on, in units of the coordinate system
    radius: float  #: Expected cell radius r it was trained with, in bins
    n_neighbors: int  #: Nearest spots that are read with each
    window: int  #: Bins along each axis within which they are sought
    seed: int  #: Of the training
    n_samples: int  #: Samples it was trained on in each epoch
    history: tuple[Epoch, ...]  #: The epochs of the training

    def _check_bounds(self) -> None:
        check(0 < len(self.genes) == len(set(self.genes)), "genes", self.genes, "must be names, none of them twice")
        check("" not in self.genes, "genes", self.genes, "must not be empty names")
        check_positive(self, "bin_size", "radius", "n_neighbors", "window")
        check_most(self, bin_size=10**6, radius=10**6, n_neighbors=1024, window=512, seed=2**63 - 1, n_samples=10**12)
        for name in ("seed", "n_samples"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")

    def card(self) -> dict[str, Any]:
        """All but the weights, in plain values."""
        about = {name: value for name, value in vars(self).items() if name != "encoder"}
        history = [asdict(epoch) for epoch in self.history]
        return about | {"encoder_params": asdict(self.encoder_params), "history": history}

    def sha256(self) -> str:
        """Hash of the weights and of all else."""
        digest = hashlib.sha256(json.dumps(self.card(), sort_keys=True).encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()
