import re
from itertools import chain

import pytest

from rlbilinear.envs.levels import EVALUATION, FITTING, Levels, generate_maze, maze_dim_of
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.places import Region
from rlbilinear.envs.sampling import Constraints, sample_levels
from rlbilinear.envs.solver import decision_square, shortest_path


def in_top_right_5x5(maze):
    last = maze.size - 1 - maze.margin
    return min(maze.cheese[0]) > last - 5


def ends(maze):
    """Dead ends by force: from which a mouse can make one move only."""
    free = {*maze.free_cells()}
    found = []
    for row, column in free - {maze.mouse}:
        around = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        if sum(Cell(*cell) in free for cell in around) == 1:
            found.append(Cell(row, column))
    return found


ROW = tuple(Cell(7, column) for column in range(15))


@pytest.mark.parametrize(
    ("constraints", "holds"),
    [
        (Constraints(maze_dim=(9, 11)), lambda maze: maze.maze_dim in (9, 11)),
        (
            Constraints(steps=(20, 25)),
            lambda maze: 20 <= len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1 <= 25,
        ),
        (Constraints(cheese_in=Region(5)), in_top_right_5x5),
        (Constraints(cheese_out_of=Region(5)), lambda maze: not in_top_right_5x5(maze)),
        (
            Constraints(cheese_in=Region(3, "bottom left")),
            lambda maze: max(maze.cheese[0]) < maze.margin + 3,
        ),
        (
            Constraints(cheese_in=Region(1, "top left")),
            lambda maze: maze.cheese == (Cell(14 - maze.margin, maze.margin),),
        ),
        (
            Constraints(cheese_in=Region(1, "bottom right")),
            lambda maze: maze.cheese == (Cell(maze.margin, 14 - maze.margin),),
        ),
        (Constraints(cheese_in=Cell(6, 6)), lambda maze: maze.cheese == (Cell(6, 6),)),
        (Constraints(cheese_in=ROW), lambda maze: maze.cheese[0].row == 7),
        (Constraints(cheese_out_of=ROW), lambda maze: maze.cheese[0].row != 7),
        (Constraints(dead_end_in=Cell(8, 8)), lambda maze: Cell(8, 8) in ends(maze)),
        (Constraints(dead_end_in=ROW), lambda maze: any(cell.row == 7 for cell in ends(maze))),
        (
            Constraints(dead_end_in=Region(3, "bottom left")),
            lambda maze: any(max(cell) < maze.margin + 3 for cell in ends(maze)),
        ),
        (Constraints(cheese_in_dead_end=True), lambda maze: maze.cheese[0] in ends(maze)),
        (Constraints(cheese_in_dead_end=False), lambda maze: maze.cheese[0] not in ends(maze)),
        (
            Constraints(steps=(5, 30), dead_end_in=Region(5), cheese_in_dead_end=True),
            lambda maze: (
                5 <= len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1 <= 30
                and any(min(cell) > 14 - maze.margin - 5 for cell in ends(maze))
                and maze.cheese[0] in ends(maze)
            ),
        ),
        (Constraints(has_decision_square=True), lambda maze: decision_square(maze) is not None),
        (Constraints(has_decision_square=False), lambda maze: decision_square(maze) is None),
        (
            Constraints((7, 15), (5, 40), Region(9), Region(5), True),
            lambda maze: (
                maze.maze_dim >= 7
                and 5 <= len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1 <= 40
                and min(maze.cheese[0]) > 14 - maze.margin - 9
                and not in_top_right_5x5(maze)
                and decision_square(maze) is not None
            ),
        ),
    ],
)
def test_exactly_the_levels_that_satisfy_the_constraints_are_taken(constraints, holds):
    """All of a small range: none that does is left out, none that does not is in."""
    within = Levels(500, 250)
    expected = [seed for seed in within.first(250) if holds(Maze.from_seed(seed))]
    assert 0 < len(expected) < 250
    found = sample_levels(within, len(expected), seed=0, constraints=constraints)
    assert sorted(found) == expected
    with pytest.raises(ValueError, match=f"found {len(expected)} of the {len(expected) + 1} "):
        sample_levels(within, len(expected) + 1, seed=0, constraints=constraints)


