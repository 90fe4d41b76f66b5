"""What the encoders read of the spots, a batch at a time: samples and what they teach, or all that is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from sslcst.core.geometry import normalize_distance, normalize_position
from sslcst.core.threads import settle
from sslcst.methods.ssl_cst.encoder import Field, Tokens
from sslcst.methods.ssl_cst.encoder.neighborhood import Neighborhood
from sslcst.methods.ssl_cst.features import Features, crop_side
from sslcst.methods.ssl_cst.params import EncoderParams, TrainingParams
from sslcst.methods.ssl_cst.sampling import N_DIRECTIONS

BLOCK = 512  # bins; side of what goes through the field encoder at once
_AT_ONCE = 256  # spots that the spot encoder reads in a batch, which stays in a CPU's cache
N_TURNS = 8  # the ways to turn and mirror a square grid onto itself
_NEAR = 4  # places are in units of r / 4, so that the nearest spots lie some 1 away


class GeneCounts:
    """Sparse counts, rows of which are taken on the device: log(1 + count), so that none is too large to learn from."""

    def __init__(self, counts: sparse.csr_matrix, device: str = "cpu") -> None:
        self.start = torch.from_numpy(counts.indptr.astype(np.int64)).to(device)
        self.gene = torch.from_numpy(counts.indices.astype(np.int64)).to(device)
        self.value = torch.from_numpy(np.log1p(counts.data)).to(device)

    def rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Genes, values and first entry of each of these rows, one behind the other, as `embedding_bag` reads them."""
        start, length = self.start[rows], self.start[rows + 1] - self.start[rows]
        first = torch.cumsum(length, 0) - length
        entry = torch.repeat_interleave(start - first, length)
        entry += torch.arange(len(entry), device=entry.device)
        return self.gene[entry], self.value[entry], first


class Targets(NamedTuple):
    """What m samples tell."""

    spot: torch.Tensor  #: Their spots, int64 (m,)
    direction: torch.Tensor  #: Classes of the directions, int64 (m,), -1 where there is none
    inside: torch.Tensor  #: 1 in a cell, 0 outside, float32 (m,)


class Inputs(ABC):
    """The features of n spots on one device, and the batches in which an encoder of some parameters reads them.

    Lengths are in bins, and r, the expected cell radius, is `radius`.
    """

    def __init__(self, features: Features, params: EncoderParams, *, radius: float, device: str = "cpu") -> None:
        settle()
        self.radius = radius
        self.neighbors = torch.from_numpy(features.neighbors).to(device)
        self.index = torch.from_numpy(features.index).to(device)
        self.distance = torch.from_numpy(normalize_distance(features.distance, radius)).to(device)
        self.counts = GeneCounts(features.counts.astype(np.float32), device)

    def __len__(self) -> int:
        return len(self.neighbors)

    def offsets(self, spot: torch.Tensor) -> torch.Tensor:
        """From some spots (m,) to their neighbours, in units of r: float32 (m, 1 + k, 2)."""
        neighbors = self.neighbors[spot].clamp_min(0)
        return normalize_position((self.index[neighbors] - self.index[spot][:, None]).float(), self.radius)

    @abstractmethod
    def training_batches(
        self, targets: Targets, params: TrainingParams, generator: torch.Generator
    ) -> Iterator[tuple[Tokens | Field, Targets]]:
        """All samples once, in random order and in batches: what to read, and what to learn from it."""

    @abstractmethod
    def cover(self, spots: torch.Tensor, block: int) -> Iterator[tuple[Tokens | Field, torch.Tensor]]:
        """Batches that predict some spots (m,), each with the places of its own among the m.

        No batch reaches over the blocks of `block` bins a side that the whole grid is cut into: whatever part of a chip
        is in view, the same spots go through the network together, so that rounding is the same.
        """


class SpotInputs(Inputs):
    """For the encoder that reads each spot by itself."""

    def tokens(self, spot: torch.Tensor) -> Tokens:
        """Tokens of these spots, int64 (b,)."""
        neighbors = self.neighbors[spot].long()
        present = neighbors >= 0
        neighbors = neighbors.clamp_min(0)
        # By what the batch holds, not all in view: whether there is a mask decides which kernel computes.
        mask = None if present.all() else present
        return Tokens(neighbors, self.offsets(spot), self.distance[neighbors], mask)

    def training_batches(
        self, targets: Targets, params: TrainingParams, generator: torch.Generator
    ) -> Iterator[tuple[Tokens, Targets]]:
        """See `Inputs.training_batches`."""
        for chosen in _shuffled(len(targets.spot), generator).split(params.batch_size):
            batch = Targets(*(part[chosen] for part in targets))
            yield self.tokens(batch.spot), batch

    def cover(self, spots: torch.Tensor, block: int) -> Iterator[tuple[Tokens, torch.Tensor]]:
        """See `Inputs.cover`."""
        for of_block in _by_block(self.index[spots], block):
            for places in of_block.split(_AT_ONCE):
                yield self.tokens(spots[places]), places


