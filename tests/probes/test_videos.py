from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.envs import ACTIONS_OF_MOVE, Maze, expert_moves, shortest_path
from rlbilinear.envs.render import human_view, observe
from rlbilinear.probes.videos import side_by_side


class Scripted(NamedTuple):
    """Takes these actions one after the other, whatever it sees."""

    actions: list[int]
    seen: list[np.ndarray]

    def logits(self, observations):
        self.seen.append(observations[0].copy())
        logits = torch.full((1, 15), -1e9)
        logits[0, self.actions[min(len(self.seen), len(self.actions)) - 1]] = 0.0
        return logits


class Uniform(NamedTuple):
    def logits(self, observations):
        return torch.zeros(len(observations), 15)


def expert(maze):
    moves = expert_moves(maze, maze.cheese[0])
    path = shortest_path(maze, maze.mouse, maze.cheese[0])
    return path, [ACTIONS_OF_MOVE[moves[cell]][0] for cell in path[:-1]]


def test_each_agent_plays_from_the_maze_in_the_simulator():
    maze = Maze.from_seed(3)
    path, actions = expert(maze)
    guided, still = Scripted(actions, []), Scripted([4], [])
    frames = side_by_side(maze, {"guided": guided, "still": still}, steps=len(actions) + 5)
    assert frames.shape == (len(actions) + 6, 3, 300, 520) and frames.dtype == np.uint8
    np.testing.assert_array_equal(guided.seen[0], observe([maze])[0])
    facing = {cell: "left" for cell in path}
    for before, after in pairwise(path):
        turned = {1: "right", -1: "left"}.get(after.column - before.column, facing[before])
        facing[after] = turned
    for step in (0, 1, len(actions) - 1):
        at = maze.with_mouse(path[step]).with_facing(facing[path[step]])
        expected = human_view(at).reshape(256, 2, 256, 2, 3).mean((1, 3)).transpose(2, 0, 1)
        np.testing.assert_allclose(frames[step, :, 44:, :256], expected, atol=1)
    np.testing.assert_array_equal(frames[0, :, 44:, :256], frames[0, :, 44:, 264:])
    np.testing.assert_array_equal(frames[-1, :, 44:, :256], frames[len(actions) - 1, :, 44:, :256])


def test_the_video_ends_when_all_are_done_and_says_when():
    maze = Maze.from_seed(3)
    _, actions = expert(maze)
    one = side_by_side(maze, {"a": Scripted(actions, [])}, steps=200)
    assert len(one) == len(actions) + 1
    assert (one[-1, :, :44] != one[-2, :, :44]).any()


def test_noise_is_that_of_the_evaluation():
    level = next(seed for seed in range(200) if Maze.from_seed(seed).maze_dim == 3)
    played = evaluate(Uniform().logits, [level], game="maze", seed=7, progress=False)
    steps = int(played["steps"][0])
    frames = side_by_side(Maze.from_seed(level), {"uniform": Uniform()}, steps=500, seed=7)
    assert len(frames) == steps + 1 < 500


def test_equal_agents_and_equal_seeds_give_equal_pictures():
    agent, maze = Agent.new("bimpala-compact"), Maze.from_seed(6)
    first = side_by_side(maze, {"a": agent, "b": agent}, steps=8, seed=1)
    np.testing.assert_array_equal(first[:, :, 44:, :256], first[:, :, 44:, 264:])
    again = side_by_side(maze, {"a": agent, "b": agent}, steps=8, seed=1)
    np.testing.assert_array_equal(first, again)


def test_nothing_to_play_is_refused():
    with pytest.raises(ValueError, match="expected agents and steps"):
        side_by_side(Maze.from_seed(3), {})
    with pytest.raises(ValueError, match="expected agents and steps"):
        side_by_side(Maze.from_seed(3), {"a": Uniform()}, steps=0)
