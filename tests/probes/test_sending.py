"""Sending agents to cells, against the real simulator."""

import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import ACTIONS_OF_MOVE, Maze, Move, ProcgenVecEnv, observe, shortest_path
from rlbilinear.probes.moves import log_move_distribution
from rlbilinear.probes.sending import by_cheese, by_edit, errands, moved, send


@pytest.fixture(scope="module")
def agent():
    small = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 15)
    torch.nn.init.normal_(head.weight, std=0.1)
    with torch.no_grad():  # so that it wanders about
        head.bias[list(ACTIONS_OF_MOVE[Move.STAY])] = -5.0
    return small.with_layer("action_net", head)


@pytest.fixture(scope="module")
def env():
    made = ProcgenVecEnv("maze", 1)
    yield made
    made.close()


def read(env):
    return Maze.from_bytes(env.get_states([0])[0])


@pytest.mark.parametrize("facing", ["left", "right"])
def test_moves_are_the_simulators(env, facing):
    maze = Maze.from_seed(7).with_facing(facing)
    cells = [cell for cell in maze.free_cells() if cell not in maze.cheese]
    for cell in cells[::3]:
        for move in Move:
            start = maze.with_mouse(cell)
            expected = moved(start, move)
            if expected.mouse in maze.cheese:
                continue
            env.set_states([start.to_bytes()])
            env.step(np.array([ACTIONS_OF_MOVE[move][0]]))
            assert read(env) == expected


def test_errands_are_the_cells_before_the_cheese():
    maze = Maze.from_seed(3)
    way = shortest_path(maze, maze.mouse, maze.cheese[0])
    maze = maze.with_cheese(way[len(way) // 2])
    found = {errand.target: errand for errand in errands(maze)}
    for cell in maze.free_cells():
        path = shortest_path(maze, maze.mouse, cell)
        assert (cell in found) == (cell != maze.mouse and not {*path} & {*maze.cheese})
        assert cell not in found or found[cell].distance == len(path) - 1


def played(env, agent, errand, noise, start):
    """Play in the simulator; the same choices among moves."""
    env.set_states([start.to_bytes()])
    for step in range(2 * errand.distance + 10):
        at = read(env)
        scores = log_move_distribution(agent.logits(env.observe()))[0] + noise[step]
        expected = moved(at, Move(int(scores.argmax())))
        _, _, dones, _ = env.step(np.array([ACTIONS_OF_MOVE[Move(int(scores.argmax()))][0]]))
        if dones[0]:
            return step + 1, expected.mouse == errand.target
        if read(env).mouse == errand.target:
            return step + 1, True
    return step + 1, False


@pytest.mark.parametrize("greedy", [False, True])
def test_an_errand_is_an_episode_of_the_edited_agent_in_the_simulator(agent, env, greedy):
    """The bias is in the weights there; with the maze's own cheese, which ends episodes."""
    maze = Maze.from_seed(5)

    def bias(cell):
        return torch.randn(
            4, 16, 16, generator=torch.Generator().manual_seed(100 * cell.row + cell.column)
        )

    def edit(outputs, wanted):
        return outputs + torch.stack([bias(errand.target) for errand in wanted])

    table = send([maze], by_edit(agent, "pool1", edit), greedy=greedy, seed=3)
    todo = errands(maze)
    assert len(table) == len(todo)
    for row, errand in [*zip(table.itertuples(), todo, strict=True)][::4]:
        rng = np.random.default_rng([3, 5, *errand.target])
        noise = 0 * np.ones((200, 5)) if greedy else rng.gumbel(size=(row.distance * 2 + 10, 5))
        edited = steer(agent, "pool1", bias(errand.target))
        steps, reached = played(env, edited, errand, noise, maze)
        assert (row.steps, bool(row.reached)) == (steps, reached)
    assert (table["reached"].any() or greedy) and not table["reached"].all()


def test_a_real_cheese_is_eaten_where_it_is_put(agent, env):
    mazes = [Maze.from_seed(seed).with_cheese() for seed in (5, 13)]
    table = send(mazes, by_cheese(agent), seed=1)
    assert table["level"].unique().tolist() == [5, 13]
    for row, errand in [*zip(table.itertuples(), errands(mazes[0]), strict=False)][::7]:
        noise = np.random.default_rng([1, 5, *errand.target]).gumbel(size=(200, 5))
        shown = mazes[0].with_cheese(errand.target)
        assert (row.steps, bool(row.reached)) == played(env, agent, errand, noise, shown)


def test_mazes_need_their_levels_seed(agent):
    with pytest.raises(ValueError, match="one or more mazes, each with the seed"):
        send([], by_cheese(agent))


def test_outputs_that_are_not_finite_end_the_episode(agent):
    maze = Maze.from_seed(5)
    table = send([maze], by_edit(agent, "pool1", lambda rows, _: rows * torch.inf))
    assert (table["finite"] == 0).all() and (table["reached"] == 0).all()
    assert (table["steps"] == 0).all()
    plain = send([maze], by_edit(agent, "pool1", None))
    shown = observe([maze])
    assert (plain["finite"] == 1).all() and np.isfinite(agent.logits(shown)).all()
