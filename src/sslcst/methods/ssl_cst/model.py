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
    """A trained encoder, and how to read spots for it.

    Parameters
    ----------
    encoder
        The network.
    encoder_params
        Its shape.
    genes
        Names of the genes it reads, in its order.
    bin_size
        Side of the bins it was trained on, in units of the coordinate system.
    radius
        Expected cell radius r it was trained with, in bins.
    n_neighbors, window
        How neighbours are sought.
    seed
        Of the training.
    n_samples
        Samples it was trained on in each epoch.
    history
        The epochs of the training.
    """

    method: ClassVar[str] = "ssl-cst"

    encoder: Encoder
    encoder_params: EncoderParams
    genes: tuple[str, ...]
    bin_size: float
    radius: float
    n_neighbors: int
    window: int
    seed: int
    n_samples: int
    history: tuple[Epoch, ...]

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
