"""Devices by name, and the precision in which they compute."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]
"""``auto``: bfloat16 on a GPU, float32 elsewhere."""


def find_device(name: str) -> torch.device:
    """Read ``auto | cpu | cuda | cuda:N | mps``; auto is cuda when there is one, else the cpu.

    Raises:
        ValueError: another text, or a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"no device {name!r} here; choose from auto, cpu, cuda, cuda:N, mps"
        ) from error
    return device


def autocast(model: nn.Module, precision: Precision) -> AbstractContextManager[Any]:
    """Compute in a precision where the model is; its weights stay as they are."""
    device = next(model.parameters()).device.type
    low = precision == "bfloat16" or (precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=low)
