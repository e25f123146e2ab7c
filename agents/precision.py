"""The precision that a policy's body trains in, and whether it is compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Forward = Callable[[Tensor], Tensor]

BODIES = ("features_extractor", "pi_features_extractor", "vf_features_extractor")
"""Attributes in which Stable-Baselines3's policies keep their bodies; some may be the same one."""


class PrecisionMode:
    """Runs the bodies of policies in a precision, and compiled if asked.

    It does so inside `applied_to` only: afterwards the policy is as it was, weights and their names
    included.

    Args:
        precision: float32 leaves PyTorch's settings alone (on CUDA its convolutions use TF32
            by default); tf32 uses TF32 for all matrix products; bfloat16 runs the body, and
            nothing else, under autocast.
        compiled: compile by ``torch.compile``, once for each number of samples; on CUDA with CUDA
            graphs.
        device: of the policies.

    Raises:
        ValueError: an unknown precision, or tf32 on a device other than CUDA.
    """

    def __init__(self, precision: Precision, compiled: bool, device: torch.device) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}"
            )
        if precision == "tf32" and device.type != "cuda":
            raise ValueError(f"precision tf32 needs a CUDA device, got device {device}")
        self.precision, self.compiled, self.device = precision, compiled, device
        self._compiled: dict[nn.Module, Forward] = {}

    @contextmanager
    def applied_to(self, policy: ActorCriticPolicy, *, compiled: bool = True) -> Iterator[None]:
        """Run a policy's bodies this way; their outputs are float32.

        Args:
            policy: whose bodies.
            compiled: False where the number of samples changes from call to call.
        """
        found = dict.fromkeys(getattr(policy, name, None) for name in BODIES)
        bodies = [body for body in found if body is not None]
        before = [vars(body).get("forward") for body in bodies]
        try:
            with self._products():
                for body in bodies:
                    body.forward = self._forward(body, compiled and self.compiled)
                yield
        finally:
            for body, own in zip(bodies, before, strict=True):
                vars(body).pop("forward", None)
                if own is not None:
                    body.forward = own

    def _forward(self, body: nn.Module, compiled: bool) -> Forward:
        forward = self._compile(body) if compiled else body.forward

        def reduced(observations: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                return forward(observations).float()

        if self.precision == "bfloat16":
            return reduced
        if compiled and self.device.type == "cuda":
            # The graph's next run, for example for the policy's second body, overwrites its output.
            return lambda observations: forward(observations).clone()
        return forward

    def _compile(self, body: nn.Module) -> Forward:
        if body not in self._compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self._compiled[body] = torch.compile(body.forward, dynamic=False, mode=mode)
        return self._compiled[body]

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Use TF32 for all matrix products, if that is the precision."""
        if self.precision != "tf32":
            yield
            return
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, laid out in memory as the array is.

    To CUDA it is copied through pinned memory without waiting: the array may be overwritten at
    once, and PyTorch's allocator does not reuse the pinned memory before the copy is done. On the
    CPU the tensor is a view of the array.
    """
    tensor = torch.as_tensor(array)
    if device.type == "cuda":
        pinned = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return pinned.to(device, non_blocking=True)
    return tensor.to(device)
