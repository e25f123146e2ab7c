"""Playing levels and keeping score: one row a level, with intervals by level."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.checks import likeliest, undecided
from rlbilinear.envs import (
    ACTIONS_OF_MOVE,
    NUM_ACTIONS,
    Heist,
    Maze,
    Move,
    ProcgenVecEnv,
    level_state,
    shortest_path,
    unplayable,
)
from rlbilinear.envs.games import check_game, check_level_seed, check_mode, is_whole
from rlbilinear.envs.heist_guide import expert_steps

Policy = Callable[[UInt8[np.ndarray, "batch 3 64 64"]], Float[Tensor, "batch actions"]]
"""From observations to action logits: `Agent.logits` is one, and so are the baselines."""

METRICS = ("return", "success", "solved", "steps")


def uniform_actions(observations: UInt8[np.ndarray, "batch 3 64 64"]) -> Float[Tensor, "batch 15"]:
    """Baseline: every action equally likely."""
    return torch.zeros(len(observations), NUM_ACTIONS)


def uniform_moves(observations: UInt8[np.ndarray, "batch 3 64 64"]) -> Float[Tensor, "batch 15"]:
    """Baseline: left, down, up and right equally likely, nothing else."""
    logits = torch.full((len(observations), NUM_ACTIONS), -torch.inf)
    moves = (Move.LEFT, Move.DOWN, Move.UP, Move.RIGHT)
    logits[:, [ACTIONS_OF_MOVE[move][0] for move in moves]] = 0.0
    return logits


BASELINES: dict[str, Policy] = {
    "uniform over 15 actions": uniform_actions,
    "uniform over 4 moves": uniform_moves,
}


def evaluate(
    agent: AgentLike | Policy,
    levels: Iterable[int],
    *,
    game: str | None = None,
    mode: str = "easy",
    greedy: bool = False,
    seed: int = 0,
    episodes: int = 1,
    skip_unplayable: bool = False,
    chunk: int = 128,
    progress: bool = True,
    not_finite: Literal["raise", "count"] = "raise",
) -> pd.DataFrame:
    """Play each level exactly so many times.

    A level is what the simulator begins with ``num_levels=1, start_level=level``. An episode's
    random choices come from ``(seed, level, episode)`` alone, by the Gumbel-max trick: two agents
    on the same level share them, whatever else is played beside it, and choose the same action
    wherever their policies are the same.

    Args:
        agent: an agent, also by its name, or any function from observations to logits.
        levels: level seeds, each once.
        game: the agent's own when None; must be given for a function.
        mode: the game's distribution mode.
        greedy: take the most likely action instead of sampling.
        seed: seed of the sampling.
        episodes: how many of each level. Chances of the game are its seed's: greedy episodes of a
            level are all alike.
        skip_unplayable: leave out levels that are over at the first step, without a reward,
            whatever one does (`rlbilinear.envs.unplayable`): the same for all agents.
        chunk: how many episodes are played side by side; bounds memory.
        progress: show a bar.
        not_finite: what becomes of an episode in which the agent's logits are not finite, so that
            there is no action: ``raise`` ends all with an error; ``count`` ends the episode there,
            without success, and says so in a column ``not_finite``.

    Returns:
        A row an episode, level by level in the order given: ``level``, ``episode`` (from 0),
        ``return``, ``steps``, ``success`` (the game counts the level as completed within its step
        limit), for mazes and heists ``shortest`` (the expert's steps to cheese or gem) and
        ``solved`` (success within 2 x shortest + 10 steps, a harder test: aimless walks succeed
        too), and ``unplayable``.

    Raises:
        ValueError: no levels, a level twice, one that is not a level seed, an unknown game or mode,
            a policy that does not score the game's 15 actions, or another argument that is not
            accepted; the choices are listed.
        FloatingPointError: an agent's logits are not finite, with the layer where that begins.
    """
    if isinstance(agent, str | Path):
        agent = as_agent(agent)
    if not isinstance(agent, Agent) and not callable(agent):
        raise ValueError(
            f"expected an Agent or a function from observations to logits, got {agent!r}"
        )
    if not_finite not in ("raise", "count"):
        raise ValueError(f"unknown not_finite={not_finite!r}; choose from raise, count")
    policy: Policy
    remember = isinstance(agent, Agent)  # any other function may not be the same every time
    if isinstance(agent, Agent):
        policy = agent.logits if not_finite == "raise" else partial(_logits_or_nan, agent)
    else:
        policy = agent
    if game is None:
        if not isinstance(agent, Agent):
            raise ValueError("a policy that is not an Agent needs game=")
        game = agent.config.game
    check_game(game)
    check_mode(game, mode)
    for name, value, least in (("seed", seed, 0), ("episodes", episodes, 1), ("chunk", chunk, 1)):
        if not is_whole(value) or value < least:
            raise ValueError(f"{name} must be an integer from {least} on, got {value!r}")
    seeds = _distinct(levels)
    lost = dict(zip(seeds, unplayable(game, seeds, mode).tolist(), strict=True))
    if skip_unplayable:
        seeds = [level for level in seeds if not lost[level]]
        if not seeds:
            raise ValueError(f"all levels are unplayable and left out: {list(lost)[:10]}")
    planned = [Episode(level, number, lost[level]) for level in seeds for number in range(episodes)]
    env = ProcgenVecEnv(game, min(chunk, len(planned)), mode=mode)
    try:
        with tqdm(total=len(planned), desc=f"{game} levels", disable=not progress) as bar:
            for first in range(0, len(planned), env.num_envs):
                some = planned[first : first + env.num_envs]
                own = _Remembering(policy) if remember else policy
                _play(env, own, some, greedy, seed, bar, not_finite == "count")
    finally:
        env.close()
    table = pd.DataFrame([episode.as_dict() for episode in planned])
    return table if not_finite == "raise" else table.assign(not_finite=[e.broken for e in planned])


def _distinct(levels: Iterable[int]) -> list[int]:
    """Return different level seeds, at least one; raise ValueError for anything else."""
    if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
        raise ValueError(f"levels are level seeds, such as range(100); got {levels!r}")
    seeds = [check_level_seed(level) for level in levels]
    twice = next((level for level, count in Counter(seeds).items() if count > 1), None)
    if not seeds or twice is not None:
        got = "none" if twice is None else f"{twice} twice (episodes= plays each several times)"
        raise ValueError(f"expected different levels, at least one; got {got}")
    return seeds


def by_level(results: pd.DataFrame) -> pd.DataFrame:
    """Return a row a level, of the results of `evaluate`.

    Returns:
        ``level``, ``episodes`` (how many were played), the means of the metrics over them, and
        ``unplayable``.
    """
    levels = results.groupby("level", sort=False)
    means = levels[[name for name in METRICS if name in results]].mean().astype(float)
    means.insert(0, "episodes", levels.size())
    return means.assign(unplayable=levels["unplayable"].first()).reset_index()


def summary(
    results: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return the mean of each metric with its percentile bootstrap interval, levels resampled.

    Args:
        results: from `evaluate`.
        confidence: confidence level of the interval.
        resamples: how many.
        seed: seed of the resampling.

    Returns:
        One row a metric (``return``, ``success``, ``solved`` for mazes and heists, ``steps``), with
        columns ``mean``, ``low``, ``high``, and the numbers of ``levels``, of ``episodes`` and of
        ``unplayable`` levels.
    """
    levels = by_level(results)
    values = levels[[name for name in METRICS if name in levels]]
    count = len(values)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    means = np.stack([values.to_numpy()[rows].mean(0) for rows in drawn])
    tail = (1 - confidence) / 2
    return pd.DataFrame(
        {
            "mean": values.mean(),
            "low": np.quantile(means, tail, axis=0),
            "high": np.quantile(means, 1 - tail, axis=0),
            "levels": count,
            "episodes": len(results),
            "unplayable": int(levels["unplayable"].sum()),
        }
    )


@dataclass
class Episode:
    """An episode so far."""

    level: int
    number: int
    unplayable: bool
    shortest: int | None = None
    reward: float = 0.0
    steps: int = 0
    success: bool = False
    broken: bool = False

    def as_dict(self) -> dict[str, float | int | bool]:
        """Return the table's row."""
        row: dict[str, float | int | bool] = {
            "level": self.level,
            "episode": self.number,
            "return": self.reward,
            "steps": self.steps,
            "success": self.success,
        }
        if self.shortest is not None:
            row["shortest"] = self.shortest
            row["solved"] = self.success and self.steps <= 2 * self.shortest + 10
        row["unplayable"] = self.unplayable
        return row


def start_levels(env: ProcgenVecEnv, levels: Sequence[int]) -> UInt8[np.ndarray, "envs 3 64 64"]:
    """Put each environment at the start of a level, and return the observations.

    Raises:
        ValueError: not one level for each environment, or one that is not a level seed.
    """
    if len(levels) != env.num_envs:
        raise ValueError(f"got {len(levels)} levels for {env.num_envs} environments")
    env.set_states([level_state(env.env_name, at, env.mode, **env.options) for at in levels])
    return env.observe()


def _play(
    env: ProcgenVecEnv,
    policy: Policy,
    episodes: Sequence[Episode],
    greedy: bool,
    seed: int,
    bar: tqdm,
    count_broken: bool,
) -> None:
    """Play these episodes side by side, one in each environment, and note how they end."""
    spare = env.num_envs - len(episodes)
    levels = [episode.level for episode in episodes]
    observations = start_levels(env, levels + levels[:1] * spare)
    for episode, steps in zip(episodes, _shortest(env, len(episodes)), strict=True):
        episode.shortest = steps
    noise = [np.random.default_rng([seed, each.level, each.number]) for each in episodes]
    actions = np.zeros(env.num_envs, np.int64)
    playing = list(range(len(episodes)))
    while playing:
        scores = policy(observations[playing]).cpu()
        if scores.shape != (len(playing), NUM_ACTIONS):
            shape = tuple(scores.shape)
            raise ValueError(f"expected scores of {NUM_ACTIONS} actions, got shape {shape}")
        if count_broken:
            broken = undecided(scores)
            for index in np.array(playing)[broken.numpy()]:
                episodes[index].broken = True
            bar.update(int(broken.sum()))
            scores, playing = scores[~broken], [i for i in playing if not episodes[i].broken]
            if not playing:
                break
        if not greedy:
            drawn = np.stack([noise[i].gumbel(size=NUM_ACTIONS) for i in playing])
            scores = scores + torch.from_numpy(drawn)
        actions[playing] = likeliest(scores).numpy()
        shown, rewards, dones, infos = env.step(actions)
        observations = np.asarray(shown)
        for index in playing:
            episodes[index].reward += float(rewards[index])
            episodes[index].steps += 1
            if dones[index]:
                episodes[index].success = infos[index]["prev_level_complete"]
                bar.update()
        playing = [index for index in playing if not dones[index]]


class _Remembering:
    """A policy that is asked once about each picture: lost mice see the same ones again.

    Pictures are known by a digest, so that little memory is needed.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._found: dict[bytes, Float[Tensor, "actions"]] = {}

    def __call__(
        self, observations: UInt8[np.ndarray, "batch 3 64 64"]
    ) -> Float[Tensor, "batch actions"]:
        keys = [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in observations]
        new = {key: at for at, key in enumerate(keys) if key not in self._found}
        if new:
            self._found |= zip(new, self._policy(observations[[*new.values()]]).cpu(), strict=True)
        return torch.stack([self._found[key] for key in keys])


def _logits_or_nan(
    agent: Agent, observations: UInt8[np.ndarray, "batch 3 64 64"]
) -> Float[Tensor, "batch actions"]:
    """Return logits, NaN for those that are not finite: of an agent minus infinity is none too."""
    logits = agent.logits(observations, check_finite=False)
    return logits.masked_fill(~logits.isfinite(), torch.nan)


def _shortest(env: ProcgenVecEnv, number: int) -> Sequence[int | None]:
    """Return the expert's steps to the end of the first levels; None where it does not play."""
    states = env.get_states(range(number))
    if env.env_name == "maze":
        mazes = [Maze.from_bytes(state) for state in states]
        return [len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1 for maze in mazes]
    if env.env_name == "heist":
        return expert_steps([Heist.from_bytes(state) for state in states]).tolist()
    return [None] * number
