import numpy as np
import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.evaluation import (
    BASELINES,
    evaluate,
    start_levels,
    summary,
    uniform_actions,
    uniform_moves,
)
from rlbilinear.envs import Maze, ProcgenVecEnv, expert_moves, shortest_path

LEVELS = range(1_000, 1_016)


@pytest.mark.parametrize("game", ["maze", "heist", "coinrun", "starpilot"])
def test_start_levels_shows_what_a_simulator_of_that_level_shows(game):
    env = ProcgenVecEnv(game, 3, seed=5)
    levels = [777, 12, 777]
    observations = start_levels(env, levels)
    for level, observation in zip(levels, observations, strict=True):
        alone = ProcgenVecEnv(game, 1, num_levels=1, start_level=level)
        assert np.array_equal(alone.reset()[0], observation)
        alone.close()
    env.close()


def test_mazes_are_those_of_their_seeds():
    frame = evaluate(uniform_moves, range(20), game="maze", progress=False)
    for row in frame.itertuples():
        maze = Maze.from_seed(row.level)
        assert row.shortest == len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1
    assert (frame["steps"] >= frame["shortest"])[frame["success"]].all()
    assert ((frame["return"] == 10) == frame["success"]).all()
    assert (frame["steps"][~frame["success"]] == 500).all()
    solved = frame["success"] & (frame["steps"] <= 2 * frame["shortest"] + 10)
    assert (frame["solved"] == solved).all()


def test_the_shortest_path_expert_solves_every_maze_in_the_shortest_way():
    policy = ExpertPolicy(LEVELS)
    frame = evaluate(policy, LEVELS, game="maze", greedy=True, chunk=16, progress=False)
    assert frame["level"].tolist() == list(LEVELS)
    assert frame["solved"].all()
    assert (frame["steps"] == frame["shortest"]).all()


class ExpertPolicy:
    """Finds the state by its picture: knows the way from every cell of its levels."""

    def __init__(self, levels):
        self.moves = {}
        for level in levels:
            maze = Maze.from_seed(level)
            env = ProcgenVecEnv("maze", len(maze.free_cells()))
            cells = maze.free_cells()
            way = expert_moves(maze, maze.cheese[0])
            for facing in ("left", "right"):
                states = [maze.with_mouse(cell).with_facing(facing).to_bytes() for cell in cells]
                env.set_states(states)
                for cell, picture in zip(cells, env.observe(), strict=True):
                    self.moves[picture.tobytes()] = way[cell]
            env.close()

    def __call__(self, observations):
        action = {0: 1, 1: 3, 2: 5, 3: 7}
        logits = torch.zeros(len(observations), 15)
        for row, picture in enumerate(observations):
            logits[row, action[int(self.moves[picture.tobytes()])]] = 1.0
        return logits


def test_results_do_not_depend_on_what_is_played_beside():
    wide = evaluate(uniform_actions, LEVELS, game="maze", chunk=16, progress=False)
    narrow = evaluate(uniform_actions, LEVELS, game="maze", chunk=7, progress=False)
    pd.testing.assert_frame_equal(wide, narrow)
    part = evaluate(uniform_actions, list(LEVELS)[5:8], game="maze", progress=False)
    pd.testing.assert_frame_equal(wide.iloc[5:8].reset_index(drop=True), part)
    other = evaluate(uniform_actions, LEVELS, game="maze", seed=1, progress=False)
    assert not (other["steps"] == wide["steps"]).all()


def test_baselines_reach_the_published_returns():
    expected = {"uniform over 15 actions": 3.9, "uniform over 4 moves": 5.6}
    for name, policy in BASELINES.items():
        frame = evaluate(policy, range(10_000, 10_120), game="maze", progress=False)
        table = summary(frame)
        low, high = table.loc["return", ["low", "high"]]
        assert low < expected[name] < high
        assert table.loc["solved", "mean"] < table.loc["success", "mean"]


def test_agents_play_sampled_and_greedy():
    agent = Agent.new("impala-compact", game="leaper")
    sampled = evaluate(agent, range(2), progress=False)
    assert list(sampled.columns) == ["level", "return", "steps", "success"]
    assert ((sampled["return"] > 0) == sampled["success"]).all()
    greedy = [evaluate(agent, range(1), greedy=True, seed=s, progress=False) for s in (0, 1)]
    pd.testing.assert_frame_equal(*greedy)


def test_summary_interval_is_the_means():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"return": random.normal(3, 2, 400), "success": random.random(400) < 0.5})
    table = summary(frame)
    assert table.loc["return", "mean"] == pytest.approx(frame["return"].mean())
    half = 1.96 * frame["return"].std() / 20
    width = (table.loc["return", "high"] - table.loc["return", "low"]) / 2
    assert width == pytest.approx(half, rel=0.1)
    assert (table["levels"] == 400).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="different levels"):
        evaluate(uniform_actions, [1, 1], game="maze")
    with pytest.raises(ValueError, match="different levels"):
        evaluate(uniform_actions, [], game="maze")
    with pytest.raises(ValueError, match="needs game="):
        evaluate(uniform_actions, [1])
    with pytest.raises(ValueError, match=r"unknown game 'mazes'.*maze"):
        evaluate(uniform_actions, [1], game="mazes")
