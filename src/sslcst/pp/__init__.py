"""Preprocessing: nuclei, their cores, and the spots."""

from sslcst.pp._erosion import erode_nuclei
from sslcst.pp._nuclei import import_nuclei, segment_nuclei
from sslcst.pp._spots import as_spots, bin_spots

__all__ = ["as_spots", "bin_spots", "erode_nuclei", "import_nuclei", "segment_nuclei"]