class FieldInputs(Inputs):
    """For the encoder that reads all spots of a field at once.

    It learns from squares of tissue, each turned and mirrored at random; what lies beyond a square is not seen there.
    Predictions depend on neighbours of neighbours ... as many times as the encoder has layers.
    """

    def __init__(self, features: Features, params: EncoderParams, *, radius: float, device: str = "cpu") -> None:
        super().__init__(features, params, radius=radius, device=device)
        self.depth = params.depth
        device = self.index.device
        self.turns = torch.from_numpy(turn_matrices()).to(device)
        self.turned_classes = torch.from_numpy(turned_classes()).to(device)

    def training_batches(
        self, targets: Targets, params: TrainingParams, generator: torch.Generator
    ) -> Iterator[tuple[Field, Targets]]:
        """See `Inputs.training_batches`."""
        device = self.index.device
        side = crop_side(params, self.radius)
        jitter = torch.randint(side, (2,), generator=generator, device=device)
        square, n_squares = _squares(self.index + jitter, side)
        turn = torch.randint(N_TURNS, (n_squares,), generator=generator, device=device)
        steps = _deal_out(square, torch.unique(square[targets.spot]), params.field_size, generator)
        step = steps[square]  # of each spot, -1 where it is in none
        members = torch.argsort(step, stable=True)[(step < 0).sum() :]
        n_members = torch.bincount(step[members])
        place = torch.arange(len(members), device=device) - (n_members.cumsum(0) - n_members)[step[members]]
        place_of = torch.empty_like(step).scatter_(0, members, place)
        step_of_sample = step[targets.spot]
        order = torch.argsort(step_of_sample, stable=True)
        samples = order.split(torch.bincount(step_of_sample).tolist())
        for spot, chosen in zip(members.split(n_members.tolist()), samples, strict=True):
            neighbors = self.neighbors[spot]
            seen = (neighbors >= 0) & (square[neighbors] == square[spot][:, None])
            sample = Targets(*(part[chosen] for part in targets))
            field = self._field(
                spot, torch.where(seen, place_of[neighbors], -1), place_of[sample.spot], self.turns[turn[square[spot]]]
            )
            direction = self.turned_classes[turn[square[sample.spot]], sample.direction]
            yield field, sample._replace(direction=direction)

    def cover(self, spots: torch.Tensor, block: int) -> Iterator[tuple[Field, torch.Tensor]]:
        """See `Inputs.cover`; around what is asked for, a batch holds all spots that bear on it."""
        for places in _by_block(self.index[spots], block):
            members = self._bearing_on(spots[places])
            place_of = torch.full((len(self),), -1, device=members.device)
            place_of[members] = torch.arange(len(members), device=members.device)
            neighbors = self.neighbors[members]
            local = torch.where(neighbors >= 0, place_of[neighbors], -1)
            yield self._field(members, local, place_of[spots[places]]), places

    def _bearing_on(self, spots: torch.Tensor) -> torch.Tensor:
        """These spots, their neighbours, the neighbours' neighbours ..., a step for each layer; in rising order."""
        reached = torch.zeros(len(self), dtype=torch.bool, device=spots.device)
        reached[spots] = True
        for _ in range(self.depth):
            if reached.all():
                break
            neighbors = self.neighbors[reached]
            reached[neighbors[neighbors >= 0].long()] = True
        return reached.nonzero()[:, 0]

    def _field(self, spot, neighbors, wanted, turn: torch.Tensor | None = None) -> Field:
        offset = self.offsets(spot)
        if turn is not None:
            offset = (turn[:, None] * offset[..., None, :]).sum(dim=-1)  # as a product, autocast would round places
        offset = offset * _NEAR
        place = torch.cat([offset, (offset**2).sum(-1, keepdim=True)], dim=-1)
        return Field(spot, self.distance[spot], Neighborhood(neighbors.int(), place), wanted)


def make_inputs(params: EncoderParams, features: Features, *, radius: float, device: str = "cpu") -> Inputs:
    """Inputs for the kind of encoder that `params` name; see `Inputs`."""
    kind = SpotInputs if params.kind == "spot" else FieldInputs
    return kind(features, params, radius=radius, device=device)


def _by_block(index: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """Places of the bins (n, 2) that lie in each block of a grid, in their order."""
    block, n_blocks = _squares(index, side)
    return torch.argsort(block, stable=True).split(torch.bincount(block, minlength=n_blocks).tolist())


def _squares(index: torch.Tensor, side: int) -> tuple[torch.Tensor, int]:
    """Number, from 0, of the square that holds each bin (n, 2), and how many squares hold any."""
    row, column = (index // side).long().unbind(dim=1)
    ids, square = torch.unique(row * (column.max() + 1) + column, return_inverse=True)
    return square, len(ids)


def _shuffled(n: int, generator: torch.Generator) -> torch.Tensor:
    """0 ... n - 1 in random order."""
    return torch.randperm(n, generator=generator, device=generator.device)


def _deal_out(square: torch.Tensor, chosen: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Step of each square: the chosen ones in random order, as many to a step as hold `size` spots; others -1."""
    order = chosen[_shuffled(len(chosen), generator)]
    n_spots = torch.bincount(square)
    begin = n_spots[order].cumsum(0) - n_spots[order]
    _, step = torch.unique(begin // size, return_inverse=True)
    return torch.full_like(n_spots, -1).scatter_(0, order, step)


def turn_matrices() -> np.ndarray:
    """Matrices (8, 2, 2) that take an offset (dy, dx), as a column, to the turned one; the first leaves it as it is."""
    quarter = np.array([[0, 1], [-1, 0]])  # from the x axis towards +y, as the classes of directions go
    mirror = np.array([[-1, 0], [0, 1]])
    quarters = [np.linalg.matrix_power(quarter, k) for k in range(4)]
    return np.array([*quarters, *(turn @ mirror for turn in quarters)], np.float32)


def turned_classes() -> np.ndarray:
    """Class (8, 17) of each class of direction after each turn; the last column, read with -1, is -1: no direction."""
    classes = np.arange(N_DIRECTIONS)
    quarters = np.arange(4)[:, None] * (N_DIRECTIONS // 4)
    turned = np.concatenate([(classes + quarters) % N_DIRECTIONS, (classes[::-1] + quarters) % N_DIRECTIONS])
    return np.pad(turned, ((0, 0), (0, 1)), constant_values=-1)
