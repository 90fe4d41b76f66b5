"""Train and evaluate the bundled nucleus network on the DSB2018 fluorescence images.

    python benchmarks/train_nuclei.py DATA --out nuclei.safetensors                   # train from scratch
    python benchmarks/train_nuclei.py DATA --out nuclei.safetensors --resume nuclei.ckpt
    python benchmarks/train_nuclei.py DATA --out nuclei.safetensors --evaluate test   # scores, no training

DATA holds ``NAME_img.tif`` and ``NAME_lab.tif``. The images set apart for the test are listed in dsb2018_split.txt; of
the others, those whose name has a hash below a bound are set apart for validation, by which nothing is trained either.
The model card says what came out.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage
from skimage.io import imread
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sslcst.core.nuclei import sslcst as backend
from sslcst.core.nuclei.flows import CORE
from sslcst.core.nuclei.intensity import intensity_range, scale_intensity
from sslcst.core.nuclei.network import NucleusNetwork
from sslcst.metrics import average_precision
from sslcst.params import NucleiParams

SPLIT = Path(__file__).with_name("dsb2018_split.txt")
PATCH = 128  # pixels
IGNORE = -1  # label of what lies beyond the image
THRESHOLDS = (0.5, 0.7, 0.9)


# --- data


@dataclass(frozen=True)
class Example:
    """An image at full, half and quarter resolution, its labels, their centres and typical diameter."""

    name: str
    pyramid: tuple[NDArray[np.float32], ...]
    labels: NDArray[np.int32]
    centres: NDArray[np.float32]
    diameter: float


def find_centres(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Find the centre of each nucleus of labels (y, x): of its pixels, the one nearest to its centroid.

    Positions (y, x) are by number, (largest label + 1, 2), 0 for those that are not among the labels.
    """
    centres = np.zeros((int(labels.max()) + 1, 2), np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            places = np.argwhere(labels[box] == number)
            nearest = np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))
            centres[number] = places[nearest] + [side.start for side in box]
    return centres


def make_flow(labels: NDArray[np.integer], centres: NDArray[np.floating]) -> NDArray[np.float32]:
    """Make the flow (dy, dx) of labels (y, x), (2, y, x); 0 where there is no nucleus.

    Centres, by number, may lie beyond the image.
    """
    rows, columns = np.indices(labels.shape, np.float32)
    to_centre = np.moveaxis(centres[labels], -1, 0) - np.stack([rows, columns])
    distance = np.hypot(*to_centre)
    return np.where(labels > 0, to_centre / np.maximum(distance, CORE), 0).astype(np.float32)


def part_of(name: str) -> str:
    """Tell by a hash of its name which part an image belongs to: "test" (18 %), "validation" (7 %) or "train"."""
    share = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "test" if share < 18 else "validation" if share < 25 else "train"


def list_names(folder: Path, part: str) -> list[str]:
    """Names of the images in a part; the test part must be what the split file lists."""
    names = sorted(file.name.removesuffix("_img.tif") for file in folder.glob("*_img.tif"))
    test = SPLIT.read_text(encoding="utf-8").split()
    if set(test) != {name for name in names if part_of(name) == "test"}:
        raise SystemExit(f"{folder} does not hold the images that {SPLIT.name} names for the test.")
    return [name for name in names if part_of(name) == part]


def read_pair(folder: Path, name: str) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Image, scaled as users' images are, and labels."""
    image = imread(folder / f"{name}_img.tif")
    scaled = scale_intensity(image, *intensity_range(image, NucleiParams().percentiles))
    return scaled, imread(folder / f"{name}_lab.tif").astype(np.int32)


def read_example(folder: Path, name: str) -> Example:
    image, labels = read_pair(folder, name)
    pyramid = [image]
    for _ in range(2):
        height, width = (side // 2 for side in pyramid[-1].shape)
        pyramid.append(pyramid[-1][: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3)))
    return Example(name, tuple(pyramid), labels, find_centres(labels), backend.typical_diameter(labels))


# --- augmentation: geometry


