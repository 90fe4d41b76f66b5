"""sslcst itself by ``method=NAME``, with its defaults, from the same nuclei; or ``nuclei=stain``, found by itself."""

from __future__ import annotations

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue, method: str, nuclei: str = "given") -> np.ndarray:
    import pandas as pd
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel, PointsModel
    from spatialdata.transformations import Scale

    import sslcst

    place = {"micron": Scale([tissue.pixel_size] * 2, ("x", "y"))}
    spots = pd.DataFrame({"x": tissue.yx[:, 1], "y": tissue.yx[:, 0], "gene": tissue.gene.astype(str)})
    sdata = SpatialData(points={"transcripts": PointsModel.parse(spots, feature_key="gene", transformations=place)})
    if nuclei == "stain":
        sdata["stain"] = Image2DModel.parse(tissue.image[None], dims=("c", "y", "x"), transformations=place)
        source = {"image_key": "stain", "params": {"nuclei": {"method": "sslcst"}}}
    else:
        sdata["nuclei"] = Labels2DModel.parse(tissue.nuclei, dims=("y", "x"), transformations=place)
        source = {"nuclei_key": "nuclei"}
    sslcst.tl.segment(sdata, coordinate_system="micron", method=method, **source)
    return sdata.labels["sslcst_cells"].to_numpy()


if __name__ == "__main__":
    main(segment)
