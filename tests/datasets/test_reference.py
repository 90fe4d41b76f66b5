"""A simulated tissue that expresses what the cells of a reference do."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sslcst.datasets import simulate
from sslcst.errors import DataError, KeyMissingError, ParameterError


def reference(counts: list[list[float]], types: list[str | None]) -> anndata.AnnData:
    genes = [f"g{i}" for i in range(len(counts[0]))]
    obs = pd.DataFrame({"kind": types}, index=[f"c{i}" for i in range(len(types))])
    return anndata.AnnData(csr_matrix(np.array(counts, float)), obs=obs, var=pd.DataFrame(index=genes))


def test_reference_gives_the_most_variable_genes_and_mean_profiles():
    """Types a and b express one gene each (g3, g1); g0 does not vary, g2 is silent, and c has too few cells."""
    known = reference(
        [[5, 0, 0, 5], [50, 0, 0, 50], [0, 0, 0, 0], [5, 5, 0, 0], [9, 9, 0, 0], [1, 0, 0, 0], [0, 0, 8, 0]],
        ["a", "a", "a", "b", "b", "c", None],
    )
    truth = simulate(n_cells=40, n_genes=2, n_types=2, mixing=1, reference=known, reference_key="kind")["truth"]
    assert list(truth.var_names) == ["g1", "g3"]
    assert set(truth.obs["cell_type"]) == {"a", "b"}
    counts = truth.X.toarray()
    is_a = (truth.obs["cell_type"] == "a").to_numpy()
    assert counts[is_a, 0].sum() == counts[~is_a, 1].sum() == 0
    assert (counts.sum(axis=1) > 0).all()


def test_a_real_reference_gives_its_own_markers(shared):
    baron = anndata.read_h5ad(shared / "data" / "scrna" / "baron_h1_pancreas.h5ad")
    truth = simulate(n_cells=60, n_genes=100, mixing=1, reference=baron, reference_key="cell_type")["truth"]
    assert set(truth.obs["cell_type"].cat.categories) == {"beta", "alpha", "delta", "endothelial", "ductal"}
    counts = truth.to_df().groupby(truth.obs["cell_type"], observed=True).mean()
    for cell_type, marker in {"beta": "INS", "alpha": "GCG", "delta": "SST"}.items():
        assert counts[marker].idxmax() == cell_type


@pytest.mark.parametrize(
    ("known", "arguments", "error", "message"),
    [
        (reference([[1, 2]], ["a"]), {"reference_key": "typ"}, KeyMissingError, r"'typ'.*\['kind'\]"),
        (reference([[1, 2]], ["a"]), {"reference_key": None}, KeyMissingError, "None"),
        (reference([[1, 2]], ["a"]), {"n_types": 2}, ParameterError, "n_types=2.*only 1"),
        (reference([[1, 2]], ["a"]), {"n_genes": 3}, ParameterError, "n_genes=3.*only 2"),
        (reference([[1, -2]], ["a"]), {}, DataError, "negative"),
        (reference([[1, np.nan]], ["a"]), {}, DataError, "non-finite"),
        (reference([[1, 2], [0, 0]], ["a", "b"]), {"n_types": 2}, DataError, r"\['b'\]"),
        (None, {}, ParameterError, "without a reference"),
    ],
)
def test_an_unusable_reference_is_refused(known, arguments, error, message):
    with pytest.raises(error, match=message):
        simulate(**{"n_genes": 2, "n_types": 1, "reference": known, "reference_key": "kind", **arguments})


def test_repeated_genes_are_refused():
    known = reference([[1, 2]], ["a"])
    known.var.index = ["g", "g"]
    with pytest.raises(DataError, match="var_names_make_unique"):
        simulate(n_genes=2, n_types=1, reference=known, reference_key="kind")
