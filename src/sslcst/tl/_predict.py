"""Directions and in/out probabilities of the spots of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sslcst._arguments import checked
from sslcst._logging import progress
from sslcst.core.features import Features
from sslcst.core.inference import predict_spots
from sslcst.core.inputs import make_inputs
from sslcst.core.model import Model, check_scale, take_genes
from sslcst.core.prior import density_posterior, direction_posterior, direction_prior
from sslcst.device import choose_device
from sslcst.elements import choose_key
from sslcst.params import Params
from sslcst.pp._spots import as_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked
def predict(
    sdata: SpatialData,
    model: Model,
    *,
    spots_key: str = "sslcst_spots",
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
) -> None:
    """Predict for each spot the direction to its nucleus and whether it lies in a cell (paper: eq. 5-11, 13-15).

    Parameters
    ----------
    sdata
        Holds the spots.
    model
        A trained model.
    spots_key
        The table that `sslcst.pp.bin_spots` made. ``obsm["direction"]``, float32 (n, 16), gets the posterior of the
        directions, class 0 from the x axis and on towards +y; ``obs["inside"]`` the probability of lying in a cell, of
        the network and of the density of transcripts together.
    params
        Section ``prior``.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.

    Raises
    ------
    DataError
        The spots are of another size than those the model was trained on, or have few of its genes.
    """
    params = Params.of(params)
    device = choose_device(device)
    choose_key(sdata.tables, spots_key, kind="table of spots", argument="spots_key")
    table = sdata.tables[spots_key]
    spots, relations = as_spots(table)
    check_scale(model, spots.grid)
    inputs = make_inputs(
        model.encoder_params,
        Features.of(
            spots,
            counts=take_genes(table.X, model.places(table.var_names)),
            distance=relations.distance,
            n_neighbors=model.n_neighbors,
            window=model.window,
        ),
        radius=model.radius,
        device=device,
    )
    with progress("predict", len(spots), unit="spot") as bar:
        direction, inside = predict_spots(
            model.encoder.to(device), inputs, block=params.tiles.block, on_batch=bar.update
        )
    model.encoder.cpu()
    layout = table.uns["sslcst"]
    if params.prior.direction:
        prior = direction_prior(spots.index + 0.5, layout["centroids"], (1 + params.prior.sigma) * layout["radius"])
        direction = direction_posterior(direction, prior)
    table.obsm["direction"] = direction
    table.obs["inside"] = density_posterior(inside, table.obs["share"].to_numpy(), params.prior.density)
