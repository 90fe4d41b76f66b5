"""sslcst itself by ``method=NAME``, with its defaults, from the same nuclei."""

from __future__ import annotations

import numpy as np
from adapter import Tissue, main


def segment(tissue: Tissue, method: str) -> np.ndarray:
    import pandas as pd
    from spatialdata import SpatialData
    from spatialdata.models import Labels2DModel, PointsModel
    from spatialdata.transformations import Scale

    import sslcst

    place = Scale([tissue.pixel_size] * 2, ("x", "y"))
    spots = pd.DataFrame({"x": tissue.yx[:, 1], "y": tissue.yx[:, 0], "gene": tissue.gene.astype(str)})
    sdata = SpatialData(
        labels={"nuclei": Labels2DModel.parse(tissue.nuclei, dims=("y", "x"), transformations={"micron": place})},
        points={"transcripts": PointsModel.parse(spots, feature_key="gene", transformations={"micron": place})},
    )
    sslcst.tl.segment(sdata, nuclei_key="nuclei", coordinate_system="micron", method=method)
    return sdata.labels["sslcst_cells"].to_numpy()


if __name__ == "__main__":
    main(segment)
