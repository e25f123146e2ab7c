"""What every step of a validation works with: states, pairs, a fitted probe, and its directions."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.envs import EVALUATION, FITTING
from rlbilinear.probes import concepts
from rlbilinear.probes.branches import feeds
from rlbilinear.probes.concepts import (
    Concept,
    ConceptLike,
    cheese_position,
    cheese_presence,
    mouse_presence,
)
from rlbilinear.probes.dataset import ActivationDataset, Pairs, collect, counterfactual_pairs
from rlbilinear.probes.interchange import activation_differences
from rlbilinear.probes.layer_choice import AUTO, choose_layer
from rlbilinear.probes.named import AgentLike, LayerLike, as_agent, as_layer
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import fit_probe, permute_by_level, untrained
from rlbilinear.probes.subspaces import difference_subspace, random_subspace
from rlbilinear.probes.surrogate import quadratic_surrogate

CAUSAL_CONCEPTS = {cheese_presence.name: cheese_presence}
"""Concepts with counterfactual pairs: states alike but for the concept."""

Direction = Float[Tensor, "channels"]
DIRECTIONS = {
    "probe": "the probe's weights, what it reads",
    "pattern": "the probe's pattern: what in the activations goes with its reading",
    "difference": "the direction that changes most when the cheese moves",
}
"""The directions put to the test, and what they are."""

UNTRAINED = "untrained network"
CONTROLS = {
    "random": "random directions",
    "permuted probe": "the weights of a probe for the cheeses of other levels",
    "mouse probe": "the weights of a probe for another concept, the mouse's cell",
    UNTRAINED: "the difference direction of a network with initial weights",
}
"""The directions set beside them, each scaled to change the layer's output as much."""


LEAST = {
    "levels": 5,
    "fit_levels": 10,
    "states_per_level": 2,
    "pairs_per_level": 1,
    "controls": 1,
    "steered_mazes": 2,
    "played_levels": 2,
}
"""The smallest `Sizes` with which everything can be computed; far too small to show anything."""


@dataclass(frozen=True)
class Sizes:
    """How many levels and states a validation takes; more give narrower intervals.

    Raises:
        ValueError: a number smaller than in `LEAST`.
    """

    levels: int = 100
    """held-out levels, on which everything is measured"""
    fit_levels: int = 150
    """levels on which probes, directions and maps are fitted"""
    states_per_level: int = 8
    """states of each level for the probe"""
    pairs_per_level: int = 3
    """counterfactual pairs of each level"""
    controls: int = 5
    """random directions that each effect is compared with"""
    steered_mazes: int = 12
    """mazes in which the agent is sent to every free cell"""
    played_levels: int = 100
    """held-out levels played to the end by the original and the edited agents"""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), LEAST[each.name]
            if value < least:
                raise ValueError(f"{each.name} must be at least {least}, got {value}")


