"""Pictures."""

from sslcst.pl._direction_field import direction_field
from sslcst.pl._nuclei import nuclei
from sslcst.pl._segmentation import segmentation
from sslcst.pl._training import training

__all__ = ["direction_field", "nuclei", "segmentation", "training"]
