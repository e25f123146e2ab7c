import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import steer
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.envs import ACTIONS_OF_MOVE, Cell, Maze, Move, ProcgenVecEnv
from rlbilinear.probes.behaviour import (
    Field,
    compare_fields,
    decision,
    field,
    fields,
    follow,
    paired_rollouts,
    reach,
    reach_grid,
    toward,
    toward_cheese,
    vector_field,
)
from rlbilinear.probes.interventions import Add, Intervention
from rlbilinear.probes.moves import move_probabilities

LEFT, DOWN, UP, RIGHT, STAY = Move
START, FORK, CHEESE, CORNER = Cell(1, 1), Cell(1, 3), Cell(1, 5), Cell(3, 4)


@pytest.fixture
def maze():
    """A corridor to the cheese on the right, and at the fork a way up to the corner."""
    grid = np.full((7, 7), 51)
    for row, column in [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (3, 3), (3, 4)]:
        grid[row, column] = 100
    return Maze.from_array(grid, START, CHEESE)


def made_up(maze, policy=None, default=(0.2, 0.2, 0.2, 0.2, 0.2)):
    cells = tuple(cell for cell in maze.free_cells() if cell not in maze.cheese)
    probabilities = np.array([(policy or {}).get(cell, default) for cell in cells], float)
    with np.errstate(divide="ignore"):
        return Field(maze, cells, np.log(probabilities), np.arange(len(cells), dtype=float))


@pytest.fixture(scope="module")
def agent():
    small = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)
    torch.manual_seed(0)
    return small.with_layer("action_net", torch.nn.Linear(8, 15))


def constant(move):
    """An agent that makes one move nearly always."""
    head = torch.nn.Linear(8, 15)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[ACTIONS_OF_MOVE[move][0]] = 20.0
    small = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)
    return small.with_layer("action_net", head)


# --- fields, from the real simulator


