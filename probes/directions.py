"""Directions by name: a channel, a probe's, what the policy reads for an action, a file's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import channel_spatial_svd
from rlbilinear.agents import Agent
from rlbilinear.agents.heads import policy_form, trunk_shape
from rlbilinear.composition import group_directions
from rlbilinear.eigenmaps import eigenmaps
from rlbilinear.envs import ACTIONS_OF_MOVE, Move
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import ActivationDataset, Pairs
from rlbilinear.probes.interchange import activation_differences
from rlbilinear.probes.reading import fit_probe
from rlbilinear.probes.subspaces import difference_subspace


@dataclass(frozen=True, eq=False)
class NamedDirection:
    """A direction over a layer's outputs, and what it is.

    Attributes:
        vector: over the output channels, or features; of norm 1, but for a move at the dense layer,
            where it gives logits.
        what: in words.
        interest: the vector over the whole maps that the direction is the leading channel
            pattern of, if it is one.
    """

    vector: Float[Tensor, "outputs"]
    what: str
    interest: Float[Tensor, "channels height width"] | None = None


def find_direction(
    agent: Agent,
    layer: str,
    name: str,
    data: ActivationDataset | None = None,
    pairs: Pairs | None = None,
) -> NamedDirection:
    """Find a direction over a layer's outputs by its name.

    Args:
        agent: the agent.
        layer: whose outputs.
        name: ``probe`` (for the cheese, fitted on ``data``); ``difference`` (what changes most
            over ``pairs``, where only the cheese moves); the index of a channel; a move (left,
            down, up, right, stay); or a ``.npy`` file with a vector over the outputs, or over maps,
            of which the leading channel pattern is taken.
        data: states with the layer's activations, for ``probe``.
        pairs: matched states, for ``difference``.

    For a move the direction is what tells its actions from all others: at the dense layer, the
    difference of their rows in the policy's head. At a layer of the last stage, where the stream
    runs through to the dense layer, the leading channel pattern of the leading eigenvector of
    that difference's form.

    Raises:
        ValueError: another name (the choices are listed), one that the layer has not, a direction
            of another size, ``probe`` without data, or ``difference`` without pairs.
    """
    shape = _output_shape(agent, layer)
    outputs = shape[0]
    if name == "probe":
        if data is None:
            raise ValueError("a probe needs data to fit it to")
        vector = torch.as_tensor(fit_probe(data, layer, cheese_presence).direction)
        vector = vector.double()
        return NamedDirection(vector / vector.norm(), "the probe for the cheese")
    if name == "difference":
        if pairs is None:
            raise ValueError("a difference needs pairs of states to be found in")
        changes = activation_differences(agent, pairs, [layer])[layer]
        vector = difference_subspace(changes, 1)[0]
        sign = vector[vector.abs().argmax()].sign()  # it is free: where a cheese comes one goes
        return NamedDirection(sign * vector, "what changes most when only the cheese moves")
    if name.isdecimal():
        if int(name) >= outputs:
            raise ValueError(f"{layer} has {outputs} outputs, numbered from 0; got {name}")
        return NamedDirection(torch.eye(outputs, dtype=torch.float64)[int(name)], f"output {name}")
    if name.upper() in Move.__members__:
        return _of_move(agent, layer, Move[name.upper()], shape)
    if Path(name).suffix == ".npy":
        return _of_file(Path(name), shape)
    raise ValueError(
        f"unknown direction {name!r}; choose from probe, difference, 0 to {outputs - 1}, "
        f"{', '.join(move.name.lower() for move in Move)}, or a .npy file"
    )


def _of_move(agent: Agent, layer: str, move: Move, shape: tuple[int, ...]) -> NamedDirection:
    what = f"{move.name.lower()} against the other actions"
    if layer == "dense":
        (against,) = group_directions(
            [ACTIONS_OF_MOVE[move]], agent.config.actions, against="others"
        )
        head = agent.layer("action_net")
        assert isinstance(head, nn.Linear)
        return NamedDirection(against @ head.weight.detach().cpu().double(), what)
    steps = [name for name in agent.layer_names if "." not in name]
    last = [name for name in steps if isinstance(agent.layer(name), nn.MaxPool2d | nn.AvgPool2d)][
        -1
    ]
    stage = steps[steps.index(last) : steps.index("flatten")]
    if layer not in stage:
        raise ValueError(
            f"a move's direction reaches the layers {', '.join(stage)} and dense, where the stream "
            f"runs through to the dense layer; {layer} lies before a pool"
        )
    form = policy_form(agent, ACTIONS_OF_MOVE[move], against="others")
    (vector,) = eigenmaps(form, trunk_shape(agent), 1).maps
    channels = channel_spatial_svd(vector).channels
    what = f"the leading channel pattern of the leading eigenvector for {what}"
    return NamedDirection(channels[0], what, vector)


def _of_file(path: Path, shape: tuple[int, ...]) -> NamedDirection:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers: {error}") from error
    vector = torch.as_tensor(np.asarray(values, float))
    if not torch.isfinite(vector).all() or not vector.any():
        raise ValueError(f"{path} holds a vector that is zero or not finite")
    if vector.shape == shape and vector.ndim == 3:
        channels = channel_spatial_svd(vector).channels
        return NamedDirection(channels[0], f"the leading channel pattern of {path.name}", vector)
    if vector.shape != shape[:1]:
        raise ValueError(
            f"expected a vector of shape {shape[:1]} or {shape} in {path}, "
            f"got {tuple(vector.shape)}"
        )
    return NamedDirection(vector / vector.norm(), path.name)


def _output_shape(agent: Agent, layer: str) -> tuple[int, ...]:
    """Return the shape of one output of a layer."""
    blank = np.zeros((1, *agent.config.observation_shape), np.uint8)
    return tuple(agent.activations(blank, [layer])[layer].shape[1:])
