"""The passes of a method over the tiles of a tissue, and the fit that they lead to."""

from __future__ import annotations

from dataclasses import dataclass

from sslcst.methods.base import Fit, Method, Part, Pass, Tissue, Window
from sslcst.run.tiling import Tile
from sslcst.run.workspace import Workspace, map_tiles, statistics

_FIT = "fit"


@dataclass(frozen=True)
class _Job:
    workspace: Workspace
    tissue: Tissue
    method: Method
    name: str  # of the pass: workers find it by its name in the method, since functions of objects are heavy to send
    fit: Fit


def learn(workspace: Workspace, tiles: list[Tile], tissue: Tissue, method: Method) -> Fit:
    """The fit of a method to a tissue; what a stopped run has learnt is not learnt again."""
    scratch, mark = workspace.scratch, f"{_FIT}/done.json"
    folder = scratch.path(mark).parent
    if scratch.is_finished(mark):
        model = method.recall(folder)
        if model is not None:
            return method.fit_of(model, tissue)
    fit = None
    for each in method.learning:
        _map(workspace, tiles, tissue, method, each, fit)
        parts = [statistics(scratch, each.name, tile) for tile in tiles]
        fit = each.fit(parts, tissue, fit)
    for left in folder.iterdir():  # of a run that was stopped while it wrote them, or damaged since
        left.unlink()
    method.keep(method.model(fit), folder)
    scratch.finish(mark, [f"{_FIT}/{file.name}" for file in folder.iterdir()])
    return fit


def predict(workspace: Workspace, tiles: list[Tile], tissue: Tissue, method: Method, fit: Fit) -> None:
    """The method's last pass, whose values `decide` reads."""
    _map(workspace, tiles, tissue, method, method.prediction, fit)


def _map(workspace: Workspace, tiles, tissue: Tissue, method: Method, each: Pass, fit: Fit) -> None:
    map_tiles(each.name, _of_tile, _Job(workspace, tissue, method, each.name, fit), tiles)


def _of_tile(job: _Job, tile: Tile) -> tuple[Part, None]:
    each = next(each for each in (*job.method.learning, job.method.prediction) if each.name == job.name)
    ranges = tile.around(each.halo(job.tissue, job.fit), job.tissue.grid.whole_shape)
    return each.look(Window(job.tissue, tile.ranges, ranges, job.workspace), job.fit), None
