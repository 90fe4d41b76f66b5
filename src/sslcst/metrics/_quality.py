"""How good cells are by themselves, with no reference: signal, its fall at their border, what they have of others."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from skimage.segmentation import expand_labels

from sslcst._arguments import checked
from sslcst._section import check
from sslcst.core.counts import count_matrix, owners
from sslcst.errors import DataError
from sslcst.metrics._contamination import contamination, exclusive_pairs
from sslcst.metrics._overlap import check_ids, check_places
from sslcst.metrics._sizes import diameters


@checked
def quality(
    cells: ArrayLike,
    nuclei: ArrayLike,
    yx: ArrayLike,
    gene: ArrayLike,
    count: ArrayLike | None = None,
    *,
    pixel_size: float = 1.0,
    ring: float | None = None,
    pairs: ArrayLike | None = None,
) -> pd.DataFrame:
    """Quality of each cell that needs no reference.

    Parameters
    ----------
    cells, nuclei
        Integer labels (y, x), 0 = none; their ids need not be related.
    yx
        (n, 2) positions of the transcripts in pixels, where pixel i reaches from i to i + 1; those off the raster
        are in no cell.
    gene
        (n,) gene of each transcript, 0, 1, ...
    count
        (n,) molecules of each transcript. ``None`` is one each.
    pixel_size
        Side of a pixel, in the units that lengths are wanted in.
    ring
        How far around a cell "just outside" reaches, in these units. ``None`` takes a quarter of the nuclei's median
        diameter, which is the same for all segmentations with these nuclei.
    pairs
        (k, 2) genes that exclude each other. ``None`` finds them in the nuclei by
        :func:`sslcst.metrics.exclusive_pairs`.

    Returns
    -------
    One row for each cell, by rising ids in the index ``cell_id``:

    - ``n_counts``, ``n_genes``: molecules, and genes with one.
    - ``share``: n_counts divided by the counts of the whole tissue; the sum is the share of counts in cells.
    - ``diameter``: d = 2 sqrt(A / pi) of the area A.
    - ``contamination``: share of gene pairs that exclude each other in nuclei and yet are together in the cell, see
      :func:`sslcst.metrics.contamination`; NaN where there are no such pairs.
    - ``density_ratio``: signal density of the cytoplasm against just outside, r = (n_c / A_c) / (n_o / A_o). The
      cytoplasm c is the cell without nuclei; outside o are the pixels of no cell that are at most `ring` from this cell
      and nearest to it. Near 1 the signal goes on beyond the border: the cell stops too early. It is blind to cells
      that go too far, of which ``contamination`` tells. NaN without cytoplasm or without pixels outside, infinite where
      no count is outside.

    Raises
    ------
    ParameterError
        `pixel_size` or `ring` is not a positive number.
    DataError
        The rasters differ in shape, arrays differ in length or hold other than non-negative integers, or there is no
        cell, no nucleus or no transcript.
    """
    cells, nuclei, gene = check_ids("cells", cells), check_ids("nuclei", nuclei), check_ids("gene", gene)
    yx = check_places("yx", yx)
    count = np.ones(gene.shape, np.int64) if count is None else check_ids("count", count).astype(np.int64)
    _check(cells, nuclei, yx, gene, count, pixel_size, ring)
    ring = float(np.median(diameters(nuclei, pixel_size=pixel_size))) / 4 if ring is None else ring
    ids, n_genes = np.unique(cells[cells > 0]), int(gene.max()) + 1
    inside = sparse.csr_array(count_matrix(owners(yx, cells), gene, count, ids=ids, n_genes=n_genes))
    if pairs is None:
        nuclear_ids = np.unique(nuclei[nuclei > 0])
        pairs = exclusive_pairs(count_matrix(owners(yx, nuclei), gene, count, ids=nuclear_ids, n_genes=n_genes))

    cytoplasm = np.where(nuclei == 0, cells, 0)
    around = np.where(cells == 0, expand_labels(cells, ring / pixel_size), 0)
    density = [_density(owners(yx, part), part, count, ids) for part in (cytoplasm, around)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = density[0] / density[1]
    n_counts = inside.sum(axis=1)
    return pd.DataFrame(
        {
            "n_counts": n_counts,
            "n_genes": (inside > 0).sum(axis=1),
            "share": n_counts / count.sum(),
            "diameter": diameters(cells, pixel_size=pixel_size),
            "contamination": contamination(inside, pairs),
            "density_ratio": ratio,
        },
        index=pd.Index(ids, name="cell_id"),
    )


def _check(cells, nuclei, yx, gene, count, pixel_size, ring) -> None:
    if cells.ndim != 2 or cells.shape != nuclei.shape:
        raise DataError(f"cells have shape {cells.shape}, nuclei {nuclei.shape}: both must lie on one raster (y, x).")
    if yx.shape != (len(gene), 2) or gene.shape != count.shape or gene.ndim != 1:
        raise DataError(
            f"yx, gene and count have shapes {yx.shape}, {gene.shape}, {count.shape}: not (n, 2), (n,), (n,)."
        )
    for name, array in (("cell", cells), ("nucleus", nuclei), ("count", count)):
        if not array.any():
            raise DataError(f"There is no {name}: there is no quality to measure.")
    for name, length in (("pixel_size", pixel_size), ("ring", ring)):
        check(length is None or 0 < length < np.inf, name, length, "must be a positive number")


def _density(owner, labels, count, ids) -> NDArray[np.float64]:
    """Counts a pixel of each cell's part; NaN where the part has no pixel."""
    n_counts = np.bincount(np.searchsorted(ids, owner[owner > 0]), count[owner > 0], minlength=len(ids))
    area = np.bincount(np.searchsorted(ids, labels[labels > 0]), minlength=len(ids))
    return np.divide(n_counts, area, out=np.full(len(ids), np.nan), where=area > 0)