def test_a_field_is_what_the_agent_does_in_the_simulator(agent):
    mazes = [Maze.from_seed(seed) for seed in (3, 4)]
    env = ProcgenVecEnv("maze", 1)
    for one, maze in zip(fields(agent, mazes), mazes, strict=True):
        assert set(one.cells) == set(maze.free_cells()) - set(maze.cheese)
        for index in (0, len(one.cells) // 2, len(one.cells) - 1):
            env.set_states([maze.with_mouse(one.cells[index]).to_bytes()])
            seen = env.observe()
            assert np.allclose(one.probabilities[index], move_probabilities(agent, seen), atol=1e-6)
            value = agent.activations(seen, ["value_net"])["value_net"]
            assert one.values[index] == pytest.approx(value.item(), abs=1e-5)
    env.close()


def test_a_field_under_an_intervention_is_that_of_the_edited_agent(agent):
    maze, bias = Maze.from_seed(3), torch.randn(4, 16, 16)
    hooked = field(agent, maze, [Intervention("pool1", Add(bias))])
    edited = field(steer(agent, "pool1", bias), maze)
    assert np.allclose(hooked.probabilities, edited.probabilities, atol=1e-6)
    assert compare_fields(field(agent, maze), edited)["total_variation"].mean() > 0.01


def test_a_field_as_grid_and_as_table(maze):
    one = made_up(maze)
    grid = one.grid(one.values)
    assert grid.shape == (7, 7) and np.isfinite(grid).sum() == 7
    assert np.isnan(grid[CHEESE]) and np.isnan(grid[0, 0])
    table = one.table().set_index(["row", "column"])
    assert all(table.loc[cell, "value"] == grid[cell] for cell in one.cells)
    assert list(table.columns) == ["left", "down", "up", "right", "stay", "value"]
    with pytest.raises(ValueError, match="3 values for 7 cells"):
        one.grid(np.zeros(3))


# --- measures, by hand


def test_vector_field_points_up_and_right(maze):
    arrows = vector_field(made_up(maze, {FORK: (0.1, 0, 0.3, 0.5, 0.1)}))
    assert np.allclose(arrows[FORK], [0.3, 0.4])
    assert np.allclose(arrows[START], 0)
    assert np.isnan(arrows[CHEESE]).all()


def test_toward_cheese_and_decision(maze):
    one = made_up(maze, {FORK: (0.1, 0, 0.3, 0.5, 0.1), Cell(2, 3): (0, 0.7, 0.3, 0, 0)})
    found = dict(zip(one.cells, toward_cheese(one), strict=True))
    assert [found[cell] for cell in (FORK, Cell(2, 3), START)] == pytest.approx([0.5, 0.7, 0.2])
    assert dict(zip(one.cells, toward(one, CORNER), strict=True))[FORK] == pytest.approx(0.3)
    square, *both = decision(one)
    assert square == FORK and both == pytest.approx([0.5, 0.3])
    assert decision(made_up(maze.with_mouse(CORNER))) is None
    with pytest.raises(ValueError, match="one cheese, got 0"):
        toward_cheese(made_up(maze.with_cheese()))


def test_reach_is_the_geometric_mean_along_the_way(maze):
    one = made_up(maze, {START: (0, 0, 0, 0.9, 0.1), Cell(1, 2): (0, 0, 0, 0.4, 0.6)})
    assert reach(one, START, Cell(1, 2)) == pytest.approx(0.9)
    assert reach(one, START, FORK) == pytest.approx((0.9 * 0.4) ** (1 / 2))
    assert reach(one, START, CHEESE) == pytest.approx((0.9 * 0.4 * 0.2 * 0.2) ** (1 / 4))
    grid = reach_grid(one)
    assert grid[START] == 1 and grid[CHEESE] == reach(one, START, CHEESE)
    assert np.isfinite(grid).sum() == len(maze.free_cells())
    blocked = made_up(maze, {FORK: (0, 0, 1, 0, 0)})
    assert reach(blocked, START, CHEESE) == 0


def test_following_a_way(maze):
    right = made_up(maze, default=(0, 0.1, 0.2, 0.6, 0.1))
    assert follow(right, START, CHEESE) == (4, 0.6, pytest.approx(0.6), True)
    assert follow(right, START, CORNER) == (5, 0.6, pytest.approx((0.6**3 * 0.2**2) ** 0.2), False)
    assert follow(right, START, START)[0] == 0 and follow(right, START, START).sent


def test_no_way_leads_over_a_cheese(maze):
    right = made_up(maze.with_cheese(Cell(1, 4)), default=(0, 0, 0, 1, 0))
    assert follow(right, START, Cell(1, 4)).sent
    assert follow(right, START, CHEESE) == (4, 1.0, 0.0, False)


def test_comparison_by_hand(maze):
    before = made_up(maze, default=(0.5, 0.5, 0, 0, 0))
    after = made_up(maze, {START: (0.25, 0.5, 0.25, 0, 0)}, default=(0.5, 0.5, 0, 0, 0))
    table = compare_fields(before, after).set_index(["row", "column"])
    assert table.loc[START, "kl"] == pytest.approx(0.5 * np.log(2))
    assert table["kl"].sum() == pytest.approx(0.5 * np.log(2))
    assert table.loc[START, "total_variation"] == 0.25
    assert not table["value_change"].any()
    with pytest.raises(ValueError, match="different mazes"):
        compare_fields(before, made_up(maze.with_cheese()))


# --- play


def test_rollouts_are_paired_by_level_and_noise(agent):
    agents = {"original": agent, "same": agent, "right": constant(RIGHT)}
    table = paired_rollouts(agents, [5, 6, 8], seed=2)
    assert list(table["agent"]) == ["original"] * 3 + ["same"] * 3 + ["right"] * 3
    rows = {name: one.drop(columns="agent") for name, one in table.groupby("agent")}
    assert (rows["original"].to_numpy() == rows["same"].to_numpy()).all()
    assert (rows["original"]["level"].to_numpy() == rows["right"]["level"].to_numpy()).all()
    alone = evaluate(agent, [5, 6, 8], seed=2, progress=False)
    assert (alone["steps"].to_numpy() == rows["original"]["steps"].to_numpy()).all()
    with pytest.raises(ValueError, match="at least one agent"):
        paired_rollouts({}, [1])


def test_who_is_sent_gets_there(maze):
    """`sent`, read off a field, is what the simulator does with the most likely moves."""
    assert follow(field(constant(RIGHT), maze), START, CHEESE).sent
    assert not follow(field(constant(UP), maze), START, CHEESE).sent
    env = ProcgenVecEnv("maze", 2)
    env.set_states([maze.to_bytes()] * 2)
    observations = env.observe()
    done = np.zeros(2, bool)
    for _ in range(4):
        actions = [
            constant(move).predict(observations[i], deterministic=True)[0]
            for i, move in enumerate((RIGHT, UP))
        ]
        observations, _, now, _ = env.step(np.array(actions))
        done |= now
    env.close()
    assert done.tolist() == [True, False]
