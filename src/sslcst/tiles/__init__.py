"""Whole chips by tiles: every stage of `sslcst.tl.segment`, in memory that depends on the tile and not on the chip.

Results of a stage are kept by block, a square of bins that goes through the encoder at once; a tile is a square of
blocks, and a task. A task reads the blocks of its tile and those within a halo around it, and writes its own.
"""
