"""ComSeg (Defard et al. 2024) by its own steps and defaults, without R's normalisation.

Its cell diameter is told as nuclei's median diameter divided by 0.6. Of its code one function is replaced, by the same
numbers: the correlation of each pair of genes, one call of scipy a pair, which for 5,000 genes would take hours.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue) -> np.ndarray:
    import pandas as pd
    import tifffile
    from comseg import dataset, dictionary

    area = np.unique(tissue.nuclei[tissue.nuclei > 0], return_counts=True)[1]
    diameter = float(2 * np.sqrt(np.median(area) / np.pi) * tissue.pixel_size / 0.6)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        spots = pd.DataFrame({"x": tissue.yx[:, 1], "y": tissue.yx[:, 0], "gene": [f"g{gene}" for gene in tissue.gene]})
        spots.to_csv(Path(folder) / "tissue.csv", index=False)
        tifffile.imwrite(Path(folder) / "tissue.tiff", tissue.nuclei)
        data = dataset.ComSegDataset(
            path_dataset_folder=folder,
            path_to_mask_prior=folder,
            prior_name="in_nucleus",
            dict_scale={"x": tissue.pixel_size, "y": tissue.pixel_size, "z": 1.0},
            mean_cell_diameter=diameter,
            disable_tqdm=True,
        )
        data.add_prior_from_mask(overwrite=True)
        data.get_dict_proba_edge_in_situ = lambda count_matrix, distance: correlations(
            count_matrix, list(data.selected_genes)
        )
        data.compute_edge_weight()
        graphs = dictionary.ComSegDict(dataset=data, mean_cell_diameter=diameter, seed=0, disable_tqdm=True)
        graphs.run_all(max_cell_radius=diameter, disable_tqdm=True)
        nodes = graphs["tissue"].G.nodes
        return np.array([nodes[spot]["cell_index_pred"] for spot in range(len(spots))], np.int64)


def correlations(counts: np.ndarray, genes: list[str]) -> dict:
    """Pearson's correlation by two names of genes, -1 where a gene does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        table = np.nan_to_num(np.corrcoef(counts.T), nan=-1.0)
    place = {gene: i for i, gene in enumerate(genes)}

    class Row:
        def __init__(self, values: np.ndarray) -> None:
            self.values = values

        def __getitem__(self, gene: str) -> float:
            return float(self.values[place[gene]])

    return {gene: Row(table[i]) for gene, i in place.items()}


if __name__ == "__main__":
    main(segment)
