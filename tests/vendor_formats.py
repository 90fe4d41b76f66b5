"""Small runs of one simulated tissue, written as the instruments of the vendors write them.

Each function writes one folder, with the vendor's files, columns, units and control probes, for the reader of
spatialdata-io of that name.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import geopandas
import h5py
import numpy as np
import pandas as pd
import shapely
import spatialdata as sd
import tifffile
import zarr
from PIL import Image
from scipy import sparse
from skimage.measure import regionprops

from sslcst.datasets import simulate

PIXEL = 0.5  # micron


@dataclass(frozen=True)
class Tissue:
    """Stain and labels (y, x), and molecules at `yx` in pixels, off the pixels' borders."""

    dapi: np.ndarray
    nuclei: np.ndarray
    cells: np.ndarray
    yx: np.ndarray
    gene: np.ndarray

    def with_controls(self, *names: str) -> Tissue:
        """Twelve more molecules of each name, anywhere."""
        rng = np.random.default_rng(1)
        more = np.repeat(names, 12)
        yx = rng.integers(0, self.dapi.shape, (len(more), 2)) + 0.5
        return replace(self, yx=np.vstack([self.yx, yx]), gene=np.append(self.gene, more))

    def counts(self) -> pd.DataFrame:
        """Cells x genes."""
        row, column = self.yx.astype(int).T
        owner = self.cells[row, column]
        table = pd.crosstab(owner[owner > 0], self.gene[owner > 0])
        return table.reindex(range(1, self.cells.max() + 1), fill_value=0)


def make_tissue(n_cells: int = 16, seed: int = 0) -> Tissue:
    sdata = simulate(n_cells=n_cells, pixel_size=PIXEL, n_genes=12, counts_per_cell=80, coverage=0.5, seed=seed)
    frame = sdata["transcripts"].compute()
    yx = np.floor(frame[["y", "x"]].to_numpy() / PIXEL) + 0.5
    dapi, nuclei, cells = (sdata[key].to_numpy() for key in ("stain", "true_nuclei", "true_cells"))
    on = (yx < nuclei.shape).all(axis=1)
    return Tissue(dapi[0], nuclei, cells, yx[on], frame["gene"].to_numpy().astype(str)[on])


def outlines(labels: np.ndarray) -> dict[int, shapely.Polygon]:
    """Convex outline (x, y) of each label, in pixels."""
    return {
        region.label: shapely.MultiPoint(region.coords[:, ::-1] + 0.5).convex_hull.buffer(0.5)
        for region in regionprops(labels)
    }


def centers(labels: np.ndarray) -> np.ndarray:
    """Centres (x, y) of the labels, in pixels."""
    return np.array([region.centroid[::-1] for region in regionprops(labels)]) + 0.5


