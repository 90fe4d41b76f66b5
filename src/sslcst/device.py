"""Where torch computes."""

from __future__ import annotations

import re

from sslcst.errors import BackendError, ParameterError, did_you_mean

_KINDS = ("cpu", "cuda", "mps", "xpu")
_KNOWN_AS = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"}


def choose_device(device: str | None) -> str:
    """The asked-for device, or by default a GPU where there is one."""
    import torch

    from sslcst.core.threads import check_process

    check_process()
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if not re.fullmatch(rf"({'|'.join(_KINDS)})(:[0-9]{{1,6}})?", device):
        hint = did_you_mean(_KNOWN_AS.get(kind.lower(), kind), _KINDS)
        raise ParameterError(
            f"device={device!r}: must be one of {', '.join(map(repr, _KINDS))}, or with a number as 'cuda:1'{hint}."
        )
    there = torch.get_device_module(kind).device_count()
    if int(number or 0) >= there:
        name = "GPU" if kind == "cuda" else kind
        raise BackendError(
            f"device={device!r} was asked for, but torch sees {f'only {there}' if there else 'no'} {name}: leave it "
            "out, or device='cpu'."
        )
    return device
