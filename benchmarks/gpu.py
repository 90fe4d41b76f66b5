"""What a GPU does for sslcst: the same cells as the CPU, its networks' speed and memory, and the stages of a chip.

    python benchmarks/gpu.py [--device cuda] [--out gpu.md] [--only PART ...] [--chip 10000] [--minutes 7.5]

Needs one GPU (CUDA_VISIBLE_DEVICES chooses among several), this folder, `sslcst.core` and `sslcst.methods`, and of
other packages numpy, scipy, scikit-image, numba, torch and safetensors; no data, no SpatialData, and no installed
sslcst (``PYTHONPATH=src``). It ends within --minutes: the chip comes last, and of its tiles those are done that there
is time for. Prints tables in Markdown, part by part, and writes them to --out as well. What could not be measured says
why.

card      what the card attains in large matrix products, and what its data sheet promises
equal     nuclei, cells and spots on the GPU against the CPU: how far outputs are apart, and how many labels differ
networks  the two bundled networks, on what lies on the device already, by precision
encoders  the two encoders of ssl-cst, inference and training (`encoder.py` tells what is counted)
chip      a simulated chip of 0.5 micron spots and cells 6 micron apart, its tiles one after the other: networks on
          the device, all else on the CPU, also what makes the inputs of the cell network (`networks` tells how
          little of that stage the network itself takes)

``--device cpu --tiny`` goes the same way in seconds; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import platform
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import encoder
import numpy as np
import torch
from encoder import make_tissue, matrix_rate, precision, seconds
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sslcst.core.nuclei.sslcst as nuclei_network
from sslcst.core.cells import decide
from sslcst.core.counts import count_matrix, owners
from sslcst.core.density import Levels, levels_of, local_density, measure_levels, tally_rings, tally_spread
from sslcst.core.geometry import Regions
from sslcst.core.nuclei.flows import decode
from sslcst.core.nuclei.network import NucleusNetwork
from sslcst.methods.network.blocks import BLOCK, MARGIN
from sslcst.methods.network.inputs import N_PLANES, REACH
from sslcst.methods.network.load import load_network
from sslcst.methods.network.predict import predict_cells
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.params import SslCstParams

PITCH, DIAMETER = 12.5, 9.0  # spots, from nucleus to nucleus and across one
MOLECULES, N_GENES = 1.46, 5000
ALLOWED = 1e-2  # between outputs in float32: labels that differ where these are closer are ties
PEAKS = {  # TFLOP/s of dense products by the data sheets
    "H200": {"float32": 67, "tf32": 495, "bfloat16": 989, "float16": 989},
    "H100 80GB HBM3": {"float32": 67, "tf32": 495, "bfloat16": 989, "float16": 989},
    "H100 PCIe": {"float32": 51, "tf32": 378, "bfloat16": 756, "float16": 756},
    "A100": {"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312},
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    least: float = 1.0  # seconds a measurement
    products: tuple[int, ...] = ()
    patch: int = 1000  # spots, side of the tissue that a chip repeats
    equal: int = 1024  # spots, side of what both compute
    images: tuple[int, ...] = (1, 4)  # of 1,536 pixels a side, as the package cuts them
    blocks: tuple[int, ...] = (1, 16)  # as the package cuts them
    image: int = 1536
    spots: int = 400  # side of the encoders' tissue
    genes: int = 2000
    tile: int = 2048


TINY = Sizes(0.01, (64,), 250, 256, (1,), (1,), 128, 40, 50, 256)


# --- a tissue


@dataclass(frozen=True)
class Patch:
    """Nuclei, transcripts a spot and stain of a square whose edges fit one another, so that it can be repeated."""

    nuclei: np.ndarray
    counts: np.ndarray
    stain: np.ndarray

    @classmethod
    def make(cls, side: int) -> Patch:
        rng = np.random.default_rng(0)
        n = int(side / PITCH)
        centers = (np.indices((n, n)).reshape(2, -1).T + 0.5) * side / n
        centers += rng.uniform(-1, 1, centers.shape)  # so little that no nucleus reaches over the edge
        places = np.indices((side, side)).reshape(2, -1).T + 0.5
        distance, owner = (x.reshape(side, side) for x in cKDTree(centers, boxsize=side).query(places))
        radius = rng.uniform(0.85, 1.15, len(centers)) * DIAMETER / 2
        nuclei = np.where(distance < radius[owner], owner + 1, 0).astype(np.uint32)
        rate = np.where(distance < 0.52 * PITCH, 3.0, 1.0)
        counts = rng.poisson(rate * (MOLECULES / rate.mean()))
        light = np.append(0.05, rng.lognormal(0, 0.3, len(centers)))
        image = rng.poisson(150 * gaussian_filter(light[nuclei], 1.0, mode="wrap"))
        low, high = np.percentile(image, (1, 99))
        return cls(nuclei, counts, ((image - low) / (high - low)).astype(np.float32))

    def window(self, top: int, left: int, side: int, margin: int = 0) -> Patch:
        """A square of the chip that repeats the patch, its nuclei numbered throughout; and a margin around it."""
        rows, columns = (np.arange(start - margin, start + side + margin) for start in (top, left))
        n = len(self.nuclei)
        at = np.ix_(rows % n, columns % n)
        nuclei, n_nuclei = self.nuclei[at], int(self.nuclei.max())
        down, right = (axis // n - axis[0] // n for axis in (rows, columns))
        repeat = down[:, None] * (right[-1] + 1) + right
        nuclei = np.where(nuclei > 0, nuclei + repeat * n_nuclei, 0).astype(np.uint32)
        return Patch(nuclei, self.counts[at], self.stain[at])

    @property
    def levels(self) -> Levels:
        around = local_density(self.counts, self.nuclei, radius=DIAMETER, reach=REACH * DIAMETER)
        return measure_levels(around, radius=DIAMETER, reach=REACH * DIAMETER)


# --- the device


@dataclass(frozen=True)
class Card:
    """A device and what it attains; rates in FLOP/s by precision."""

    device: str
    name: str
    rates: dict[str, float]

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def peak(self, name: str) -> float | None:
        known = [peaks[name] * 1e12 for part, peaks in PEAKS.items() if part in self.name]
        return known[0] if known else None

    def shares(self, name: str, rate: float) -> str:
        """Of the matrix rate, and of the data sheet's peak."""
        peak = self.peak(name)
        return f"{rate / self.rates[name]:.0%} | {'-' if peak is None else f'{rate / peak:.0%}'}"

    @contextmanager
    def memory(self, peak: list[str]) -> Iterator[None]:
        """Appends the most that was allocated, GiB; of a CPU nothing is known."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield
        peak.append(f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if self.on_gpu else "-")


def card_of(device: str, sizes: Sizes) -> Card:
    if device == "cpu":
        name, names = f"{platform.machine()} CPU, {torch.get_num_threads()} threads", ("float32", "bfloat16")
    else:
        name, names = torch.cuda.get_device_name(device), ("float32", "tf32", "bfloat16", "float16")
    return Card(device, name, {each: matrix_rate(device, each, sizes.products, sizes.least) for each in names})


def attempt(label: str, row: Callable[[], str]) -> str:
    """A row, or why there is none."""
    try:
        return row()
    except (RuntimeError, ImportError) as error:  # out of memory, or not made for this device
        return f"| {label} | not measured: {str(error).strip().splitlines()[0]} |"


# --- parts, each a table


def card_table(card: Card, sizes: Sizes) -> Iterator[str]:
    yield "| precision | large matrix products, TFLOP/s | data sheet, TFLOP/s |\n|---|---|---|"
    for name, rate in card.rates.items():
        peak = card.peak(name)
        yield f"| {name} | {rate / 1e12:,.3g} | {'not known to this script' if peak is None else f'{peak / 1e12:g}'} |"


def equal_table(card: Card, sizes: Sizes) -> Iterator[str]:
    yield "| what | precision | outputs differ by at most | labels that differ | of | in float32 |"
    yield "|---|---|---|---|---|---|"
    patch = Patch.make(sizes.patch)
    tissue, levels = patch.window(0, 0, sizes.equal), patch.levels
    for name, compute in (
        ("nuclei", partial(found_nuclei, tissue)),
        ("cells", partial(found_cells, tissue, levels)),
        ("spots, field encoder", partial(found_spots, sizes)),
    ):
        ours = compute("cpu")
        for each in card.rates:
            yield attempt(f"{name} | {each}", partial(compared, name, each, ours, card, compute))


def compared(name: str, of: str, ours: tuple, card: Card, compute: Callable[[str], tuple]) -> str:
    with precision(card.device, of):
        outputs, labels = compute(card.device)
    apart = float(np.abs(outputs - ours[0]).max())
    n = int(np.count_nonzero(labels != ours[1]))
    verdict = "-"
    if of == "float32":
        verdict = "equal" if not n else "equal but for ties" if apart <= ALLOWED else "**NOT EQUAL**"
    return f"| {name} | {of} | {apart:.2g} | {n:,} | {labels.size:,} | {verdict} |"


def found_nuclei(tissue: Patch, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Each nucleus is named by the true one at its middle, so that one more or less renumbers no other."""
    image = nuclei_network.resize(tissue.stain, 2.0)
    outputs = nuclei_network.predict(load_nuclei(device), image)
    labels = decode(outputs[0], outputs[1:], tissue.stain.shape)
    found = Regions.of(labels)
    name = np.zeros(labels.max() + 1, np.int64)
    name[found.ids] = tissue.nuclei[tuple(found.centers.astype(int).T)]
    return outputs, name[labels]


