"""Statistics of the layers of a network on a fixed batch, and of their weights without data.

A bilinear layer multiplies two linear maps of its input, so what is large becomes larger, and a
stack of them explodes where a ReLU network would not. Mean squares and tails of the products say
how near that is; the same numbers of ReLUs, and of gated layers' products, stand beside them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, BilinearLinear, BilinearTensor, GatedLinear
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.blocks import ReluBlock
from rlbilinear.agents.evaluation import start_levels
from rlbilinear.agents.gradients import layers_of
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import BODY
from rlbilinear.envs import NUM_ACTIONS, ProcgenVecEnv
from rlbilinear.hosvd import hosvd
from rlbilinear.sparsity import participation_ratio
from rlbilinear.spectrum import as_double

FRAMES, PLAYED, EVERY = 64, 16, 10
"""Observations in a batch, games they are taken from, steps between two of a game."""

CHUNK = 16
"""Observations taken through the network at once; bounds memory."""

DEAD = 1e-3
"""A channel is dead whose root mean square is at most this share of its layer's."""

SHOWN = 20_000
"""Values in a histogram, spread evenly over samples, channels and positions."""

Scalars = dict[str, float]


def held_out_frames(
    game: str, levels: Sequence[int], *, mode: str = "easy"
) -> UInt8[np.ndarray, "frames 3 64 64"]:
    """Return what is seen on these levels, along random walks; the same at every call.

    Up to `PLAYED` levels are played by actions drawn evenly; of each, every tenth observation.

    Raises:
        ValueError: no level, or unknown game or mode; the choices are listed.
    """
    if not levels:
        raise ValueError("expected at least one level")
    chosen = levels[:PLAYED]
    env = ProcgenVecEnv(game, len(chosen), mode=mode)
    draw = np.random.default_rng(0)
    try:
        seen = [start_levels(env, chosen)]
        while len(seen) * len(chosen) < FRAMES:
            for _ in range(EVERY):
                shown, *_ = env.step(draw.integers(NUM_ACTIONS, size=len(chosen)))
            seen.append(np.asarray(shown))
    finally:
        env.close()
    return np.concatenate(seen)[:FRAMES]


