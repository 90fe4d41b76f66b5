"""What `sslcst demo` does: a simulated tissue with known cells, segmented, analysed, scored and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import pandas as pd
from skimage.segmentation import expand_labels

from sslcst import datasets, metrics, pl, tl
from sslcst._logging import progress
from sslcst._sdata.raster import raster_of
from sslcst._sdata.transcripts import read_transcripts
from sslcst.core.counts import owners
from sslcst.errors import BackendError

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# What differs from the defaults: the diameter of nuclei, as one would read it off the stain.
PARAMS = {"nuclei": {"diameters": [7.0]}}  # micron
GROWN_BY = range(1, 7)  # microns
NEEDED = ("igraph", "scanpy", "squidpy")


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo made and how close it came."""

    store: Path
    picture: Path
    n_true: int
    n_cells: int
    n_clusters: int
    #: One row a way to segment, "nuclei alone", "grown by 1" to 6 (microns) and "sslcst"; one column a figure
    scores: pd.DataFrame

    def report(self) -> str:
        """Table of the scores, for a terminal. Of the grown nuclei it shows the best distance for each figure."""
        grown = self.scores.filter(like="grown by", axis=0)
        best = [f"{grown[name].max():.3f} ({grown[name].idxmax().split()[-1]} um)" for name in grown]
        rows = {
            "": list(self.scores),
            "nuclei alone": [f"{score:.3f}" for score in self.scores.loc["nuclei alone"]],
            "nuclei grown *": best,
            "sslcst": [f"{score:.3f}" for score in self.scores.loc["sslcst"]],
        }
        changed = ", ".join(
            f"{section}.{name}={value}" for section in PARAMS for name, value in PARAMS[section].items()
        )
        return "\n".join(
            [
                f"{self.n_cells} cells found of {self.n_true}, in {self.n_clusters} clusters.",
                *wrap(f"Parameters other than the defaults: {changed}.", 80),
                "",
                *(f"{name:<16}" + "".join(f"{cell:>20}" for cell in row) for name, row in rows.items()),
                "",
                f"* by {GROWN_BY[0]} to {GROWN_BY[-1]} micron, each figure at its best distance. Chosen with the truth",
                "  in hand, which no real tissue offers, this is the strongest simple rival.",
                "",
                f"store:   {self.store}",
                f"picture: {self.picture}",
            ]
        )


def run_demo(out: Path, *, n_cells: int, seed: int) -> DemoResult:
    """Simulate a tissue, segment it, analyse the cells, and compare them with the true ones."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(f"The demo needs {', '.join(missing)}: pip install 'sslcst[demo]'.")
    out.mkdir(parents=True, exist_ok=True)
    store, picture = out / "demo.zarr", out / "demo.png"

    sdata = _make_tissue(store, n_cells, seed)
    tl.segment(sdata, image_key="stain", points_key="transcripts", params=PARAMS, seed=seed)
    adata = sdata.tables["sslcst_table"].copy()
    _analyse(adata, seed)
    scores = _score(sdata)
    _draw(sdata, picture)
    return DemoResult(
        store=store,
        picture=picture,
        n_true=n_cells,
        n_cells=adata.n_obs,
        n_clusters=adata.obs["leiden"].nunique(),
        scores=scores,
    )


def _make_tissue(store: Path, n_cells: int, seed: int) -> SpatialData:
    """Simulated tissue, read back from the store that it was written to, as a user's data would be."""
    from spatialdata import read_zarr

    with progress("simulate a tissue, write it, read it back", 3) as bar:
        sdata = datasets.simulate(n_cells=n_cells, seed=seed)
        bar.update()
        sdata.write(store, overwrite=True)
        bar.update()
        sdata = read_zarr(store)
        bar.update()
    return sdata


def _analyse(adata: AnnData, seed: int) -> None:
    """Cluster the cells by their genes, and see which clusters are neighbours."""
    import scanpy as sc
    import squidpy as sq

    steps = (
        partial(sc.pp.normalize_total, adata),
        partial(sc.pp.log1p, adata),
        partial(sc.pp.pca, adata, random_state=seed),
        partial(sc.pp.neighbors, adata, random_state=seed),
        partial(sc.tl.leiden, adata, flavor="igraph", n_iterations=2, directed=False, random_state=seed),
        partial(sq.gr.spatial_neighbors_knn, adata),
        partial(sq.gr.nhood_enrichment, adata, cluster_key="leiden", seed=seed, show_progress_bar=False),
    )
    with progress("scanpy and squidpy", len(steps)) as bar:
        for step in steps:
            step()
            bar.update()


def _score(sdata: SpatialData) -> pd.DataFrame:
    """Closeness to the true cells, of the nuclei alone, the nuclei grown by each distance, and the cells."""
    truth, nuclei, cells = (sdata.labels[key].to_numpy() for key in ("true_cells", "sslcst_nuclei", "sslcst_cells"))
    raster = raster_of(sdata, "sslcst_cells", "global")  # in microns
    yx = read_transcripts(sdata, "transcripts", gene_key=None, count_key=None, raster=raster).yx
    true_owner = sdata.points["transcripts"]["cell_id"].compute().to_numpy()

    ways = {"nuclei alone": lambda: nuclei}
    ways |= {f"grown by {d}": partial(expand_labels, nuclei, d / raster.pixel_size) for d in GROWN_BY}
    ways |= {"sslcst": lambda: cells}
    scores = {}
    with progress("compare with the true cells", len(ways)) as bar:
        for way, segment in ways.items():
            labels = segment()
            scores[way] = {
                "mean best IoU": metrics.mean_best_iou(truth, labels),
                "F1 at IoU 0.5": metrics.f1(truth, labels),
                "transcripts right": metrics.fraction_right(true_owner, owners(yx, labels)),
            }
            bar.update()
    return pd.DataFrame(scores).T


def _draw(sdata: SpatialData, picture: Path) -> None:
    """Nuclei, cells and truth as outlines on the stain."""
    with progress("picture"):
        pl.segmentation(sdata, truth_key="true_cells", save=picture)
