"""Pictures."""

from sslcst.pl._compare import compare
from sslcst.pl._direction_field import direction_field
from sslcst.pl._nuclei import nuclei
from sslcst.pl._quality import quality
from sslcst.pl._segmentation import segmentation
from sslcst.pl._training import training

__all__ = ["compare", "direction_field", "nuclei", "quality", "segmentation", "training"]
