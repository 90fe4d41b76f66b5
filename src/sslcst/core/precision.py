"""The precision in which the networks that come with the package compute."""

from __future__ import annotations

import torch


def inference_dtype(device: str) -> torch.dtype:
    """bfloat16 on processors that multiply matrices of it in hardware (AMX), where it is three times as fast.

    float32 on all others, and on GPUs. Weights and activations alone are rounded: what is made of the outputs is not.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 and later tell
    return torch.bfloat16 if device == "cpu" and capabilities.get("amx_bf16") else torch.float32
