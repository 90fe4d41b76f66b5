"""Readers of formats that spatialdata-io does not cover."""

from sslcst.io._gem import read_gem

__all__ = ["read_gem"]
