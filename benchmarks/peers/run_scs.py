"""SCS (Chen et al. 2023), as it stands in its repository, ``repository=FOLDER``, with ``epochs=100`` of training.

It wants TensorFlow 2.15, tensorflow-addons 0.23, scanpy and scikit-misc. Two things are put in its way, none of its
method changed: NumPy's old alias ``int``, and in place of spateo a stand-in that hands it the given nuclei. As stain it
gets the nuclei as well: it takes no dark spot for background that is stained.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue, repository: str, epochs: str = "100") -> np.ndarray:
    np.int = int
    sys.modules["spateo"] = stand_in(tissue)
    sys.path.insert(0, repository)
    import matplotlib

    matplotlib.use("agg")
    from src import scs

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes to folders of these names where it is run
        for name in ("data", "fig", "results"):
            Path(name).mkdir()
        write_gem(tissue, Path("data/spots.tsv"))
        scs.segment_cells("data/spots.tsv", "no image", epochs=int(epochs))
        [result] = Path("results").glob("spot2cell_*.txt")
        labels = np.zeros(tissue.nuclei.shape, np.uint32)
        for line in result.read_text().splitlines():
            place, cell = line.split("\t")
            labels[tuple(map(int, place.split(":")))] = int(float(cell))
        return labels


def write_gem(tissue: Tissue, path: Path) -> None:
    """Counts of each gene in each pixel; two of nothing in the corners, so that it finds the raster's extent."""
    pixels = np.floor(tissue.yx).astype(int)
    rows, count = np.unique(np.column_stack([tissue.gene, pixels]), axis=0, return_counts=True)
    with path.open("w") as file:
        file.write("geneID\tx\ty\tMIDCount\n")
        for place in ((0, 0), np.array(tissue.nuclei.shape) - 1):
            file.write(f"gene{tissue.gene[0]}\t{place[0]}\t{place[1]}\t0\n")
        for (gene, x, y), n in zip(rows, count, strict=True):
            file.write(f"gene{gene}\t{x}\t{y}\t{n}\n")


def stand_in(tissue: Tissue) -> ModuleType:
    """The calls of spateo that SCS makes: reading the spots, and nuclei by watershed, here the given ones."""
    import anndata

    def read(*_, **__):
        spots = np.zeros(tissue.nuclei.shape, np.float32)
        np.add.at(spots, tuple(np.floor(tissue.yx).astype(int).T), 1)
        stain = np.where(tissue.nuclei > 0, 255, 0).astype(np.uint8)
        return anndata.AnnData(spots, layers={"stain": stain})

    def mask(adata, **_):
        adata.layers["stain_mask"] = tissue.nuclei > 0

    def watershed(adata, *_, out_layer):
        adata.layers[out_layer] = tissue.nuclei.astype(np.int64)

    def nothing(*_, **__):
        pass

    module = ModuleType("spateo")
    module.io = SimpleNamespace(read_bgi_agg=read)
    module.pl = SimpleNamespace(imshow=nothing)
    module.cs = SimpleNamespace(mask_nuclei_from_stain=mask, find_peaks_from_mask=nothing, watershed=watershed)
    return module


if __name__ == "__main__":
    main(segment)
