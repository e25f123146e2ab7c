"""A world of two blobs, and policies built by hand, of which it is known what they use."""

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from rlbilinear.probes.causal.concepts import CausalConcept, concept_data

SIDE = 6
RED, GREEN = 0, 1
CHANNELS = 40
"""Colours: of the two blobs, and others that are noise."""


class Blobs(tuple):
    """A red and a green cell, and noise in all other colours."""

    __slots__ = ()

    def moved(self, colour, cell):
        return Blobs(cell if each == colour else old for each, old in enumerate(self))


def sampled(noise):
    def sample(level, rng):
        cells = [tuple(rng.integers(0, SIDE, 2).tolist()) for _ in range(2)]
        return Blobs((*cells, rng.integers(0, noise, (CHANNELS - 2, SIDE, SIDE))))

    return sample


def observe(states):
    images = np.zeros((len(states), CHANNELS, SIDE, SIDE), np.uint8)
    for image, state in zip(images, states, strict=True):
        for colour in (RED, GREEN):
            image[colour][state[colour]] = 255
        image[2:] = state[2]
    return images


def half(cell):
    """Which half of the picture, upper or lower: what a policy that uses a blob goes by."""
    return int(cell[0] >= SIDE // 2)


def in_places(colour, name):
    def label(state):
        labels = np.zeros((SIDE, SIDE), np.float32)
        labels[state[colour]] = 1
        return labels

    def counterfactual(state, rng):
        return state.moved(colour, tuple(rng.integers(0, SIDE, 2).tolist()))

    def place(state):
        return tuple((at + 0.5) / SIDE for at in state[colour])

    return CausalConcept(
        name, "map", label, counterfactual, lambda state: half(state[colour]), place
    )


def as_class(colour, name):
    """The half in which a blob is, as one of two values of the whole state."""
    places = in_places(colour, name)
    return CausalConcept(
        name, "class", lambda state: half(state[colour]), places.counterfactual, places.behaviour
    )


def as_scalar(colour, name):
    places = in_places(colour, name)
    return CausalConcept(
        name, "scalar", lambda state: float(state[colour][0]), places.counterfactual,
        places.behaviour,
    )  # fmt: skip


def data_of(concept, levels=30, seed=0, **more):
    fit, held_out = range(levels), range(levels, 2 * levels)
    sizes = {"states_per_level": 3, "pairs_per_level": 2, **more}
    # Little noise, or a few hundred states would not do to read 1,440 numbers.
    sample = sampled(256 if concept.kind == "map" else 32)
    return concept_data(concept, sample, observe, fit, held_out, seed=seed, **sizes)


class Mixed(BaseFeaturesExtractor):
    """Carries the colours in as many channels, mixed by a rotation."""

    def __init__(self, observation_space, seed=0):
        super().__init__(observation_space, CHANNELS * SIDE * SIDE)
        generator = torch.Generator().manual_seed(seed)
        rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator)).Q
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.flatten = nn.Flatten()
        with torch.no_grad():
            self.mix.weight.copy_(rotation[:, :, None, None])
            self.mix.bias.zero_()

    def forward(self, images):
        return self.flatten(self.mix(images))


class Narrow(BaseFeaturesExtractor):
    """Keeps one channel, and carries it along one direction of many."""

    def __init__(self, observation_space):
        super().__init__(observation_space, CHANNELS * SIDE * SIDE)
        self.narrow = nn.Conv2d(CHANNELS, 1, 1)
        self.mix = nn.Conv2d(1, CHANNELS, 1)
        self.flatten = nn.Flatten()

    def forward(self, images):
        return self.flatten(self.mix(self.narrow(images)))


def reading(colour, seed=0, strength=20.0):
    """A policy of two actions that goes by the half in which one colour's blob is."""
    policy = untrained_policy(Mixed, seed=seed)
    return _reading(policy, policy.features_extractor.mix.weight[:, colour, 0, 0], strength)


def reading_narrowly(colour, strength=20.0):
    """The same, through a layer of that colour alone and one of many channels."""
    policy = untrained_policy(Narrow)
    with torch.no_grad():
        policy.features_extractor.narrow.weight.zero_()[0, colour] = 1
    return _reading(policy, policy.features_extractor.mix.weight[:, 0, 0, 0], strength)


def untrained_policy(extractor, **options):
    return ActorCriticPolicy(
        spaces.Box(0, 255, (CHANNELS, SIDE, SIDE), np.uint8),
        spaces.Discrete(2),
        lambda _: 1e-3,
        net_arch=[],
        features_extractor_class=extractor,
        features_extractor_kwargs=options,
    )


def _reading(policy, direction, strength):
    side = torch.where(torch.arange(SIDE) >= SIDE // 2, 1.0, -1.0)
    weight = torch.einsum("c,y,x->cyx", direction.detach(), side, torch.ones(SIDE)).flatten()
    with torch.no_grad():
        policy.action_net.weight.copy_(strength / 2 * torch.stack([-weight, weight]))
        policy.action_net.bias.zero_()
    return policy
