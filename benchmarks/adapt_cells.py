"""Whether the cell network gains from going on to learn on the tissue itself, without labels.

    python benchmarks/adapt_cells.py [--data ../shared] [--steps 50 200]

As in the paper, what is sure teaches: nuclei are cut to their cores, and the bins between a core and the rim of its
nucleus are in a cell and of that nucleus; bins far from every nucleus are in none. On each tissue of validate_cells.py,
which are to choose by, the bundled weights go on from there for some steps. Prints the mean best IoU of the network
alone, and as one of three opinions, as it comes and after so many steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cells import Field, by_network
from real_cells import Tissue, depth_in
from safetensors.torch import load_file
from scipy import ndimage
from train_cells import example, loss_of, patches
from validate_cells import print_ious

from sslcst.core.geometry import Regions
from sslcst.core.precision import inference_dtype
from sslcst.methods.network import load
from sslcst.methods.network.network import CellNetwork

CORE = 0.15  # in r: by how much nuclei are cut, to about half their area
FAR = 1.25  # in r: bins so far from every nucleus are in no cell
RATE, BATCH = 3e-4, 6
TRUST = {"alone": 1.0, "of three": 1 / 3}


def lessons(tissue: Tissue) -> tuple[np.ndarray, np.ndarray]:
    """An example whose cells are the nuclei, and whose nuclei are their cores."""
    radius, nuclei = Regions.of(tissue.nuclei).diameter, tissue.nuclei
    cores = np.where(depth_in(nuclei) > CORE * radius, nuclei, 0)
    far = ndimage.distance_transform_edt(nuclei == 0) > FAR * radius
    return example(replace(tissue, cells=nuclei, nuclei=cores), (nuclei > 0) | far)


def adapted(tissue: Tissue, steps: Sequence[int]) -> list[CellNetwork]:
    """The bundled network after each number of steps on a tissue, ready for inference."""
    torch.manual_seed(0)
    rng, pool = np.random.default_rng(0), [lessons(tissue)]
    network = CellNetwork()
    network.load_state_dict(load_file(load._BUNDLED))
    network.float().eval().to(memory_format=torch.channels_last)  # what normalises stays as it is
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    found = []
    for step in range(max(steps) + 1):
        if step in steps:
            found.append(ready(network))
        optimizer.zero_grad()
        sum(loss_of(network, *patches(pool, BATCH, rng))).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return found


def ready(network: CellNetwork) -> CellNetwork:
    copy = CellNetwork()
    copy.load_state_dict(network.state_dict())
    return copy.eval().fold().to(inference_dtype("cpu"), memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 200])
    args = parser.parse_args()
    steps = [0, *args.steps]

    def ways(tissue: Tissue, field: Field) -> list[np.ndarray]:
        networks = adapted(tissue, steps)
        return [by_network(field, each, trust=trust, genes=0)[0] for trust in TRUST.values() for each in networks]

    print_ious(args.data, [f"{name}, {n} steps" for name in TRUST for n in steps], ways)


if __name__ == "__main__":
    main()
