import numpy as np
import pytest

from rlbilinear.agents import load
from rlbilinear.envs import Maze, observe
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.probes.dataset import collect
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.next_moves import next_move_probes, next_moves


def walk(agent, maze, n):
    """The most likely moves, state by state, on mazes as values in place of the simulator."""
    taken = []
    for _ in range(n):
        move = Move(move_probabilities(agent, observe([maze]))[0].argmax())
        taken.append(int(move))
        up, right = STEP_OF_MOVE[move]
        cell = maze.mouse._replace(row=maze.mouse.row + up, column=maze.mouse.column + right)
        if cell in maze.cheese:
            return [*taken, *[NO_MOVE] * (n - len(taken))]
        if right:
            maze = maze.with_facing("right" if right > 0 else "left")
        if cell in maze.free_cells():
            maze = maze.with_mouse(cell)
    return taken


@pytest.fixture(scope="module")
def agent():
    return load("maze-bimpala-compact")


def test_as_walked_by_hand_on_mazes_as_values(agent):
    mazes = [Maze.from_seed(level) for level in range(12)]
    near = Maze.from_seed(0)
    beside = [c for c in near.free_cells() if abs(c.row - near.cheese[0].row)
              + abs(c.column - near.cheese[0].column) == 1]  # fmt: skip
    mazes += [near.with_mouse(cell) for cell in beside]
    found = next_moves(agent, mazes, 4)
    assert found.tolist() == [walk(agent, maze, 4) for maze in mazes]
    assert (found[-1] == NO_MOVE).any()  # the last one eats its cheese


def test_the_next_move_is_read_better_than_from_nothing(agent):
    data = collect(agent, range(60), ["dense"], ["cheese_presence"], states_per_level=4)
    test, fit = data.split(range(20))
    table = next_move_probes(agent, fit, test, 2).set_index("move")
    assert list(table.index) == [1, 2]
    assert table.loc[1, "low"] > max(table.loc[1, "commonest"], table.loc[1, "shuffled"])
    assert np.isfinite(table.select_dtypes("number")).all().all()


def test_refusals(agent):
    with pytest.raises(ValueError, match="n"):
        next_moves(agent, [Maze.from_seed(0)], 0)
    with pytest.raises(ValueError, match=r"expected mazes of one mode, got \[\]"):
        next_moves(agent, [], 1)
    data = collect(agent, range(2), ["dense"], ["cheese_presence"], states_per_level=2)
    with pytest.raises(ValueError, match=r"shared: \[0, 1\]"):
        next_move_probes(agent, data, data, 1)
