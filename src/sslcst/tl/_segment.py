"""The whole way from stain and transcripts to cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from spatialdata import SpatialData

from sslcst import __version__
from sslcst._arguments import Region, checked
from sslcst._logging import collect_stages, logger, progress
from sslcst._sdata.field_names import FieldName
from sslcst._sdata.fingerprint import digest, fingerprint, recorded, weights_in
from sslcst._sdata.lock import locked
from sslcst._sdata.places import real_store, temporary_folder
from sslcst._sdata.provenance import check_own
from sslcst._sdata.scratch import Scratch
from sslcst._sdata.store import add_to_object, check_free, commit, finish, made_by, read_back, scratch_folder, written
from sslcst._section import check, check_seed
from sslcst.device import choose_device
from sslcst.errors import ClusterError, KeyMissingError, SslcstError, StoreError
from sslcst.methods import choose_method, default_method
from sslcst.methods.base import Method, Model
from sslcst.names import check_name
from sslcst.params import Params
from sslcst.run.elements import elements
from sslcst.run.execute import check_workers
from sslcst.run.pipeline import Input, run
from sslcst.tl._fields import choose_fields, choose_input, keys_of
from sslcst.tl._learnt import keep_model, learning_params, learnt_before
from sslcst.tl._sources import choose_keys

_KINDS = {"nuclei": "labels", "cells": "labels", "boundaries": "shapes", "transcripts": "points", "table": "tables"}
_PACKAGES = ("spatialdata", "torch", "numpy", "scipy", "scikit-image")


@checked
def segment(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    channel: str | int | None = None,
    channels: Sequence[str | int] | None = None,
    points_key: str | None = None,
    gene_key: str | None = None,
    count_key: str | None = None,
    nuclei_key: str | None = None,
    cells_key: str | None = None,
    coordinate_system: str | None = None,
    unit: str | None = None,
    pixel_size: float | None = None,
    region: str | Region | None = None,
    fields: str | Sequence[str] | None = None,
    method: str | type[Method] | None = None,
    params: Params | Mapping[str, Any] | None = None,
    model: Model | None = None,
    device: str | None = None,
    seed: int = 0,
    key_added: str = "sslcst",
    shapes: bool = False,
    assign_points: bool = False,
    load_table: bool = True,
    overwrite: bool = False,
) -> None:
    """Segment the cells of a tissue from its stain and its transcripts.

    Nuclei are segmented in the stain, or given; from them and the transcripts a method makes cells. ``"network"``
    asks a network that comes with the package, trained on real cells, whose a bin is; whether it is in a cell, that
    network, the density of transcripts and the usual reach of cells say together. ``"density"`` needs no network: how
    the density falls around the nuclei tells how far cells reach, and a bin in a cell goes to the nearest nucleus.
    ``"ssl-cst"`` is the method of the paper: a transformer learns from the cores of the nuclei whether a spot lies in a
    cell and in which direction its nucleus lies, and the directions are followed.

    Or the cells are there before the transcripts are looked at, which are counted in them: with ``"stain"`` they are
    found in a stain of membranes or cytoplasm, and with `cells_key` given. Nuclei are matched to them: a nucleus takes
    the id of the cell in which most of its pixels lie, and is cut to it; one that lies in none is left out. A cell may
    have several nuclei, or none, which ``obs["n_nuclei"]`` tells.

    The tissue is cut into tiles, on which memory depends, and which change nothing of the result. They are the tasks of
    the active `dask.distributed` client, or of threads. A run that was stopped, by anything, goes on where it was when
    it is called again with the same arguments. The same in steps, with all in memory: `sslcst.pp.segment_nuclei` (or
    `sslcst.pp.import_nuclei`), `sslcst.pp.bin_spots`, `sslcst.tl.train`, `sslcst.tl.predict`, `sslcst.tl.track` and
    `sslcst.tl.aggregate`.

    Parameters
    ----------
    sdata
        Holds the transcripts and the stain, or nuclei. Where it is backed by a store, the results are written there:
        all of them, or on any error none.
    image_key
        The stain, (c, y, x); may be left out if there is only one image, or one named as the readers of spatialdata-io
        name it (Xenium's "morphology_focus", Stereo-seq's "..._regist"), or as those of sopa say.
    channel
        Its channel that shows nuclei; may be left out if there is only one, or one is named DAPI, ssDNA or Hoechst, or
        for the composite images of CosMx, where it is the blue one.
    channels
        With ``"stain"``: the channel that shows whole cells, and the one that shows nuclei. May be left out where they
        are named as usual: "ATP1A1/CD45/E-Cadherin" or "18S" (Xenium), "Cellbound1" or "PolyT" (MERSCOPE), "Membrane",
        "PanCK" (CosMx), ..., and DAPI.
    points_key
        Transcripts: molecules with a gene each, or places annotated by a table of counts. May be left out if there is
        only one points element, or one named as the readers name it (Xenium's "transcripts", Stereo-seq's
        "bin1_genes"). Section ``transcripts`` of `params` says which are left out.
    gene_key, count_key
        Columns of the gene and of the number of molecules; by default those the element names, or of a usual name.
    nuclei_key
        Labels or shapes to take as nuclei, instead of segmenting an image, as `sslcst.pp.import_nuclei` does: ids that
        cannot be those of labels are kept in the table's ``obs["source_id"]``.
    cells_key
        Labels or shapes to take as whole cells, as they are, with their ids: those of the vendor, or of another tool.
        Nuclei come from `nuclei_key` or the stain; where there is neither, cells have none. Labels of cells and of
        nuclei, and the stain, must have the same pixels; shapes are drawn on theirs, or else on a grid over the points.
    coordinate_system
        Where stain and transcripts meet, and whose units (micron or pixel) lengths are in; by default "global" or the
        only one they share.
    unit
        ``"micron"``: the lengths of `params` and of the results are microns. The results lie in a coordinate system in
        microns beside their others: in one of the elements' own that is named so ("micron", "um", ...), else in one
        that is built for them, ``"micron"``, from `pixel_size` or from what the readers of spatialdata-io leave
        (Xenium, MERSCOPE, CosMx, Stereo-seq, seqFISH). What is there stays as it is: `sslcst.pp.add_microns` adds the
        system to it. By default the units of `coordinate_system`.
    pixel_size
        Microns along the side of a pixel of the stain (of labels of nuclei where these are given); with `unit` alone.
    region
        Shapes whose polygons say where, or (x0, y0, x1, y1) in the coordinate system: the cells are made whose nucleus
        has its centroid there, or on the edge; of whole cells, it is their own. Labels are cropped to that, and to
        where these cells may reach, with an exact translation before the image's own transformations, as spatialdata's
        queries have it. What lies around is read as far as it bears on the cells, so that far from the edge of the
        region these are those of the whole; but what a method learns, and sizes that are taken from the nuclei, come
        from there alone (docs/large_data.md).
    fields
        Fields of view, or samples, that are segmented as one: ``"all"``, or their names. They are told by the names of
        their elements: "1" has "1_image" and "1_points", as the readers of CosMx and seqFISH name them, and "old" has
        "dapi-old" and "transcripts-old", as `spatialdata.concatenate` does. Keys are given without that (``"image"``),
        or left out. All share one model and one table, whose ``obs["fov"]`` and ``obs["sample"]`` tell where a cell is,
        and ids that are unique. Of fields of one sample that adjoin or overlap in the coordinate system, as positions
        on the stage have it, a cell on a seam is one. All other results are of a field each:
        ``{key_added}_{field}_cells``, ... ; ``key="{key_added}_{field}"`` names them to what looks at them.
    method
        How cells come about: ``"network"``, the default, ``"density"``, ``"ssl-cst"``, ``"stain"``, or with `cells_key`
        ``"given"``; or a class of your own (`sslcst.methods.base.Method`).
    params
        Nested mappings of what differs from the defaults, ``{"cells": {"radius": 6.0}}``: sections that all methods
        share (`sslcst.params.Params`), and the method's own (`sslcst.methods.ssl_cst.params.SslCstParams`, ...).
        ``{"encoder": "spot"}`` with ``"ssl-cst"`` takes the paper's own encoder, training, smoothing and tracking.
    model
        What this method has learnt before, to be used as it is: from `sslcst.io.read_model` or `sslcst.tl.train`. Each
        run keeps what it has learnt in its table, so that another may have it: with other parameters of what comes
        after learning (``flow.threshold``, ...), or on another section.
    device
        ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
    seed
        The same seed gives the same cells on the same machine.
    key_added
        Results are the labels ``{key_added}_nuclei`` and ``{key_added}_cells`` and the table ``{key_added}_table``.
    shapes
        Whether the boundaries of the cells are added too, as polygons ``{key_added}_boundaries``.
    assign_points
        Whether the transcripts are added once more, as points ``{key_added}_transcripts`` with the columns ``cell_id``
        (0: in no cell) and ``probability`` (of lying in a cell).
    load_table
        Whether the table, which the store gets, is added to the object too. Without it memory hardly grows with the
        number of cells; the same call with it reads the table then (docs/large_data.md).
    overwrite
        Whether the results of an earlier run of this `key_added` may be replaced; those that this run does not make, as
        boundaries without `shapes`, are removed. Where that run had the same input and the same parameters of learning,
        what it has learnt is taken over.

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
    call = _call_of(sdata, dict(locals()))
    results, table, loaded = call.results, call.names["", "table"], call.loaded
    store = real_store(sdata)
    check_workers()
    with ExitStack() as stack:
        finished, done = [], None
        if store is not None:
            stack.enter_context(locked(store))
            finished = finish(store)
            done = None if overwrite else recorded(store, results)
        if call.prefix and any(run and run.startswith(call.prefix) for run in finished):
            _take_over(sdata, store, table, loaded, call.family)
            return
        if done is None:
            former = check_free(sdata, results, overwrite=overwrite, family=call.family)
            check_own(sdata, former, table)
            _check_kept(former.keys() - results, call.inputs)
        given, params = choose_input(sdata, call.fields, call.keys, params=call.params, method=call.method)
        about = call.about | {"params": params.to_dict() | call.method.params.to_dict()}
        about |= {"input": fingerprint(sdata, given.keys, given.about), "weights": weights_in(about["params"])}
        if store is None:
            run_id, folder = uuid4().hex, stack.enter_context(temporary_folder())
        else:
            run_id, folder = call.prefix + digest(about), scratch_folder(store, key_added)
        if run_id in finished:
            _take_over(sdata, store, table, loaded, call.family)
            return
        if run_id == done:
            _take_over(sdata, store, table, {name: kind for name, kind in loaded.items() if name not in sdata})
            return
        if done is not None:  # by a call with other arguments
            former = check_free(sdata, results, overwrite=overwrite, family=call.family)
        learning = None
        if model is None:
            learning = digest(about | {"results": None, "params": learning_params(call.method, about["params"])})
            model = learnt_before(sdata, table, learning, call.method)
        told = {name: about[name] for name in ("results", "seed", "method", "params", "versions")}
        told |= {"run": run_id, "unit": unit, "region": call.keys["region"], "learning": learning}
        scratch = Scratch(folder, run_id)
        stages = stack.enter_context(collect_stages())
        with _kept(scratch, in_memory=store is None):
            if scratch.open(run_id):
                logger.info("Going on with a run that was stopped, from what lies in %s.", folder)
            made = _run(given, params, call, model, scratch, told, in_memory=store is None)
            with progress("write results"):
                kinds, unloaded = {name: results[name] for name in made}, results.keys() - loaded
                commit(sdata, made, kinds, former=former, folder=folder, unloaded=unloaded)
        logger.info("%s", stages)


