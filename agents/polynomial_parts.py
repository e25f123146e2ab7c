"""Exact polynomials between an agent's pools, and the variance that chains of filters ignore.

    parts = polynomial_parts(load("maze-bimpala-compact"))
    table = explain_chains(agent, observations)

Max-pools are not polynomial: they cut an agent into parts. Within each, `BilinearStack` evaluates
the exact polynomial, and eigenvector chains follow directions down; `explain_chains` says how much
of a direction's variance on real observations such chains explain, layer by layer.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import BilinearConv2d
from rlbilinear.agents.agent import Agent, Observations
from rlbilinear.agents.architectures import BilinearBlock, ReluBlock
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import HEADS
from rlbilinear.chains import as_convolutional, explain_chain, r_squared
from rlbilinear.composition import group_directions
from rlbilinear.edits.functional import PositionBias
from rlbilinear.envs import ACTIONS_OF_MOVE
from rlbilinear.hosvd import HigherOrderSVD, hosvd
from rlbilinear.stack import BilinearStack, Stage
from rlbilinear.tensor import BilinearTensor

OBSERVATIONS = "observations"
CUTS = (nn.MaxPool2d, nn.ReLU, ReluBlock)
"""What is not polynomial, between parts."""

DIRECTIONS = 4
"""Output directions that are followed where none are given."""


class Part(NamedTuple):
    """Layers of an agent between two steps that are not polynomial."""

    source: str
    """the layer whose output is the part's input"""
    layers: tuple[str, ...]
    """their names, one for each stage"""
    stack: BilinearStack
    """the part as one polynomial; dense layers are convolutions with one output position"""

    def __str__(self) -> str:
        return f"{self.source} to {self.layers[-1]}"


def polynomial_parts(agent: AgentLike, head: str = "action_net") -> list[Part]:
    """Cut an agent at its max-pools (and ReLUs) into exact polynomials.

    The last part ends with a head; parts without a bilinear layer are left out.

    Args:
        agent: with bilinear layers.
        head: ``action_net`` or ``value_net``.

    Raises:
        ValueError: no such head, or no bilinear layer.
    """
    agent = as_agent(agent)
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}; choose from {', '.join(HEADS)}")
    found: list[Part] = []
    source, names, stages = OBSERVATIONS, list[str](), list[Stage]()
    for name, module, shape in [*_layers(agent), (head, agent.layer(head), None)]:
        if isinstance(module, CUTS):
            found += _part(source, names, stages)
            source, names, stages = name, [], []
        elif not isinstance(module, nn.Flatten):
            names.append(name)
            stages.append(_stage(name, module, shape))
    found += _part(source, names, stages)
    if not found:
        raise ValueError(f"this {agent.config.architecture} has no bilinear layer")
    return found


def part_to(agent: AgentLike, layer: str) -> Part:
    """Return the polynomial that ends with a step of an agent, from the pool before it on.

    Raises:
        ValueError: no such step in a polynomial part; the message lists those that are.
    """
    agent = as_agent(agent)
    parts = polynomial_parts(agent)
    for part in parts:
        if layer in part.layers:
            count = part.layers.index(layer) + 1
            return Part(part.source, part.layers[:count], BilinearStack(part.stack.stages[:count]))
    steps = ", ".join(name for part in parts for name in part.layers)
    raise ValueError(f"{layer} is not a step of a polynomial part; choose from {steps}")


def move_directions(agent: AgentLike) -> dict[str, Float[Tensor, "actions"]]:
    """Return a direction over a maze agent's logits for each move: its actions minus the others."""
    agent = as_agent(agent)
    directions = group_directions(ACTIONS_OF_MOVE.values(), agent.config.actions, against="others")
    return dict(zip((move.name.lower() for move in ACTIONS_OF_MOVE), directions, strict=True))


