"""Pictures."""

from sslcst.pl._segmentation import segmentation

__all__ = ["segmentation"]