@dataclass(frozen=True)
class _Call:
    """What a call asks for, as far as its arguments tell."""

    keys: dict[str, Any]  # which elements are read, and where they meet
    inputs: list[tuple[str, str]]  # of these elements that are named, the argument and the name, of all fields
    fields: Sequence[FieldName]
    params: Params
    method: Method
    names: dict[tuple[str, str], str]  # of the results, by field and kind
    results: dict[str, str]  # name -> kind of these
    loaded: dict[str, str]  # of those that the object gets, too
    family: dict[str, str]  # name -> kind of all that runs of this `key_added` may have added
    about: dict[str, Any]  # what the results depend on beside what is read, in plain values
    prefix: str  # of the run's id; of the call alone, which tells whose results are that replaced what was read


def _call_of(sdata: SpatialData, arguments: dict[str, Any]) -> _Call:
    """Check the arguments of a call."""
    key_added, seed, model = (arguments[name] for name in ("key_added", "seed", "model"))
    check_name(key_added, results=tuple(_KINDS))
    check_seed(seed)
    seed, device = int(seed), choose_device(arguments["device"])  # seeds of numpy are written in another way
    method = arguments["method"] or default_method(arguments["cells_key"])
    params, method = choose_method(method, arguments["params"], seed=seed, device=device, progress=progress)
    keys = choose_keys(arguments, method)
    if model is not None:
        check(model.method == method.name, "method", method.name, f"the model is of method {model.method!r}: give that")
    fields = choose_fields(sdata, arguments["fields"], keys)
    every = _names(key_added, [field.name for field in fields])
    left_out = {"boundaries": not arguments["shapes"], "transcripts": not arguments["assign_points"]}
    rule = "the object has no store to leave the table in: write it, and segment what is read from there"
    check(sdata.path is not None or arguments["load_table"], "load_table", False, rule)
    names = {place: name for place, name in every.items() if not left_out.get(place[1])}
    results, family = ({name: _KINDS[kind] for (_, kind), name in each.items()} for each in (names, every))
    loaded = {name: kind for name, kind in results.items() if arguments["load_table"] or kind != "tables"}
    about = {
        "method": method.name,
        "params": params.to_dict() | method.params.to_dict(),
        "versions": _versions(),
        "seed": seed,
        "model": None if model is None else [method.about(model), keep_model(method, model).get("sha256")],
        "device": device,
        "results": results,
    }
    inputs = [(name, own) for field in fields for name, own in keys_of(sdata, field, keys).items() if own]
    prefix = "" if results.keys().isdisjoint(key for _, key in inputs) else f"{digest(about | keys)}-"
    family = made_by(sdata, names["", "table"]) | family
    return _Call(keys, inputs, fields, params, method, names, results, loaded, family, about, prefix)


