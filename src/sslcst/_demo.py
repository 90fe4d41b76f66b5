"""What `sslcst demo` does: a simulated tissue with known cells, segmented, analysed, scored and drawn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap

import pandas as pd
from anndata import AnnData
from skimage.segmentation import expand_labels
from spatialdata import SpatialData, read_zarr

from sslcst import datasets, metrics, pl, tl
from sslcst._logging import progress
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.counts import owners
from sslcst.errors import BackendError

# What differs from the defaults: the diameter of nuclei, as one would read it off the stain.
PARAMS = {"nuclei": {"diameters": [7.0]}}  # micron
GROWN_BY = range(1, 7)  # microns
NEEDED = ("igraph", "scanpy", "squidpy")


def run_demo(out: Path, *, n_cells: int, seed: int) -> str:
    """Simulate a tissue, segment it, analyse the cells, and compare them with the true ones; what came of it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(f"The demo needs {', '.join(missing)}: pip install 'sslcst[demo]'.")
    out.mkdir(parents=True, exist_ok=True)
    store, picture = out / "demo.zarr", out / "demo.png"
    with progress("simulate a tissue, write it, read it back"):  # as a user's data would be
        datasets.simulate(n_cells=n_cells, seed=seed).write(store, overwrite=True)
        sdata = read_zarr(store)
    tl.segment(sdata, image_key="stain", points_key="transcripts", params=PARAMS, seed=seed)
    adata = sdata.tables["sslcst_table"].copy()
    with progress("scanpy and squidpy"):
        _analyse(adata, seed)
    with progress("compare with the true cells"):
        scores = _score(sdata)
    with progress("picture"):
        pl.segmentation(sdata, truth_key="true_cells", save=picture)
    found = f"{adata.n_obs} cells found of {n_cells}, in {adata.obs['leiden'].nunique()} clusters."
    return "\n".join([found, *_table(scores), "", f"store:   {store}", f"picture: {picture}"])


def _table(scores: pd.DataFrame) -> list[str]:
    """Lines of the scores, for a terminal. Of the grown nuclei they show the best distance for each figure."""
    grown = scores.filter(like="grown by", axis=0)
    rows = {
        "": list(scores),
        "nuclei alone": [f"{score:.3f}" for score in scores.loc["nuclei alone"]],
        "nuclei grown *": [f"{grown[name].max():.3f} ({grown[name].idxmax().split()[-1]} um)" for name in grown],
        "sslcst": [f"{score:.3f}" for score in scores.loc["sslcst"]],
    }
    changed = ", ".join(f"{section}.{name}={value}" for section in PARAMS for name, value in PARAMS[section].items())
    return [
        *wrap(f"Parameters other than the defaults: {changed}.", 80),
        "",
        *(f"{name:<16}" + "".join(f"{cell:>20}" for cell in row) for name, row in rows.items()),
        "",
        f"* by {GROWN_BY[0]} to {GROWN_BY[-1]} micron, each figure at its best distance. Chosen with the truth",
        "  in hand, which no real tissue offers, this is the strongest simple rival.",
    ]


def _analyse(adata: AnnData, seed: int) -> None:
    """Cluster the cells by their genes, and see which clusters are neighbours."""
    import scanpy as sc
    import squidpy as sq

    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, random_state=seed)
    sc.pp.neighbors(adata, random_state=seed)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    sq.gr.spatial_neighbors_knn(adata)
    sq.gr.nhood_enrichment(adata, cluster_key="leiden", seed=seed, show_progress_bar=False)


def _score(sdata: SpatialData) -> pd.DataFrame:
    """Closeness to the true cells, of the nuclei alone, the nuclei grown by each distance, and the cells."""
    truth, nuclei, cells = (sdata.labels[key].to_numpy() for key in ("true_cells", "sslcst_nuclei", "sslcst_cells"))
    raster = raster_of(sdata, "sslcst_cells", "global")  # in microns
    yx = read_transcripts(sdata, "transcripts", gene_key=None, count_key=None, raster=raster).yx
    true_owner = sdata.points["transcripts"]["cell_id"].compute().to_numpy()
    ways = {"nuclei alone": nuclei}
    ways |= {f"grown by {d}": expand_labels(nuclei, d / raster.pixel_size) for d in GROWN_BY}
    ways |= {"sslcst": cells}
    scores = {
        way: {
            "mean best IoU": metrics.mean_best_iou(truth, labels),
            "F1 at IoU 0.5": metrics.f1(truth, labels),
            "transcripts right": metrics.fraction_right(true_owner, owners(yx, labels)),
        }
        for way, labels in ways.items()
    }
    return pd.DataFrame(scores).T
