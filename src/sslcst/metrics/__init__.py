"""How close a segmentation comes to a reference or to another one, and how good its cells are by themselves.

Every function takes plain arrays of integer ids, 0 = no cell: label images, or the cell of each transcript. Ids are
names: they need not be consecutive, and the two segmentations need not share them.
"""

from sslcst.metrics._contamination import contamination, exclusive_pairs
from sslcst.metrics._correlation import Correlation, correlation
from sslcst.metrics._detection import SplitsMerges, average_precision, best_iou, f1, mean_best_iou, splits_merges
from sslcst.metrics._matching import fraction_right, match
from sslcst.metrics._overlap import Overlap, overlap
from sslcst.metrics._quality import quality
from sslcst.metrics._sizes import diameters, n_cells

__all__ = [
    "Correlation",
    "Overlap",
    "SplitsMerges",
    "average_precision",
    "best_iou",
    "contamination",
    "correlation",
    "diameters",
    "exclusive_pairs",
    "f1",
    "fraction_right",
    "match",
    "mean_best_iou",
    "n_cells",
    "overlap",
    "quality",
    "splits_merges",
]
