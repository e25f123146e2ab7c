"""The networks by name, and ReLU networks with as many parameters as a bilinear one."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from rlbilinear.agents.blocks import BilinearBlock, GatedBlock, ProductBlock, ReluBlock
from rlbilinear.agents.bodies import Bimpala, BimpalaFull, Body, Impala, PolynomialBody

__all__ = [
    "ARCHITECTURES",
    "BilinearBlock",
    "Bimpala",
    "BimpalaFull",
    "Body",
    "GatedBlock",
    "Impala",
    "ImpalaMatched",
    "PolynomialBody",
    "ProductBlock",
    "ReluBlock",
    "architecture",
]

SPREADS = range(3, 9)
"""How far a matched network's stages may be from IMPALA's proportions, in channels."""

TOLERANCE = 1e-3
"""The share of parameters by which a matched network may differ, before its stages go further."""


class ImpalaMatched(Impala):
    """IMPALA, its stages widened until it has as many parameters as a bilinear network.

    Depth and kernels stay, and the features are as many as the bilinear network's. All stages are
    widened by one factor, then each by a few channels more or less (`SPREADS`), to the nearest
    number of parameters there is. It is within 1 in 1,000 of the bilinear network's, heads
    included, for each one of `MATCHED` and kernels 3 to 9 of all of them.

    Args:
        observation_space: a Box of shape (channels, height, width).
        match: the bilinear architecture beside it.
        **arguments: that architecture's own, such as ``kernel_size``.

    Raises:
        ValueError: ``match`` is not one of `MATCHED`, which are listed, or has no such argument.
    """

    def __init__(
        self, observation_space: gym.Space, match: str = "bimpala", **arguments: Any
    ) -> None:
        if not isinstance(match, str) or match not in MATCHED:
            raise ValueError(f"cannot match {match!r}; choose from {', '.join(MATCHED)}")
        body, options = architecture(match, **arguments)
        with torch.device("meta"):
            beside = body(observation_space, **options)
        _, shape = architecture(MATCHED[match])
        shape = {**shape, "features": beside.features_dim}
        channels = _matching_channels(observation_space, shape, _parameters(beside))
        super().__init__(observation_space, **{**shape, "channels": channels})


ARCHITECTURES: dict[str, tuple[Callable[..., Body], dict[str, Any]]] = {
    "impala": (Impala, {}),
    "impala-compact": (
        Impala,
        {"channels": (32, 32), "blocks": (5, 2), "stem_kernel": 5, "stem_stride": 2},
    ),
    "impala-small": (
        Impala,
        {"channels": (32, 32), "blocks": (1, 2), "stem_kernel": 5, "stem_stride": 2},
    ),
    "bimpala": (Bimpala, {}),
    "bimpala-compact": (
        Bimpala,
        {"blocks": (5, 2), "stem_kernel": 5, "stem_stride": 2},
    ),
    "bimpala-small": (
        Bimpala,
        {"blocks": (1, 2), "stem_kernel": 5, "stem_stride": 2},
    ),
    "bimpala-full": (BimpalaFull, {}),
    "polynomial": (PolynomialBody, {}),
    "impala-matched": (ImpalaMatched, {}),
}
"""Each architecture's class and the arguments that make it; further arguments override these."""

MATCHED = {
    "bimpala": "impala",
    "bimpala-compact": "impala-compact",
    "bimpala-small": "impala-small",
    "bimpala-full": "impala",
    "polynomial": "impala",
}
"""Bilinear architectures, and the ReLU network that is widened to their parameters."""


def architecture(name: str, /, **overrides: Any) -> tuple[Callable[..., Body], dict[str, Any]]:
    """Look up an architecture: the features extractor's class and its arguments.

    ``PPO("CnnPolicy", env, policy_kwargs={"features_extractor_class": ..., ...})`` takes the two.

    Raises:
        ValueError: unknown name, or an argument that it does not have; the choices are listed.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; choose from {', '.join(ARCHITECTURES)}")
    body, arguments = ARCHITECTURES[name]
    known = _options(name, overrides)
    if unknown := sorted(overrides.keys() - known):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; choose from {', '.join(known)}"
        )
    return body, {**arguments, **overrides}


def _options(name: str, overrides: dict[str, Any]) -> list[str]:
    body, _ = ARCHITECTURES[name]
    if body is ImpalaMatched:
        match = overrides.get("match", "bimpala")
        known = isinstance(match, str) and match in MATCHED
        return ["match", *(_options(match, {}) if known else overrides)]
    return [
        option for option in inspect.signature(body).parameters if option != "observation_space"
    ]


def _parameters(body: Body) -> int:
    return sum(weight.numel() for weight in body.parameters())


def _matching_channels(space: gym.Space, shape: dict[str, Any], wanted: int) -> tuple[int, ...]:
    """Return the channels of the IMPALA of that shape whose parameters come nearest to wanted."""
    with torch.device("meta"):
        start = Impala(space, **shape)
    convs = [layer for layer in start.layers if isinstance(layer, nn.Conv2d)]
    base = [conv.out_channels for conv in convs]
    colours = convs[0].in_channels
    kernels = [conv.kernel_size[0] for conv in convs]
    blocks = [
        sum(isinstance(layer, ReluBlock) for layer in group)
        for key, group in itertools.groupby(
            start.layers, lambda layer: isinstance(layer, ReluBlock)
        )
        if key
    ]
    dense = start.layers.dense
    assert isinstance(dense, nn.Linear)
    positions = dense.in_features // base[-1]

    def size(channels: Sequence[float]) -> float:
        """Count parameters, of fractions of channels as well."""
        stages = zip((colours, *channels), channels, kernels, blocks, strict=False)
        body: float = sum(c * (i * k * k + 1) + 2 * n * c * (9 * c + 1) for i, c, k, n in stages)
        return body + dense.out_features * (channels[-1] * positions + 1)

    low, high = 0.0, 1.0
    while size([high * c for c in base]) < wanted:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if size([middle * c for c in base]) < wanted else (low, middle)
    ideal = [round(high * c) for c in base]
    for spread in SPREADS:
        near = [range(max(1, c - spread), c + spread + 1) for c in ideal]
        best = min(itertools.product(*near), key=lambda channels: abs(size(channels) - wanted))
        if abs(size(best) - wanted) <= TOLERANCE * wanted:
            break
    return best
