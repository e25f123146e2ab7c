"""What an agent computes, with labels of the same states; and matched pairs of states."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.pairs import CheeseSource, cheese_counterfactuals
from rlbilinear.envs.render import observe
from rlbilinear.envs.simulator import Simulator
from rlbilinear.probes.concepts import ConceptLike
from rlbilinear.probes.concepts import concepts as named_concepts
from rlbilinear.probes.named import AgentLike, LayerLike, as_agent, as_layers

HORIZON = 32
"""Steps of play from which the visited states are taken."""
CHEESE_MOVED, CHEESE_ABSENT = 0.5, 0.25
"""Shares of the edited states; the rest keep their cheese, and only the mouse is elsewhere."""

T = TypeVar("T")

_BATCH = 128
_FACINGS: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclass(frozen=True, eq=False)
class ActivationDataset:
    """States with what the agent computes in them and what is true of them.

    Attributes:
        mazes: the states.
        levels: the level of each: the group that splits and statistics go by.
        observations: as the simulator draws the states.
        activations: output of each layer.
        labels: each concept's labels, of the same states.
    """

    mazes: tuple[Maze, ...]
    levels: Int[np.ndarray, "n"]
    observations: UInt8[np.ndarray, "n 3 64 64"]
    activations: dict[str, Float[np.ndarray, "n *shape"]]
    labels: dict[str, Float[np.ndarray, "n *shape"]]

    def __len__(self) -> int:
        return len(self.mazes)

    def select(self, states: Bool[np.ndarray, "n"]) -> "ActivationDataset":
        """Return the states where ``states`` is true."""
        return ActivationDataset(
            tuple(maze for maze, kept in zip(self.mazes, states, strict=True) if kept),
            self.levels[states],
            self.observations[states],
            {name: values[states] for name, values in self.activations.items()},
            {name: values[states] for name, values in self.labels.items()},
        )

    def split(self, levels: Iterable[int]) -> tuple["ActivationDataset", "ActivationDataset"]:
        """Return the states of these levels, and those of the others.

        Raises:
            ValueError: there is no state of some level.
        """
        wanted = np.fromiter(levels, np.int64)
        if missing := sorted({*wanted.tolist()} - {*self.levels.tolist()}):
            raise ValueError(f"there are no states of the levels {missing}")
        inside = np.isin(self.levels, wanted)
        return self.select(inside), self.select(~inside)

    def seen_by(
        self, agent: Agent, layers: Iterable[str] | None = None, *, progress: bool = False
    ) -> "ActivationDataset":
        """Return the same states with another agent's activations (of the same layers if None).

        Raises:
            ValueError: unknown layer; the message lists them.
        """
        names = list(self.activations if layers is None else layers)
        return replace(self, activations=_activations(agent, self.observations, names, progress))


def collect(
    agent: AgentLike,
    levels: Sequence[int],
    layers: LayerLike | Iterable[LayerLike],
    concepts: ConceptLike | Iterable[ConceptLike],
    *,
    states_per_level: int = 8,
    edited: float = 0.5,
    mode: str = "easy",
    seed: int = 0,
    progress: bool = False,
) -> ActivationDataset:
    """Collect states of each level with activations and labels.

    Some states the agent visits: they are drawn from its first `HORIZON` steps, with actions
    sampled from its policy; an episode that ends starts again on its level. The others are
    reached by edits: the mouse on any free cell, and the cheese there, moved or absent.

    Args:
        agent: whose activations, and who plays; here and below, a name stands for what it names.
        levels: seeds of the levels.
        layers: names of layers.
        concepts: what to label.
        states_per_level: visited and edited together.
        edited: the share of edited states, rounded to whole states.
        mode: distribution mode of the levels.
        seed: of actions, choices and edits.
        progress: show progress bars.

    Raises:
        ValueError: an argument is not accepted; the message says what is.
    """
    agent = as_agent(agent)
    layers, labelled = as_layers(agent, layers), named_concepts(concepts)
    seeds = _level_seeds(levels)
    if states_per_level < 1 or not 0 <= edited <= 1:
        raise ValueError(
            "expected states_per_level >= 1 and edited in 0..1, "
            f"got {states_per_level} and {edited}"
        )
    n_edited = round(edited * states_per_level)
    n_visited = states_per_level - n_edited
    if n_visited > HORIZON:
        raise ValueError(f"at most {HORIZON} visited states a level, asked for {n_visited}")
    starts = [Maze.from_seed(level, mode) for level in seeds]
    rng = np.random.default_rng(seed)
    mazes = _visited(agent, starts, n_visited, rng, progress)
    mazes += [_edited(start, rng) for start in starts for _ in range(n_edited)]
    ids = np.concatenate([np.repeat(seeds, n_visited), np.repeat(seeds, n_edited)])
    return label(agent, mazes, ids, layers, labelled, progress=progress)


def label(
    agent: AgentLike,
    mazes: Sequence[Maze],
    levels: Int[np.ndarray, "n"],
    layers: LayerLike | Iterable[LayerLike],
    concepts: ConceptLike | Iterable[ConceptLike],
    *,
    progress: bool = False,
) -> ActivationDataset:
    """Make a dataset of given states.

    Args:
        agent: whose activations.
        mazes: the states.
        levels: the level, or another group, of each.
        layers: names of layers.
        concepts: what to label.
        progress: show a progress bar.

    Raises:
        ValueError: no states, unknown layer (the message lists them), or activations that are not
            finite (it names the first layer).
    """
    if not len(mazes) or len(mazes) != len(levels):
        raise ValueError(f"expected a level for each state, got {len(levels)} for {len(mazes)}")
    agent = as_agent(agent)
    layers, labelled = as_layers(agent, layers), named_concepts(concepts)
    observations = observe(mazes)
    return ActivationDataset(
        tuple(mazes),
        np.asarray(levels),
        observations,
        _activations(agent, observations, layers, progress),
        {each.name: each.labels(mazes) for each in labelled},
    )


@dataclass(frozen=True, eq=False)
class States:
    """One side of matched pairs.

    Attributes:
        mazes: the states.
        observations: as the simulator draws them.
        moves: the expert's `Move` from each, `NO_MOVE` without a cheese.
    """

    mazes: tuple[Maze, ...]
    observations: UInt8[np.ndarray, "n 3 64 64"]
    moves: Int[np.ndarray, "n"]

    def select(self, chosen: Bool[np.ndarray, "n"]) -> "States":
        """Return the states where ``chosen`` is true."""
        mazes = tuple(self.mazes[index] for index in np.flatnonzero(chosen))
        return States(mazes, self.observations[chosen], self.moves[chosen])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of states alike in level, mouse, facing and background; only the cheese differs.

    Attributes:
        base: with the level's own cheese.
        source: with the cheese elsewhere, or none: what an interchange intervention patches in.
        levels: the level of each pair.
    """

    base: States
    source: States
    levels: Int[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.levels)

    def select(self, chosen: Bool[np.ndarray, "n"]) -> "Pairs":
        """Return the pairs where ``chosen`` is true."""
        return Pairs(self.base.select(chosen), self.source.select(chosen), self.levels[chosen])