def explain_chains(
    agent: AgentLike,
    observations: Observations,
    *,
    filters: Iterable[int] = (1, 2),
    patterns: int | None = 1,
    layers: int | None = None,
    directions: Mapping[str, Mapping[str, Tensor]] | None = None,
    head: str = "action_net",
) -> pd.DataFrame:
    """Measure what eigenvector chains ignore in an agent: R² of their predictions on observations.

    Each chain starts at a direction of the last layer of a part, and goes down through one layer
    after another. A row says how well it predicts the direction's true value when the layers below
    are as they truly are.

    Args:
        agent: with bilinear layers.
        observations: real ones, at least two.
        filters: eigenfilters kept of every direction; each number is a chain of its own.
        patterns: channel x space components kept of every filter, all when None.
        layers: go down through so many at most (a head counts), all of a part when None.
        directions: for parts by their last layer: names and vectors over its outputs. Where none
            are given, the leading output vectors of the last layer's HOSVD.
        head: see `polynomial_parts`.

    Returns:
        One row for each part, direction, number of filters and depth, with columns ``part``,
        ``direction``, ``filters``, ``down_through`` (the lowest layer that the chain goes through),
        ``layers``, ``directions``, ``r2``, ``correlation``, ``skip_r2``, ``share``; the last six
        are those of `rlbilinear.chains.Explained`.

    Raises:
        ValueError: see `polynomial_parts`; directions of a layer that ends no part; a chain that is
            too large.
    """
    agent = as_agent(agent)
    parts = polynomial_parts(agent, head)
    ends = [part.layers[-1] for part in parts]
    directions = directions or {}
    if not directions.keys() <= set(ends):
        raise ValueError(
            f"directions are of the last layers of parts, {', '.join(ends)}; "
            f"got {', '.join(directions)}"
        )
    rows = []
    for part in parts:
        x = inputs_of(agent, part, observations)
        chosen = directions.get(part.layers[-1]) or _leading_directions(part)
        for (name, direction), count in itertools.product(chosen.items(), filters):
            for row in explain_chain(
                part.stack, direction, x, filters=count, patterns=patterns, layers=layers
            ):
                lowest = part.layers[-row.layers]
                rows.append(
                    {"part": str(part), "direction": name, "filters": count}
                    | {"down_through": lowest, **row._asdict()}
                )
    return pd.DataFrame(rows)


def explain_degrees(
    agent: AgentLike, observations: Observations, *, head: str = "action_net", batch: int = 16
) -> pd.DataFrame:
    """Measure how much of each part's output lower degrees explain, around the mean input.

    ``y(mean + t (x - mean))`` is expanded exactly in t; a row says what share of the variance of
    the output the terms up to a degree explain, at ``t = 1``. Coefficients grow and cancel, so the
    share may be far below zero before it reaches 1.

    Returns:
        Columns ``part``, ``degree`` (0 to the part's), ``r2``: pooled over the output's entries.

    Raises:
        ValueError: see `polynomial_parts`.
    """
    agent = as_agent(agent)
    rows = []
    for part in polynomial_parts(agent, head):
        x = inputs_of(agent, part, observations).double()
        mean = x.mean(0, keepdim=True)
        sums = []
        for some in x.split(batch):
            sums.append(part.stack.along(mean.expand_as(some), some - mean).cumsum(0))
        partial = torch.cat(sums, dim=1)
        for degree, predicted in enumerate(partial):
            r2 = r_squared(partial[-1], predicted)
            rows.append({"part": str(part), "degree": degree, "r2": r2})
    return pd.DataFrame(rows)


