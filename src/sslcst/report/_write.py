"""A segmentation as one HTML page."""

from __future__ import annotations

import os
from pathlib import Path

from spatialdata import SpatialData

from sslcst._arguments import checked
from sslcst._files import check_folder, writing
from sslcst._logging import logger, progress
from sslcst.report._page import page
from sslcst.report._result import Result
from sslcst.report._sections import number, sections


@checked
def write_report(
    sdata: SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "sslcst",
    image_key: str | None = None,
    channel: str | int | None = None,
    truth_key: str | None = None,
) -> None:
    """Write what one should know of a segmentation as one HTML page.

    It warns of what is conspicuous and says what to do; then come what the segmentation was made of and how, pictures,
    counts, genes, sizes, quality, training and parameters. The page needs no other file and no network, and is light
    enough to mail. Where the store lacks something, it says so.

    Parameters
    ----------
    sdata
        Holds the table ``{key}_table`` and the labels ``{key}_cells`` and ``{key}_nuclei``.
    path
        The file to write; one of that name is replaced.
    key
        The `key_added` of the segmentation.
    image_key, channel
        The stain of the pictures, as in `sslcst.pl.segmentation`.
    truth_key
        Labels or shapes of a reference, to be outlined in the pictures and compared with the cells.

    Raises
    ------
    KeyMissingError
        An element is not there, or there are several images to choose from.
    DataError
        The table has no cells; what `sslcst.tl.compare` refuses of the reference.
    StoreError
        The file cannot be written.

    See Also
    --------
    sslcst.pl.segmentation, sslcst.pl.training : the pictures one by one.
    """
    path = Path(path)
    check_folder(path)
    result = Result.of(sdata, key, image_key, channel, truth_key)
    subtitle = (
        f"{number(result.table.n_obs)} cells in {result.named('cells')} and {result.named('table')}{result.origin}"
    )
    with progress("report"):
        text = page(f"Segmentation of {result.name}", subtitle, sections(result))
    with writing(path):
        path.write_text(text, encoding="utf-8")
    logger.info("%s: %.1f MB.", path, len(text) / 1e6)
