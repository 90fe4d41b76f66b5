"""A trained model: the encoder and what it must know of the spots it was trained on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sslcst.core.spots import Grid
from sslcst.errors import DataError
from sslcst.methods.ssl_cst.encoder import Encoder
from sslcst.methods.ssl_cst.params import EncoderParams
from sslcst.methods.ssl_cst.training import Epoch

logger = logging.getLogger("sslcst")


@dataclass(frozen=True)
class Model:
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

    def sha256(self) -> str:
        """Hash of the weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def places(self, genes: Sequence[str]) -> np.ndarray:
        """Where each of the model's genes is among these, int64; -1 for one that is not there.

        Raises
        ------
        DataError
            Most of the model's genes are not there.
        """
        place = {gene: i for i, gene in enumerate(genes)}
        found = np.array([place.get(gene, -1) for gene in self.genes], np.int64)
        n_found = int((found >= 0).sum())
        if 2 * n_found < len(self.genes):
            raise DataError(
                f"Only {n_found} of the {len(self.genes)} genes of the model are in these data: train one on them."
            )
        if n_found < len(self.genes):
            logger.warning("%d of the model's %d genes are not in these data.", len(found) - n_found, len(found))
        return found


def check_scale(model: Model, grid: Grid) -> None:
    """See that the spots are as large as those the model was trained on.

    Raises
    ------
    DataError
        They are not.
    """
    if not np.isclose(grid.bin_size, model.bin_size, rtol=0.05):
        raise DataError(
            f"The spots are bins of {grid.bin_size:.4g}, the model was trained on bins of {model.bin_size:.4g}: "
            f"set spots.bin_size={model.bin_size:.4g}."
        )
