"""Probing: activations, pairs, and interchanges of all layers and ranks."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rlbilinear.agents import Agent, load
from rlbilinear.benchmarks.measure import Comparison, Cost, measure
from rlbilinear.envs import FITTING
from rlbilinear.probes.dataset import Pairs, counterfactual_pairs
from rlbilinear.probes.interchange import activation_differences, interchange_table
from rlbilinear.probes.moves import log_move_distribution, right_moves
from rlbilinear.probes.steps.locating import RANKS
from rlbilinear.probes.study import map_layers
from rlbilinear.probes.subspaces import Subspace, component, difference_subspace

AGENT, STATES, PAIRS = "maze-bimpala-compact", 1024, 128
SHARE = 0.8
"""Of the speed of a bare forward pass, that activations are collected with at least."""


def comparisons() -> Iterable[Comparison]:
    """Measure what the issue sets targets for, beside an alternative where there is one."""
    agent = load(AGENT)
    levels = FITTING.first(PAIRS)
    yield _each(
        "a counterfactual pair, drawn and labelled",
        measure(lambda: counterfactual_pairs(levels, pairs_per_level=4), repeats=3),
        4 * PAIRS,
    )
    pairs = counterfactual_pairs(levels, pairs_per_level=1)
    layers = map_layers(agent)
    states = np.resize(pairs.base.observations, (STATES, *pairs.base.observations.shape[1:]))
    ours = measure(lambda: agent.activations(states, layers, batch=128))
    bare = measure(lambda: _bare(agent, states))
    yield Comparison(
        f"outputs of {len(layers)} layers, {STATES} states ({STATES / ours.seconds:.0f}/s)",
        ours,
        f"the forward pass alone ({STATES / bare.seconds:.0f}/s)",
        bare,
        f"at least {SHARE:g} of its speed",
        bare.seconds >= SHARE * ours.seconds,
    )
    differences = activation_differences(agent, pairs, layers)
    subspaces = {
        layer: [
            Subspace("difference", difference_subspace(differences[layer], rank)) for rank in RANKS
        ]
        for layer in layers
    }
    table = interchange_table(agent, pairs, subspaces)
    assert np.array_equal(table["follow"], _by_hooks(agent, pairs, subspaces))
    ours = measure(lambda: interchange_table(agent, pairs, subspaces), repeats=3)
    other = measure(lambda: _by_hooks(agent, pairs, subspaces), repeats=3)
    yield Comparison(
        f"exchange {len(layers)} layers x {len(RANKS)} ranks in {PAIRS} pairs",
        ours,
        "forward hooks, one after another",
        other,
        "faster",
        ours.seconds < other.seconds,
    )


def _each(task: str, cost: Cost, number: int) -> Comparison:
    """Share out the time of many."""
    seconds = cost.seconds / number
    return Comparison(f"{task} ({1 / seconds:.0f}/s)", cost._replace(seconds=seconds))


def _bare(agent: Agent, states: np.ndarray) -> Tensor:
    """Run the network and nothing else, in the format in which it runs fast."""
    policy = agent.policy
    with torch.no_grad():
        return torch.cat(
            [
                policy.action_net(policy.features_extractor(part.float() / 255))
                for part in torch.from_numpy(states).split(128)
            ]
        )


def _by_hooks(
    agent: Agent, pairs: Pairs, subspaces: Mapping[str, Sequence[Subspace]]
) -> np.ndarray:
    """Exchange as hooks do: for each layer and rank the source runs, and then the base."""
    base, source = (torch.from_numpy(side.observations) for side in (pairs.base, pairs.source))
    followed = []
    for layer, given in subspaces.items():
        module = agent.layer(layer)
        for subspace in given:
            kept: list[Tensor] = []
            _hooked(agent, module, kept.append, source)
            theirs, basis = kept[0], subspace.basis
            assert basis is not None

            def patch(output: Tensor, theirs: Tensor = theirs, basis: Tensor = basis) -> Tensor:
                return output + component(theirs - output, basis)

            logits = _hooked(agent, module, patch, base)
            followed.append(right_moves(log_move_distribution(logits), pairs.source.moves))
    return np.concatenate(followed)


def _hooked(
    agent: Agent, module: torch.nn.Module, change: Callable[[Tensor], object], states: Tensor
) -> Tensor:
    policy = agent.policy
    handle = module.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        with torch.no_grad():
            return policy.action_net(policy.features_extractor(states.float() / 255))
    finally:
        handle.remove()
