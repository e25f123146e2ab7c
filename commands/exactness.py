"""Print each identity with its worst error, over random layers and over an agent's own.

    rlbilinear exactness

Random layers vary in size, down-projection, biases, kernel, stride, padding and dilation; an
agent's layers get the inputs that they have in the agent. Everything is in float64, and errors are
relative to the largest entry. Fails when an error is above the bound.
"""

import copy
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from rlbilinear import BilinearConv2d, BilinearLinear, agents
from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.folder import provenance, write_json
from rlbilinear.commands.outputs import check_writable, new_file, writing
from rlbilinear.commands.running import AtLeast, Command, Count, Failed, Seed
from rlbilinear.envs import EVALUATION, ProcgenVecEnv
from rlbilinear.testing.identities.identity import Identity, Layer

MODULES = ("decomposition", "tensors", "edits", "approximants")
"""Modules of rlbilinear.testing.identities that list identities."""


@dataclass(frozen=True)
class ExactnessOptions:
    """Print each identity with its worst error, over random layers and over an agent's own."""

    agent: str = "maze-bimpala-compact"
    """a zoo agent, or a folder"""
    layers: Count = 50
    """random layers for each identity"""
    observations: Annotated[int, AtLeast(2)] = 4
    """observations of the agent's game, each from the start of a level"""
    bound: float = 1e-10
    """largest error accepted"""
    seed: Seed = 0
    """seed of random layers, directions and inputs"""
    out: Path | None = None
    """folder for the table as CSV"""


def _exactness(options: ExactnessOptions) -> None:
    """Measure and print."""
    if options.out is not None:
        check_writable(options.out / "exactness.csv")
    agent = agents.load(options.agent, device="cpu")
    kinds = {type(agent.layer(name)) for name in agent.layer_names}
    if not {BilinearLinear, BilinearConv2d} <= kinds:
        raise ValueError(
            f"--agent: {options.agent} must have dense and convolutional bilinear layers"
        )
    if options.observations > EVALUATION.count:
        raise ValueError(
            f"--observations: expected 2 to {EVALUATION.count}, got {options.observations}"
        )
    observations = _observations(agent, options.observations, options.seed)
    identities = [
        identity
        for name in MODULES
        for identity in importlib.import_module(f"rlbilinear.testing.identities.{name}").IDENTITIES
    ]
    table = pd.DataFrame(
        _row(identity, agent, observations, options)
        for identity in tqdm(identities, desc="identities", leave=False)
    )
    print(table.to_string(index=False, float_format="{:.1e}".format, na_rep=""))
    if options.out is not None:
        with new_file(options.out / "exactness.csv") as file:
            table.to_csv(file, index=False)
        with writing(options.out / "exactness.json"):
            write_json(options.out / "exactness.json", provenance())
    if wrong := above(table, options.bound):
        raise Failed(f"errors above {options.bound:g}: {', '.join(wrong)}")


def above(table: pd.DataFrame, bound: float) -> list[str]:
    """Return the identities with an error above the bound, or one that is not a number."""
    random = table["random layers"].where(table["of"] != "agent", 0.0)
    within = (random <= bound) & (table["agent"] <= bound)
    return table["identity"][~within].tolist()


def _row(
    identity: Identity, agent: Agent, observations: Observations, options: ExactnessOptions
) -> dict[str, Any]:
    error: Any = identity.error
    if identity.of == "agent":
        torch.manual_seed(options.seed)
        random, own = float("nan"), error(agent, observations)
    else:
        cases = {
            "random": random_layers(identity.of, options.layers, options.seed),
            "agent": agent_layers(identity.of, agent, observations, options.seed),
        }
        random, own = (max(error(*case) for case in each) for each in cases.values())
    return {"identity": identity.name, "of": identity.of, "random layers": random, "agent": own}


def random_layers(of: str, count: int, seed: int) -> Iterator[tuple[Layer, Tensor]]:
    """Draw layers in float64, and their inputs."""
    for index in range(count):
        torch.manual_seed(seed + index)
        rng = np.random.default_rng([seed, index])

        def draw(low: int, high: int, rng: np.random.Generator = rng) -> int:
            return int(rng.integers(low, high + 1))

        hidden, bias = (None, draw(4, 12))[draw(0, 1)], bool(draw(0, 1))
        if of == "dense":
            sizes = draw(8, 60), draw(2, 8)  # at least two: a plane to rotate in
            layer: Layer = BilinearLinear(*sizes, hidden_features=hidden, bias=bias).double()
            yield layer, torch.randn(5, sizes[0]).double()
        else:
            channels, kernel, dilation = draw(2, 5), (draw(1, 3), draw(1, 3)), draw(1, 2)
            layer = BilinearConv2d(
                channels,
                draw(2, 5),
                kernel,
                hidden_channels=hidden,
                stride=draw(1, 2),
                padding=(draw(0, 2), draw(0, 2)),
                dilation=dilation,
                bias=bias,
            ).double()
            yield layer, torch.randn(3, channels, 7, 6).double()


def agent_layers(
    of: str, agent: Agent, observations: Observations, seed: int
) -> Iterator[tuple[Layer, Tensor]]:
    """Yield the agent's bilinear layers in float64, and their inputs."""
    kind = BilinearLinear if of == "dense" else BilinearConv2d
    steps = [name for name in agent.layer_names if "." not in name]
    for name in agent.layer_names:
        layer = agent.layer(name)
        if isinstance(layer, kind):
            before = steps[steps.index(name.split(".")[0]) - 1]
            x = agent.activations(observations, [before])[before].double().contiguous()
            torch.manual_seed(seed)
            yield copy.deepcopy(layer).double(), x


def _observations(agent: Agent, count: int, seed: int) -> Observations:
    env = ProcgenVecEnv(agent.config.game, count, seed=seed)
    try:
        return np.asarray(env.reset())
    finally:
        env.close()


main = Command(ExactnessOptions, _exactness, __doc__)