@numba.njit(cache=True)
def warp(image, pixel, labels, matrix, origin, size):
    """Patch of an image and its labels: the pixel (row, column) comes from ``matrix @ (row, column) + origin``."""
    patch, ids = np.zeros((size, size), np.float32), np.full((size, size), IGNORE, np.int32)
    for row in range(size):
        for column in range(size):
            y = matrix[0, 0] * row + matrix[0, 1] * column + origin[0]
            x = matrix[1, 0] * row + matrix[1, 1] * column + origin[1]
            i, j = int(np.rint(y)), int(np.rint(x))
            if not (0 <= i < labels.shape[0] and 0 <= j < labels.shape[1]):
                continue
            ids[row, column] = labels[i, j]
            y = min(max((y + 0.5) / pixel - 0.5, 0.0), image.shape[0] - 1.0)
            x = min(max((x + 0.5) / pixel - 0.5, 0.0), image.shape[1] - 1.0)
            i, j = int(y), int(x)
            below, right = min(i + 1, image.shape[0] - 1), min(j + 1, image.shape[1] - 1)
            v, u = y - i, x - j
            patch[row, column] = (1 - v) * ((1 - u) * image[i, j] + u * image[i, right]) + v * (
                (1 - u) * image[below, j] + u * image[below, right]
            )
    return patch, ids


