"""Whole cells that are there before the transcripts are looked at: given, or found in a stain."""
