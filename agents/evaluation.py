"""Playing levels and keeping score: one row a level, with intervals by level."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.finite import broken_rows, likeliest
from rlbilinear.envs import ACTIONS_OF_MOVE, NUM_ACTIONS, Maze, Move, ProcgenVecEnv, shortest_path
from rlbilinear.envs.state import parse

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
    agent: Agent | Policy,
    levels: Iterable[int],
    *,
    game: str | None = None,
    mode: str = "easy",
    greedy: bool = False,
    seed: int = 0,
    chunk: int = 128,
    progress: bool = True,
    not_finite: Literal["raise", "count"] = "raise",
) -> pd.DataFrame:
    """Play one episode on each level.

    A level's random choices come from ``(seed, level)`` alone, by the Gumbel-max trick: two agents
    on the same level share them, whatever else is played beside it, and choose the same action
    wherever their policies are the same.

    Args:
        agent: an agent, or any function from observations to logits.
        levels: level seeds, each once.
        game: the agent's own when None; must be given for a function.
        mode: the game's distribution mode.
        greedy: take the likeliest action instead of sampling.
        seed: of the sampling.
        chunk: how many levels are played side by side; bounds memory.
        progress: show a bar.
        not_finite: what becomes of an episode in which the agent's logits are not finite, so that
            there is no action: ``raise`` ends all with an error; ``count`` ends the episode there,
            without success, and says so in a column ``not_finite``.

    Returns:
        A row a level, in the order given: ``level``, ``return``, ``steps``, ``success`` (the game
        counts the level as completed within its step limit), and for mazes ``shortest`` (moves
        from start to cheese) and ``solved`` (success within 2 x shortest + 10 steps, a harder
        test: aimless walks succeed too).

    Raises:
        ValueError: no levels, a level twice, an unknown game or mode, of which the choices are
            listed, or a policy that does not score the game's 15 actions.
        FloatingPointError: an agent's logits are not finite, with the layer where that begins.
    """
    if not_finite not in ("raise", "count"):
        raise ValueError(f"unknown not_finite={not_finite!r}; choose from raise, count")
    seeds = [int(level) for level in levels]
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected different levels, at least one; got {seeds[:10]}")
    policy: Policy = agent
    if isinstance(agent, Agent):
        policy = agent.logits if not_finite == "raise" else partial(_logits_or_nan, agent)
    game = game or (agent.config.game if isinstance(agent, Agent) else None)
    if game is None:
        raise ValueError("a policy that is no Agent needs game=")
    env = ProcgenVecEnv(game, min(chunk, len(seeds)), mode=mode)
    rows: list[Row] = []
    try:
        with tqdm(total=len(seeds), desc=f"{game} levels", disable=not progress) as bar:
            for first in range(0, len(seeds), env.num_envs):
                part = seeds[first : first + env.num_envs]
                rows += _play(env, policy, part, greedy, seed, bar, not_finite == "count")
    finally:
        env.close()
    table = pd.DataFrame([row.as_dict() for row in rows])
    return table if not_finite == "raise" else table.assign(not_finite=[r.broken for r in rows])


def summary(
    results: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return the mean of each metric with its percentile bootstrap interval, levels resampled.

    Args:
        results: from `evaluate`.
        confidence: of the interval.
        resamples: how many.
        seed: of the resampling.

    Returns:
        One row a metric (``return``, ``success``, ``solved`` for mazes, ``steps``), with columns
        ``mean``, ``low``, ``high`` and ``levels``.
    """
    values = results[[name for name in METRICS if name in results]].astype(float)
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
        }
    )


@dataclass
class Row:
    """An episode so far."""

    level: int
    shortest: int | None
    reward: float = 0.0
    steps: int = 0
    success: bool = False
    broken: bool = False

    def as_dict(self) -> dict[str, float | int | bool]:
        """Return the table's row."""
        row: dict[str, float | int | bool] = {
            "level": self.level,
            "return": self.reward,
            "steps": self.steps,
            "success": self.success,
        }
        if self.shortest is not None:
            row["shortest"] = self.shortest
            row["solved"] = self.success and self.steps <= 2 * self.shortest + 10
        return row


def start_levels(env: ProcgenVecEnv, levels: Sequence[int]) -> UInt8[np.ndarray, "envs 3 64 64"]:
    """Put each environment at the start of a level, and return the observations.

    The level range in each state is narrowed to one level, then all are told to start anew.

    Raises:
        ValueError: not one level for each environment.
    """
    if len(levels) != env.num_envs:
        raise ValueError(f"got {len(levels)} levels for {env.num_envs} environments")
    state = parse(env.get_states([0])[0])
    narrowed = (
        state.options._replace(level_seed_low=level, level_seed_high=level + 1) for level in levels
    )
    env.set_states([state._replace(options=options).to_bytes() for options in narrowed])
    return np.asarray(env.step(np.full(env.num_envs, -1))[0])


def _play(
    env: ProcgenVecEnv,
    policy: Policy,
    levels: list[int],
    greedy: bool,
    seed: int,
    bar: tqdm,
    count_broken: bool,
) -> list[Row]:
    spare = env.num_envs - len(levels)
    observations = start_levels(env, levels + levels[:1] * spare)
    rows = [Row(level, _shortest(env, index)) for index, level in enumerate(levels)]
    noise = [np.random.default_rng([seed, level]) for level in levels]
    actions = np.zeros(env.num_envs, np.int64)
    playing = list(range(len(levels)))
    while playing:
        scores = policy(observations[playing]).cpu().numpy()
        if scores.shape != (len(playing), NUM_ACTIONS):
            raise ValueError(f"expected scores of {NUM_ACTIONS} actions, got shape {scores.shape}")
        if count_broken:
            broken = broken_rows(scores)
            for index in np.array(playing)[broken]:
                rows[index].broken = True
            bar.update(int(broken.sum()))
            scores, playing = scores[~broken], [i for i in playing if not rows[i].broken]
            if not playing:
                break
        if not greedy:
            scores = scores + np.stack([noise[i].gumbel(size=NUM_ACTIONS) for i in playing])
        actions[playing] = likeliest(scores)
        shown, rewards, dones, infos = env.step(actions)
        observations = np.asarray(shown)
        for index in playing:
            rows[index].reward += float(rewards[index])
            rows[index].steps += 1
            if dones[index]:
                rows[index].success = infos[index]["prev_level_complete"]
                bar.update()
        playing = [index for index in playing if not dones[index]]
    return rows


def _logits_or_nan(
    agent: Agent, observations: UInt8[np.ndarray, "batch 3 64 64"]
) -> Float[Tensor, "batch actions"]:
    """Return logits, NaN for those that are not finite: of an agent minus infinity is none too."""
    logits = agent.logits(observations, check_finite=False)
    return logits.masked_fill(~logits.isfinite(), torch.nan)


def _shortest(env: ProcgenVecEnv, index: int) -> int | None:
    if env.env_name != "maze":
        return None
    maze = Maze.from_bytes(env.get_states([index])[0])
    return len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1