class Sampler:
    """Endless random patches, changed in ways in which other stains, tissues and instruments differ."""

    def __init__(self, examples: list[Example], rng: np.random.Generator) -> None:
        self.examples, self.rng = examples, rng
        weights = np.array([math.sqrt(example.labels.size) for example in examples])
        self.weights = weights / weights.sum()
        side = 8 * PATCH  # noise is cut from sheets that are made once: (sigma 0, 0.7, 1.5, 3, 8, 20)
        self.sheets = []
        for sigma in (0, 0.7, 1.5, 3, 8, 20):
            sheet = ndimage.gaussian_filter(rng.standard_normal((side, side)).astype(np.float32), sigma, mode="wrap")
            self.sheets.append(sheet / sheet.std())

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (n, 1, h, w), labels (n, h, w) and flow targets (n, 2, h, w)."""
        patches = [self.patch() for _ in range(size)]
        images, labels, flows = (np.stack(arrays) for arrays in zip(*patches, strict=True))
        return torch.from_numpy(images[:, None]), torch.from_numpy(labels), torch.from_numpy(flows)

    def patch(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        rng = self.rng
        width = 20 * 2 ** (rng.uniform(-1, 1) if rng.random() < 0.5 else rng.normal(0, 0.35))
        image, labels, centres = self.cut(width)
        if rng.random() < 0.35:
            image, labels, centres = self.crowd(image, labels, centres, width * rng.uniform(0.7, 1.3))
        if rng.random() < 0.02:  # nothing but ground
            labels = np.zeros_like(labels)
            image = self.draw(labels)
        nuclei = np.maximum(labels, 0)
        image = self.texture(image, nuclei)
        image = self.optics(image, width)
        return image, labels, make_flow(nuclei, centres)

    def cut(self, width: float) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """Patch of a random image, turned, mirrored and scaled so that its nuclei are about `width` pixels wide."""
        rng = self.rng
        example = self.examples[rng.choice(len(self.examples), p=self.weights)]
        angle, shear = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.08)
        stretch = np.exp(rng.normal(0, 0.25 if rng.random() < 0.3 else 0.08))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ np.array([[stretch, shear], [0, 1 / stretch]]) @ np.diag([1, rng.choice([-1, 1])])
        zoom = example.diameter / width  # pixels of the image in one of the patch
        matrix = turn * zoom
        shape = np.array(example.labels.shape)
        seen = np.flatnonzero(example.centres.any(axis=1))
        near = example.centres[rng.choice(seen)] if rng.random() < 0.85 else rng.uniform(0, shape)
        reach = np.minimum(0.45 * PATCH * zoom, shape / 2)  # keeps most of the patch on the image
        middle = np.clip(near + rng.uniform(-0.4, 0.4, 2) * PATCH * zoom, reach, shape - reach)
        origin = middle - matrix @ np.full(2, (PATCH - 1) / 2)
        level = int(np.clip(round(math.log2(zoom)), 0, len(example.pyramid) - 1))
        image, labels = warp(example.pyramid[level], 2.0**level, example.labels, matrix, origin, PATCH)
        return image, labels, ((example.centres - origin) @ np.linalg.inv(matrix).T).astype(np.float32)

    def crowd(self, image, labels, centres, width):
        """Put nuclei of another patch among those here, so that they touch and overlap."""
        rng = self.rng
        other, numbers, others = self.cut(width)
        numbers = np.maximum(numbers, 0)
        chosen = rng.random(len(others)) < rng.uniform(0.3, 1)
        chosen[0] = False
        covered = np.bincount(numbers.ravel(), (labels != 0).ravel(), len(others))
        chosen &= covered < rng.uniform(0.1, 0.4) * np.maximum(np.bincount(numbers.ravel(), minlength=len(others)), 1)
        mask = chosen[numbers]
        if not mask.any():
            return image, labels, centres
        soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.4, 1.2))
        here = labels > 0
        if here.any():  # as bright as their new neighbours, more or less
            other = other * (image[here].mean() / max(other[mask].mean(), 1e-3)) * rng.uniform(0.5, 1.5)
        image = np.maximum(image, soft * other) if rng.random() < 0.5 else image * (1 - soft) + soft * other
        labels = np.where(mask, numbers + len(centres), labels)
        return image, labels.astype(np.int32), np.concatenate([centres, others])

    # --- augmentation: what is stained

    def texture(self, image: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Nuclei of differing brightness; mottled, or drawn anew from their outlines as ssDNA stains show them."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.2:
            return self.draw(labels)
        if kind < 0.6 and labels.any():
            gain = np.exp(rng.normal(0, rng.uniform(0, 0.6), labels.max() + 1)).astype(np.float32)
            gain[0] = 1
            gain = ndimage.gaussian_filter(gain[labels], 0.7)
            mottle = 1 + rng.uniform(0, 0.35) * self.noise(2, 4)
            image = image * gain * (np.clip(mottle, 0.2, 2) if rng.random() < 0.5 else 1)
        return image

    def draw(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Mottled nuclei of low contrast on a grainy ground with a haze of tissue."""
        rng = self.rng
        brightness = np.clip(rng.normal(1, 0.25, labels.max() + 1), 0.4, 1.8).astype(np.float32)
        brightness[0] = 0
        inside = brightness[labels] * np.clip(1 + rng.uniform(0.05, 0.4) * self.noise(1, 5), 0.15, 2)
        if rng.random() < 0.5:  # brighter in the middle, or at the rim
            depth = ndimage.gaussian_filter((labels > 0).astype(np.float32), rng.uniform(1, 4))
            inside *= depth if rng.random() < 0.7 else 1.5 - depth
        inside = ndimage.gaussian_filter(inside, rng.uniform(0.4, 1.3))
        ground = rng.uniform(0, 0.7) * np.clip(0.5 + 0.3 * self.noise(2, 6), 0, None)
        return (inside + ground).astype(np.float32)

    # --- augmentation: how it is seen

    def optics(self, image: NDArray[np.float32], width: float) -> NDArray[np.float32]:
        """Haze, blur, uneven ground, grain, noise, contrast and gain."""
        rng = self.rng
        image = np.clip(image, 0, 4)
        if rng.random() < 0.25:  # light from out of focus
            image = image + rng.uniform(0.1, 0.8) * ndimage.gaussian_filter(image, rng.uniform(0.2, 0.8) * width)
        if rng.random() < 0.35:
            image = image ** rng.uniform(0.5, 1.6)
        if rng.random() < 0.4:
            image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.09 * width))
        if rng.random() < 0.35:
            image = image + rng.uniform(0, 0.5) * np.clip(0.5 + self.noise(4, 6) * 0.5, 0, 2)
        if rng.random() < 0.3:
            image = image + rng.uniform(0, 0.15) * self.noise(1, 4)
        if rng.random() < 0.5:
            photons = np.exp(rng.uniform(np.log(15), np.log(1000)))
            image = image + np.sqrt(np.clip(image, 0.02, None) / photons) * self.noise(0, 2)
        if rng.random() < 0.3:
            image = image + rng.uniform(0, 0.08) * self.noise(0, 1)
        if rng.random() < 0.6:  # as after percentiles of another image, with brighter things in it or a brighter ground
            low = rng.uniform(-0.05, 0.25) * rng.random()
            image = (image - low) * np.exp(rng.uniform(np.log(0.15), np.log(1.6)))
        return image.astype(np.float32)

    def noise(self, first: int, last: int) -> NDArray[np.float32]:
        """Piece of a random sheet among some, of mean 0 and variance 1."""
        sheet = self.sheets[self.rng.integers(first, last)]
        row, column = self.rng.integers(0, len(sheet) - PATCH, 2)
        return sheet[row : row + PATCH, column : column + PATCH]


# --- training


