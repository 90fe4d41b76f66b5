"""Pictures."""

from sslcst.pl._compare import compare
from sslcst.pl._nuclei import nuclei
from sslcst.pl._quality import quality
from sslcst.pl._segmentation import segmentation

__all__ = ["compare", "nuclei", "quality", "segmentation"]