def write_10x_matrix(file: Path, barcodes: np.ndarray, counts: pd.DataFrame) -> None:
    """A feature-barcode matrix of 10x Genomics."""
    matrix = sparse.csr_matrix(counts.to_numpy(np.int32))
    names = counts.columns.to_numpy().astype("S")
    with h5py.File(file, "w") as out:
        group = out.create_group("matrix")
        group["barcodes"] = barcodes.astype("S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = np.array(matrix.shape[::-1], np.int32)
        features = {"id": names, "name": names, "feature_type": [b"Gene Expression"] * len(names)}
        for key, values in (features | {"genome": [b"GRCh38"] * len(names)}).items():
            group[f"features/{key}"] = values


# --- Xenium ----------------------------------------------------------------------------------------------------------

XENIUM_CONTROLS = ("NegControlProbe_00042", "NegControlCodeword_0500", "UnassignedCodeword_0001")
XENIUM_STAINS = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin")


def write_xenium(folder: Path, tissue: Tissue) -> None:
    """Xenium Onboard Analysis 2, with the stains of the cell segmentation kit; points in microns, with z and qv."""
    from spatialdata_io.readers.xenium import cell_id_str_from_prefix_suffix_uint32

    folder.mkdir()
    specs = {"pixel_size": PIXEL, "analysis_sw_version": "xenium-2.0.0.10"}
    (folder / "experiment.xenium").write_text(json.dumps(specs))
    n = int(tissue.cells.max())
    ids = np.column_stack([np.arange(n, dtype=np.uint32) + 100_000, np.ones(n, np.uint32)])
    names = cell_id_str_from_prefix_suffix_uint32(ids[:, 0], ids[:, 1])
    with zarr.storage.ZipStore(folder / "cells.zarr.zip", mode="w") as store:
        root = zarr.create_group(store, zarr_format=2)
        root["cell_id"] = ids
        root["masks/0"], root["masks/1"] = tissue.nuclei, tissue.cells
        root["polygon_sets/0/cell_index"] = root["polygon_sets/1/cell_index"] = np.arange(n, dtype=np.uint32)
        columns = {"column_names": ["z_level", "nucleus_count"]}
        root.create_array("cell_summary", data=np.ones((n, 2)), attributes=columns)
    xy = centers(tissue.cells) * PIXEL
    area = np.bincount(tissue.cells.ravel())[1:] * PIXEL**2
    cells = {"cell_id": names, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1], "cell_area": area}
    pd.DataFrame(cells).to_parquet(folder / "cells.parquet")
    write_10x_matrix(folder / "cell_feature_matrix.h5", names, tissue.counts())
    for name, labels in (("nucleus", tissue.nuclei), ("cell", tissue.cells)):
        rings = {label: np.asarray(outline.exterior.coords) * PIXEL for label, outline in outlines(labels).items()}
        label = np.repeat(list(rings), [len(ring) for ring in rings.values()])
        x, y = np.vstack(list(rings.values())).T
        frame = pd.DataFrame({"cell_id": names[label - 1], "vertex_x": x, "vertex_y": y, "label_id": label})
        frame.to_parquet(folder / f"{name}_boundaries.parquet")

    read = tissue.with_controls(*XENIUM_CONTROLS)
    y, x = read.yx.T * PIXEL
    poor = np.arange(len(x)) % 10 == 0
    frame = pd.DataFrame({"transcript_id": np.arange(len(x), dtype=np.uint64), "cell_id": "UNASSIGNED"})
    frame = frame.assign(overlaps_nucleus=0, feature_name=read.gene, x_location=x, y_location=y, z_location=15.0)
    frame = frame.assign(qv=np.where(poor, 10.0, 40.0), fov_name="A1")
    frame.astype({f"{axis}_location": "float32" for axis in "xyz"}).to_parquet(folder / "transcripts.parquet")
    _write_xenium_stains(folder / "morphology_focus", tissue.dapi)