def counterfactual_pairs(
    levels: Sequence[int],
    *,
    pairs_per_level: int = 4,
    source: CheeseSource = "moved",
    moves_differ: bool = True,
    mode: str = "easy",
    seed: int = 0,
    progress: bool = False,
) -> Pairs:
    """Make pairs of states that differ in the cheese alone (`envs.pairs.cheese_counterfactuals`).

    Args:
        levels: seeds of the levels.
        pairs_per_level: how many of each.
        source: where the other cheese is, or that there is none.
        moves_differ: keep only pairs for which the expert's moves differ, so that the cheese
            matters; without a cheese there is no move, and all pairs differ.
        mode: distribution mode of the levels.
        seed: of the choices.
        progress: show a progress bar.

    Raises:
        ValueError: an argument is not accepted; the message says what is.
    """
    seeds = _level_seeds(levels)
    if pairs_per_level < 1:
        raise ValueError(f"pairs_per_level must be at least 1, got {pairs_per_level}")
    random = np.random.default_rng(seed)
    pairs = [
        pair
        for level in tqdm(seeds, "pairs", disable=not progress)
        for pair in cheese_counterfactuals(
            Maze.from_seed(int(level), mode),
            pairs_per_level,
            random,
            source=source,
            moves_differ=moves_differ,
        )
    ]
    base, other, base_moves, other_moves = zip(*pairs, strict=True)
    observations = observe([*base, *other])
    return Pairs(
        _states(base, base_moves, observations[: len(base)]),
        _states(other, other_moves, observations[len(base) :]),
        np.repeat(seeds, pairs_per_level),
    )


