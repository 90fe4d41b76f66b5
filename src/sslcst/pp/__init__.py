"""Preprocessing: microns, alignment, nuclei, their cores, and the spots; others' cells."""

from sslcst.pp._align import align, check_alignment
from sslcst.pp._cells import import_cells
from sslcst.pp._erosion import erode_nuclei
from sslcst.pp._microns import add_microns
from sslcst.pp._nuclei import import_nuclei, segment_nuclei
from sslcst.pp._owners import Owners, read_owners
from sslcst.pp._spots import bin_spots

__all__ = [
    "Owners",
    "add_microns",
    "align",
    "bin_spots",
    "check_alignment",
    "erode_nuclei",
    "import_cells",
    "import_nuclei",
    "read_owners",
    "segment_nuclei",
]
