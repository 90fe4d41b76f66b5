"""Train the cell network that comes with the package, on real and simulated cells; write its weights.

    python benchmarks/train_cells.py --out cells.safetensors [--data ../shared] [--steps 24000] [--device cuda]

The tissues are those of real_cells.py. A pool of varied tissues is made first, and one of them made anew every few
steps. Every `--every` steps, and at the end, the weights are written, a running average over some hundred steps, and a
card beside them. The same seed on the same machine gives the same weights.
"""

from __future__ import annotations

import argparse
import json
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from real_cells import HELD_OUT, PLANES, Tissue, embryo, embryo_fields, is_enough, lymph_node, simulated, vary
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sslcst.core.density import local_density, measure_levels
from sslcst.core.geometry import Regions
from sslcst.methods.network.inputs import N_CANDIDATES, N_PLANES, REACH, VECTORS, make_inputs
from sslcst.methods.network.load import FORMAT
from sslcst.methods.network.network import CellNetwork, score_candidates

PATCH = 128  # bins
RIM = 8  # bins of a patch that count for nothing: the network sees too little of what is around them
BORDER = 32  # bins beyond a tissue that patches may reach into
N_SIMULATED = 24
UNKNOWN = -1
# What is kept of a bin: the planes, offsets to candidates, which exist; then in a cell or not, and which candidate's.
OFFSETS = slice(N_PLANES, N_PLANES + 2 * N_CANDIDATES)
DISTANCES = slice(1, 1 + N_CANDIDATES)


