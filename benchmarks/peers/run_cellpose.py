"""Cellpose on the whole stain, ``model=NAME or FILE [diameter=MICRONS]``; it reads no transcripts and no nuclei."""

from __future__ import annotations

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue, model: str, diameter: str = "8") -> np.ndarray:
    from cellpose import models

    network = models.CellposeModel(pretrained_model=model, diam_mean=27.0, nchan=2)
    pixels = float(diameter) / tissue.pixel_size
    return network.eval(tissue.image, diameter=pixels, channels=[0, 0])[0].astype(np.uint32)


if __name__ == "__main__":
    main(segment)
