"""Train the encoder on the spots of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sslcst._arguments import checked
from sslcst._logging import progress
from sslcst._section import check_seed
from sslcst.core.features import gather, join
from sslcst.core.fit import fit, square_side
from sslcst.core.model import Model, take_genes
from sslcst.core.sampling import choose_samples, survey
from sslcst.core.training import Epoch
from sslcst.device import choose_device
from sslcst.elements import choose_key
from sslcst.params import Params
from sslcst.pp._spots import as_membership, as_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from tqdm import tqdm


@checked
def train(
    sdata: SpatialData,
    *,
    spots_key: str = "sslcst_spots",
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Model:
    """Train a model on what the nuclei and the density of transcripts around them tell (paper: Algorithm 2).

    Parameters
    ----------
    sdata
        Holds the spots.
    spots_key
        The table that `sslcst.pp.bin_spots` made.
    params
        Sections ``sampling``, ``encoder`` and ``training``, and the neighbours of ``spots``.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    seed
        Of the samples, the weights and the noise.

    Returns
    -------
    The model, with the history of its training. `sslcst.io.write_model` keeps it for the next chip.

    Raises
    ------
    DataError
        No spot to learn from: none in a core, or none outside the nuclei.
    TrainingError
        The loss is not finite.
    """
    check_seed(seed)
    params = Params.of(params)
    device = choose_device(device)
    choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")
    table = sdata.tables[spots_key]
    spots, relations = as_spots(table)
    radius = float(table.uns["sslcst"]["radius"])
    surveyed = survey(spots, relations, radius=radius, params=params.sampling)
    samples = choose_samples(
        spots,
        relations,
        surveyed,
        radius=radius,
        params=params.sampling,
        square=square_side(params, radius),
        seed=seed,
        membership=as_membership(table) if params.sampling.labels == "density" else None,
    )
    variable = table.var["variable"].to_numpy()
    gathered = gather(
        spots, samples, take_genes(table.X, np.flatnonzero(variable)), relations.distance, radius=radius, params=params
    )
    with progress("train", params.training.max_epochs, unit="epoch") as bar:
        return fit(
            *join([gathered]),
            samples,
            genes=table.var_names[variable],
            bin_size=spots.grid.bin_size,
            radius=radius,
            params=params,
            seed=seed,
            device=device,
            on_epoch=show_epoch(bar),
        )


def show_epoch(bar: tqdm) -> Callable[[Epoch], None]:
    """What tells a progress bar of an epoch."""

    def show(epoch: Epoch) -> None:
        bar.set_postfix(loss=f"{epoch.validation_loss:.3f}", direction=f"{epoch.direction_accuracy:.2f}")
        bar.update()

    return show