def test_samples_are_reproducible_and_those_of_the_range():
    constraints = Constraints(cheese_out_of=Region(5))
    sample = sample_levels(FITTING, 30, seed=4, constraints=constraints)
    assert sample == sample_levels(FITTING, 40, seed=4, constraints=constraints)[:30]
    assert sample != sample_levels(FITTING, 30, seed=5, constraints=constraints)
    assert sample_levels(FITTING, 30, seed=4) == FITTING.sample(30, seed=4)
    assert all(seed in FITTING for seed in sample) and len({*sample}) == 30


def test_named_sets_are_disjoint():
    parts = Levels(100, 40).split(fit=2, select=1, report=1)
    assert [str(part) for part in parts.values()] == [
        "levels 100 to 119",
        "levels 120 to 129",
        "levels 130 to 139",
    ]
    samples = [sample_levels(part, len(part), seed=1) for part in parts.values()]
    assert sorted(chain(*samples)) == list(range(100, 140))
    assert sum(map(len, EVALUATION.split(a=1, b=1, c=1).values())) == len(EVALUATION)
    for shares in ({}, {"a": 0}, {"a": 30, "b": 11}):
        with pytest.raises(ValueError, match="add up to at most 40, got"):
            Levels(100, 40).split(**shares)


def test_too_few_levels_says_what_was_tried():
    constraints = Constraints(steps=(300, 400))
    message = (
        "found 0 of the 5 levels asked for among the 70 tried of 100000 "
        "(levels 0 to 99999, mode easy), with steps=(300, 400)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        sample_levels(EVALUATION, 5, seed=0, constraints=constraints, most_tried=70)


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_sizes_are_known_without_the_maze(mode):
    for seed in (0, 1, 77, 2**31 - 2):
        assert maze_dim_of(seed, mode) == generate_maze(seed, mode).maze_dim
    (seed,) = sample_levels(EVALUATION, 1, seed=0, constraints=Constraints((3, 3)), mode=mode)
    assert Maze.from_seed(seed, mode).maze_dim == 3


def test_what_cannot_be_asked_for_is_refused():
    for make, message in (
        (lambda: Constraints(maze_dim=(9, 7)), r"maze_dim is the least and the most, got \(9, 7\)"),
        (lambda: Constraints(steps=(1,)), "steps is the least and the most"),
        (lambda: Constraints(steps=(1.5, 3)), r"steps is the least and the most, got \(1.5, 3\)"),
        (lambda: Constraints(cheese_in=Region(0)), "cheese_in: a Region .* side of at least 1"),
        (lambda: Constraints(dead_end_in=Region(2.5)), "dead_end_in: a Region has a side"),
        (lambda: Constraints(dead_end_in=(3, 4)), r"dead_end_in is a Region, a Cell .* \(3, 4\)"),
        (lambda: Constraints(dead_end_in=()), "dead_end_in is a Region, a Cell or a tuple"),
        (lambda: Constraints(cheese_in=[Cell(1, 2)]), "a Cell or a tuple of cells, got "),
        (lambda: Constraints(cheese_in=Cell(1.0, 2)), "cheese_in is a Region, a Cell"),
        (lambda: Constraints(cheese_in=Cell(-1, 2)), "cheese_in is a Region, a Cell"),
        (lambda: Constraints(cheese_in_dead_end="yes"), "cheese_in_dead_end is True, False or N"),
        (
            lambda: sample_levels(
                FITTING, 1, seed=0, constraints=Constraints(dead_end_in=(Cell(3, 3), Cell(3, 15)))
            ),
            r"dead_end_in: .*column=15\) is outside of the 15x15 world of mode easy",
        ),
        (lambda: sample_levels(FITTING, 1, seed=-1), "seed of an order is an integer from 0 on"),
        (lambda: sample_levels(FITTING, 1, seed=0, most_tried=1.5), "most_tried must be an int"),
        (lambda: Constraints(cheese_out_of=Region(5, "middle")), "top right, top left"),
        (
            lambda: sample_levels(FITTING, 1, seed=0, constraints=Constraints((16, 25))),
            "mode easy have a side of 3, 5, 7, 9, 11, 13, 15; none is from 16 to 25",
        ),
        (lambda: sample_levels(FITTING, 1, seed=0, mode="extreme"), "easy, hard, memory"),
        (lambda: sample_levels(FITTING, -1, seed=0), "-1 levels"),
        (lambda: sample_levels(FITTING, 2.5, seed=0), r"2\.5 levels"),
        (lambda: Constraints(maze_dim=5), "maze_dim is the least and the most, got 5"),
        (lambda: Constraints(cheese_in=5), "cheese_in is a Region, a Cell or .*got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
