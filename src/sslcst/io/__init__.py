"""Readers, models as files, and cells for other programs."""

from sslcst.io._explorer import write_xenium_explorer
from sslcst.io._gef import read_gef
from sslcst.io._gem import read_gem
from sslcst.io._geojson import write_geojson
from sslcst.io._model import read_model, write_model

__all__ = ["read_gef", "read_gem", "read_model", "write_geojson", "write_model", "write_xenium_explorer"]
