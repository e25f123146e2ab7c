import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from rlbilinear.envs.levels import WORLD_SIZE
from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.state import CHEESE, SPACE, WALL
from rlbilinear.envs.topology import (
    components,
    dead_ends,
    is_connected,
    is_tree,
    off_distribution,
    on_distribution,
)


@pytest.mark.parametrize(("mode", "count"), [("easy", 600), ("hard", 250), ("memory", 150)])
def test_levels_are_trees_on_the_distribution(mode, count):
    random = np.random.default_rng(0)
    for seed in random.integers(2**31 - 1, size=count).tolist():
        level = Maze.from_seed(seed, mode)
        assert off_distribution(level) == () and is_tree(level)
        cells = [cell for cell in level.free_cells() if cell not in level.cheese]
        played = level.with_mouse(cells[random.integers(len(cells))]).with_facing("right")
        assert on_distribution(played, in_play=True) and not on_distribution(played)


def graph(free):
    """Edges between neighbouring free cells, by a route of its own: one loop over pairs."""
    cells = [tuple(cell) for cell in np.argwhere(free).tolist()]
    index = {cell: i for i, cell in enumerate(cells)}
    edges = [
        (i, index[near])
        for (row, column), i in index.items()
        for near in ((row + 1, column), (row, column + 1))
        if near in index
    ]
    one, two = np.array(edges, np.int32).reshape(-1, 2).T  # older SciPy takes no other
    return coo_array((np.ones(len(edges)), (one, two)), (len(cells), len(cells)))


@settings(max_examples=150, deadline=None)
@given(
    arrays(
        np.int32,
        st.integers(3, 6).map(lambda size: (size, size)),
        elements=st.sampled_from((WALL, SPACE)),
    )
)
def test_pieces_and_loops_are_those_of_the_graph(grid):
    if (grid == WALL).all():
        return
    mouse = Cell(*np.argwhere(grid != WALL)[0].tolist())
    maze = Maze.from_array(grid, mouse, allow_disconnected=True)
    edges = graph(grid != WALL)
    pieces, _ = connected_components(edges, directed=False)
    loops = edges.nnz - minimum_spanning_tree(edges).nnz
    assert components(maze).max() == pieces and is_connected(maze) == (pieces == 1)
    assert is_tree(maze) == (pieces == 1 and loops == 0)
    degrees = (edges + edges.T).sum(0)
    cells = np.argwhere(grid != WALL)[degrees == 1]
    assert dead_ends(maze) == dead_ends(grid) == tuple(Cell(*cell) for cell in cells.tolist())
    reasons = off_distribution(maze)
    assert any("disconnected" in reason for reason in reasons) == (pieces > 1)
    found = [int(n) for reason in reasons if (n := reason.removesuffix(" loops")[7:]).isdigit()]
    assert found == ([loops] if loops > 1 else [])
    assert ("it has a loop" in reasons) == (loops == 1)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_spanning_tree_of_rooms_is_on_the_distribution(data):
    """Trees grown at random, not by the game's algorithm; cheese anywhere but on the start."""
    mode = data.draw(st.sampled_from(("easy", "hard", "memory")))
    side = data.draw(st.sampled_from(range(3, WORLD_SIZE[mode] + 1, 2)))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rooms = (side + 1) // 2
    grid = np.full((side, side), WALL)
    seen = [(0, 0)]
    while len(seen) < rooms**2:
        row, column = seen[random.integers(len(seen))]
        down, across = [(0, 1), (1, 0), (0, -1), (-1, 0)][random.integers(4)]
        new = (row + down, column + across)
        if min(new) >= 0 and max(new) < rooms and new not in seen:
            seen.append(new)
            grid[2 * row + down, 2 * column + across] = SPACE
    grid[::2, ::2] = SPACE
    free = np.argwhere(grid == SPACE)[1:].tolist()
    cheese = Cell(*free[random.integers(len(free))])
    maze = Maze.from_array(grid, Cell(0, 0), cheese, mode=mode, world=WORLD_SIZE[mode])
    assert off_distribution(maze) == ()


