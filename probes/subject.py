"""Any actor-critic policy as a validation sees it: logits, layers, and what follows from a layer.

A policy is traced (torch.fx). Its *layers* are the places that everything passes on the way from
the image to the logits: to put another output there is to decide all that follows. The outputs
inside a residual branch are none, for the skip path goes around them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, fx, nn

from rlbilinear.agents import Agent, load
from rlbilinear.edits.functional import PositionBias

BODY, HEAD = "features_extractor.", "action_net"
OUR_BODY = BODY + "layers."
Observations = np.ndarray | Tensor

_BATCH = 128


class SubjectError(ValueError):
    """A policy that cannot be studied; the message says why, and what can."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy, traced: made by `as_subject`.

    Attributes:
        policy: whose actions; it is in evaluation mode.
        name: in reports.
        agent: when it is one of ours.
        layers: the shape of each layer's output, in the order of the forward pass.
    """

    policy: ActorCriticPolicy
    name: str
    agent: Agent | None
    layers: Mapping[str, tuple[int, ...]]
    _root: nn.Module = field(repr=False)
    _graph: fx.Graph = field(repr=False)
    _nodes: Mapping[str, fx.Node] = field(repr=False)
    _paths: Mapping[str, str] = field(repr=False)
    """of the module whose output a layer is, where there is one"""
    _parts: dict[Any, fx.GraphModule] = field(default_factory=dict, repr=False)

    @property
    def actions(self) -> int:
        """How many there are."""
        assert isinstance(self.policy.action_space, spaces.Discrete)
        return int(self.policy.action_space.n)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of one observation, channels first."""
        shape = self.policy.observation_space.shape
        assert shape is not None
        return shape

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.policy.parameters()).device

    @cached_property
    def maps(self) -> tuple[str, ...]:
        """The layers whose outputs are feature maps."""
        return tuple(name for name, shape in self.layers.items() if len(shape) == 3)

    def check_layer(self, layer: str) -> None:
        """Raise ValueError unless it is a layer; the message lists them."""
        if layer not in self.layers:
            raise ValueError(f"unknown layer {layer!r}; choose from {', '.join(self.layers)}")

    def logits(
        self, observations: Observations, *, batch: int = _BATCH
    ) -> Float[Tensor, "n actions"]:
        """Return the logits of the actions, on the policy's device.

        Raises:
            ValueError: observations of another type or shape.
        """
        return torch.cat([self._run((), part)[0] for part in self._batches(observations, batch)])

    def activations(
        self, observations: Observations, layers: Iterable[str], *, batch: int = _BATCH
    ) -> dict[str, Float[Tensor, "n *output"]]:
        """Return the outputs of layers, all from one pass, on the policy's device.

        Raises:
            ValueError: unknown layer, or observations of another type or shape.
        """
        names = tuple(layers)
        for name in names:
            self.check_layer(name)
        parts = [self._run(names, part)[1:] for part in self._batches(observations, batch)]
        return {
            name: torch.cat(outputs)
            for name, outputs in zip(names, zip(*parts, strict=True), strict=True)
        }

    def logits_after(
        self, layer: str, outputs: Float[Tensor, "n *output"], *, batch: int = _BATCH
    ) -> Float[Tensor, "n actions"]:
        """Return the logits when a layer gives these outputs: only what comes after it runs.

        Raises:
            ValueError: unknown layer, or outputs of another shape than its own.
        """
        self.check_layer(layer)
        if tuple(outputs.shape[1:]) != self.layers[layer]:
            raise ValueError(
                f"outputs: expected {self.layers[layer]} of each state at {layer}, "
                f"got {tuple(outputs.shape[1:])}"
            )
        rest = self.after(layer)
        like = next(self.policy.parameters())
        with torch.no_grad():
            return torch.cat([rest(x.to(like).clone()) for x in outputs.split(batch)])

    def after(self, layer: str) -> fx.GraphModule:
        """Return what comes after a layer: from its outputs to the logits, with gradients.

        Raises:
            ValueError: unknown layer.
        """
        self.check_layer(layer)
        if layer not in self._parts:
            self._parts[layer] = _after(self._root, self._graph, self._nodes[layer])
        return self._parts[layer]

    def can_edit(self, layer: str) -> bool:
        """Whether a linear map of the layer's output can be written into the weights."""
        self.check_layer(layer)
        return layer in self._paths

    def edited(
        self,
        layer: str,
        matrix: Float[Tensor, "channels channels"],
        bias: Float[Tensor, "*output"],
        *,
        edit: str,
    ) -> Subject:
        """Return a policy in which a layer's output ``h`` is ``matrix h + bias``: a weight edit.

        The matrix acts on channels at every position. It follows the layer as a 1x1 convolution (a
        linear map, where the output is a vector) with a bias for every position. The policy given
        stays as it is.

        Args:
            layer: whose output.
            matrix: over its channels, or its features.
            bias: of the shape of one output.
            edit: in words, for the record.

        Raises:
            ValueError: unknown layer, one without a module of its own, or wrong shapes.
        """
        if not self.can_edit(layer):
            raise ValueError(
                f"{layer} is computed without a module of its own, so there is nothing to edit; "
                f"choose from {', '.join(self._paths)}"
            )
        shape, path = self.layers[layer], self._paths[layer]
        if matrix.shape != (shape[0], shape[0]) or tuple(bias.shape) != shape:
            raise ValueError(
                f"expected a matrix {(shape[0], shape[0])} and a bias {shape} at {layer}, "
                f"got {tuple(matrix.shape)} and {tuple(bias.shape)}"
            )
        if self.agent is not None:
            name = path.removeprefix(OUR_BODY)
            module = _followed(self.agent.layer(name), matrix, bias)
            return as_subject(self.agent.with_layer(name, module, edit=edit), name=self.name)
        policy = _copy(self.policy)
        parent, _, leaf = path.rpartition(".")
        like = next(policy.parameters())
        module = _followed(policy.get_submodule(path), matrix, bias).to(like)
        setattr(policy.get_submodule(parent), leaf, module)
        return as_subject(policy, name=self.name)

    def untrained(self, seed: int) -> Subject:
        """Return the same policy with initial weights, drawn anew: a control.

        Raises:
            SubjectError: a module with weights that cannot draw them anew.
        """
        if self.agent is not None:
            config = self.agent.config
            fresh = Agent.new(
                config.architecture,
                game=config.game,
                seed=seed,
                device=self.device,
                **config.architecture_kwargs,
            )
            return as_subject(fresh, name=f"{self.name}, untrained")
        policy = _copy(self.policy)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for path, module in policy.named_modules():
                own = [*module.parameters(recurse=False)]
                reset = getattr(module, "reset_parameters", None)
                if own and reset is None:
                    raise SubjectError(
                        f"{path} is a {type(module).__name__} with weights of its own and no "
                        "reset_parameters: its initial weights are not known"
                    )
                if own and reset is not None:
                    reset()
        return as_subject(policy, name=f"{self.name}, untrained")

    def _batches(self, observations: Observations, batch: int) -> Iterable[Tensor]:
        tensor, space = torch.as_tensor(observations), self.policy.observation_space
        assert isinstance(space, spaces.Box)
        expected = torch.as_tensor(np.zeros(0, space.dtype)).dtype
        if tensor.dtype != expected or tuple(tensor.shape[1:]) != space.shape or not len(tensor):
            raise ValueError(
                f"expected {expected} observations (n, {', '.join(map(str, space.shape))}), "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return (part.to(self.device) for part in tensor.split(batch))

    def _run(self, layers: tuple[str, ...], observations: Tensor) -> tuple[Tensor, ...]:
        if layers not in self._parts:
            nodes = [self._nodes[name] for name in layers]
            self._parts[layers] = _with_outputs(self._root, self._graph, nodes)
        images = preprocess_obs(
            observations,
            self.policy.observation_space,
            normalize_images=self.policy.normalize_images,
        )
        assert isinstance(images, Tensor)
        with torch.no_grad():
            return self._parts[layers](images.to(next(self.policy.parameters()).dtype))


def as_subject(
    given: Agent | ActorCriticPolicy | BaseAlgorithm | str | Path, *, name: str | None = None
) -> Subject:
    """Trace an agent or policy.

    Args:
        given: an `Agent`, its name in the zoo or its folder; a Stable-Baselines3 model with an
            actor-critic policy (PPO, A2C, ...), or that policy.
        name: in reports.

    Raises:
        TypeError: something else.
        SubjectError: other than discrete actions or image observations; a recurrent policy; or a
            forward pass that depends on values, which cannot be traced.
    """
    if isinstance(given, str | Path):
        name, given = name or str(given), load(given)
    agent = given if isinstance(given, Agent) else None
    policy = given.policy if isinstance(given, Agent | BaseAlgorithm) else given
    if not isinstance(policy, ActorCriticPolicy):
        raise TypeError(
            "expected an Agent, the name of one, a Stable-Baselines3 model with an actor-critic "
            f"policy, or such a policy; got {type(policy).__name__}"
        )
    _check_policy(policy)
    policy.set_training_mode(False)
    root = _Actor(policy)
    tracer = _Tracer()
    try:
        graph = tracer.trace(root)
    except (fx.proxy.TraceError, TypeError) as error:
        raise SubjectError(
            f"the policy cannot be traced ({error}): its forward pass must not depend on the "
            "values it computes"
        ) from error
    fx.GraphModule(root, graph).graph.eliminate_dead_code()
    prefix = OUR_BODY if agent is not None else BODY
    nodes, paths = _layers(graph, tracer.modules, prefix)
    blank = torch.zeros(1, *policy.observation_space.shape or (), device=policy.device)
    with torch.no_grad():
        like = next(policy.parameters()).dtype
        outputs = _with_outputs(root, graph, list(nodes.values()))(blank.to(like))[1:]
    return Subject(
        policy,
        name or ("the agent" if agent is not None else "the policy"),
        agent,
        {name: tuple(each.shape[1:]) for name, each in zip(nodes, outputs, strict=True)},
        root,
        graph,
        nodes,
        paths,
    )


class _Actor(nn.Module):
    """What a policy computes of the actions, from images to logits."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.features_extractor = policy.pi_features_extractor
        self.policy_net = policy.mlp_extractor.policy_net
        self.action_net = policy.action_net

    def forward(self, images: Tensor) -> Tensor:
        return self.action_net(self.policy_net(self.features_extractor(images)))


class _Tracer(fx.Tracer):
    """Traces into all modules but PyTorch's own and our layers; notes which node each one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[fx.Node, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = m.__module__.startswith(("rlbilinear.layers", "rlbilinear.edits"))
        gated = m.__module__ == "rlbilinear.one_hidden_layer"
        return own or gated or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):  # the innermost module is told last to be the outermost
            self.modules.setdefault(result.node, self.path_of_module(m))
        return result


