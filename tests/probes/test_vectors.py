"""Cheese and top-right vectors: identities that hold exactly, and what is refused."""

import numpy as np
import pytest
import torch

from rlbilinear.envs import (
    EVALUATION,
    Constraints,
    Maze,
    cheese_pair,
    decision_square,
    expert_moves,
    observe,
    sample_levels,
    top_right,
)
from rlbilinear.probes.curves import decision_points
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.vectors import contrast_vectors, decision_summary, decision_table

LAYER = "block1"


@pytest.fixture(scope="module")
def mazes():
    asked = Constraints(maze_dim=(5, 13), has_decision_square=True)
    levels = sample_levels(EVALUATION, 8, seed=0, constraints=asked)
    return {level: Maze.from_seed(level) for level in levels}


@pytest.fixture(scope="module")
def table(relu_agent, mazes):
    return decision_table(relu_agent, mazes, LAYER)


def of(table, condition):
    return table[table["condition"] == condition].reset_index(drop=True)


def test_a_vector_is_the_difference_of_the_outputs(relu_agent, mazes):
    pairs = [cheese_pair(maze) for maze in mazes.values()]
    vectors = contrast_vectors(relu_agent, LAYER, pairs)
    with_cheese, without = (
        relu_agent.activations(observe([pair[side] for pair in pairs]), [LAYER])[LAYER]
        for side in (0, 1)
    )
    torch.testing.assert_close(without + vectors, with_cheese)


def test_unchanged_conditions_are_the_policy_of_the_states(relu_agent, mazes, table):
    for condition, change in (
        ("as it is", lambda maze: maze),
        ("no cheese", lambda maze: maze.with_cheese()),
    ):
        placed = [maze.with_mouse(decision_square(maze)) for maze in mazes.values()]
        moves = move_probabilities(relu_agent, observe([change(maze) for maze in placed]))
        for row, maze in enumerate(placed):
            to_cheese = moves[row, expert_moves(maze, maze.cheese[0])[maze.mouse]]
            to_corner = moves[row, expert_moves(maze, top_right(maze))[maze.mouse]]
            found = of(table, condition).loc[row]
            assert found["towards_cheese"] == pytest.approx(to_cheese, abs=1e-5)
            assert found["towards_corner"] == pytest.approx(to_corner, abs=1e-5)
            assert found["elsewhere"] == pytest.approx(1 - to_cheese - to_corner, abs=1e-5)


def test_with_the_mouse_at_the_square_the_cheese_vector_removes_the_cheese(relu_agent, mazes):
    """The vector is then that of the very state that is asked about."""
    at_square = {level: maze.with_mouse(decision_square(maze)) for level, maze in mazes.items()}
    kept = {level: maze for level, maze in at_square.items() if decision_square(maze) == maze.mouse}
    assert len(kept) >= 5
    table = decision_table(relu_agent, kept, LAYER)
    columns = ["towards_cheese", "towards_corner"]
    without, minus = of(table, "no cheese")[columns], of(table, "minus cheese vector")[columns]
    np.testing.assert_allclose(minus, without, atol=2e-5)
    assert np.abs(without - of(table, "as it is")[columns]).to_numpy().max() > 1e-3


def test_a_coefficient_of_nothing_changes_nothing(relu_agent, mazes):
    table = decision_table(relu_agent, mazes, LAYER, coefficient=0.0)
    columns = ["towards_cheese", "towards_corner"]
    for condition in ("minus cheese vector", "plus top-right vector", "minus random vector"):
        np.testing.assert_allclose(
            of(table, condition)[columns], of(table, "as it is")[columns], atol=1e-5
        )


def test_summary_is_the_mean_and_is_drawn(table):
    summary = decision_summary(table, resamples=50)
    assert len(summary) == 2 * table["condition"].nunique()
    row = summary.iloc[0]
    assert row["probability"] == pytest.approx(of(table, "as it is")["towards_cheese"].mean())
    assert row["low"] <= row["probability"] <= row["high"] and row["levels"] == 8
    labels = [label.get_text() for label in decision_points(summary).axes[0].get_yticklabels()]
    assert labels[:3] == ["as it is", "no cheese", "minus cheese vector"]


def test_mazes_without_a_decision_are_refused(relu_agent, mazes):
    level, maze = next(iter(mazes.items()))

    def ask(other, layer=LAYER):
        return decision_table(relu_agent, {level: maze, 7: other}, layer)

    with pytest.raises(ValueError, match="level 7 has 0 cheeses"):
        ask(maze.with_cheese())
    with pytest.raises(ValueError, match="level 7 has no decision square"):
        ask(maze.with_cheese(top_right(maze)))
    full = sample_levels(
        EVALUATION, 1, seed=0, constraints=Constraints(maze_dim=(15, 15), has_decision_square=True)
    )
    with pytest.raises(ValueError, match="level 7 reaches the world's top right corner"):
        ask(Maze.from_seed(full[0]))
    with pytest.raises(ValueError, match="unknown layer 'block99'"):
        ask(maze, "block99")
    with pytest.raises(ValueError, match="two or more mazes, got 1"):
        decision_table(relu_agent, {level: maze}, LAYER)
