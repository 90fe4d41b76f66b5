"""proseg (Jones et al. 2025) by its defaults, from the nuclei that the transcripts lie in, as it reads Xenium.

    binary=PROSEG [threads=1]

where the binary is what ``cargo install proseg --version 3.2.0 --root FOLDER`` leaves in ``FOLDER/bin``. A transcript
in a nucleus is told to it with that nucleus' number and as nuclear; a nucleus without transcripts is unknown to it. All
lie in one plane, since that is what the other methods are given. Its cells are its consensus polygons; a transcript is
in the cell that it assigns it to, unless it takes it for background, as in its table of counts. It draws its own random
numbers: two runs differ a little.
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from adapter import Tissue, main

COLUMNS = ("transcript", "x", "y", "z", "gene", "nucleus", "nuclear")


def segment(tissue: Tissue, binary: str, threads: str = "1") -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_transcripts(tissue, folder / "transcripts.csv")
        names = dict(zip(("transcript-id", "x", "y", "z", "gene", "cell-id", "compartment"), COLUMNS, strict=True))
        command = [str(Path(binary).absolute()), "--nthreads", threads]
        for option, column in names.items():
            command += [f"--{option}-column", column]
        command += ["--cell-id-unassigned", "0", "--compartment-nuclear", "1", "--exclude-spatialdata-transcripts"]
        command += ["--output-cell-polygons", "cells.geojson.gz", "--output-cell-metadata", "cells.csv"]
        command += ["--output-transcript-metadata", "owners.csv"]
        done = subprocess.run([*command, "transcripts.csv"], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"proseg ended with {done.returncode}: {' '.join(done.stderr.split()[-40:])}")
        nucleus = {int(row["cell"]): int(row["original_cell_id"]) for row in read_table(folder / "cells.csv")}
        with gzip.open(folder / "cells.geojson.gz", "rt", encoding="utf-8") as file:
            labels = draw(json.load(file)["features"], nucleus, tissue)
        return labels, read_owners(folder / "owners.csv", nucleus, len(tissue.yx))


def write_transcripts(tissue: Tissue, path: Path) -> None:
    nucleus = tissue.owner_of_nuclei()
    place = tissue.yx * tissue.pixel_size
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, (y, x) in enumerate(place):
            writer.writerow((i, f"{x:.4f}", f"{y:.4f}", 0, f"g{tissue.gene[i]}", nucleus[i], int(nucleus[i] > 0)))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_owners(path: Path, nucleus: dict[int, int], n: int) -> np.ndarray:
    """The cell of each transcript, by the nucleus it grew from; those far from all nuclei are not in the table."""
    owner = np.zeros(n, np.int64)
    for row in read_table(path):
        if row["assignment"] and row["background"] == "false":
            owner[int(row["transcript_id"])] = nucleus[int(row["assignment"])]
    return owner


def draw(features: list[dict], nucleus: dict[int, int], tissue: Tissue) -> np.ndarray:
    """Labels of the polygons; a pixel is in a cell where its middle is.

    Polygons are written without their holes: the larger are drawn first, so that a cell within another's hole stays.
    """
    from skimage.draw import polygon2mask

    parts = []
    for feature in features:
        number = nucleus[int(feature["properties"]["cell"])]
        for outline, *_ in feature["geometry"]["coordinates"]:
            ring = np.array(outline)[:, ::-1] / tissue.pixel_size - 0.5
            low = np.maximum(np.floor(ring.min(axis=0)).astype(int), 0)
            high = np.minimum(np.ceil(ring.max(axis=0)).astype(int) + 1, tissue.nuclei.shape)
            parts.append((polygon2mask(tuple(np.maximum(high - low, 0)), ring - low), low, high, number))
    labels = np.zeros(tissue.nuclei.shape, np.uint32)
    for inside, low, high, number in sorted(parts, key=lambda part: -np.count_nonzero(part[0])):
        labels[low[0] : high[0], low[1] : high[1]][inside] = number
    return labels


if __name__ == "__main__":
    main(segment)
