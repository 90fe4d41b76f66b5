"""A segmentation as one HTML page that needs no other file."""

from sslcst.report._write import write_report

__all__ = ["write_report"]
