"""How fast the encoders are, against what the machine can do.

    python benchmarks/encoder.py [--device cuda] [--precision bfloat16] [--compile] [--only NAME ...] [--profile]

Counts the operations and bytes of each network for a spot, measures the rate of large matrix products, inference,
training and peak memory (each network in a process of its own), and prints a table in Markdown. Needs neither
SpatialData nor data. Training counts what a step reads: the samples of the spot encoder, and the spots of the field
encoder, of which --share are samples.

``spot, plain`` is the paper's network written down without a thought for speed, with the same results: the expression
embedded batch by batch, every token of the last block computed, batches of 512, torch's own dropout.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sslcst.core.spots import Grid, Spots
from sslcst.methods.ssl_cst.encoder import make_encoder
from sslcst.methods.ssl_cst.encoder.spot import SpotEncoder
from sslcst.methods.ssl_cst.features import Features
from sslcst.methods.ssl_cst.inference import predict_spots
from sslcst.methods.ssl_cst.inputs import BLOCK, Inputs, Targets, make_inputs
from sslcst.methods.ssl_cst.params import EncoderParams, SslCstParams
from sslcst.methods.ssl_cst.training import _one_epoch, forward

NAMES = ("spot, plain", "spot", "field")
HEADER = (
    "| encoder | MFLOP a spot | kB a spot | inferred/s | of matrix rate | trained/s | of matrix rate | peak GiB |\n"
    "|---|---|---|---|---|---|---|---|"
)


class PlainDropout(nn.Dropout):
    """Torch's own."""

    def forward(self, x, noise=None):
        return super().forward(x)


class PlainSpotEncoder(SpotEncoder):
    """The spot encoder as one would first write it."""

    def __init__(self, n_genes: int, params: EncoderParams, generator: torch.Generator) -> None:
        super().__init__(n_genes, params, generator)
        for block in self.blocks:
            block.rmlp.dropout = PlainDropout(params.dropout)

    def forward(self, tokens, expression, noise=None):
        r = expression + self.position(tokens.position) + self.distance(tokens.distance[..., None])
        for block in self.blocks:
            r = block(r, tokens.present, r.shape[1], noise)
        return self.read_off(r[:, 0])