@dataclass(frozen=True, eq=False)
class Study:
    """One agent, one concept, one layer, and the states to ask about them.

    Attributes:
        agent: under study.
        concept: probed for.
        layer: whose output is edited.
        sizes: how many levels and states.
        seed: seed of everything random.
        layers: all layers whose outputs are maps.
        fit: states of the fitting levels, at all those layers.
        held_out: states of the evaluation levels.
        fit_pairs: pairs that differ in the cheese's cell, of the fitting levels.
        pairs: the same of the evaluation levels, where the expert's moves differ.
        absent: pairs with and without cheese, of the evaluation levels.
        probe: fitted at the layer.
        progress: show bars.
        surrogate: the agent's quadratic surrogate (`probes.surrogate`), by whose forms it is read;
            None when its own layers have forms, or none are asked for.
    """

    agent: Agent
    concept: Concept
    layer: str
    sizes: Sizes
    seed: int
    layers: tuple[str, ...]
    fit: ActivationDataset
    held_out: ActivationDataset
    fit_pairs: Pairs
    pairs: Pairs
    absent: Pairs
    probe: LinearProbe
    progress: bool = True
    surrogate: Agent | None = None

    @property
    def forms(self) -> Agent:
        """The agent whose weights say by which forms a direction is written."""
        return self.surrogate or self.agent

    @cached_property
    def probes(self) -> dict[str, LinearProbe]:
        """The probe, and others of its kind fitted at the other layers."""
        return {
            layer: self.probe
            if layer == self.layer
            else fit_probe(self.fit, layer, self.concept, self.probe)
            for layer in self.layers
        }

    @cached_property
    def differences(self) -> dict[str, Float[Tensor, "pairs channels height width"]]:
        """What moving the cheese changes at each layer, on the fitting levels."""
        return activation_differences(self.agent, self.fit_pairs, self.layers)

    @cached_property
    def mean(self) -> Float[Tensor, "channels height width"]:
        """The layer's mean output over the fitting levels."""
        return torch.from_numpy(self.fit.activations[self.layer]).mean(0, dtype=torch.float64)

    @cached_property
    def directions(self) -> dict[str, Direction]:
        """The unit directions of `DIRECTIONS` at the layer."""
        return directions_at(self, self.layer)

    @cached_property
    def controls(self) -> dict[str, list[Direction]]:
        """Unit directions at the layer that should do nothing, by kind."""
        mouse = fit_probe(self.fit, self.layer, mouse_presence, self.probe)
        blank = self.untrained
        changes = activation_differences(blank, self.fit_pairs, [self.layer])[self.layer]
        return {
            "random": self.random,
            "permuted probe": [self.permuted],
            "mouse probe": [unit(mouse.direction)],
            UNTRAINED: [difference_subspace(changes, 1)[0]],
        }

    @cached_property
    def untrained(self) -> Agent:
        """A network of the same shape with initial weights."""
        return untrained(self.agent, self.seed)

    @cached_property
    def untrained_forms(self) -> Agent:
        """That network, or its quadratic surrogate when it has ReLUs."""
        return quadratic_surrogate(self.untrained, self.fit.observations[::8])

    @cached_property
    def permuted(self) -> Direction:
        """Weights of a probe for permuted labels at the layer."""
        labels = self.fit.labels[self.concept.name]
        shuffled = permute_by_level(labels, self.fit.levels, seed=self.seed)
        data = replace_labels(self.fit, self.concept, shuffled)
        return unit(fit_probe(data, self.layer, self.concept, self.probe).direction)

    @cached_property
    def random(self) -> list[Direction]:
        """Random unit directions at the layer."""
        channels = len(self.mean)
        return [
            random_subspace(channels, 1, self.seed + 1000 + number)[0]
            for number in range(self.sizes.controls)
        ]

    @cached_property
    def covariance(self) -> Float[Tensor, "channels channels"]:
        """Of the layer's channels about each position's mean, on the fitting levels."""
        return covariance(self.fit.activations[self.layer], self.mean)

    def spread(self, direction: Direction) -> float:
        """Root mean square departure from the mean along a direction, on the fitting levels."""
        return float((direction @ self.covariance @ direction).clamp(min=0).sqrt())


def prepare(
    agent: AgentLike,
    layer: LayerLike,
    concept: ConceptLike,
    *,
    probe: LinearProbe | None = None,
    sizes: Sizes | None = None,
    seed: int = 0,
    progress: bool = True,
    surrogate: AgentLike | None = None,
) -> Study:
    """Collect the states and fit the probe.

    Args:
        agent: a maze agent, or its name in the zoo, or its folder.
        layer: a layer whose outputs are maps, or its name; ``auto`` chooses it on fitting pairs,
            and is the probe's own when one is given.
        concept: one of `CAUSAL_CONCEPTS`, or its name.
        probe: fitted at the layer already, to other levels than `envs.EVALUATION`; the usual one is
            fitted when None.
        sizes: how many levels and states; the usual numbers when None.
        seed: seed of everything random.
        progress: show bars.
        surrogate: surrogate of a ReLU agent, by whose forms it is read and edited.

    Raises:
        ValueError: a layer, concept, game, probe or surrogate that cannot be studied; the message
            lists the choices.
        TypeError: something else than an agent, layer, concept or their names.
    """
    sizes, agent, concept = sizes or Sizes(), as_agent(agent), concepts.concept(concept)
    name = as_layer(agent, layer)
    surrogate = None if surrogate is None else as_agent(surrogate)
    if agent.config.game != "maze":
        raise ValueError(f"validation needs a maze agent, this one plays {agent.config.game}")
    if concept.name not in CAUSAL_CONCEPTS:
        choices = ", ".join(CAUSAL_CONCEPTS)
        raise ValueError(
            f"there are no counterfactual pairs for {concept.name!r}; choose from {choices}"
        )
    layers = map_layers(agent)
    if name not in (AUTO, *layers):
        raise ValueError(f"unknown layer {name!r}; choose from {AUTO}, {', '.join(layers)}")
    if probe is not None and name == AUTO:
        if not (fitted_at := getattr(probe, "layer_", None)):
            raise ValueError("probe: name the layer that it was fitted at, instead of auto")
        name = fitted_at
    if probe is not None:
        _check_probe(probe, agent, name)
    if surrogate is not None and not {*feeds(surrogate)} <= {*agent.layer_names}:
        raise ValueError(
            "surrogate: its blocks are not the agent's; make it with probes.surrogate_of"
        )
    fitting, evaluation = FITTING.first(sizes.fit_levels), EVALUATION.first(sizes.levels)
    each = sizes.pairs_per_level
    fit_pairs = counterfactual_pairs(fitting, pairs_per_level=each, seed=seed + 2)
    if name == AUTO:
        name = choose_layer(agent, fit_pairs, layers, seed=seed)
    labelled = [concept, cheese_position, mouse_presence]
    fit, held_out = (
        collect(
            agent,
            levels,
            [*layers, *feeds(surrogate or agent)],
            labelled,
            states_per_level=sizes.states_per_level,
            seed=seed + offset,
            progress=progress,
        )
        for offset, levels in enumerate((fitting, evaluation))
    )
    return Study(
        agent=agent,
        concept=concept,
        layer=name,
        sizes=sizes,
        seed=seed,
        layers=layers,
        fit=fit,
        held_out=held_out,
        fit_pairs=fit_pairs,
        pairs=counterfactual_pairs(evaluation, pairs_per_level=each, seed=seed + 3),
        absent=counterfactual_pairs(
            evaluation, pairs_per_level=each, source="absent", seed=seed + 4
        ),
        probe=probe or fit_probe(fit, name, concept),
        progress=progress,
        surrogate=surrogate,
    )


