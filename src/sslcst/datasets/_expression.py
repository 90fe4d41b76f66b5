"""What the cells of a simulated tissue express, and where their transcripts are found, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from scipy import sparse

from sslcst.datasets._params import TissueParams
from sslcst.datasets._tissue import Tissue
from sslcst.errors import DataError, KeyMissingError, ParameterError


class Profiles(NamedTuple):
    """Expected share (types, genes) of each gene in the transcripts of each type; rows sum to 1."""

    share: np.ndarray
    types: Sequence[str]
    genes: Sequence[str]


class Counts(NamedTuple):
    """Transcripts (cells, genes) made in cytoplasm and nucleus, and the nuclear enrichment (genes,) behind them."""

    cytoplasmic: np.ndarray
    nuclear: np.ndarray
    enrichment: np.ndarray


class Transcripts(NamedTuple):
    """One entry a transcript: position in microns (float32), index of its gene, label of its cell (0: ambient)."""

    y: np.ndarray
    x: np.ndarray
    gene: np.ndarray
    owner: np.ndarray


def draw_profiles(params: TissueParams, rng: np.random.Generator) -> Profiles:
    """Profiles of one shared base and, for each type, a tenth of the genes as markers, raised 5 to 20 times."""
    share = np.tile(rng.lognormal(0, 1, params.n_genes), (params.n_types, 1))
    n_markers = -(-params.n_genes // 10)
    for row in share:
        row[rng.choice(params.n_genes, n_markers, replace=False)] *= rng.uniform(5, 20, n_markers)
    types, genes = ([f"{what}_{i}" for i in range(n)] for what, n in (("type", len(share)), ("gene", params.n_genes)))
    return Profiles(share / share.sum(axis=1, keepdims=True), types, genes)


def reference_profiles(reference: AnnData, key: str | None, params: TissueParams) -> Profiles:
    """Mean profiles of the largest categories of `reference.obs[key]`, over the genes that vary most between them."""
    if key not in reference.obs:
        raise KeyMissingError(f"reference_key={key!r} is not in reference.obs: choose one of {list(reference.obs)}.")
    types = reference.obs[key].dropna().astype(str).value_counts().index[: params.n_types]
    for name, wanted, found in (("n_types", params.n_types, len(types)), ("n_genes", params.n_genes, reference.n_vars)):
        if wanted > found:
            raise ParameterError(f"{name}={wanted}: the reference has only {found}; ask for fewer.")
    if not reference.var_names.is_unique:
        raise DataError("Gene names of the reference repeat: call reference.var_names_make_unique().")
    counts = sparse.csr_array(reference.X)
    if not (np.isfinite(counts.data) & (counts.data >= 0)).all():
        raise DataError("reference.X holds negative or non-finite values: give counts, neither scaled nor centred.")

    member = types.to_numpy()[:, None] == reference.obs[key].astype(str).to_numpy()
    cell_total = counts.sum(axis=1, dtype=np.float64)
    weight = member / np.where(cell_total > 0, cell_total, 1) / member.sum(axis=1, keepdims=True)
    mean = (sparse.csr_array(weight) @ counts).toarray()
    spread = np.log1p(1e4 * mean).var(axis=0)
    chosen = np.sort(np.lexsort((mean.sum(axis=0), spread))[-params.n_genes :])
    share = mean[:, chosen]
    total = share.sum(axis=1, keepdims=True)
    if not total.all():
        silent = types[total[:, 0] == 0].tolist()
        raise DataError(f"Types {silent} of the reference express none of the {params.n_genes} genes: raise n_genes.")
    return Profiles(share / total, types.tolist(), reference.var_names[chosen].tolist())


def draw_counts(profiles: Profiles, tissue: Tissue, params: TissueParams, rng: np.random.Generator) -> Counts:
    """Negative binomial counts, in proportion to a cell's size on average, split between its nucleus and cytoplasm.

    A gene's nuclear enrichment is the ratio of its transcripts' density in the nucleus to that in the cytoplasm.
    """
    n_labels, n_genes = len(tissue.cell_type) + 1, len(profiles.genes)
    area = np.bincount(tissue.cells.ravel(), minlength=n_labels)[1:]
    nuclear_area = np.bincount(tissue.nuclei.ravel(), minlength=n_labels)[1:]
    spread = 0.4
    depth = params.counts_per_cell * area / area.mean() * rng.lognormal(-(spread**2) / 2, spread, len(area))
    rate = profiles.share[tissue.cell_type] * rng.gamma(3, 1 / 3, (len(area), n_genes))
    counts = rng.poisson(depth[:, None] * rate)
    enrichment = rng.lognormal(0.2, 0.8, n_genes)
    in_nucleus = nuclear_area[:, None] * enrichment
    nuclear = rng.binomial(counts, in_nucleus / (in_nucleus + (area - nuclear_area)[:, None]))
    return Counts(counts - nuclear, nuclear, enrichment)


def scatter(counts: Counts, tissue: Tissue, params: TissueParams, rng: np.random.Generator) -> Transcripts:
    """Place each transcript uniformly in the compartment that made it, let it diffuse, and add the ambient ones."""
    made = np.stack([counts.cytoplasmic, counts.nuclear], axis=1)
    compartment, gene = np.divmod(np.repeat(np.arange(made.size), made.ravel()), made.shape[-1])
    yx = _uniform_within(compartment, tissue, rng) * params.pixel_size
    yx += rng.normal(0, params.diffusion, yx.shape)

    n_ambient = round(len(gene) * params.ambient / (1 - params.ambient))
    extent = np.array(tissue.cells.shape) * params.pixel_size
    yx = np.concatenate([yx, rng.uniform(0, extent, (n_ambient, 2))])
    yx = extent - np.abs(yx % (2 * extent) - extent)  # the field's edges reflect
    y, x = np.minimum(yx, np.nextafter(extent.astype(np.float32), 0)).astype(np.float32).T
    gene = np.concatenate([gene, rng.choice(gene, n_ambient)])
    owner = np.concatenate([compartment // 2 + 1, np.zeros(n_ambient, int)])
    shuffled = rng.permutation(len(gene))
    return Transcripts(y[shuffled], x[shuffled], gene[shuffled], owner[shuffled].astype(np.uint32))


def _uniform_within(compartment: np.ndarray, tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    """Points (y, x) in pixels, each uniform over compartment 2i (cytoplasm) or 2i + 1 (nucleus) of cell i + 1."""
    inside = np.flatnonzero(tissue.cells)
    pixel_compartment = 2 * (tissue.cells.ravel()[inside].astype(np.intp) - 1) + (tissue.nuclei.ravel()[inside] > 0)
    inside = inside[np.argsort(pixel_compartment, kind="stable")]
    size = np.bincount(pixel_compartment)
    start = np.cumsum(size) - size
    pixel = inside[start[compartment] + rng.integers(size[compartment])]
    # Off the pixel's edges, so that rounding to float32 cannot carry a point into the next pixel.
    return np.stack(np.unravel_index(pixel, tissue.cells.shape), axis=1) + rng.uniform(0.01, 0.99, (len(pixel), 2))
