"""Whether SSL-CST's field encoder gains from starting with weights that were trained on real, known cells.

    python benchmarks/start_encoder.py [--data ../shared] [--weights FILE] [--steps 2000] [--only NAME ...]
        [--ways NAME ...]

The paper's network learns each tissue from scratch, from what is sure there. Here it is first trained on the varied
tissues of real_cells.py, of which all is known: each spot's direction to the nucleus of its cell, and whether it lies
in one. Genes differ from tissue to tissue, so it reads how many transcripts a spot has, not of which genes; on a tissue
each gene starts as this one. FILE is where these weights are written, or read from if it is there.

Prints how close `method="ssl-cst"` comes on tissues of cells.py (mean best IoU, transcripts right): from scratch, from
these weights and then as usual, or a tenth as fast, and by these weights without any learning on the tissue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import spatialdata as sd
import torch
from cells import Field, fields, grown, score
from real_cells import Tissue, is_enough, vary
from safetensors.torch import load_file, save_file
from spatialdata.models import Labels2DModel, PointsModel
from torch.optim.lr_scheduler import OneCycleLR
from train_cells import N_SIMULATED, tissues_of

import sslcst
from sslcst.core.geometry import Regions, nearest_centroid
from sslcst.core.spots import Grid, bin_transcripts
from sslcst.methods.ssl_cst import training
from sslcst.methods.ssl_cst.encoder import Encoder, make_encoder
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inputs import Inputs, Targets, make_inputs
from sslcst.methods.ssl_cst.model import Epoch
from sslcst.methods.ssl_cst.params import EncoderParams, InputParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import direction_class

TISSUES = ("embryo a05", "embryo a15", "embryo a24", "embryo a39", "prostate", "cosmx", "simulated usual")
TISSUES += ("simulated sparse", "simulated large cells")
ENCODER, READ, TRAINING = EncoderParams(kind="field"), InputParams(), TrainingParams()
GENTLY = {"training": {"learning_rate": 3e-4}}
BEFORE_NEXT = 6  # steps on one tissue, at most


def example(tissue: Tissue) -> tuple[Inputs, Targets]:
    """All spots of a tissue, without genes, and what is known of them."""
    regions = Regions.of(tissue.nuclei)
    grid = Grid(tissue.cells.shape, (1.0, 1.0), 1.0)
    spots = bin_transcripts(tissue.yx, np.zeros(len(tissue.yx), np.int64), n_genes=1, grid=grid)
    middle = spots.index + 0.5
    features = Features.of(
        spots,
        counts=spots.counts,
        distance=nearest_centroid(middle, regions.centers)[1],
        n_neighbors=READ.n_neighbors,
        window=READ.window,
    )
    cell = tissue.cells[spots.place]
    inside = np.isin(cell, regions.ids)
    own = np.where(inside, np.searchsorted(regions.ids, cell), 0)
    direction = np.where(inside, direction_class(regions.centers[own] - middle), -1)
    targets = (np.arange(len(spots)), direction, inside.astype(np.float32))
    return make_inputs(ENCODER, features, radius=regions.diameter), Targets(*map(torch.from_numpy, targets))


def trained(data: Path, steps: int, seed: int = 0) -> Encoder:
    """An encoder that reads one gene, trained on varied tissues, one at a time."""
    tissues, rng = tissues_of(data, N_SIMULATED, None), np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = make_encoder(1, ENCODER, generator)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    schedule = OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    losses, start = [], time.perf_counter()
    while len(losses) < steps:
        varied = vary(tissues[rng.integers(len(tissues))], rng)
        if not is_enough(varied):
            continue
        inputs, targets = example(varied)
        for batch, truth in inputs.training_batches(targets, TRAINING, generator):
            logits = training.forward(encoder, inputs.counts, batch, generator)
            loss = training.losses(*logits, truth.direction, truth.inside)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if len(losses) % 50 == 0:
                seconds = time.perf_counter() - start
                print(f"step {len(losses)}  loss {np.mean(losses[-50:]):.3f}  {seconds:.0f} s", flush=True)
            if len(losses) == steps or len(losses) % BEFORE_NEXT == 0:
                break
    return encoder.eval()


def starting_from(weights: dict[str, torch.Tensor]) -> Callable[..., Encoder]:
    """What makes encoders that start with these weights, each gene as the one they were trained with."""

    def make(n_genes: int, params: EncoderParams, generator: torch.Generator) -> Encoder:
        encoder = make_encoder(n_genes, params, generator)
        encoder.load_state_dict(weights | {"expression": weights["expression"].expand(n_genes, -1)})
        return encoder

    return make


def not_trained(make: Callable[..., Encoder]) -> Callable[..., tuple[Encoder, list[Epoch]]]:
    """In place of the training: the start as it is."""

    def train_encoder(inputs, spot, samples, *, n_genes, encoder_params, **_) -> tuple[Encoder, list[Epoch]]:
        return make(n_genes, encoder_params, torch.Generator()).eval(), [Epoch(0, 0.0, 0.0, 0.0, 0.0)]

    return train_encoder


def segmented(field: Field, params: dict | None = None, **patches: Callable) -> np.ndarray:
    """Cells of a field by SSL-CST, with parts of its training replaced."""
    genes = pd.Categorical.from_codes(field.gene, [f"g{i}" for i in range(field.gene.max() + 1)])
    points = pd.DataFrame({"x": field.yx[:, 1], "y": field.yx[:, 0], "gene": genes})
    sdata = sd.SpatialData.init_from_elements(
        {
            "nuclei": Labels2DModel.parse(field.nuclei, dims=("y", "x")),
            "transcripts": PointsModel.parse(points, feature_key="gene"),
        }
    )
    with ExitStack() as stack:
        for name, part in patches.items():
            stack.enter_context(patch.object(training, name, part))
        sslcst.tl.segment(sdata, nuclei_key="nuclei", method="ssl-cst", params=params or {})
    return np.asarray(sdata["sslcst_cells"])


WAYS: dict[str, Callable[[Field, Callable[..., Encoder]], np.ndarray]] = {
    "grown 0.4 r": lambda field, make: grown(field, 0.4 * Regions.of(field.nuclei).diameter)[0],
    "from scratch": lambda field, make: segmented(field),
    "from weights": lambda field, make: segmented(field, make_encoder=make),
    "from weights, gently": lambda field, make: segmented(field, GENTLY, make_encoder=make),
    "weights alone": lambda field, make: segmented(field, train_encoder=not_trained(make)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, default=Path("start_encoder.safetensors"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--only", nargs="*", default=list(TISSUES), help="beginnings of the names of tissues")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    args = parser.parse_args()
    if not args.weights.exists():
        save_file(trained(args.data, args.steps).state_dict(), args.weights)
    make = starting_from(load_file(args.weights))
    print(f"| tissue | {' | '.join(args.ways)} |\n|---|{'---|' * len(args.ways)}")
    for field in fields(args.data, args.only):
        cells = [WAYS[way](field, make) for way in args.ways]
        found = [score(field, labels, labels) for labels in cells]
        print(f"| {field.name} | {' | '.join(f'{iou:.3f}, {right:.3f}' for iou, _, right, *_ in found)} |", flush=True)


if __name__ == "__main__":
    main()
