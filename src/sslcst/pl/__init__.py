"""Pictures."""

from sslcst.pl._nuclei import nuclei
from sslcst.pl._segmentation import segmentation

__all__ = ["nuclei", "segmentation"]
