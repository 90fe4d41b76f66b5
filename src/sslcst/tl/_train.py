"""Train the encoder on the spots of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sslcst._logging import logger, progress
from sslcst.core.inputs import crop_side, make_inputs
from sslcst.core.model import Model
from sslcst.core.sampling import choose_samples
from sslcst.core.training import Epoch, train_encoder
from sslcst.device import choose_device
from sslcst.elements import choose_key
from sslcst.params import Params, check_seed
from sslcst.pp import as_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData


def train(
    sdata: SpatialData,
    *,
    spots_key: str = "sslcst_spots",
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Model:
    """Train a model on the spots in nucleus cores and on those far from all nuclei (paper: Algorithm 2).

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
    spots, layout = as_spots(table), table.uns["sslcst"]
    radius = layout["radius"] / layout["bin_size"]
    samples = choose_samples(
        spots,
        nucleus=table.obs["nucleus"].to_numpy(),
        core=table.obs["core"].to_numpy(),
        nearest=table.obs["nearest"].to_numpy(),
        distance=table.obs["distance"].to_numpy(),
        offset=table.obsm["to_nucleus"],
        radius=layout["radius"],
        params=params.sampling,
        square=crop_side(params.training, radius) if params.encoder.kind == "field" else 1,
        seed=seed,
    )
    variable = table.var["variable"].to_numpy()
    neighborhood = {"n_neighbors": params.spots.n_neighbors, "window": params.spots.window}
    inputs = make_inputs(
        params.encoder,
        spots,
        counts=table.X[:, variable],
        distance=table.obs["distance"].to_numpy() / layout["bin_size"],
        radius=radius,
        device=device,
        **neighborhood,
    )
    with progress("train", params.training.max_epochs, unit="epoch") as bar:

        def show(epoch: Epoch) -> None:
            bar.set_postfix(loss=f"{epoch.validation_loss:.3f}", direction=f"{epoch.direction_accuracy:.2f}")
            bar.update()

        encoder, history = train_encoder(
            inputs,
            samples,
            n_genes=int(variable.sum()),
            encoder_params=params.encoder,
            params=params.training,
            seed=seed,
            device=device,
            on_epoch=show,
        )
    best = min(history, key=lambda epoch: epoch.validation_loss)
    logger.info(
        "Trained %d epochs on %d samples (%d positive); best epoch %d: %.2f of directions, %.3f of in or out right.",
        len(history),
        len(samples),
        samples.inside.sum(),
        best.epoch + 1,
        best.direction_accuracy,
        best.inside_accuracy,
    )
    return Model(
        encoder=encoder.cpu(),
        encoder_params=params.encoder,
        genes=tuple(table.var_names[variable]),
        bin_size=float(layout["bin_size"]),
        radius=float(radius),
        seed=seed,
        n_samples=int((~samples.validation).sum()),
        history=tuple(history),
        **neighborhood,
    )
