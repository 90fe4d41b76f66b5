"""The sections of the page. Each says so where the store lacks what it would show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sslcst._sdata.columns import counts_of
from sslcst._sdata.raster import full_scale
from sslcst.errors import DataError, KeyMissingError
from sslcst.methods import DEFAULT, choose_method
from sslcst.report._page import folded, row, table, text, warning
from sslcst.report._pictures import histogram, segmentation_pictures, training_chart
from sslcst.report._result import Result, plain
from sslcst.report._warnings import warnings_of

MOST_PIXELS = 2**25  # of cells whose quality is measured in seconds, and in a gigabyte or two
MOST_GENES = 10  # that are listed
QUARTILES = ("minimum", "1st quartile", "median", "3rd quartile", "maximum")


def sections(result: Result) -> dict[str, Iterable[str]]:
    """The blocks of all sections, in the order of the page."""
    warnings = [warning(*each) for each in warnings_of(result)]
    return {
        "Warnings": warnings or [text("Nothing conspicuous.")],
        "Overview": _overview(result),
        "Pictures": segmentation_pictures(result),
        "Counts": _counts(result),
        "Genes": _genes(result),
        "Sizes": _sizes(result),
        "Quality": _quality(result),
        **({} if result.truth_key is None else {"Reference": _reference(result)}),
        "Training": _training(result),
        "Parameters": _parameters(result),
    }


def number(value: float | int | None) -> str:
    """Thousands set apart, four digits of what is smaller and not whole."""
    if value is None or not np.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def percent(share: float) -> str:
    """A share, of 1, in percent."""
    return f"{100 * share:.1f} %" if np.isfinite(share) else "unknown"


def quartiles(caption: str, values: Mapping[str, NDArray[Any] | None]) -> str:
    """A table of `QUARTILES`, of the values that are known."""
    rows = []
    for name, numbers in values.items():
        known = [] if numbers is None else numbers[np.isfinite(numbers)]
        shown = map(number, np.quantile(known, (0, 0.25, 0.5, 0.75, 1))) if len(known) else ["unknown"] * 5
        rows.append([name, *shown])
    return table(caption, ("What", *QUARTILES), rows)


def _overview(result: Result) -> Iterable[str]:
    about, model = result.about, result.about.get("model", {})
    if not about:
        yield text("The table has no uns['sslcst'], so that nothing is known of how it was made.")
    rows = [
        ["Cells", number(result.table.n_obs)],
        ["Genes", number(result.table.n_vars)],
        ["Coordinate system", f"{result.coordinate_system} (lengths and areas are in its units)"],
        ["Side of a spot", number(about.get("bin_size"))],
        ["Expected cell radius", number(about.get("radius"))],
        ["Seed", number(about.get("seed"))],
        ["Model (SHA-256)", model.get("sha256", "unknown")],
        ["Seed of the model", number(model.get("seed"))],
    ]
    if (region := about.get("region")) is not None:
        box = region if isinstance(region, str) else ", ".join(f"{value:g}" for value in region)
        rows.append(["Region of interest", box])
    shown = {"coordinate_system", "region", "bin_size", "radius", "seed", "total_counts", "warnings"}
    shown |= {"learning", "n_nuclei", "n_dropped", "n_cores"}
    rows += [[name, str(value)] for name, value in sorted(about.items()) if name not in shown and np.isscalar(value)]
    yield table("The segmentation", ("What", "Value"), rows)
    versions = sorted(about.get("versions", {}).items(), key=lambda item: (item[0] != "sslcst", item[0]))
    elements = [[name, kind, _size(element)] for kind, name, element in result.sdata.gen_elements()]
    made_with = table("Versions it was made with", ("Package", "Version"), versions)
    if not versions:
        made_with = text("The versions it was made with are unknown.")
    yield row([table("Elements of the store", ("Name", "Kind", "Size"), elements), made_with])


def _size(element: Any) -> str:
    """Pixels of images and labels, at the finest scale; rows and columns of the rest, without reading points."""
    if hasattr(element, "npartitions"):
        return f"{len(element.columns)} columns"
    return " x ".join(f"{n:,}" for n in full_scale(element).shape)


def _counts(result: Result) -> Iterable[str]:
    counts, total = result.counts, result.about.get("total_counts")  # of the whole tissue
    rows = [["All counts", number(total)], ["Counts in cells", number(int(counts.sum()))]]
    if not total:
        yield text("Which points were segmented is not clear, so that the share of counts in cells is unknown.")
    else:
        rows.append(["Counts in cells, of all", percent(counts.sum() / total)])
    if "nuclear" in result.table.layers:
        nuclear = int(result.table.layers["nuclear"].sum())
        rows.append(["Counts in nuclei", number(nuclear)])
        rows.append(["Counts in nuclei, of those in cells", percent(nuclear / max(1, counts.sum()))])
    yield table("Counts", ("What", "Value"), rows)
    of_cell = {"Counts": counts, "Genes": result.column("n_genes"), "Spots": result.column("n_spots")}
    yield quartiles("Of a cell", of_cell)
    yield histogram({"cells": counts}, "counts of a cell", "Cells by their number of counts.")


def _genes(result: Result) -> Iterable[str]:
    try:
        counts = counts_of(result.table, result.named("table"))
    except DataError as error:
        yield text(f"What genes have in cells is unknown: {error}")
        return
    of_gene, cells = (np.asarray(each.sum(axis=0)).ravel() for each in (counts, counts > 0))
    nuclear = result.table.layers.get("nuclear")
    in_nuclei = np.full(len(of_gene), np.nan) if nuclear is None else np.asarray(nuclear.sum(axis=0)).ravel()
    order = [gene for gene in np.argsort(-of_gene, kind="stable")[:MOST_GENES] if of_gene[gene]]
    rows = [
        [
            str(result.table.var_names[gene]),
            number(int(of_gene[gene])),
            percent(of_gene[gene] / of_gene.sum()),
            percent(cells[gene] / result.table.n_obs),
            percent(in_nuclei[gene] / of_gene[gene]),
        ]
        for gene in order
    ]
    none = int((of_gene == 0).sum())
    yield text(f"{number(none)} of {number(len(of_gene))} genes have no count in any cell.")
    header = ("Gene", "Counts in cells", "Of all in cells", "Cells that have it", "In nuclei, of those in cells")
    if rows:
        yield table("Most counts", header, rows)


def _sizes(result: Result) -> Iterable[str]:
    areas = {"Cells": result.column("area"), "Nuclei": result.column("nucleus_area")}
    if areas["Cells"] is None or areas["Nuclei"] is None:
        yield text("The table's obs lacks 'area' or 'nucleus_area', so that sizes are unknown.")
        return
    areas = {name: np.where(area > 0, area, np.nan) for name, area in areas.items()}
    across = {name: 2 * np.sqrt(area / np.pi) for name, area in areas.items()}
    unit = result.coordinate_system
    yield quartiles(f"Area (square {unit})", areas)
    yield quartiles(f"Diameter ({unit}) of a circle of that area", across)
    across = {name.lower(): values for name, values in across.items()}
    yield histogram(across, f"diameter ({unit})", "Cells and nuclei by diameter.")


def _quality(result: Result) -> Iterable[str]:
    nucleus_area = result.column("nucleus_area")
    kinds = {
        "Cells cut by the border": result.column("touches_border"),
        "Cells without counts": result.counts == 0,
        "Cells without a nucleus": None if nucleus_area is None else nucleus_area == 0,
        "Cells no larger than their nucleus": result.ungrown,
    }
    rows = [
        [name, "unknown", "unknown"] if which is None else [name, number(int(which.sum())), percent(which.mean())]
        for name, which in kinds.items()
    ]
    yield table(f"Of {number(result.table.n_obs)} cells", ("What", "Cells", "Share"), rows)
    yield from _measured(result)
    probability = result.column("mean_prob")
    if probability is None or np.isnan(probability).all():
        yield text("The table's obs has no 'mean_prob', so that the certainty of the cells is unknown.")
        return
    yield quartiles("Probability of lying in a cell", {"Mean probability of a cell's spots": probability})
    yield histogram({"cells": probability}, "mean probability", "Cells by the mean probability of their spots.")


def _measured(result: Result) -> Iterable[str]:
    """The figures of `sslcst.tl.quality` that the table lacks."""
    n_pixels = full_scale(result.sdata[result.named("cells")]).size
    if n_pixels > MOST_PIXELS:
        yield text(
            f"Contamination and density ratio are not measured, since that takes long for {number(n_pixels)} pixels: "
            "sslcst.tl.quality does it, best of an object that is cropped to a region."
        )
        return
    from sslcst.tl import quality  # here, since it loads much that the rest does without

    try:
        frame = quality(result.sdata, key=result.key)
    except (DataError, KeyMissingError) as error:
        yield text(f"Contamination and density ratio are unknown: {error}")
        return
    figures = {"Contamination": frame["contamination"], "Density ratio": frame["density_ratio"]}
    yield quartiles("Without a reference", figures)
    yield text(
        "Contamination is the share of the pairs of genes that exclude each other in nuclei and yet are together in a "
        "cell: it rises where cells take in what is of their neighbours. The density ratio is that of transcripts in "
        "the cytoplasm to those just outside: near 1, the cell stops too early. Both tell which of two runs on the "
        "same data is better, and little by themselves."
    )


def _reference(result: Result) -> Iterable[str]:
    from sslcst.tl import compare

    system = result.coordinate_system
    frame = compare(result.sdata, result.named("cells"), result.truth_key, coordinate_system=system).to_frame()
    rows = [[name, *map(number, frame.loc[name])] for name in frame.index]
    yield table("Beside the reference", ("What", *frame.columns), rows)


def _training(result: Result) -> Iterable[str]:
    history, best = result.history, result.best_epoch
    if history is None:
        unknown = "The table has no uns['sslcst']['history'], so that nothing is known of the training."
        method = result.about.get("method")
        yield text(f"Method {method!r} is not trained in epochs." if method else unknown)
        return
    names = {
        "train_loss": "Training loss",
        "validation_loss": "Validation loss",
        "direction_accuracy": "Directions right",
        "inside_accuracy": "In or out right",
    }
    rows = [[str(epoch + 1), *(number(history[name][i]) for name in names)] for i, epoch in enumerate(history["epoch"])]
    direction, inside = (percent(history[f"{name}_accuracy"][best]) for name in ("direction", "inside"))
    yield text(
        f"{len(rows)} epochs; the model is that of epoch {rows[best][0]}, which has the lowest validation loss. Of "
        f"samples set apart, {direction} of the directions are right, where chance would give 6.2 %, and {inside} "
        "of in or out of a cell."
    )
    yield training_chart(result)
    yield folded("All epochs", table("Epochs", ("Epoch", *names.values()), rows))


def _parameters(result: Result) -> Iterable[str]:
    stored = result.about.get("params")
    if stored is None:
        yield text("The table has no uns['sslcst']['params'], so that the parameters are unknown.")
        return
    changed, same = [], []
    shared, method = choose_method(result.about.get("method", DEFAULT), None)
    for section, defaults in plain(shared.to_dict() | method.params.to_dict()).items():
        for name, default in defaults.items():
            value = stored.get(section, {}).get(name)
            line = [f"{section}.{name}", _shown(value), _shown(default)]
            (same if value == default else changed).append(line)
    header = ("Parameter", "Value", "Default")
    if changed:
        yield table("Other than the defaults", header, changed)
    else:
        yield text("All parameters are the defaults.")
    yield folded(f"{len(same)} parameters at their defaults", table("At their defaults", header, same))


def _shown(value: Any) -> str:
    if value is None:
        return "automatic"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