def _states(
    mazes: Sequence[Maze], moves: Sequence[int], observations: UInt8[np.ndarray, "n 3 64 64"]
) -> States:
    return States(tuple(mazes), observations, np.array(moves, np.int8))


def _edited(start: Maze, rng: np.random.Generator) -> Maze:
    free = start.free_cells()
    chance = rng.random()
    if chance < CHEESE_ABSENT:
        maze = start.with_cheese()
    elif chance < CHEESE_ABSENT + CHEESE_MOVED:
        maze = start.with_cheese(_pick(free, rng))
    else:
        maze = start
    mouse = _pick([cell for cell in free if cell not in maze.cheese], rng)
    return maze.with_mouse(mouse).with_facing(_pick(_FACINGS, rng))


def _visited(
    agent: Agent, starts: Sequence[Maze], n: int, rng: np.random.Generator, progress: bool
) -> list[Maze]:
    """Play each level, and return n of the states passed in each."""
    if n == 0:
        return []
    times = [set(rng.choice(HORIZON, n, replace=False).tolist()) for _ in starts]
    found: list[list[Maze]] = [[] for _ in starts]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    raw = [start.to_bytes() for start in starts]
    simulator = Simulator("maze", len(starts), mode=starts[0].mode)
    try:
        simulator.set_states(raw)
        frame = simulator.observe()
        for time in tqdm(range(HORIZON), "play", disable=not progress):
            if time:
                images = frame.images.copy().transpose(0, 3, 1, 2)
                actions, _ = agent.predict(images, generator=generator)
                simulator.act(actions.astype(np.int32))
                frame = simulator.observe()
                if ended := np.flatnonzero(frame.first).tolist():
                    simulator.set_states([raw[index] for index in ended], ended)
                    frame = simulator.observe()
            due = [index for index, at in enumerate(times) if time in at]
            for index, state in zip(due, simulator.get_states(due), strict=True):
                seen = Maze.from_bytes(state)
                found[index].append(starts[index].with_mouse(seen.mouse).with_facing(seen.facing))
    finally:
        simulator.close()
    return [maze for mazes in found for maze in mazes]


def _activations(
    agent: Agent, observations: np.ndarray, layers: list[str], progress: bool
) -> dict[str, np.ndarray]:
    parts = []
    for start in tqdm(range(0, len(observations), _BATCH), "activations", disable=not progress):
        parts.append(agent.activations(observations[start : start + _BATCH], layers))
    return {name: np.concatenate([part[name].cpu().numpy() for part in parts]) for name in layers}


def _level_seeds(levels: Sequence[int]) -> Int[np.ndarray, "levels"]:
    seeds = np.asarray(levels)
    if seeds.ndim != 1 or not len(seeds) or seeds.dtype.kind not in "iu":
        raise ValueError(f"expected a list of level seeds, got {levels!r}")
    if len(np.unique(seeds)) != len(seeds):
        raise ValueError("a level is listed twice")
    return seeds.astype(np.int64)


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[rng.integers(len(choices))]
