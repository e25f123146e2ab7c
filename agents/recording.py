"""What layers give, recorded while a network runs over many observations."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def recorded_outputs(
    modules: Mapping[str, nn.Module],
    forward: Callable[[Tensor], object],
    batches: Iterable[Tensor],
    count: int,
) -> tuple[dict[str, Float[Tensor, "n *output"]], list[str]]:
    """Run a network over batches, and return what the named modules gave.

    Args:
        modules: by name, each called once in a run of the network.
        forward: the network.
        batches: its inputs.
        count: how many inputs there are in all.

    Returns:
        The outputs by name, and the names of those that may have entries that are not finite.

    Raises:
        ValueError: a module was not called.
    """
    kept: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    doubtful: set[str] = set()
    start = 0
    with _recording(modules, kept):
        for part in batches:
            forward(part)
            for name in modules:
                if name not in kept:
                    raise ValueError(f"layer {name} has weights but no output of its own")
                own = kept.pop(name)
                if name not in outputs:
                    outputs[name] = _room_for(count, own)
                outputs[name][start : start + len(own)] = own
                # A sum is not finite where an entry is not, and much faster to look at.
                if not own.sum().isfinite():
                    doubtful.add(name)
            start += len(part)
    return outputs, [name for name in modules if name in doubtful]


@contextmanager
def _recording(modules: Mapping[str, nn.Module], kept: dict[str, Tensor]) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda module, inputs, output: kept.update({name: output})

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _room_for(count: int, part: Tensor) -> Tensor:
    """Return an empty tensor for so many outputs, laid out in memory as these are."""
    last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (count, *part.shape[1:]), dtype=part.dtype, device=part.device, memory_format=layout
    )