def _write_xenium_stains(folder: Path, dapi: np.ndarray) -> None:
    """One file a stain, each of which describes all, as OME-TIFF of several files."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    files = [f"morphology_focus_{i:04}.ome.tif" for i in range(len(XENIUM_STAINS))]
    height, width = dapi.shape
    ids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(len(files))]
    channels = "".join(f'<Channel ID="Channel:{i}" Name="{name}"/>' for i, name in enumerate(XENIUM_STAINS))
    planes = "".join(
        f'<TiffData FirstC="{i}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{file}">{key}</UUID></TiffData>'
        for i, (file, key) in enumerate(zip(files, ids, strict=True))
    )
    for i, (file, key) in enumerate(zip(files, ids, strict=True)):
        description = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{key}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="{len(files)}" SizeT="1">{channels}{planes}'
            "</Pixels></Image></OME>"
        )
        stain = dapi if i == 0 else rng.integers(0, 2000, dapi.shape, np.uint16)
        tifffile.imwrite(folder / file, stain, description=description, metadata=None)


# --- MERSCOPE --------------------------------------------------------------------------------------------------------

MERSCOPE_CONTROLS = ("Blank-1", "Blank-12")


def write_merscope(
    folder: Path, tissue: Tissue, *, z_layers: tuple[int, ...] = (3,), others: tuple[str, ...] = ("PolyT",)
) -> None:
    """DAPI among other stains; points in microns of the slide, which an affine matrix takes to pixels of the mosaic."""
    images = folder / "images"
    images.mkdir(parents=True)
    to_pixel = np.array([[1 / PIXEL, 0, -40.0], [0, 1 / PIXEL, 30.0], [0, 0, 1]])
    np.savetxt(images / "micron_to_mosaic_pixel_transform.csv", to_pixel)
    rng = np.random.default_rng(2)
    for z in z_layers:
        tifffile.imwrite(images / f"mosaic_DAPI_z{z}.tif", tissue.dapi)
        for name in others:
            tifffile.imwrite(images / f"mosaic_{name}_z{z}.tif", rng.integers(0, 2000, tissue.dapi.shape, np.uint16))

    def microns(xy: np.ndarray) -> np.ndarray:
        return (xy - to_pixel[:2, 2]) * PIXEL

    read = tissue.with_controls(*MERSCOPE_CONTROLS)
    x, y = microns(read.yx[:, ::-1]).T
    frame = pd.DataFrame({"barcode_id": 1, "global_x": x, "global_y": y, "global_z": 3.0, "x": 7.0, "y": 8.0, "fov": 0})
    frame.assign(gene=read.gene, transcript_id="ENST0").to_csv(folder / "detected_transcripts.csv")
    counts, middle = read.counts(), microns(centers(tissue.cells))
    counts.rename_axis("cell").to_csv(folder / "cell_by_gene.csv")
    cells = pd.DataFrame({"fov": 0, "volume": 100.0, "center_x": middle[:, 0], "center_y": middle[:, 1]}, counts.index)
    cells.rename_axis("EntityID").to_csv(folder / "cell_metadata.csv")
    shapes = {
        label: shapely.MultiPolygon([shapely.transform(outline, microns)])
        for label, outline in outlines(tissue.cells).items()
    }
    columns = {"EntityID": list(shapes), "ZIndex": 0, "Geometry": list(shapes.values())}
    geopandas.GeoDataFrame(columns, geometry="Geometry").to_parquet(folder / "cell_boundaries.parquet")


# --- CosMx -----------------------------------------------------------------------------------------------------------

COSMX_CONTROLS = ("NegPrb01", "SystemControl3")


def write_cosmx(folder: Path, tissues: dict[int, Tissue]) -> None:
    """Fields of view with a composite picture each, DAPI in blue; local y runs upward."""
    for name in ("CellComposite", "CellLabels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(2)
    counts, cells, molecules = [], [], []
    for fov, tissue in tissues.items():
        height = len(tissue.dapi)
        blue = (tissue.dapi / tissue.dapi.max() * 255).astype(np.uint8)
        others = rng.integers(0, 100, (*blue.shape, 2), np.uint8)
        Image.fromarray(np.dstack([others, blue])).save(
            folder / f"CellComposite/CellComposite_F{fov:03}.jpg", quality=95
        )
        tifffile.imwrite(folder / f"CellLabels/CellLabels_F{fov:03}.tif", tissue.cells.astype(np.uint16))
        read = tissue.with_controls(*COSMX_CONTROLS)
        x, y = read.yx[:, 1], height - read.yx[:, 0]
        frame = {"fov": fov, "cell_ID": 0, "x_global_px": x + 1000 * fov, "y_global_px": y - 500, "x_local_px": x}
        molecules.append(pd.DataFrame(frame).assign(y_local_px=y, z=2, target=read.gene, CellComp=0))
        counts.append(read.counts().rename_axis("cell_ID").reset_index().assign(fov=fov))
        (x, y), ids = centers(tissue.cells).T, np.arange(1, tissue.cells.max() + 1)
        frame = {"fov": fov, "cell_ID": ids, "CenterX_local_px": x, "CenterY_local_px": height - y}
        cells.append(pd.DataFrame(frame).assign(CenterX_global_px=x + 1000 * fov, CenterY_global_px=height - y - 500))
    for name, parts in (("exprMat", counts), ("metadata", cells), ("tx", molecules)):
        pd.concat(parts).fillna(0).to_csv(folder / f"run_{name}_file.csv", index=False)
    positions = pd.DataFrame({"fov": list(tissues), "x_global_px": 0, "y_global_px": 0})
    positions.to_csv(folder / "run_fov_positions_file.csv", index=False)


# --- seqFISH ---------------------------------------------------------------------------------------------------------


def write_seqfish(folder: Path, tissue: Tissue, roi: str = "Roi1") -> None:
    """One region of interest of Spatial Genomics; points in microns, in a coordinate system of the region's name."""
    folder.mkdir(exist_ok=True)
    metadata = {"axes": "CYX", "PhysicalSizeX": PIXEL, "PhysicalSizeY": PIXEL}
    tifffile.imwrite(folder / f"{roi}_DAPI.tiff", tissue.dapi[None], ome=True, metadata=metadata)
    tifffile.imwrite(folder / f"{roi}_Segmentation.tiff", tissue.cells.astype(np.uint16), ome=True)
    y, x = tissue.yx.T * PIXEL
    points = pd.DataFrame({"x": x, "y": y, "z": 0, "cell": 0, "name": tissue.gene})
    points.to_csv(folder / f"{roi}_TranscriptList.csv", index=False)
    counts, middle = tissue.counts(), centers(tissue.cells) * PIXEL
    counts.rename_axis(None).to_csv(folder / f"{roi}_CellxGene.csv")
    cells = pd.DataFrame({"label": counts.index, "area": 100.0, "center_x": middle[:, 0], "center_y": middle[:, 1]})
    cells.to_csv(folder / f"{roi}_CellCoordinates.csv", index=False)
    shapes = outlines(tissue.cells)
    frame = geopandas.GeoDataFrame({"id": list(shapes)}, geometry=list(shapes.values()))
    (folder / f"{roi}_Boundaries.geojson").write_text(frame.to_json())


