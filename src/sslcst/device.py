"""Where torch computes."""

from __future__ import annotations

from sslcst.errors import BackendError


def choose_device(device: str | None) -> str:
    """The asked-for device, or by default a GPU where there is one.

    Raises
    ------
    ProcessError
        This process cannot compute.
    BackendError
        The asked-for device is not there.
    """
    import torch

    from sslcst.core.threads import check_process

    check_process()
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError(f"device={device!r} was asked for, but torch sees no GPU: leave it out, or device='cpu'.")
    return device
