"""The whole way from stain and transcripts to cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from sslcst import __version__
from sslcst._arguments import checked
from sslcst._logging import collect_stages, logger, progress
from sslcst._section import check_seed
from sslcst.core.fit import fit
from sslcst.core.geometry import Regions
from sslcst.core.layout import lay_out
from sslcst.core.model import check_scale
from sslcst.core.nuclei import none_found
from sslcst.device import choose_device
from sslcst.elements import Raster, channel_in_words
from sslcst.errors import ClusterError, KeyMissingError, SslcstError, StoreError
from sslcst.fingerprint import fingerprint, recorded
from sslcst.model_file import read_model, write_model
from sslcst.names import check_name
from sslcst.params import Params
from sslcst.places import real_store, temporary_folder
from sslcst.scratch import Scratch
from sslcst.store import (
    add_to_object,
    check_free,
    commit,
    finish,
    locked,
    read_back,
    scratch_folder,
)
from sslcst.tiles.alignment import check as check_alignment
from sslcst.tiles.buckets import count_transcripts, fill
from sslcst.tiles.cells import MODEL, Segmentation, find, is_done
from sslcst.tiles.chip import NUCLEI, Chip
from sslcst.tiles.execute import check_workers
from sslcst.tiles.nuclei import copy as copy_nuclei
from sslcst.tiles.nuclei import regions_of
from sslcst.tiles.nuclei import segment as segment_stain
from sslcst.tiles.plan import Tile, cut
from sslcst.tiles.results import (
    CELLS,
    labels_element,
    points_element,
    put_together,
    shapes_element,
)
from sslcst.tiles.survey import Surveyed, choose_lessons, survey_chip
from sslcst.tiles.warnings import warnings_of
from sslcst.tl._aggregate import as_table
from sslcst.tl._plan import bins_seen, tile_bytes
from sslcst.tl._sources import Sources, choose_sources
from sslcst.tl._train import show_epoch

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sslcst.core.model import Model

_KINDS = {"nuclei": "labels", "cells": "labels", "outlines": "shapes", "transcripts": "points", "table": "tables"}
_MODEL_DONE = "model.done"
_PACKAGES = ("spatialdata", "torch", "numpy", "scipy", "scikit-image")


@checked
def segment(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str | None = None,
    coordinate_system: str | None = None,
    params: Params | Mapping[str, Any] | str | None = None,
    model: Model | None = None,
    device: str | None = None,
    seed: int = 0,
    key_added: str = "sslcst",
    shapes: bool = False,
    assign_points: bool = False,
    overwrite: bool = False,
) -> None:
    """Segment the cells of a tissue from its stain and its transcripts, by the method of SSL-CST.

    Nuclei are segmented in the stain; how the density of transcripts falls around them tells how far cells reach, and
    from that a transformer learns whether a spot lies in a cell, and in which direction its nucleus lies; each bin in a
    cell goes to one of the nuclei near it, by distance and by its transcripts. The same in steps, with all in memory:
    `sslcst.pp.segment_nuclei` (or `sslcst.pp.import_nuclei`), `sslcst.pp.erode_nuclei`, `sslcst.pp.bin_spots`,
    `sslcst.tl.train`, `sslcst.tl.predict`, `sslcst.tl.track` and `sslcst.tl.aggregate`.

    The chip is cut into tiles, on which memory depends, and which change nothing of the result. They are the tasks of
    the active `dask.distributed` client, or of threads. A run that was stopped, by anything, goes on where it was when
    it is called again with the same arguments.

    Parameters
    ----------
    sdata
        Holds the transcripts and the stain, or nuclei. Where it is backed by a store, the results are written there:
        all of them, or on any error none.
    image_key
        The stain, (c, y, x); may be left out if there is only one image, or one named as the readers of spatialdata-io
        name it (Xenium's "morphology_focus", Stereo-seq's "..._regist").
    channel
        Its channel that shows nuclei; may be left out if there is only one, or one is named DAPI, ssDNA or Hoechst, or
        for the composite images of CosMx, where it is the blue one.
    points_key
        Transcripts: molecules with a gene each, or places annotated by a table of counts. May be left out if there is
        only one points element, or one named as the readers name it (Xenium's "transcripts", Stereo-seq's
        "bin1_genes"). Section ``transcripts`` of `params` says which are left out.
    gene_key, count_key
        Columns of the gene and of the number of molecules; by default those the element names, or of a usual name.
    nuclei_key
        Labels or shapes to take as nuclei, instead of segmenting an image, as `sslcst.pp.import_nuclei` does: ids that
        cannot be those of labels are kept in the table's ``obs["source_id"]``.
    coordinate_system
        Where stain and transcripts meet, and whose units (micron or pixel) lengths are in; by default "global" or the
        only one they share.
    params
        `sslcst.params.Params`; or nested mappings of what differs from the defaults, ``{"training": {"max_epochs":
        20}}``; or ``"paper"`` for the paper's own samples, encoder, training, smoothing and tracking.
    model
        A model from `sslcst.tl.train`, to be used as it is instead of training one.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    seed
        The same seed gives the same cells on the same machine.
    key_added
        Results are the labels ``{key_added}_nuclei`` and ``{key_added}_cells`` and the table ``{key_added}_table``.
    shapes
        Whether the outlines of the cells are added too, as polygons ``{key_added}_outlines``.
    assign_points
        Whether the transcripts are added once more, as points ``{key_added}_transcripts`` with the columns ``cell_id``
        (0: in no cell) and ``probability`` (of lying in a cell).
    overwrite
        Whether the results of an earlier run of this `key_added` may be replaced; those that this run does not make, as
        outlines without `shapes`, are removed.

    Raises
    ------
    KeyMissingError
        An element, column, channel or coordinate system is missing, or several could be meant, or a result exists.
    DataError
        The data cannot be segmented: no transcripts, no nuclei, values that are not finite, nothing to learn from,
        rasters of three dimensions, a Visium HD run.
    ParameterError
        A parameter does not exist or is out of bounds.
    StoreError
        The store cannot be written.
    BackendError
        A nucleus model or a device that was asked for cannot be had.
    TrainingError
        The loss is not finite.
    ClusterError
        The workers of the active client have too little memory, or were lost again and again.

    See Also
    --------
    sslcst.pl.segmentation : look at the result.
    """
    check_name(key_added, results=tuple(_KINDS))
    check_seed(seed)
    seed = int(seed)  # those of numpy are written in another way
    params = Params.of(params)
    device = choose_device(device)
    results = _results(key_added, shapes=shapes, assign_points=assign_points)
    family = _results(key_added, shapes=True, assign_points=True)
    store = real_store(sdata)
    check_workers()
    keys = {
        "image_key": image_key,
        "channel": channel,
        "points_key": points_key,
        "gene_key": gene_key,
        "count_key": count_key,
        "nuclei_key": nuclei_key,
        "coordinate_system": coordinate_system,
    }
    about = {
        "params": params.to_dict(),
        "versions": _versions(),
        "seed": seed,
        "model": None if model is None else model.sha256(),
        "device": device,
        "results": results,
    }
    # Once results are published in the place of what they were made of, the call alone tells whose they are.
    call = "" if results.keys().isdisjoint((nuclei_key, points_key)) else f"{fingerprint(sdata, (), about | keys)}-"
    with ExitStack() as stack:
        finished, done = [], None
        if store is not None:
            stack.enter_context(locked(store))
            finished = finish(store)
            done = None if overwrite else recorded(store, results)
        if call and any(run and run.startswith(call) for run in finished):
            _take_over(sdata, store, results, family)
            return
        if done is None:
            former = check_free(sdata, results, overwrite=overwrite, family=family)
            _check_kept(former.keys() - results, points_key=points_key, nuclei_key=nuclei_key)
        sources, params = choose_sources(sdata, **keys, params=params)
        if store is None:
            run_id, folder = uuid4().hex, stack.enter_context(temporary_folder())
        else:
            about |= {"params": params.to_dict(), "sources": sources.about}
            run_id, folder = call + fingerprint(sdata, sources.keys, about), scratch_folder(store, key_added)
            if run_id in (*finished, done):
                held = set() if run_id in finished else {name for _, name, _ in sdata.gen_elements()}
                former = family if run_id in finished else ()
                _take_over(sdata, store, {name: kind for name, kind in results.items() if name not in held}, former)
                return
        former = check_free(sdata, results, overwrite=overwrite, family=family)
        scratch = Scratch(folder)
        stages = stack.enter_context(collect_stages())
        with _kept(scratch, in_memory=store is None):
            if scratch.open(run_id):
                logger.info("Going on with a run that was stopped, from what lies in %s.", folder)
            elements = _run(sdata, sources, params, scratch, results, model=model, device=device, seed=seed)
            elements[f"{key_added}_table"].uns["sslcst"] |= {"run": run_id, "results": results}
            with progress("write"):
                commit(sdata, elements, results, former=former, folder=folder)
        logger.info("%s", stages)


def _take_over(sdata: SpatialData, store: Path, results: dict[str, str], former: Iterable[str]) -> None:
    """Add results to the object that an earlier, equal run has written to its store, in place of former ones."""
    logger.info("A run with the same input and arguments has written its results to %s: nothing is left to do.", store)
    add_to_object(sdata, read_back(store, results), results, former)


@contextmanager
def _kept(scratch: Scratch, *, in_memory: bool) -> Iterator[None]:
    """Keep what was done when a run is stopped, unless it is to be called with other input or other parameters."""
    where = "" if in_memory else f"What was done lies in {scratch.folder}: the same call goes on from there."
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("Stopped. The data are as they were. %s", where)
        raise
    except (ClusterError, StoreError):
        raise
    except OSError as error:
        raise StoreError(f"{error}. The data are as they were. {where}") from error
    except SslcstError:
        scratch.remove()
        raise
    finally:
        if scratch.is_empty():
            scratch.remove()


def _results(key_added: str, *, shapes: bool, assign_points: bool) -> dict[str, str]:
    """Name -> kind of all that a run adds."""
    left_out = {"outlines": not shapes, "transcripts": not assign_points}
    return {f"{key_added}_{name}": kind for name, kind in _KINDS.items() if not left_out.get(name)}


def _check_kept(removed: Iterable[str], **inputs: str | None) -> None:
    """See that nothing the run reads would be gone with the results that it replaces."""
    for argument, name in inputs.items():
        if name in set(removed):
            raise KeyMissingError(
                f"{argument}={name!r} is a result of the run that overwrite=True replaces, and would be removed: have "
                "it made again too (shapes=True, assign_points=True), or choose another key_added."
            )


def _run(
    sdata: SpatialData,
    sources: Sources,
    params: Params,
    scratch: Scratch,
    results: Mapping[str, str],
    *,
    model: Model | None,
    device: str,
    seed: int,
) -> dict[str, Any]:
    """The stages one after the other, each in what the scratch folder does not hold yet; the elements to add."""
    raster, kinds = sources.raster, dict(zip((name.rsplit("_", 1)[1] for name in results), results, strict=True))
    regions = regions_of(scratch) or _find_nuclei(sources, params, scratch, device)
    layout = lay_out(
        regions.diameter, raster.shape, pixel_size=raster.pixel_size, pixel_sides=raster.pixel_sides, params=params
    )
    genes = sources.transcripts.genes
    chip = Chip(scratch, layout, regions, len(genes), sources.image, params, seed)
    fill(sources.transcripts, chip.grid, scratch, params.tiles, pair=sources.pair)
    tiles = chip.tiles()
    n_transcripts = count_transcripts(chip.grid, scratch, params.tiles.block)
    n_bins, seen = int(np.prod(chip.grid.whole_shape)), bins_seen(params.tiles.size, chip.grid.whole_shape)
    check_workers(tile_bytes(seen, n_transcripts * min(seen / n_bins, 1)))
    _log_tiles(chip, tiles)
    with progress("alignment"):
        check_alignment(chip, pixel_size=raster.pixel_size, pair=sources.pair)
    surveyed = survey_chip(chip, tiles)
    logger.info(
        "%d spots of %.3g in %d tiles, expected cell radius %.3g, in coordinate system %r, where a pixel is %.4g wide.",
        surveyed.n_spots,
        chip.grid.bin_size,
        len(tiles),
        layout.radius * chip.grid.bin_size,
        raster.coordinate_system,
        raster.pixel_size,
    )
    if model is not None:
        check_scale(model, chip.grid)
    model = _model_of(chip, tiles, surveyed, genes, model, device)
    job = Segmentation(
        chip,
        model.places(genes),
        surveyed.told,
        surveyed.occupancy.spacing,
        device,
        model.sha256(),
        shapes="outlines" in kinds,
        owners="transcripts" in kinds,
    )
    find(job, tiles)
    cells = put_together(chip, tiles)
    source_ids = None if sources.nuclei is None else sources.nuclei.source_ids
    if source_ids is not None:  # cells without a nucleus may have the number of one that was left out
        source_ids = source_ids[source_ids.index.isin(regions.ids)]
    table = as_table(cells, raster, genes, kinds["cells"], source_ids)
    table.uns["sslcst"] = _provenance(chip, surveyed, raster, model)
    logger.info("%d cells hold %.1f%% of the counts.", len(cells), 100 * cells.counts.sum() / surveyed.n_counts)

    in_memory = sdata.path is None
    made = {
        "nuclei": lambda: labels_element(scratch, NUCLEI, raster, in_memory=in_memory),
        "cells": lambda: labels_element(scratch, CELLS, raster, in_memory=in_memory),
        "outlines": lambda: shapes_element(chip, tiles, raster),
        "transcripts": lambda: points_element(chip, tiles, sdata.points[sources.points_key], in_memory=in_memory),
        "table": lambda: table,
    }
    return {name: made[kind]() for kind, name in kinds.items()}


def _log_tiles(chip: Chip, tiles: list[Tile]) -> None:
    """Say how many tiles there are, which ones are empty, and how many an earlier run has done."""
    empty = [tile.name for tile in cut(chip.grid, chip.params.tiles) if tile not in tiles]
    logger.info(
        "%d tiles of %d bins%s; %d were done before.",
        len(tiles),
        chip.params.tiles.size,
        f"; {len(empty)} more are empty and skipped: {', '.join(empty)}" if empty else "",
        sum(is_done(chip, tile) for tile in tiles),
    )


def _find_nuclei(sources: Sources, params: Params, scratch: Scratch, device: str) -> Regions:
    raster = sources.raster
    if sources.nuclei is None:
        name = channel_in_words(sources.keys[0], sources.channel)
        regions = segment_stain(
            sources.image,
            raster.shape,
            pixel_size=raster.pixel_size,
            scratch=scratch,
            params=params,
            device=device,
            name=name,
        )
        if not len(regions):
            raise none_found(name, params.nuclei.method)
    else:
        regions = copy_nuclei(sources.nuclei, raster.shape, scratch, params)
    logger.info("%d nuclei.", len(regions))
    return regions


def _model_of(chip: Chip, tiles, surveyed: Surveyed, genes, model: Model | None, device: str) -> Model:
    """The model, in the scratch folder where all workers find it; trained, unless there is one."""
    file = chip.scratch.folder / MODEL
    if chip.scratch.is_finished(_MODEL_DONE):
        return read_model(file)
    params = chip.params
    if model is None:
        samples, *lessons = choose_lessons(chip, tiles, surveyed)
        with progress("train", params.training.max_epochs, unit="epoch") as bar:
            model = fit(
                *lessons,
                samples,
                genes=genes[surveyed.told.genes],
                bin_size=chip.grid.bin_size,
                radius=chip.layout.radius,
                params=params,
                seed=chip.seed,
                device=device,
                on_epoch=show_epoch(bar),
            )
    new = chip.scratch.folder / "new"
    rmtree(new, ignore_errors=True)
    new.mkdir()
    write_model(model, new / MODEL)
    names = [file.with_suffix(suffix).name for suffix in (".json", ".safetensors")]
    for name in names:
        (new / name).replace(chip.scratch.folder / name)
    chip.scratch.finish(_MODEL_DONE, names)
    return model


def _versions() -> dict[str, str]:
    return {"sslcst": __version__} | {name: version(name) for name in _PACKAGES}


def _provenance(chip: Chip, surveyed: Surveyed, raster: Raster, model: Model) -> dict[str, Any]:
    """What is needed to know how a result came about, in types that a store holds."""
    history = [asdict(epoch) for epoch in model.history]
    return {
        "params": _storable(chip.params.to_dict()),
        "versions": _versions(),
        "seed": chip.seed,
        "model": {"seed": model.seed, "sha256": model.sha256()},
        "history": {name: [epoch[name] for epoch in history] for name in history[0]},
        "coordinate_system": raster.coordinate_system,
        "bin_size": chip.grid.bin_size,
        "radius": chip.layout.radius * chip.grid.bin_size,
        "n_nuclei": len(chip.regions),
        "n_cores": surveyed.n_cores,
        "total_counts": surveyed.n_counts,
        "warnings": "\n".join(warnings_of(chip.scratch)),  # lists of text in uns crash copies under some numpy
    }


def _storable(value: Any) -> Any:
    """None is left out, since a store has no word for it; tuples become lists."""
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value