# --- Stereo-seq ------------------------------------------------------------------------------------------------------


def write_stereoseq(folder: Path, tissue: Tissue, chip: str = "SS200000135TL_D1") -> None:
    """Square bins of 1 and 50 spots, a registered ssDNA picture of one pixel a spot, and the vendor's cells."""
    for name in ("02.count", "03.register", "04.tissuecut", "041.cellcut", "051.cellcluster"):
        (folder / name).mkdir(parents=True)
    tifffile.imwrite(folder / f"03.register/{chip}_regist.tif", tissue.dapi)
    tifffile.imwrite(folder / f"03.register/{chip}_mask.tif", (tissue.cells > 0).astype(np.uint8))
    (folder / f"02.count/{chip}.gef").touch()
    with h5py.File(folder / f"04.tissuecut/{chip}.gef", "w") as out:
        for bin_size in (1, 50):
            _write_bins(out.create_group(f"geneExp/bin{bin_size}"), tissue, bin_size)
    counts = tissue.counts()
    with h5py.File(folder / f"041.cellcut/{chip}.cellbin.gef", "w") as out:
        _write_cell_bins(out.create_group("cellBin"), tissue, counts)
    cells = anndata.AnnData(
        sparse.csr_matrix(counts.to_numpy(np.float32)), pd.DataFrame(index=counts.index.astype(str))
    )
    cells.var_names = counts.columns
    cells.write_h5ad(folder / f"051.cellcluster/{chip}.cell.cluster.h5ad")