class Moved(TorchDispatchMode):
    """Adds up the bytes that each operation reads and writes, as if nothing stayed in a cache."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            results = out if isinstance(out, tuple) else (out,)
            self.total += sum(x.numel() * x.element_size() for x in (*args, *results) if isinstance(x, torch.Tensor))
        return out


def make_tissue(args: argparse.Namespace, params: EncoderParams) -> tuple[Inputs, Targets]:
    """A square of spots at random places, and samples of random kind; smaller for the slower encoder."""
    rng = np.random.default_rng(0)
    side = args.side if params.kind == "field" else args.side // 4
    index = np.argwhere(rng.random((side, side)) < args.occupancy).astype(np.int32)
    n = len(index)
    gene = rng.integers(0, args.genes, 2 * n)
    counts = sparse.csr_matrix((np.ones(2 * n), (np.repeat(np.arange(n), 2), gene)), shape=(n, args.genes))
    spots = Spots(Grid((side, side), (1.0, 1.0), 1.0), index, counts)
    features = Features.of(spots, counts=counts, distance=rng.uniform(0, 20, n), n_neighbors=50, window=24)
    inputs = make_inputs(params, features, radius=10.0, device=args.device)
    sample = np.flatnonzero(rng.random(n) < args.share)
    direction, inside = rng.integers(-1, 16, len(sample)), rng.integers(0, 2, len(sample)).astype(np.float32)
    return inputs, Targets(*(torch.from_numpy(x).to(args.device) for x in (sample, direction, inside)))


def seconds(run: Callable[[], object], device: str, least: float = 4.0) -> float:
    """Of the fastest of several runs that take `least` seconds together, after one that does not count."""
    run()
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < least:
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)


def matrix_rate(device: str, name: str, sizes: tuple[int, ...] = (), least: float = 1.0) -> float:
    """Floating-point operations a second of the fastest of some large matrix products, in a precision."""
    rates = []
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    for size in sizes or ((1024, 2048, 4096) if device == "cpu" else (4096, 8192, 16384)):
        a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
        with precision(device, name):
            rates.append(2 * size**3 / seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, least))
    return max(rates)


@torch.no_grad()
def counted(inputs: Inputs, encoder: nn.Module, params: EncoderParams) -> tuple[float, float]:
    """Operations and bytes a spot of inference, without the sparse embedding of its genes."""
    spots = torch.arange(len(inputs), device=inputs.neighbors.device)
    batch, places = next(iter(inputs.cover(spots, BLOCK)))
    expression = torch.zeros((*batch.spot.shape, params.width), device=spots.device)
    # The counter knows attention as products alone.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as operations, Moved() as moved:
        encoder(batch, expression)
    flop, n_bytes = operations.get_total_flops() / len(places), moved.total / len(places)
    if params.kind == "field" and spots.device.type == "cpu":
        # No counter sees into the compiled loops: a product and a sum over each neighbour's key, value and place.
        k, floats = inputs.neighbors.shape[1], 2 * params.width + 2 * 3 * params.heads
        flop, n_bytes = flop + params.depth * k * 2 * floats, n_bytes + params.depth * k * 4 * floats
    return flop, n_bytes


def measure(args: argparse.Namespace, name: str) -> dict[str, float]:
    """All figures of one network."""
    chosen = SslCstParams.of({"encoder": name.split(",")[0], "training": {"min_steps": 1}})
    params, settings = chosen.encoder, chosen.training
    inputs, targets = make_tissue(args, params)
    make = PlainSpotEncoder if name == "spot, plain" else make_encoder
    encoder = make(args.genes, params, torch.Generator().manual_seed(0)).to(args.device)
    noise = torch.Generator(args.device).manual_seed(1)
    flop, moved = counted(inputs, encoder.eval(), params)
    if args.device != "cpu":  # what counting took is not the network's
        torch.cuda.reset_peak_memory_stats()
    encoder = torch.compile(encoder) if args.compile else encoder
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-4)

    @torch.inference_mode()
    def infer() -> None:
        with precision(args.device, args.precision):
            if name == "spot, plain":
                for spots in torch.arange(len(inputs), device=args.device).split(512):
                    forward(encoder, inputs.counts, inputs.tokens(spots))
            else:
                predict_spots(encoder, inputs, block=args.block)

    def train() -> None:
        with precision(args.device, args.precision):
            encoder.train()
            _one_epoch(encoder, optimizer, inputs, targets, settings, epoch=1, noise=noise)

    if args.profile:
        infer()
        with profile() as profiler:
            infer()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12), file=sys.stderr)
    inferred = len(inputs) / seconds(infer, args.device, args.least)
    read = len(inputs) if params.kind == "field" else len(targets.spot)
    trained = read / seconds(train, args.device, args.least)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if args.device != "cpu":
        memory = torch.cuda.max_memory_allocated() / 2**30
    return {"flop": flop, "bytes": moved, "inferred": inferred, "trained": trained, "memory": memory}


@contextmanager
def precision(device: str, name: str) -> Iterator[None]:
    """Compute as torch does in half precision, in float32, or in what GPUs make of it: tf32, with rounded factors."""
    half = name not in ("float32", "tf32")
    switches = () if device == "cpu" else (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [each.allow_tf32 for each in switches]
    for each in switches:
        each.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device.split(":")[0], getattr(torch, name) if half else None, enabled=half):
            yield
    finally:
        for each, allowed in zip(switches, before, strict=True):
            each.allow_tf32 = allowed


def row(name: str, figures: dict[str, float], rate: float) -> str:
    flop = figures["flop"]
    cells = (
        f"{flop / 1e6:.2f}",
        f"{figures['bytes'] / 1e3:,.0f}",
        f"{figures['inferred']:,.0f}",
        f"{100 * figures['inferred'] * flop / rate:.0f}%",
        f"{figures['trained']:,.0f}",
        f"{100 * figures['trained'] * 3 * flop / rate:.0f}%",
        f"{figures['memory']:.2f}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="pass the networks through torch.compile")
    parser.add_argument("--side", type=int, default=400, help="bins; a quarter of it for the spot encoder")
    parser.add_argument("--occupancy", type=float, default=0.4, help="share of bins that hold a spot")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.3, help="of spots that are samples")
    parser.add_argument("--least", type=float, default=4.0, help="seconds that each measurement takes")
    parser.add_argument("--block", type=int, default=BLOCK, help="bins; side of the squares predicted at once")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--profile", action="store_true", help="show on stderr where the time of inference goes")
    parser.add_argument("--one", choices=NAMES, help="measure one network in this process and print its figures")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return

    rate = matrix_rate(args.device, args.precision)
    where = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(
        f"torch {torch.__version__}, {where}, {args.precision}: {rate / 1e9:,.0f} GFLOP/s in large matrix products.\n"
    )
    print(HEADER)
    for name in args.only:
        command = [sys.executable, *sys.argv, "--one", name]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(row(name, json.loads(result.stdout.splitlines()[-1]), rate), flush=True)


if __name__ == "__main__":
    main()
