"""How a policy's body runs while it trains: in which precision, and compiled or not."""

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
"""Where Stable-Baselines3's policies keep their bodies; one may stand in several places."""


class Running:
    """Runs the bodies of policies in a precision, and compiled if asked.

    Only inside `of` it does: then the policy is as it was, its weights and their names too.

    Args:
        precision: float32 leaves PyTorch's settings alone (on CUDA its convolutions are in TF32
            unless told otherwise); tf32 takes TF32 for all matrix products; bfloat16 runs the
            body, and nothing else, under autocast.
        compiled: by ``torch.compile``, once for each number of samples; on CUDA as CUDA graphs.
        device: of the policies.

    Raises:
        ValueError: an unknown precision, or tf32 elsewhere than on CUDA.
    """

    def __init__(self, precision: Precision, compiled: bool, device: torch.device) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}"
            )
        if precision == "tf32" and device.type != "cuda":
            raise ValueError(f"precision tf32 is of CUDA devices only, got device {device}")
        self.precision, self.compiled, self.device = precision, compiled, device
        self._compiled: dict[nn.Module, Forward] = {}

    @contextmanager
    def of(self, policy: ActorCriticPolicy, *, compiled: bool = True) -> Iterator[None]:
        """Run a policy's bodies this way; what they return is float32.

        Args:
            policy: whose bodies.
            compiled: False for samples whose number changes from call to call.
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
            # A graph's next run, of a policy's second body say, overwrites what it returned.
            return lambda observations: forward(observations).clone()
        return forward

    def _compile(self, body: nn.Module) -> Forward:
        if body not in self._compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self._compiled[body] = torch.compile(body.forward, dynamic=False, mode=mode)
        return self._compiled[body]

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Take TF32 for all matrix products, if it is the precision."""
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

    To CUDA it goes through pinned memory, and nothing waits: the array may be overwritten at once,
    and PyTorch's allocator gives that memory to none before its copy is done. On the CPU the tensor
    is a view of the array.
    """
    tensor = torch.as_tensor(array)
    if device.type == "cuda":
        pinned = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return pinned.to(device, non_blocking=True)
    return tensor.to(device)
