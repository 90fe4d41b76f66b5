"""The weights of the bundled nucleus network, and files that hold none."""

from __future__ import annotations

import pickle
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_nuclei import DISCS, IMAGE
from safetensors.torch import save_file

from sslcst.core.nuclei import sslcst as backend
from sslcst.core.nuclei.network import NucleusNetwork
from sslcst.errors import BackendError
from sslcst.metrics import best_iou
from sslcst.params import NucleiParams


def test_weights_come_with_the_package() -> None:
    """A few MB beside the code: nothing is downloaded."""
    weights = files("sslcst.core.nuclei") / "weights" / "nuclei.safetensors"
    assert weights.is_file()
    assert len(weights.read_bytes()) < 5e6


def test_weights_are_finite() -> None:
    network = backend.read_network(Path(str(files("sslcst.core.nuclei") / "weights" / "nuclei.safetensors")))
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


class Code:
    """When unpickled, writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "it ran")


def refuse(path: Path) -> str:
    with pytest.raises(BackendError) as error:
        backend.load(NucleiParams(model=str(path)), device="cpu")
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"not weights", b"PK\x03\x04", b"\xff" * 64, pickle.dumps([1, 2])])
def test_file_that_holds_no_weights(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert "cannot be read as safetensors" in refuse(path)


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    assert "cannot be read" in refuse(tmp_path)


def test_code_in_a_weights_file_does_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    torch.save({"head.weight": Code(trace)}, path)
    refuse(path)
    path.write_bytes(pickle.dumps(Code(trace)))
    refuse(path)
    assert not trace.exists()


@pytest.mark.parametrize("spoil", ["empty", "drop", "reshape", "more"])
def test_weights_of_another_network(spoil: str, tmp_path: Path) -> None:
    weights = dict(NucleusNetwork().state_dict())
    if spoil == "empty":
        weights = {}
    elif spoil == "drop":
        del weights["head.bias"]
    elif spoil == "reshape":
        weights["head.bias"] = weights["head.bias"][:2].clone()
    else:
        weights["other"] = torch.zeros(3)
    save_file(weights, tmp_path / "weights.safetensors")
    assert "does not hold weights of the nucleus network" in refuse(tmp_path / "weights.safetensors")


def test_own_weights_are_taken(tmp_path: Path) -> None:
    """Those of an untrained network find no such nuclei."""
    torch.manual_seed(0)
    save_file(NucleusNetwork().state_dict(), tmp_path / "weights.safetensors")
    own = backend.load(NucleiParams(model=str(tmp_path / "weights.safetensors")), device="cpu")
    assert own(IMAGE.astype(np.float32), 18.0).shape == DISCS.shape
    assert best_iou(DISCS, own(IMAGE.astype(np.float32), 18.0)).mean() < 0.5