def map_layers(agent: Agent) -> tuple[str, ...]:
    """Return the steps of the forward pass whose outputs are maps (channels, height, width)."""
    steps = [name for name in agent.layer_names if "." not in name]
    outputs = agent.activations(blank(agent), steps)
    return tuple(name for name in steps if outputs[name].ndim == 4)


def blank(agent: Agent) -> UInt8[np.ndarray, "1 channels height width"]:
    """Return a black observation, to ask for the shapes of outputs."""
    return np.zeros((1, *agent.config.observation_shape), np.uint8)


def directions_at(study: Study, layer: str) -> dict[str, Direction]:
    """Return the unit directions of `DIRECTIONS` at a layer.

    The pattern is the covariance of the activations times the probe's weights: how activations
    change when the reading does (Haufe et al. 2014); weights alone also cancel what disturbs it.
    """
    weights = unit(study.probes[layer].direction)
    maps = study.fit.activations[layer]
    mean = torch.from_numpy(maps.mean((0, 2, 3), dtype=np.float64))[:, None, None]
    return {
        "probe": weights,
        "pattern": unit(covariance(maps, mean) @ weights),
        "difference": difference_subspace(study.differences[layer], 1)[0],
    }


def covariance(
    maps: Float[np.ndarray, "n channels height width"],
    mean: Float[Tensor, "channels height width"] | Float[Tensor, "channels 1 1"],
) -> Float[Tensor, "channels channels"]:
    """Average the products of channels' departures from a mean, over states and positions."""
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in torch.from_numpy(maps).split(256):
        rows = (part.double() - mean).movedim(1, -1).reshape(-1, len(mean))
        total += rows.T @ rows
    return total / (maps.size / len(mean))


def unit(direction: Float[np.ndarray, "channels"] | Direction) -> Direction:
    """Scale a direction to norm 1, in float64."""
    vector = torch.as_tensor(direction).double()
    return vector / vector.norm()


def replace_labels(
    data: ActivationDataset, concept: Concept, labels: Float[np.ndarray, "n *shape"]
) -> ActivationDataset:
    """Return the same states with other labels of a concept."""
    return ActivationDataset(
        data.mazes,
        data.levels,
        data.observations,
        data.activations,
        {**data.labels, concept.name: labels},
    )


def _check_probe(probe: LinearProbe, agent: Agent, layer: str) -> None:
    fitted_at = getattr(probe, "layer_", None) or layer  # not known of one fitted by hand
    if fitted_at != layer:
        raise ValueError(f"probe: it was fitted at {fitted_at}, not at {layer}")
    channels = agent.activations(blank(agent), [layer])[layer].shape[1]
    if probe.direction.shape != (channels,):
        raise ValueError(
            f"expected a probe of one weight for each of the {channels} channels of {layer}, "
            f"got weights of shape {probe.direction.shape}"
        )