def example(tissue: Tissue, judged: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (27, rows, columns) as half precision, and targets (3, rows, columns): in a cell, whose, which exist.

    Of the bins outside nuclei those count that are `judged` (rows, columns).
    """
    radius = Regions.of(tissue.nuclei).diameter
    counts = tissue.counts
    around = local_density(counts, tissue.nuclei, radius=radius, reach=REACH * radius)
    levels = measure_levels(around, radius=radius, reach=REACH * radius)
    cells, counts, nuclei = (np.pad(x, BORDER) for x in (tissue.cells, counts, tissue.nuclei))
    inputs = make_inputs(counts, nuclei, levels, radius=radius)

    inside = (cells > 0) & np.isin(cells, np.unique(nuclei))  # a cell without a nucleus is not found
    own = (inputs.labels == cells) & inside
    whose = np.where(own.any(axis=0), own.argmax(axis=0), UNKNOWN)
    judged = np.pad(np.broadcast_to(judged, tissue.cells.shape), BORDER) & (nuclei == 0)
    targets = [np.where(judged, inside, UNKNOWN), np.where(judged, whose, UNKNOWN), (inputs.labels > 0).sum(axis=0)]
    values = np.concatenate([inputs.planes, inputs.offset.reshape(-1, *counts.shape)])
    return values.clip(-60, 60).astype(np.float16), np.stack(targets).astype(np.int8)


def turn(values: np.ndarray, way: int) -> np.ndarray:
    """Mirror, and swap rows and columns, of the planes of a patch; vectors go with it."""
    pairs = [*VECTORS, *((i, i + 1) for i in range(OFFSETS.start, OFFSETS.stop, 2))]
    for axis in (0, 1):
        if way >> axis & 1:
            values = np.flip(values, axis + 1).copy()
            for pair in pairs:
                values[pair[axis]] *= -1
    if way >> 2:
        values = values.transpose(0, 2, 1).copy()
        for one, other in pairs:
            values[[one, other]] = values[[other, one]]
    return values


def patches(pool: list, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of examples, turned and mirrored: values (n, 27, 128, 128) and targets (n, 3, 128, 128)."""
    chosen = []
    for _ in range(n):
        values, targets = pool[rng.integers(len(pool))]
        top, left = (rng.integers(0, side - PATCH + 1) for side in values.shape[1:])
        cut, way = np.s_[:, top : top + PATCH, left : left + PATCH], int(rng.integers(8))
        values = turn(values[cut], way)
        targets = targets[cut]
        for axis in (0, 1):
            targets = np.flip(targets, axis + 1) if way >> axis & 1 else targets
        targets = targets.transpose(0, 2, 1) if way >> 2 else targets
        chosen.append((values, np.ascontiguousarray(targets)))
    values, targets = (torch.from_numpy(np.stack(part)) for part in zip(*chosen, strict=True))
    return values.float(), targets


class Sampler:
    """A pool of varied tissues, of which patches are drawn."""

    def __init__(self, tissues: list[Tissue], size: int, seed: int) -> None:
        self.tissues, self.rng, self.next = tissues, np.random.default_rng(seed), 0
        self.pool: list = [None] * size
        self.order = self.rng.permutation(max(size, len(tissues))) % len(tissues)
        for _ in range(size):
            self.refresh()

    def refresh(self) -> None:
        """Make one tissue of the pool anew."""
        tissue = self.tissues[self.order[self.next % len(self.order)]]
        while True:
            varied = vary(tissue, self.rng)
            if is_enough(varied):
                break
        self.pool[self.next % len(self.pool)] = example(varied)
        self.next += 1

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of tissues of the pool."""
        return patches(self.pool, n, self.rng)


def loss_of(network: torch.nn.Module, values: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-entropies of in or out, and of whose, over the bins outside nuclei."""
    planes = values[:, :N_PLANES]
    with torch.autocast(values.device.type, torch.bfloat16):
        outputs = network(planes)
    inner = np.s_[..., RIM:-RIM, RIM:-RIM]
    outputs, values, targets = outputs.float()[inner], values[inner], targets[inner].long()
    inside, whose, number = targets.unbind(dim=1)
    exists = torch.arange(N_CANDIDATES, device=values.device)[:, None, None] < number[:, None]
    offset = values[:, OFFSETS].unflatten(1, (N_CANDIDATES, 2))
    scores = score_candidates(outputs, exists, values[:, DISTANCES], offset)
    judged = inside >= 0
    in_or_out = binary_cross_entropy_with_logits(outputs[:, 0][judged], inside[judged].float())
    return in_or_out, cross_entropy(scores, torch.where((whose >= 0) & judged, whose, -100), ignore_index=-100)


def tissues_of(data: Path, n_simulated: int, fields: int | None) -> list[Tissue]:
    """Those to train on: 35 fields in two planes, the lymph node, and simulated ones."""
    names = [name for name in embryo_fields(data) if name not in HELD_OUT][:fields]
    tissues = [Tissue(whole.cells, whole.yx) for name in names for whole in (embryo(data, name, z) for z in PLANES)]
    return tissues + (list(lymph_node(data)) if fields is None else []) + [simulated(i) for i in range(n_simulated)]


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    start = time.perf_counter()
    sampler = Sampler(tissues_of(arguments.data, arguments.simulated, arguments.fields), arguments.pool, arguments.seed)
    print(f"{len(sampler.tissues)} tissues, {arguments.pool} varied, {time.perf_counter() - start:.0f} s", flush=True)

    device = torch.device(arguments.device)
    network = CellNetwork().to(device, memory_format=torch.channels_last)
    sample = torch.cat([sampler.batch(8)[0][:, :N_PLANES] for _ in range(8)])
    network.mean.copy_(sample.mean(dim=(0, 2, 3)))
    network.scale.copy_(1 / (sample.std(dim=(0, 2, 3)) + 1e-2))
    if arguments.start is not None:
        network.load_state_dict(safetensors.torch.load_file(arguments.start))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(arguments.average), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=arguments.steps, pct_start=0.1
    )
    losses = []
    for step in range(1, arguments.steps + 1):
        values, targets = (part.to(device) for part in sampler.batch(arguments.batch))
        parts = loss_of(network.train(), values.contiguous(memory_format=torch.channels_last), targets)
        optimizer.zero_grad()
        sum(parts).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        losses.append([part.item() for part in parts])
        if step % arguments.refresh == 0:
            sampler.refresh()
        if step % arguments.every == 0 or step == arguments.steps:
            mean, seconds = np.mean(losses, axis=0), time.perf_counter() - start
            print(f"step {step}  in or out {mean[0]:.4f}  whose {mean[1]:.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
            save(arguments, average.module, step, mean)


def save(arguments: argparse.Namespace, network: CellNetwork, step: int, losses: np.ndarray) -> None:
    """Write the averaged weights, convolutions in half precision, and their card."""
    weights = {
        name: (value.half() if value.ndim == 4 else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    content = safetensors.torch.save(weights)
    card = {
        "format": FORMAT,
        "sha256": sha256(content).hexdigest(),
        "data": "seqFISH of a mouse embryo (Lohoff et al. 2021, IDR idr0138), 35 fields in two planes, cells from "
        "membrane stains, nuclei drawn; a lymph node (Xenium Prime, 10x Genomics), cells and nuclei; simulated tissues",
        "licence": "CC BY 4.0 for both sources",
        "held_out": HELD_OUT,
        "went_on_from": None if arguments.start is None else sha256(arguments.start.read_bytes()).hexdigest(),
        "seed": arguments.seed,
        "steps": step,
        "of": arguments.steps,
        "batch": arguments.batch,
        "loss": dict(zip(("in_or_out", "whose"), losses.round(4).tolist(), strict=True)),
        "torch": torch.__version__,
    }
    arguments.out.write_bytes(content)
    arguments.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--out", type=Path, required=True, help="weights file to write")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--steps", type=int, default=24000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the running average of the weights")
    parser.add_argument("--every", type=int, default=250, help="steps between files")
    parser.add_argument("--pool", type=int, default=120, help="varied tissues in memory")
    parser.add_argument("--refresh", type=int, default=12, help="steps after which one of them is made anew")
    parser.add_argument("--simulated", type=int, default=N_SIMULATED, help="simulated tissues")
    parser.add_argument("--fields", type=int, help="the first fields alone, and no lymph node: for a try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