def found_cells(tissue: Patch, levels: Levels, device: str) -> tuple[np.ndarray, np.ndarray]:
    found = predict_cells(load_network(device), tissue.counts, tissue.nuclei, levels, radius=DIAMETER)
    return found[0], decide(*found, tissue.nuclei)


def found_spots(sizes: Sizes, device: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = SslCstParams.of({"encoder": "field"})
    inputs, _ = make_tissue(encoder_settings(sizes, device, "float32"), chosen.encoder)
    network = make_encoder(sizes.genes, chosen.encoder, torch.Generator().manual_seed(0)).to(device).eval()
    direction, inside = predict_spots(network, inputs)
    return np.column_stack([direction, inside]), direction.argmax(axis=1) * 2 + (inside > 0.5)


def networks_table(card: Card, sizes: Sizes) -> Iterator[str]:
    yield "| network | precision | at once | million a second | of matrix rate | of peak | peak GiB |"
    yield "|---|---|---|---|---|---|---|"
    cases = [("nuclei, pixels", load_nuclei, 1, sizes.image, sizes.images)]
    cases += [("cells, bins with margins", load_network, N_PLANES, BLOCK + 2 * MARGIN, sizes.blocks)]
    for label, load, channels, side, batches in cases:
        for of in card.rates:
            for n in batches:
                shape = (n, channels, side, side)
                yield attempt(f"{label} | {of} | {n}", partial(network_row, card, sizes, label, load, of, shape))


def network_row(card: Card, sizes: Sizes, label: str, load: Callable, of: str, shape: tuple[int, ...]) -> str:
    network: nn.Module = load(card.device)
    x = torch.rand(shape, device=card.device).contiguous(memory_format=torch.channels_last)
    peak: list[str] = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as operations:
            network(x)
        with card.memory(peak), precision(card.device, of):
            took = seconds(lambda: network(x), card.device, sizes.least)
    rate = operations.get_total_flops() / took
    pixels = shape[0] * shape[2] * shape[3] / took
    return f"| {label} | {of} | {shape[0]} | {pixels / 1e6:,.1f} | {card.shares(of, rate)} | {peak[0]} |"


def encoders_table(card: Card, sizes: Sizes) -> Iterator[str]:
    yield encoder.HEADER
    for name in ("spot", "field"):
        for of in card.rates:
            if of != "float16":  # training in it needs its loss scaled
                yield attempt(f"{name}, {of}", partial(encoder_row, card, sizes, name, of))


def encoder_row(card: Card, sizes: Sizes, name: str, of: str) -> str:
    figures = encoder.measure(encoder_settings(sizes, card.device, of), name)
    return encoder.row(f"{name}, {of}", figures, card.rates[of])


def encoder_settings(sizes: Sizes, device: str, of: str) -> Namespace:
    usual = {"occupancy": 0.4, "share": 0.3, "block": 512, "compile": False, "profile": False}
    return Namespace(device=device, precision=of, side=sizes.spots, genes=sizes.genes, least=sizes.least, **usual)


def chip_table(card: Card, sizes: Sizes, side: int, deadline: float) -> Iterator[str]:
    patch, tile = Patch.make(sizes.patch), sizes.tile
    levels, rng = patch.levels, np.random.default_rng(1)
    corners = [(top, left) for top in range(0, side, tile) for left in range(0, side, tile)]
    work, networks = Stages(), (load_nuclei(card.device), load_network(card.device))
    peak: list[str] = []
    with card.memory(peak):
        one_tile(Stages(), patch.window(0, 0, BLOCK, MARGIN), networks, levels, rng)  # compiles
        for done, (top, left) in enumerate(corners):
            took = sum(work.seconds.values()) / max(done, 1)
            if done and time.perf_counter() + 1.3 * took > deadline:
                break
            one_tile(work, patch.window(top, left, tile, MARGIN), networks, levels, rng)
        else:
            done = len(corners)
    area, whole = done * tile**2, len(corners) * tile**2
    yield f"{done} of {len(corners)} tiles of {tile:,} x {tile:,}, float32 as torch has it; peak {peak[0]} GiB.\n"
    yield "| stage | where | seconds | million spots/s |\n|---|---|---|---|"
    for (name, where), took in work.seconds.items():
        yield f"| {name} | {card.name if where == 'device' else 'CPU'} | {took:.2f} | {area / took / 1e6:.2f} |"
    total = sum(work.seconds.values())
    inference = sum(took for (name, _), took in work.seconds.items() if name in INFERENCE)
    yield f"| all | | {total:.2f} | {area / total / 1e6:.2f} |"
    if done < len(corners):
        yield f"\nThe other tiles were not run. By area, all would take {total * whole / area:.0f} s."
    yield f"\nInference of nuclei and cells ({', '.join(INFERENCE)}) took {inference:.1f} s; by area, that of"
    yield f"20,000 x 20,000 would take {inference * 20_000**2 / area:.0f} s on one tile at a time, which was not run."


INFERENCE = ("nuclei: network", "nuclei: flows to labels", "cells: inputs and network")


class Stages:
    """Seconds of each stage, by name and by where it computes."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str, where: str = "CPU") -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name, where] += time.perf_counter() - start


def one_tile(work: Stages, seen: Patch, networks: tuple, levels: Levels, rng: np.random.Generator) -> None:
    """All stages of the network method on a tile and its margin; results leave the device within their stage."""
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    shape = seen.counts[inner].shape
    pixel = np.repeat(np.arange(np.prod(shape)), seen.counts[inner].ravel())
    yx, gene = np.stack(np.divmod(pixel, shape[1]), axis=1) + 0.5, rng.integers(0, N_GENES, len(pixel))
    with work.stage("nuclei: stain to scale"):
        image = nuclei_network.resize(seen.stain[inner], 2.0)
    with work.stage("nuclei: network", "device"):
        outputs = nuclei_network.predict(networks[0], image)
    with work.stage("nuclei: flows to labels"):
        decode(outputs[0], outputs[1:], shape)
    with work.stage("density: nearest nuclei and counts around"):
        around = local_density(seen.counts, seen.nuclei, radius=DIAMETER, reach=REACH * DIAMETER)
    with work.stage("density: levels and spread"):
        levels_of(tally_rings(around, reach=REACH * DIAMETER, owned=inner), radius=DIAMETER)
        tally_spread(around, levels, radius=DIAMETER, owned=inner)
    with work.stage("cells: inputs and network", "device"):
        where = {"corner": (-MARGIN, -MARGIN), "own": ((0, shape[0]), (0, shape[1]))}
        found = predict_cells(networks[1], seen.counts, seen.nuclei, levels, radius=DIAMETER, **where)
    with work.stage("cells: labels"):
        cells = decide(*found, seen.nuclei[inner])
    with work.stage("counting transcripts"):
        owner = owners(yx, cells)
        count_matrix(owner, gene, None, ids=np.unique(owner[owner > 0]), n_genes=N_GENES)


def load_nuclei(device: str) -> NucleusNetwork:
    path = Path(nuclei_network.__file__).parent / "weights" / "nuclei.safetensors"
    return nuclei_network.fold(nuclei_network.read_network(path)).to(device, memory_format=torch.channels_last)


def main(arguments: list[str] | None = None) -> None:
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=["card", "equal", "networks", "encoders", "chip"])
    parser.add_argument("--chip", type=int, default=10_000, help="spots along a side")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no further tile of the chip is begun")
    parser.add_argument("--tiny", action="store_true", help="all parts in seconds, to see that they run")
    args = parser.parse_args(arguments)
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch sees: --device cpu --tiny shows that the script runs")
    sizes = TINY if args.tiny else Sizes()
    card = card_of(args.device, sizes)
    side = min(args.chip, 2 * sizes.tile) if args.tiny else args.chip
    tables = {"card": card_table, "equal": equal_table, "networks": networks_table, "encoders": encoders_table}
    tables["chip"] = partial(chip_table, side=side, deadline=start + 60 * args.minutes)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)
        if args.out:
            args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")

    say(f"{card.name}; torch {torch.__version__}, Python {platform.python_version()}{', tiny sizes' * args.tiny}.")
    for name in args.only:
        say(f"\n### {name}\n")
        for line in tables[name](card, sizes):
            say(line)
    say(f"\n{time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
