"""Data to try the method on."""

from sslcst.datasets._simulate import simulate

__all__ = ["simulate"]
