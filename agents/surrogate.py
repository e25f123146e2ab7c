"""Polynomial surrogates of ReLU agents: ordinary agents, some of whose layers are polynomials.

A block of IMPALA is ``y = x + conv2(relu(conv1(relu(x))))``. The unit that gets a surrogate is its
*branch* after the first ReLU, ``h -> conv2(relu(conv1(h)))``: one hidden layer, whose quadratic in
a direction of the stream is a full form on 5 x 5 receptive fields of ``h``, with eigenfilters as
those of a bilinear block. (``conv1(relu(x))`` would be the other choice, but its forms are
diagonal: every eigenfilter is one tap of one channel.) The ReLU before it is a unit of its own,
approximated channel by channel; degree 1 makes the block quadratic in the stream, degree 2 quartic.
The dense layer and the ReLU after it are one unit, a bilinear dense layer at degree 2.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlbilinear import Polynomial
from rlbilinear.agents.agent import Agent, Observations
from rlbilinear.agents.architectures import ReluBlock
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.residual import Residual
from rlbilinear.convert import to_module
from rlbilinear.swapping import CovarianceKind, Fit, Replacement, replace_layers, replaceable

BATCH = 64
"""Observations at once: a convolution's receptive fields take much more room than its maps."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """An agent with polynomials in the place of layers, and how well each of them fits."""

    agent: Agent
    replacement: Replacement


def regrouped(agent: AgentLike) -> Agent:
    """Return the same agent with each unit that can get a surrogate as a layer of its own.

    Blocks become ``block1.relu`` and ``block1.branch``; a dense layer takes in the ReLU after it.
    It computes the same, and is saved and loaded. An agent without ReLUs is returned as it is.
    """
    agent = as_agent(agent)
    modules: dict[str, nn.Module] = {}
    steps = [(name, agent.layer(name)) for name in agent.layer_names if "." not in name]
    for (name, module), (after, follower) in zip(
        steps, [*steps[1:], ("", nn.Identity())], strict=True
    ):
        if isinstance(module, ReluBlock):
            branch = nn.Sequential(module.conv1, nn.ReLU(), module.conv2)
            modules[name] = Residual(OrderedDict(relu=nn.ReLU(), branch=branch))
        elif isinstance(module, nn.Linear) and isinstance(follower, nn.ReLU):
            modules[name] = nn.Sequential(module, nn.ReLU())
            modules[after] = nn.Identity()
    return agent.with_layers(modules, edit="ReLU units grouped as layers") if modules else agent


def units(agent: AgentLike) -> list[str]:
    """Return the layers of a regrouped agent that have surrogates, in their order.

    Of a bilinear agent these are its bilinear layers: of degree 2 already, exactly.
    """
    agent = as_agent(agent)
    return replaceable(body(agent))


def hidden_layers(agent: AgentLike) -> list[str]:
    """Return the units of a regrouped agent that are more than an activation alone.

    Replaced by quadratics, they leave between the blocks the ReLUs as they are.
    """
    agent = as_agent(agent)
    return [name for name in units(agent) if not isinstance(agent.layer(name), nn.ReLU)]


def body(agent: AgentLike) -> nn.Module:
    """Return the layers from images in [0, 1] to features."""
    agent = as_agent(agent)
    layers = agent.policy.features_extractor.layers
    assert isinstance(layers, nn.Module)
    return layers


def polynomial_surrogate(
    agent: AgentLike,
    observations: Observations,
    layers: Iterable[str] | None = None,
    degree: int | Mapping[str, int] = 2,
    *,
    reestimate: bool = True,
    covariance: CovarianceKind = "full",
    widen: float = 1.0,
    fit: Fit = "gaussian",
    held_out: Observations | None = None,
) -> Surrogate:
    """Replace units of an agent by their best polynomials under what goes into them.

    Args:
        agent: with ReLUs (it is `regrouped` first) or bilinear layers.
        observations: from which each unit's mean and covariance are estimated; of a convolution,
            from all its receptive fields.
        layers: some of the `units` of the regrouped agent; all when None.
        degree: of all, or of each by its name. Up to degree 2 the surrogate is saved and loaded as
            any agent; higher ones play, but cannot be stored.
        reestimate: estimate a unit's inputs after the units before it were replaced.
        covariance: of a unit's inputs: full, diagonal, or of a rank.
        widen: what covariances are multiplied by. Several quadratics in a row explode on inputs of
            heavy tails; fitted under wider ones they bend less.
        fit: ``gaussian``, in closed form; ``inputs``, by least squares of every hidden unit on what
            really goes into it.
        held_out: observations on which R² is measured; ``observations`` when None.

    Raises:
        ValueError: a layer that the agent has not, or as `rlbilinear.swapping.replace_layers`.
        TypeError: a layer that cannot be approximated.
    """
    agent = as_agent(agent)
    grouped = regrouped(agent)
    chosen = units(grouped) if layers is None else list(dict.fromkeys(layers))
    replacement = replace_layers(
        body(grouped),
        chosen,
        degree,
        images(agent, observations),
        reestimate=reestimate,
        covariance=covariance,
        widen=widen,
        fit=fit,
        held_out=None if held_out is None else images(agent, held_out),
    )
    return Surrogate(with_polynomials(grouped, replacement.polynomials), replacement)


def with_polynomials(agent: AgentLike, polynomials: Mapping[str, Polynomial]) -> Agent:
    """Return a copy of an agent with polynomials in the place of layers.

    Args:
        agent: regrouped, where it has ReLUs.
        polynomials: by unit, as those of a `Surrogate`, of any degree; with none it is the agent.

    Raises:
        ValueError: no such layer, or a polynomial that does not fit in its place.
    """
    agent = as_agent(agent)
    modules = {name: to_module(polynomial) for name, polynomial in polynomials.items()}
    edit = "; ".join(f"{name}: polynomial of degree {p.degree}" for name, p in polynomials.items())
    return agent.with_layers(modules, edit=edit) if modules else agent


def images(agent: AgentLike, observations: Observations) -> list[Tensor]:
    """Return observations as the body takes them, in batches.

    Raises:
        ValueError: they are not uint8 images of the agent's size.
    """
    agent = as_agent(agent)
    tensor, shape = torch.as_tensor(observations), agent.config.observation_shape
    if tensor.dtype != torch.uint8 or tensor.shape[1:] != shape or not len(tensor):
        raise ValueError(
            f"observations: expected uint8 (batch, {', '.join(map(str, shape))}), "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    scaled = tensor.to(agent.device, torch.float32) / 255
    return list(scaled.contiguous(memory_format=torch.channels_last).split(BATCH))