def _copy(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Copy a policy without the last distribution of actions, whose tensors hold a graph."""
    actions = policy.action_space
    assert isinstance(actions, spaces.Discrete)
    return copy.deepcopy(policy, {id(policy.action_dist): CategoricalDistribution(int(actions.n))})


def _check_policy(policy: ActorCriticPolicy) -> None:
    space = policy.observation_space
    if not isinstance(space, spaces.Box) or space.shape is None or len(space.shape) != 3:
        raise SubjectError(f"expected image observations (channels, height, width), got {space}")
    if not isinstance(policy.action_dist, CategoricalDistribution):
        raise SubjectError(f"expected discrete actions, got {policy.action_space}")
    if hasattr(policy, "lstm_actor"):
        raise SubjectError("expected a policy without memory, got a recurrent one")


def _layers(
    graph: fx.Graph, modules: Mapping[fx.Node, str], prefix: str
) -> tuple[dict[str, fx.Node], dict[str, str]]:
    """Name the nodes that every path from the image to the logits passes; and their modules."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    depends: set[fx.Node] = set()
    nodes: dict[str, fx.Node] = {}
    paths: dict[str, str] = {}
    furthest = -1
    for node in graph.nodes:
        if node.op == "output":
            break
        if node.op != "placeholder" and not depends & {*node.all_input_nodes}:
            continue  # weights, and what is made of them alone
        depends.add(node)
        last = max((order[user] for user in node.users), default=-1)
        # What came before is not used any more: all passes here.
        if furthest <= order[node] and node.op != "placeholder":
            path = modules.get(node)
            name = (path or node.name).removeprefix(prefix)
            if paths or path is not None:  # before the first module there is only the image
                nodes[name] = node
            if path is not None:
                paths[name] = path
        furthest = max(furthest, last)
    nodes.pop(HEAD)  # the logits themselves
    paths.pop(HEAD)
    return nodes, paths


def _with_outputs(root: nn.Module, graph: fx.Graph, nodes: list[fx.Node]) -> fx.GraphModule:
    """Return logits and copies of the outputs of nodes (a later step may work in place)."""
    new = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    kept: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "output":
            logits = copies[node.args[0]]
            new.output((logits, *(kept[each] for each in nodes)))
            break
        copies[node] = new.node_copy(node, lambda each: copies[each])
        if node in nodes:
            kept[node] = new.call_method("clone", (copies[node],))
    return fx.GraphModule(root, new)


def _after(root: nn.Module, graph: fx.Graph, start: fx.Node) -> fx.GraphModule:
    """Return what comes after a node, as a function of its output."""
    new = fx.Graph()
    copies = {start: new.placeholder("outputs")}
    for node in graph.nodes:
        if node.op == "output":
            new.output(copies[node.args[0]])
            break
        if node is start or node.op == "placeholder":
            continue
        inputs = node.all_input_nodes
        if all(each in copies for each in inputs) and (node.op == "get_attr" or inputs):
            copies[node] = new.node_copy(node, lambda each: copies[each])
    return fx.GraphModule(root, new)


def _followed(module: nn.Module, matrix: Tensor, bias: Tensor) -> PositionBias:
    """Return a module followed by a matrix over channels and a bias for every position."""
    rows = len(matrix)
    with torch.device("meta"):  # no random numbers drawn
        follower: nn.Module = (
            nn.Conv2d(rows, rows, 1, bias=False) if bias.ndim == 3 else nn.Linear(rows, rows, False)
        )
    weight = matrix.reshape(rows, rows, *(1,) * (2 if bias.ndim == 3 else 0)).clone()
    follower.load_state_dict({"weight": weight}, assign=True)
    like = next(module.parameters(), torch.zeros(()))
    chain = nn.Sequential(copy.deepcopy(module), follower.to(like.dtype))
    return PositionBias(chain, bias.to(like.dtype))