def _write_bins(group: h5py.Group, tissue: Tissue, bin_size: int) -> None:
    """Counts by gene, then place, as GEF holds them."""
    y, x = (tissue.yx // bin_size * bin_size).astype(np.int32).T
    frame = pd.DataFrame({"gene": tissue.gene, "x": x, "y": y}).value_counts(sort=False).rename("count").reset_index()
    group["expression"] = frame[["x", "y", "count"]].astype("int32").to_records(index=False)
    group["expression"].attrs["resolution"] = np.array([500], np.uint32)
    size = frame.groupby("gene").size()
    gene = np.zeros(len(size), [("gene", "S64"), ("offset", "u4"), ("count", "u4")])
    gene["gene"], gene["count"] = size.index.to_numpy().astype("S"), size
    gene["offset"] = np.cumsum([0, *size[:-1]])
    group["gene"] = gene


def _write_cell_bins(group: h5py.Group, tissue: Tissue, counts: pd.DataFrame) -> None:
    n, n_genes = counts.shape
    names = ("id", "x", "y", "offset", "geneCount", "expCount", "dnbCount", "area", "cellTypeID", "clusterID")
    cell = np.zeros(n, [(name, "i4") for name in names])
    x, y = centers(tissue.cells).T
    cell["id"], cell["x"], cell["y"], cell["area"] = counts.index, x, y, np.bincount(tissue.cells.ravel())[1:]
    gene = np.zeros(
        n_genes, [("geneName", "S64"), *((k, "u4") for k in ("offset", "cellCount", "expCount", "maxMIDcount"))]
    )
    gene["geneName"] = counts.columns.to_numpy().astype("S")
    entries = int((counts.to_numpy() > 0).sum())
    border = np.full((n, 32, 2), 32767, np.int16)  # padded
    border[:, :4] = [(-5, -5), (5, -5), (5, 5), (-5, 5)]
    group["cell"], group["gene"], group["cellBorder"] = cell, gene, border
    group["cellExp"] = np.zeros(entries, [("geneID", "u4"), ("count", "u2")])
    group["geneExp"] = np.zeros(entries, [("cellID", "u4"), ("count", "u2")])
    for name, length in (("cellExon", n), ("geneExon", n_genes), ("cellExpExon", entries), ("geneExpExon", entries)):
        group[name] = np.zeros(length, np.uint16)
    group["blockIndex"], group["blockSize"] = np.zeros(2, np.uint32), np.array([256, 256, 1, 1], np.uint32)
    group["cellTypeList"] = np.array([b"default"])


# --- Visium HD -------------------------------------------------------------------------------------------------------


def write_visium_hd(folder: Path, tissue: Tissue) -> None:
    """Bins of 8 micron, as Space Ranger 3 writes them."""
    spatial = folder / "binned_outputs/square_008um/spatial"
    spatial.mkdir(parents=True)
    side = 8 / PIXEL
    row, column = (tissue.yx // side).astype(int).T
    barcode = np.array([f"s_008um_{r:05}_{c:05}-1" for r, c in zip(row, column, strict=True)])
    counts = pd.crosstab(barcode, tissue.gene)
    write_10x_matrix(spatial.parent / "filtered_feature_bc_matrix.h5", counts.index.to_numpy().astype(str), counts)
    place = pd.DataFrame({"barcode": barcode, "in_tissue": 1, "array_row": row, "array_col": column}).drop_duplicates()
    for axis in ("row", "col"):
        place[f"pxl_{axis}_in_fullres"] = (place[f"array_{axis}"] + 0.5) * side
    place.to_parquet(spatial / "tissue_positions.parquet", index=False)
    scales = {"tissue_hires_scalef": 1.0, "tissue_lowres_scalef": 0.5, "spot_diameter_fullres": side}
    scales |= {
        "bin_size_um": 8.0,
        "microns_per_pixel": PIXEL,
        "fiducial_diameter_fullres": 1.0,
        "regist_target_img_scalef": 1.0,
    }
    (spatial / "scalefactors_json.json").write_text(json.dumps(scales))
    grey = (tissue.dapi / tissue.dapi.max() * 255).astype(np.uint8)
    for name, picture in (
        ("spatial/tissue_hires_image.png", grey),
        ("spatial/tissue_lowres_image.png", grey[::2, ::2]),
        ("microscope_image/image.png", grey),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.dstack([picture] * 3)).save(folder / name)
    with h5py.File(folder / "run_feature_slice.h5", "w") as out:
        layout = {"file_format": "1.0", "transform": {}}
        out.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps(layout)})


def stored(read: Callable[[Path], sd.SpatialData], folder: Path) -> sd.SpatialData:
    """What the reader makes of a folder, written and read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers: deprecated arguments, the order of points, files left open
        read(folder).write(folder.with_suffix(".zarr"))
    return sd.read_zarr(folder.with_suffix(".zarr"))


TISSUE = make_tissue()
