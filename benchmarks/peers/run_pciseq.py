"""pciSeq (Qian et al. 2020): each transcript goes to the most probable of its three nearest nuclei, or to none.

It wants expression profiles of the cell types. There are none but what the tissue itself tells: the counts in nuclei,
clustered by k-means into 8 types; a count there stands for a count in a cell, so that ``Inefficiency`` is 1. All else
is its default. (Without profiles it takes each gene for a type, which for 5,000 genes exceeds memory.)
"""

from __future__ import annotations

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue) -> np.ndarray:
    import pandas as pd
    import pciSeq
    from scipy.sparse import coo_matrix

    names = np.array([f"g{gene}" for gene in range(int(tissue.gene.max()) + 1)])
    spots = pd.DataFrame({"Gene": names[tissue.gene], "x": tissue.yx[:, 1], "y": tissue.yx[:, 0]})
    ids, numbered = np.unique(tissue.nuclei, return_inverse=True)
    numbered = coo_matrix(numbered.reshape(tissue.nuclei.shape).astype(np.int32))
    options = {"launch_diagnostics": False, "Inefficiency": 1.0}
    _, found = pciSeq.fit(spots=spots, coo=numbered, scRNAseq=profiles(tissue, names), opts=options)
    return ids[found["neighbour"].to_numpy(np.int64)].astype(np.int64)


def profiles(tissue: Tissue, names: np.ndarray, n_types: int = 8):
    """Genes x nuclei of counts; the columns are the types."""
    import pandas as pd
    from sklearn.cluster import KMeans

    owner = tissue.owner_of_nuclei()
    ids, row = np.unique(owner[owner > 0], return_inverse=True)
    counts = np.zeros((len(ids), len(names)))
    np.add.at(counts, (row, tissue.gene[owner > 0]), 1)
    scaled = np.log1p(counts / counts.sum(axis=1, keepdims=True) * np.median(counts.sum(axis=1)))
    types = KMeans(min(n_types, len(ids)), n_init=4, random_state=0).fit_predict(scaled)
    return pd.DataFrame(counts.T, index=names, columns=[f"type{k}" for k in types])


if __name__ == "__main__":
    main(segment)
