"""Simulated tissue as a SpatialData object."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import ndimage
from scipy.sparse import csr_matrix
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, TableModel
from spatialdata.transformations import Identity, Scale
from xarray import DataArray

from sslcst._arguments import checked
from sslcst.datasets._expression import Counts, Profiles, draw_counts, draw_profiles, reference_profiles, scatter
from sslcst.datasets._params import TissueParams
from sslcst.datasets._tissue import Tissue, simulate_stain, simulate_tissue
from sslcst.errors import ParameterError

_CHUNK = 1024


@checked
def simulate(
    *,
    n_cells: int = 400,
    pixel_size: float = 0.5,
    cell_diameter: float = 12.0,
    coverage: float = 0.75,
    nuclear_shift: float = 0.25,
    n_genes: int = 200,
    n_types: int = 5,
    mixing: float = 0.15,
    counts_per_cell: float = 300.0,
    diffusion: float = 0.5,
    ambient: float = 0.05,
    reference: AnnData | None = None,
    reference_key: str | None = None,
    seed: int = 0,
) -> SpatialData:
    """Simulate a tissue whose cells, nuclei and transcripts are known.

    Cells are packed into a square field with crowded, sparse and empty regions, those of one type together, each with a
    nucleus wholly inside it. Lengths are in microns.

    Parameters
    ----------
    n_cells
        Number of cells; the field is as large as they need.
    pixel_size
        Side of a pixel of the stain and labels.
    cell_diameter
        Mean diameter of the circles of the cells' areas, at least 8 pixels. A nucleus has about 0.6 of its cell's.
    coverage
        Share of the field that lies in cells, from 0.05 (far apart) to 0.95 (nearly all touching).
    nuclear_shift
        How far nuclei are drawn off their cell's centre, on average, as a share of the cell's radius; 0 to 0.5.
    n_genes
        Number of genes. From a `reference`, those that vary most between its types.
    n_types
        Number of cell types. From a `reference`, its largest categories.
    mixing
        Share of cells whose type is drawn without regard to their neighbours.
    counts_per_cell
        Mean number of transcripts that a cell makes. A gene's counts are overdispersed and grow with a cell's area.
    diffusion
        Standard deviation, along each axis, of a transcript's way from where it was made; the field's edges reflect.
    ambient
        Share of all transcripts that belong to no cell and lie anywhere in the field; 0 to 0.9.
    reference
        Single-cell counts to take the expression profiles from; by default a base that all types share, and markers of
        each, are drawn.
    reference_key
        Column of `reference.obs` with the cell types.
    seed
        The same seed and parameters give the same tissue, bit for bit.

    Returns
    -------
    SpatialData
        All in the coordinate system ``"global"``, which is in microns:

        - ``images["stain"]``: uint16 (c, y, x) with the one channel ``"DAPI"``.
        - ``labels["true_nuclei"]``, ``labels["true_cells"]``: uint32 (y, x). A cell and its nucleus share one id of
          1 to `n_cells`, and each is one connected region.
        - ``points["transcripts"]``: `x`, `y` (float32, microns), `gene` (categorical) and `cell_id` (uint32), the cell
          that made the transcript, wherever diffusion took it; 0 for ambient ones.
        - ``tables["truth"]``: annotates ``"true_cells"``. `X` and ``layers["nuclear"]`` are the counts made by each
          cell and by its nucleus (int32, sparse); obs has `cell_type`, `area` and `nucleus_area` (square microns); var
          has `nuclear_enrichment`, the ratio of a gene's density in nuclei to that in cytoplasm; ``obsm["spatial"]``
          has the cells' centroids (x, y).

    Raises
    ------
    ParameterError
        A parameter is out of its bounds, or asks for more genes or types than the reference has.
    KeyMissingError
        `reference_key` is not a column of ``reference.obs``.
    DataError
        The reference holds something else than counts, or repeated gene names.
    """
    given = locals()
    params = TissueParams(**{each.name: given[each.name] for each in fields(TissueParams)})
    if reference is None and reference_key is not None:
        raise ParameterError(f"reference_key={reference_key!r} was given without a reference: give both or neither.")
    tissue_rng, stain_rng, expression_rng = np.random.default_rng(seed).spawn(3)
    if reference is None:
        profiles = draw_profiles(params, expression_rng)
    else:
        profiles = reference_profiles(reference, reference_key, params)
    tissue = simulate_tissue(params, tissue_rng)
    stain = simulate_stain(tissue, params.pixel_size, stain_rng)
    counts = draw_counts(profiles, tissue, params, expression_rng)
    transcripts = scatter(counts, tissue, params, expression_rng)

    def to_microns() -> dict[str, Scale]:  # a fresh dict for each element: the models keep the one they are given
        return {"global": Scale([params.pixel_size, params.pixel_size], axes=("x", "y"))}

    def labels(array: np.ndarray) -> DataArray:
        return Labels2DModel.parse(array, dims=("y", "x"), transformations=to_microns(), chunks=_CHUNK)

    gene = pd.Categorical.from_codes(transcripts.gene, categories=profiles.genes)
    frame = pd.DataFrame({"x": transcripts.x, "y": transcripts.y, "gene": gene, "cell_id": transcripts.owner})
    points = PointsModel.parse(
        frame, feature_key="gene", instance_key="cell_id", transformations={"global": Identity()}
    )
    image = Image2DModel.parse(
        stain[None], dims=("c", "y", "x"), c_coords=["DAPI"], transformations=to_microns(), chunks=(1, _CHUNK, _CHUNK)
    )
    return SpatialData(
        images={"stain": image},
        labels={"true_nuclei": labels(tissue.nuclei), "true_cells": labels(tissue.cells)},
        points={"transcripts": points},
        tables={"truth": _truth_table(params, tissue, profiles, counts)},
    )


def _truth_table(params: TissueParams, tissue: Tissue, profiles: Profiles, counts: Counts) -> AnnData:
    ids = np.arange(1, params.n_cells + 1, dtype=np.uint32)
    pixel_area = params.pixel_size**2
    yx = np.array(ndimage.center_of_mass(tissue.cells > 0, tissue.cells, ids))
    obs = pd.DataFrame(
        {
            "region": pd.Categorical(["true_cells"] * params.n_cells),
            "cell_id": ids,
            "cell_type": pd.Categorical.from_codes(tissue.cell_type, categories=profiles.types),
            "area": np.bincount(tissue.cells.ravel())[1:] * pixel_area,
            "nucleus_area": np.bincount(tissue.nuclei.ravel())[1:] * pixel_area,
        },
        index=ids.astype(str),
    )
    table = AnnData(
        csr_matrix((counts.cytoplasmic + counts.nuclear).astype(np.int32)),
        obs=obs,
        var=pd.DataFrame({"nuclear_enrichment": counts.enrichment}, index=profiles.genes),
        layers={"nuclear": csr_matrix(counts.nuclear.astype(np.int32))},
        obsm={"spatial": (yx[:, ::-1] + 0.5) * params.pixel_size},
    )
    return TableModel.parse(table, region="true_cells", region_key="region", instance_key="cell_id")