def loss_of(outputs: torch.Tensor, labels: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the foreground, and the flow's squared error, in nuclei above all."""
    known, inside = (labels >= 0).float(), (labels > 0).float()
    blurred = avg_pool2d(inside[:, None], 5, stride=1, padding=2)[:, 0]
    edge = 1 + 2 * (4 * blurred * (1 - blurred))  # outlines decide the IoU
    foreground = binary_cross_entropy_with_logits(outputs[:, 0], inside, weight=known * edge, reduction="sum")
    weight = known * (0.2 + inside)
    error = ((outputs[:, 1:] - flow) ** 2).sum(dim=1)
    return foreground / known.sum() + 3 * (weight * error).sum() / weight.sum()


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    network = NucleusNetwork().to(device, memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.rate, weight_decay=1e-3)
    step, seconds = 0, 0.0
    if arguments.resume:
        state = torch.load(arguments.resume, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    examples = [read_example(arguments.data, name) for name in list_names(arguments.data, "train")]
    # The step is part of the seed: a run that goes on does not see again what it began with.
    sampler = Sampler(examples, np.random.default_rng([arguments.seed, step]))
    checks = [read_example(arguments.data, name) for name in list_names(arguments.data, "validation")]
    fixed = [Sampler(checks, np.random.default_rng(arguments.seed)).batch(16) for _ in range(4)]
    print(f"{len(examples)} images, {sum(p.numel() for p in network.parameters())} parameters, from step {step}")

    losses, start = [], time.perf_counter()
    while step < arguments.steps:
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * rate_at(step, arguments.steps)
        image, labels, flow = (part.to(device) for part in sampler.batch(arguments.batch))
        network.train()
        with torch.autocast(device.type, torch.bfloat16):
            outputs = network(image.contiguous(memory_format=torch.channels_last))
        loss = loss_of(outputs.float(), labels, flow)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        step += 1
        losses.append(loss.item())
        if step % arguments.every == 0 or step == arguments.steps:
            seconds, start = seconds + time.perf_counter() - start, time.perf_counter()
            check = validation_loss(average.module, fixed, device)
            print(f"step {step}  loss {np.mean(losses):.4f}  validation {check:.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
            save(arguments, network, average, optimizer, step, seconds)


def rate_at(step: int, steps: int) -> float:
    """Learning rate: a short rise, a plateau, and a fall to nothing over the last half."""
    return min((step + 1) / 200, 1.0, 2 * (1 - step / steps))


@torch.no_grad()
def validation_loss(network: NucleusNetwork, batches: list, device: torch.device) -> float:
    network.eval()
    losses = [loss_of(network(i.to(device)), labels.to(device), flow.to(device)) for i, labels, flow in batches]
    return float(sum(losses) / len(losses))


def save(
    arguments: argparse.Namespace,
    network: NucleusNetwork,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    """Write the checkpoint, from which training goes on, and the averaged weights: convolutions in half precision."""
    state = {"network": network.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint, part = arguments.out.with_suffix(".ckpt"), arguments.out.with_suffix(".part")
    torch.save({**state, "step": step, "seconds": seconds}, part)
    part.replace(checkpoint)
    weights = {
        name: (value.half() if value.ndim == 4 else value).cpu().contiguous()
        for name, value in average.module.state_dict().items()
    }
    save_file(weights, arguments.out, {"seed": str(arguments.seed), "steps": str(step)})


# --- evaluation


def evaluate(folder: Path, part: str, weights: Path | None) -> None:
    """Print average precisions, counts and time over the images of a part, sizes not told."""
    segment = backend.load(NucleiParams(model=weights and str(weights)), device="cpu")
    precisions, counts, seconds, n_pixels = [], [], 0.0, 0
    segment(np.zeros((64, 64), np.float32), 20.0)  # compiles
    for name in list_names(folder, part):
        image, truth = read_pair(folder, name)
        start = time.perf_counter()
        labels = segment(image)
        seconds += time.perf_counter() - start
        n_pixels += image.size
        precisions.append(average_precision(truth, labels, thresholds=THRESHOLDS))
        counts.append([len(np.unique(truth)) - 1, len(np.unique(labels)) - 1])
    means = "  ".join(f"AP@{t} {value:.3f}" for t, value in zip(THRESHOLDS, np.mean(precisions, axis=0), strict=True))
    true, found = np.sum(counts, axis=0)
    print(f"{part}: {len(counts)} images  {means}  nuclei {found} of {true}  {1e6 * seconds / n_pixels:.2f} s/Mpx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the images")
    parser.add_argument(
        "--out", type=Path, help="weights file to write, or to evaluate (default then: the bundled one)"
    )
    parser.add_argument("--evaluate", choices=["test", "validation"], help="score on this part instead of training")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--steps", type=int, default=6500, help="in all, those before the checkpoint included")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(arguments.data, arguments.evaluate, arguments.out)
    elif arguments.out is None:
        parser.error("--out: where the weights should go")
    else:
        train(arguments)


if __name__ == "__main__":
    main()
