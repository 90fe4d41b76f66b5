"""Watershed on the density of transcripts, from the nuclei as seeds.

The density is smoothed by 0.75 micron; cells end where it falls below 0.35 of its median in nuclei, and 8 microns away
from their nucleus. These three numbers are the same for all data.
"""

from __future__ import annotations

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue, sigma: str = "0.75", gate: str = "0.35", reach: str = "8") -> np.ndarray:
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.segmentation import watershed

    density = np.zeros(tissue.nuclei.shape)
    place = np.clip(np.floor(tissue.yx).astype(int), 0, np.array(density.shape) - 1)
    np.add.at(density, tuple(place.T), 1)
    density = gaussian_filter(density, float(sigma) / tissue.pixel_size)
    in_nuclei = tissue.nuclei > 0
    near = distance_transform_edt(~in_nuclei) * tissue.pixel_size <= float(reach)
    dense = density > float(gate) * np.median(density[in_nuclei])
    return watershed(-density, tissue.nuclei.astype(np.int64), mask=in_nuclei | (near & dense))


if __name__ == "__main__":
    main(segment)