def _take_over(
    sdata: SpatialData, store: Path, table: str, results: Mapping[str, str], former: Iterable[str] = ()
) -> None:
    """Add results to the object that an earlier, equal run has written to its store, in place of former ones."""
    logger.info("A run with the same input and arguments has written its results to %s: nothing is left to do.", store)
    made = written(store, table)
    made = {name: kind for name, kind in results.items() if name in made}
    add_to_object(sdata, read_back(store, made), made, former)


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


def _names(key_added: str, fields: Iterable[str]) -> dict[tuple[str, str], str]:
    """Names of all that a run may add, by field and kind; one table is of all fields."""
    of_fields = {
        (field, kind): f"{key_added}_{field}_{kind}" if field else f"{key_added}_{kind}"
        for field in fields
        for kind in _KINDS
        if kind != "table"
    }
    return of_fields | {("", "table"): f"{key_added}_table"}


def _check_kept(removed: Iterable[str], inputs: Iterable[tuple[str, str]]) -> None:
    """See that nothing the run reads would be gone with the results that it replaces."""
    for argument, name in inputs:
        if name in set(removed):
            raise KeyMissingError(
                f"{argument}={name!r} is a result of the run that overwrite=True replaces, and would be removed: have "
                "it made again too (shapes=True, assign_points=True), or choose another key_added."
            )


def _run(
    given: Input,
    params: Params,
    call: _Call,
    model: Model | None,
    scratch: Scratch,
    about: Mapping[str, Any],
    *,
    in_memory: bool,
) -> dict[str, Any]:
    """The elements to add."""
    method, names = call.method, call.names
    kinds = {kind for _, kind in names}
    asked = {"boundaries": "boundaries" in kinds, "transcripts": "transcripts" in kinds}
    outcome = run(given, scratch, params=params, method=method, model=model, **asked)
    learnt = method.model(outcome.fit)
    about = dict(about) | {"date": datetime.now(UTC).isoformat(timespec="minutes")} | method.about(learnt)
    if kept := keep_model(method, learnt):
        about["model"] = about.get("model", {}) | kept
    load_table = names["", "table"] in call.loaded
    return elements(outcome, given, names, _storable(about), in_memory=in_memory, load_table=load_table)


def _versions() -> dict[str, str]:
    return {"sslcst": __version__} | {name: version(name) for name in _PACKAGES}


def _storable(value: Any) -> Any:
    """None is left out, since a store has no word for it; tuples become lists."""
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value