def explain_components(
    agent: AgentLike,
    observations: Observations,
    kept: Iterable[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    *,
    head: str = "action_net",
) -> pd.DataFrame:
    """Measure how much of each part's output few singular components of its layers explain.

    Every bilinear layer's tensor is cut to its leading components by `hosvd`, so that each writes,
    and the next one reads, a few directions only; skip connections and biases stay whole.

    Returns:
        Columns ``part``, ``kept`` (of every layer, all where it has fewer; 0: nothing but skips),
        ``r2``: pooled over the output's entries.

    Raises:
        ValueError: see `polynomial_parts`; a negative number.
    """
    agent = as_agent(agent)
    rows = []
    with torch.no_grad():
        for part in polynomial_parts(agent, head):
            x = inputs_of(agent, part, observations)
            true = part.stack(x)
            layers = [_layer_of(stage) for stage in part.stack.stages]
            svds = [
                hosvd(BilinearTensor.of(layer)) if isinstance(layer, BilinearConv2d) else None
                for layer in layers
            ]
            for count in kept:
                stages = [
                    stage if svd is None else Stage(_cut(stage.main, svd, count), stage.skip)
                    for stage, svd in zip(part.stack.stages, svds, strict=True)
                ]
                r2 = r_squared(true, BilinearStack(stages)(x))
                rows.append({"part": str(part), "kept": count, "r2": r2})
    return pd.DataFrame(rows)


def inputs_of(
    agent: AgentLike, part: Part, observations: Observations
) -> Float[Tensor, "n channels height width"]:
    """Return what goes into a part on observations, on the cpu."""
    agent = as_agent(agent)
    if part.source == OBSERVATIONS:
        return torch.as_tensor(observations).float() / 255
    return agent.activations(observations, [part.source])[part.source].cpu()


def _cut(module: nn.Module, svd: HigherOrderSVD, count: int) -> nn.Module:
    """Keep the leading singular components of a bilinear layer."""
    if isinstance(module, PositionBias):
        return PositionBias(_cut(module.layer, svd, count), module.bias)
    assert isinstance(module, BilinearConv2d)
    return svd.truncate(min(count, len(svd.outputs))).as_layer(module)


def _part(source: str, names: list[str], stages: list[Stage]) -> list[Part]:
    if all(stage.degree == 1 for stage in stages):
        return []
    return [Part(source, tuple(names), BilinearStack(stages))]


def _layers(agent: Agent) -> Iterator[tuple[str, nn.Module, tuple[int, int, int]]]:
    """Go through the body's layers, with the shape of the maps that each reads, if flattened."""
    x = torch.zeros(1, *agent.config.observation_shape, device=agent.device)
    shape = agent.config.observation_shape
    for name in (n for n in agent.layer_names if "." not in n and n not in HEADS):
        module = agent.layer(name)
        yield name, module, shape
        with torch.no_grad():
            x = module(x)
        if not isinstance(module, nn.Flatten):
            _, channels, height, width = x.shape if x.ndim == 4 else (*x.shape, 1, 1)
            shape = channels, height, width


def _stage(name: str, module: nn.Module, shape: tuple[int, int, int] | None) -> Stage:
    """Return a layer as a stage, a dense one as a convolution over maps of that shape."""
    if isinstance(module, PositionBias):
        inner = _stage(name, module.layer, shape)
        bias = module.bias if module.bias.ndim == 3 else module.bias[:, None, None]
        return Stage(PositionBias(inner.main, bias), inner.skip)
    if isinstance(module, BilinearBlock):
        return Stage(module.bilinear, nn.Identity() if module.skip is None else module.skip)
    try:
        return as_convolutional(Stage(module), shape)
    except TypeError as error:
        raise ValueError(f"cannot follow layer {name}: {error}") from error


def _leading_directions(part: Part) -> dict[str, Tensor]:
    """Return the leading output vectors of the last bilinear layer with what follows it."""
    stages = list(part.stack.stages)
    after: list[Tensor] = []
    while not isinstance(main := _layer_of(stages.pop()), BilinearConv2d):
        if isinstance(main, nn.Conv2d):
            after.append(main.weight.flatten(1))
    tensor = BilinearTensor.of(main)
    for matrix in reversed(after):
        tensor = tensor.with_outputs(matrix)
    outputs = hosvd(tensor).outputs[:DIRECTIONS]
    return {f"component {s}": u for s, u in enumerate(outputs)}


def _layer_of(stage: Stage) -> nn.Module:
    main = stage.main
    while isinstance(main, PositionBias):
        main = main.layer
    return main