def activation_statistics(
    agent: AgentLike, observations: UInt8[np.ndarray, "frames 3 64 64"]
) -> tuple[Scalars, dict[str, Float[Tensor, "values"]]]:
    """Measure what layers give on these observations.

    ``layer_activation_mean_square`` is of each layer that has weights (the stream), and inside it
    of the two factors of a product and the product, or of the ReLU's output. Of products and ReLUs
    also: ``layer_activation_peak``, the largest magnitude over the root mean square;
    ``layer_activation_kurtosis``, the mean fourth power over the squared mean square (3 for a
    Gaussian of mean 0, 9 for the product of two independent ones), and
    ``layer_activation_dead_channels``, the share of channels that are `DEAD` on all observations.

    Returns:
        The numbers, by ``statistic/layer``, and values for a histogram of each product or ReLU.

    Raises:
        ValueError: observations of another type or shape.
    """
    agent = as_agent(agent)
    moments: dict[str, _Moments] = {}
    kept: dict[str, list[Tensor]] = {}
    parts = -(-len(observations) // CHUNK)
    for part in range(parts):
        with _watching(agent) as seen:
            agent.logits(observations[part::parts])
        for name, output in {**seen.linear, **seen.nonlinear}.items():
            moments.setdefault(name, _Moments()).add(output)
        for name, output in seen.nonlinear.items():
            values = output.flatten()
            kept.setdefault(name, []).append(values[:: -(-len(values) * parts // SHOWN)].cpu())
    numbers = {f"layer_activation_mean_square/{name}": m.mean_square for name, m in moments.items()}
    for name in kept:
        numbers[f"layer_activation_peak/{name}"] = moments[name].peak
        numbers[f"layer_activation_kurtosis/{name}"] = moments[name].kurtosis
        numbers[f"layer_activation_dead_channels/{name}"] = moments[name].dead
    return numbers, {
        f"layer_activations/{name}": torch.cat(values) for name, values in kept.items()
    }


def weight_statistics(agent: AgentLike) -> Scalars:
    """Measure weights, without data.

    ``layer_weight_norm`` and ``layer_weight_rank`` are of each layer's weights: their Frobenius
    norm, and the participation ratio ``(sum s²)² / sum s⁴`` of the singular values ``s`` of its
    matrix, about how many directions it uses. A bilinear layer is also a third-order tensor:
    ``layer_tensor_rank`` is the participation ratio of its singular values as an outputs x inputs²
    matrix, about how many different quadratic forms its outputs are made of, and
    ``layer_eigenfilter_rank`` that of the eigenvalues of the largest of these forms, about how many
    eigenfilters it is made of.
    """
    agent = as_agent(agent)
    numbers: Scalars = {}
    for name, (weight, *rest) in layers_of(agent.policy).items():
        norms = [as_double(w).norm() for w in (weight, *rest)]
        numbers[f"layer_weight_norm/{name}"] = torch.stack(norms).norm().item()
        if weight.ndim > 1:
            sizes = torch.linalg.svdvals(as_double(weight).flatten(1))
            numbers[f"layer_weight_rank/{name}"] = participation_ratio(sizes).item()
    for name, layer in _body(agent):
        if isinstance(layer, BilinearConv2d | BilinearLinear):
            parts = hosvd(BilinearTensor.of(layer))
            numbers[f"layer_tensor_rank/{name}"] = participation_ratio(parts.singular_values).item()
            if len(parts.singular_values):
                largest = parts.component(0).eigh().values
                numbers[f"layer_eigenfilter_rank/{name}"] = participation_ratio(largest).item()
    return numbers


class _Moments:
    """Sums over samples and positions, for each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.squares = self.fourths = self.largest = torch.zeros(())

    def add(self, output: Float[Tensor, "batch channels *positions"]) -> None:
        values = as_double(output).flatten(2) if output.ndim > 2 else as_double(output)[..., None]
        squares = values.square()
        self.count += values.shape[0] * values.shape[2]
        self.squares = self.squares.to(squares) + squares.sum((0, 2))
        self.fourths = self.fourths.to(squares) + squares.square().sum((0, 2))
        self.largest = torch.maximum(self.largest.to(squares), squares.amax((0, 2)))

    @property
    def mean_square(self) -> float:
        return (self.squares.mean() / self.count).item()

    @property
    def peak(self) -> float:
        return (self.largest.max() / self.mean_square).sqrt().item()

    @property
    def kurtosis(self) -> float:
        return (self.fourths.mean() / self.count / self.mean_square**2).item()

    @property
    def dead(self) -> float:
        return (self.squares <= DEAD**2 * self.squares.mean()).double().mean().item()


class _Seen(NamedTuple):
    """What a forward pass gave, by name."""

    linear: dict[str, Tensor]
    """layers of the stream, and factors of products"""
    nonlinear: dict[str, Tensor]
    """products, and outputs of ReLUs"""


@contextmanager
def _watching(agent: Agent) -> Iterator[_Seen]:
    """Keep what layers give, and the parts inside products and ReLU blocks."""
    seen = _Seen({}, {})
    steps = agent.policy.get_submodule(BODY.rstrip(".")).children()
    stream = {layer for layer in steps if next(layer.parameters(), None) is not None}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def keep(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if layer in stream:
                seen.linear[name] = output
            (x,) = inputs
            if isinstance(layer, BilinearConv2d | BilinearLinear):
                left, right = layer.left(x), layer.right(x)
                seen.linear.update({f"{name}.left": left, f"{name}.right": right})
                seen.nonlinear[f"{name}.product"] = left * right
            elif isinstance(layer, GatedLinear):
                gate, value = layer.activation(layer.gate(x)), layer.value(x)
                seen.linear.update({f"{name}.gate": gate, f"{name}.value": value})
                seen.nonlinear[f"{name}.product"] = gate * value
            elif isinstance(layer, ReluBlock):
                seen.nonlinear[f"{name}.relu"] = F.relu(layer.conv1(F.relu(x)))
            elif isinstance(layer, nn.ReLU):
                seen.nonlinear[name] = output

        return keep

    handles = [layer.register_forward_hook(hook(name)) for name, layer in _body(agent)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _body(agent: Agent) -> Iterator[tuple[str, nn.Module]]:
    """List the layers of the body and all their parts, by their names in the agent."""
    return ((name, agent.layer(name)) for name in agent.layer_names)
