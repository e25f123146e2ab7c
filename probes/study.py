"""What every step of a validation works with: states, pairs, a fitted probe, and its directions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import clone
from torch import Tensor

from agents import Agent
from envs import EVALUATION, FITTING
from probes.concepts import Concept, cheese_position, cheese_presence
from probes.dataset import ActivationDataset, Pairs, collect, counterfactual_pairs
from probes.interchange import activation_differences
from probes.probe import LinearProbe
from probes.reading import default_probe, fit_probe, permute_by_level
from probes.subspaces import difference_subspace, random_subspace

CAUSAL_CONCEPTS = {cheese_presence.name: cheese_presence}
"""Concepts with counterfactual pairs: states alike but for the concept."""

Direction = Float[Tensor, "channels"]
DIRECTIONS = {
    "probe": "the probe's weights, what it reads",
    "pattern": "the probe's pattern: what in the activations goes with its reading",
    "difference": "the direction that changes most when the cheese moves",
}
"""The directions put to the test, and what they are."""


@dataclass(frozen=True)
class Sizes:
    """How many levels and states a validation takes; more give narrower intervals."""

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


@dataclass(frozen=True, eq=False)
class Study:
    """One agent, one concept, one layer, and the states to ask about them.

    Attributes:
        agent: under study.
        concept: probed for.
        layer: whose output is edited.
        sizes: how many levels and states.
        seed: of everything random.
        layers: all layers whose outputs are maps.
        fit: states of the fitting levels, at all those layers.
        held_out: states of the evaluation levels.
        fit_pairs: pairs that differ in the cheese's cell, of the fitting levels.
        pairs: the same of the evaluation levels, where the expert's moves differ.
        absent: pairs with and without cheese, of the evaluation levels.
        probe: fitted at the layer.
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

    @cached_property
    def differences(self) -> dict[str, Float[Tensor, "pairs channels height width"]]:
        """What moving the cheese changes at each layer, on the fitting levels."""
        return activation_differences(self.agent, self.fit_pairs, self.layers)

    @cached_property
    def mean(self) -> Float[Tensor, "channels height width"]:
        """The layer's mean output over the fitting levels."""
        return torch.from_numpy(self.fit.activations[self.layer]).double().mean(0)

    @cached_property
    def directions(self) -> dict[str, Direction]:
        """The unit directions of `DIRECTIONS` at the layer."""
        return directions_at(self, self.layer, self.probe)

    @cached_property
    def permuted(self) -> Direction:
        """Weights of a probe for permuted labels at the layer: a control direction."""
        labels = self.fit.labels[self.concept.name]
        shuffled = permute_by_level(labels, self.fit.levels, seed=self.seed)
        data = replace_labels(self.fit, self.concept, shuffled)
        return unit(fit_probe(data, self.layer, self.concept, clone(self.probe)).direction)

    @cached_property
    def random(self) -> list[Direction]:
        """Random unit directions at the layer, as controls."""
        channels = len(self.mean)
        return [
            random_subspace(channels, 1, self.seed + 1000 + number)[0]
            for number in range(self.sizes.controls)
        ]

    def spread(self, direction: Direction) -> float:
        """Root mean square departure from the mean along a direction, on the fitting levels."""
        maps = torch.from_numpy(self.fit.activations[self.layer]).to(direction) - self.mean
        return float(torch.einsum("c,nchw->nhw", direction, maps).square().mean().sqrt())


def prepare(
    agent: Agent,
    layer: str,
    concept: Concept,
    *,
    probe: LinearProbe | None = None,
    sizes: Sizes | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Study:
    """Collect the states and fit the probe.

    Args:
        agent: a maze agent.
        layer: a layer whose outputs are maps.
        concept: one of `CAUSAL_CONCEPTS`.
        probe: fitted at the layer already; the usual one is fitted when None.
        sizes: how many levels and states; the usual numbers when None.
        seed: of everything random.
        progress: show bars.

    Raises:
        ValueError: a layer, concept or game that cannot be studied; the message lists the choices.
    """
    sizes = sizes or Sizes()
    if agent.config.game != "maze":
        raise ValueError(f"validation needs a maze agent, this one plays {agent.config.game}")
    if concept.name not in CAUSAL_CONCEPTS:
        choices = ", ".join(CAUSAL_CONCEPTS)
        raise ValueError(
            f"there are no counterfactual pairs for {concept.name!r}; choose from {choices}"
        )
    layers = map_layers(agent)
    if layer not in layers:
        raise ValueError(f"unknown layer {layer!r}; choose from {', '.join(layers)}")
    fitting, evaluation = FITTING.first(sizes.fit_levels), EVALUATION.first(sizes.levels)
    concepts = [concept, cheese_position]
    fit, held_out = (
        collect(
            agent,
            levels,
            layers,
            concepts,
            states_per_level=sizes.states_per_level,
            seed=seed + offset,
            progress=progress,
        )
        for offset, levels in enumerate((fitting, evaluation))
    )
    each = sizes.pairs_per_level
    return Study(
        agent=agent,
        concept=concept,
        layer=layer,
        sizes=sizes,
        seed=seed,
        layers=layers,
        fit=fit,
        held_out=held_out,
        fit_pairs=counterfactual_pairs(fitting, pairs_per_level=each, seed=seed + 2),
        pairs=counterfactual_pairs(evaluation, pairs_per_level=each, seed=seed + 3),
        absent=counterfactual_pairs(
            evaluation, pairs_per_level=each, source="absent", seed=seed + 4
        ),
        probe=probe or fit_probe(fit, layer, concept, default_probe(concept)),
    )


def map_layers(agent: Agent) -> tuple[str, ...]:
    """Return the steps of the forward pass whose outputs are maps (channels, height, width)."""
    steps = [name for name in agent.layer_names if "." not in name]
    blank = np.zeros((1, *agent.config.observation_shape), np.uint8)
    outputs = agent.activations(blank, steps)
    return tuple(name for name in steps if outputs[name].ndim == 4)


def directions_at(study: Study, layer: str, probe: LinearProbe) -> dict[str, Direction]:
    """Return the unit directions of `DIRECTIONS` at a layer.

    The pattern is the covariance of the activations times the probe's weights: how activations
    change when the reading does (Haufe et al. 2014); weights alone also cancel what disturbs it.
    """
    weights = torch.from_numpy(np.asarray(probe.direction)).double()
    maps = torch.from_numpy(study.fit.activations[layer]).movedim(1, -1)
    covariance = torch.cov(maps.reshape(-1, len(weights)).double().T)
    return {
        "probe": unit(weights),
        "pattern": unit(covariance @ weights),
        "difference": difference_subspace(study.differences[layer], 1)[0],
    }


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