LEVEL = Maze.from_seed(3)  # side 9, margin 3
START = Cell(3, 3)


@pytest.mark.parametrize(
    ("maze", "reasons"),
    [
        (LEVEL.with_mouse(Cell(5, 3)), [r"the mouse is on .*row=5.*bottom left corner .*row=3"]),
        (LEVEL.with_facing("right"), ["the mouse faces right"]),
        (LEVEL.with_cheese(), ["no cheese"]),
        (LEVEL.with_cheese(Cell(5, 3), Cell(7, 3)), ["2 cheeses"]),
        (LEVEL.with_cheese(START), ["the cheese is on the start"]),
        (LEVEL.with_wall(Cell(3, 6), False), ["it has a loop"]),
        (LEVEL.with_wall(Cell(3, 6), False).with_wall(Cell(3, 10), False), ["it has 2 loops"]),
        (LEVEL.with_wall(Cell(3, 4)), ["disconnected: 2 pieces"]),
        (LEVEL.with_wall(Cell(11, 3)), [r"a wall on Cell\(row=11, column=3\), where .* a room"]),
        (LEVEL.with_wall(Cell(4, 4), False), [r"no wall on .*row=4, column=4", "it has a loop"]),
        (LEVEL.with_wall(Cell(3, 2), False), ["middle of the world.*2 at the left, 3 at the r"]),
        (
            Maze.from_array(LEVEL.inner_grid(), Cell(0, 0)),
            ["world size 9 is not easy's 15"],
        ),
        (
            Maze.from_array(LEVEL.grid, LEVEL.mouse, mode="hard"),
            ["world size 15 is not hard's 25"],
        ),
        (
            Maze.from_array(np.full((4, 4), SPACE), Cell(0, 0), Cell(3, 3)),
            ["world size 4", "side 4: levels are odd", "it has 9 loops"],
        ),
        (
            LEVEL.with_mouse(Cell(0, 0), allow_wall=True),
            [r"the mouse is on Cell\(row=0, column=0\)"],
        ),
    ],
)
def test_edits_leave_the_distribution_for_the_reason_given(maze, reasons):
    """These edits of one level are off the distribution for these reasons and no others."""
    found = off_distribution(maze)
    assert len(found) == len(reasons), found
    for one, pattern in zip(found, reasons, strict=True):
        assert re.search(pattern, one), one


def test_every_wall_edit_of_a_level_leaves_the_distribution():
    """Adding or taking any one wall does: trees have just as many passages."""
    for seed in (3, 8):
        level = Maze.from_seed(seed)
        for row in range(15):
            for column in range(15):
                cell = Cell(row, column)
                if cell != level.mouse and cell not in level.cheese:
                    edited = level.with_wall(cell, bool(level.grid[cell] != WALL))
                    assert off_distribution(edited), cell


def test_in_play_the_mouse_is_neither_in_a_wall_nor_on_the_cheese():
    assert on_distribution(LEVEL, in_play=True)
    in_wall = off_distribution(LEVEL.with_mouse(Cell(0, 0), allow_wall=True), in_play=True)
    assert in_wall == ("the mouse is in a wall, on Cell(row=0, column=0)",)
    (on_cheese,) = off_distribution(LEVEL.with_mouse(LEVEL.cheese[0]), in_play=True)
    assert on_cheese.startswith("the mouse is on the cheese")
    assert off_distribution(LEVEL.with_cheese(), in_play=True) == ("no cheese",)


def test_a_world_of_walls_is_nothing():
    walls = LEVEL.grid.copy()
    walls[:] = WALL
    raw = LEVEL.to_bytes().replace(LEVEL.grid.tobytes(), walls.tobytes())
    maze = Maze.from_bytes(raw)
    assert not is_connected(maze) and not is_tree(maze)
    assert off_distribution(maze) == ("no free cell",)
    assert CHEESE not in maze.grid
