"""Devices by name."""

import torch


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
