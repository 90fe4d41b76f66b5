"""What a method learns of the tissue of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sslcst._arguments import checked
from sslcst._logging import progress
from sslcst._section import check_seed
from sslcst.device import choose_device
from sslcst.errors import ParameterError
from sslcst.methods import DEFAULT, choose_method
from sslcst.params import Params
from sslcst.run import memory
from sslcst.tl._steps import open_window

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.methods.base import Method, Model


@checked
def train(
    sdata: SpatialData,
    *,
    method: str | type[Method] = DEFAULT,
    spots_key: str = "sslcst_spots",
    image_key: str | None = None,
    channel: str | int | None = None,
    params: Params | Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Model:
    """Learn what a method needs to know of a tissue: levels of density, or a trained encoder (paper: Algorithm 2).

    Parameters
    ----------
    sdata
        Holds the spots and the nuclei that they were binned on.
    method
        As in `sslcst.tl.segment`.
    spots_key
        The table that `sslcst.pp.bin_spots` made.
    image_key, channel
        The stain, on the pixels of the nuclei: with ``"ssl-cst"``, nuclei that stand out less from it have smaller
        cores. Without it, all count as standing out.
    params
        The method's own sections, and ``cells.max_distance`` and ``tiles`` of those that methods share.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    seed
        Of whatever the method draws.

    Returns
    -------
    The model, for `sslcst.tl.predict` and, on other tissues, `sslcst.tl.segment`; `sslcst.io.write_model` keeps it.
    That of ``"ssl-cst"`` has the history of its training.

    Raises
    ------
    ParameterError
        A method that learns nothing: ``"stain"`` or ``"given"``.
    DataError
        Nothing to learn from.
    TrainingError
        The loss is not finite.
    """
    check_seed(seed)
    device = choose_device(device)
    shared, chosen = choose_method(method, params, seed=seed, device=device, progress=progress)
    if chosen.whole_cells:
        raise ParameterError(
            f"method={chosen.name!r} learns nothing, and takes cells as they are: sslcst.tl.segment does it at once."
        )
    window = open_window(sdata, spots_key, chosen, shared, image_key=image_key, channel=channel)
    return chosen.model(memory.learn(chosen, window))
