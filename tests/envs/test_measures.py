import math

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path as scipy_shortest_path

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.measures import MEASURES, measure_table
from rlbilinear.envs.state import CHEESE, SPACE, WALL

PUBLISHED = {
    ("hard", 0): {
        "euc_dist_cheese_decision_square": 4.12310562561766,
        "taxi_dist_cheese_decision_square": 5,
        "steps_between_cheese_decision_square": 5,
        "steps_between_cheese_top_right": 27,
        "euc_dist_cheese_top_right": 13.8924439894498,
        "taxi_dist_cheese_top_right": 19,
        "euc_dist_decision_square_top_right": 10,
        "taxi_dist_decision_square_top_right": 14,
        "steps_between_decision_square_top_right": 22,
        "steps_between_cheese_5x5": 11,
        "steps_between_decision_square_5x5": 6,
        "euc_dist_cheese_5x5": 8.54400374531753,
        "taxi_dist_cheese_5x5": 11,
        "euc_dist_decision_square_5x5": 4.47213595499958,
        "taxi_dist_decision_square_5x5": 6,
        "cheese_coord_norm": 12.5299640861417,
    },
    ("hard", 8): {
        "euc_dist_cheese_decision_square": 5,
        "taxi_dist_cheese_decision_square": 7,
        "steps_between_cheese_decision_square": 7,
        "steps_between_cheese_top_right": 53,
        "euc_dist_cheese_top_right": 19.1049731745428,
        "taxi_dist_cheese_top_right": 27,
        "euc_dist_decision_square_top_right": 24.0831891575846,
        "taxi_dist_decision_square_top_right": 34,
        "steps_between_decision_square_top_right": 46,
        "steps_between_cheese_5x5": 41,
        "steps_between_decision_square_5x5": 34,
        "euc_dist_cheese_5x5": 13.4536240470737,
        "taxi_dist_cheese_5x5": 19,
        "euc_dist_decision_square_5x5": 18.4390889145858,
        "taxi_dist_decision_square_5x5": 26,
        "cheese_coord_norm": 12.0415945787923,
    },
    ("easy", 4): {
        "euc_dist_cheese_decision_square": 2.82842712474619,
        "taxi_dist_cheese_decision_square": 4,
        "steps_between_cheese_decision_square": 4,
        "steps_between_cheese_top_right": 10,
        "euc_dist_cheese_top_right": 6,
        "taxi_dist_cheese_top_right": 6,
        "euc_dist_decision_square_top_right": 4.47213595499958,
        "taxi_dist_decision_square_top_right": 6,
        "steps_between_decision_square_top_right": 6,
        "steps_between_cheese_5x5": 2,
        "steps_between_decision_square_5x5": 0,
        "euc_dist_cheese_5x5": 2,
        "taxi_dist_cheese_5x5": 2,
        "euc_dist_decision_square_5x5": 0,
        "taxi_dist_decision_square_5x5": 0,
        "cheese_coord_norm": 14.7648230602334,
    },
    ("memory", 1): {
        "euc_dist_cheese_decision_square": 4.47213595499958,
        "taxi_dist_cheese_decision_square": 6,
        "steps_between_cheese_decision_square": 10,
        "steps_between_cheese_top_right": 20,
        "euc_dist_cheese_top_right": 8,
        "taxi_dist_cheese_top_right": 8,
        "euc_dist_decision_square_top_right": 7.21110255092798,
        "taxi_dist_decision_square_top_right": 10,
        "steps_between_decision_square_top_right": 10,
        "steps_between_cheese_5x5": 12,
        "steps_between_decision_square_5x5": 2,
        "euc_dist_cheese_5x5": 4,
        "taxi_dist_cheese_5x5": 4,
        "euc_dist_decision_square_5x5": 2,
        "taxi_dist_decision_square_5x5": 2,
        "cheese_coord_norm": 30.2324329156619,
    },
}
"""What procgen-tools' own metrics.py gives for levels of the game."""


def reference(maze):
    """The measures of a level by definition, from scipy's distances between all pairs of cells."""
    cells = [tuple(cell) for cell in np.argwhere(maze.grid != WALL).tolist()]
    index = {cell: i for i, cell in enumerate(cells)}
    edges = [
        (index[cell], index[near])
        for cell in cells
        for near in ((cell[0] + 1, cell[1]), (cell[0], cell[1] + 1))
        if near in index
    ]
    one, two = zip(*edges, strict=True)
    graph = coo_array((np.ones(len(edges)), (one, two)), (len(cells), len(cells))).tocsr()
    steps = scipy_shortest_path(graph, directed=False)
    last = maze.size - 1 - maze.margin
    corner, (cheese,) = (last, last), map(tuple, np.argwhere(maze.grid == CHEESE).tolist())
    region = [cell for cell in cells if min(cell) > last - 5]

    # In a tree the last cell common to two ways from a start is the one that is on all three ways
    # among start, cheese and corner.
    a, b, c = (index[cell] for cell in (tuple(maze.mouse), cheese, corner))
    (middle,) = (
        i
        for i in range(len(cells))
        if steps[a, i] + steps[i, b] == steps[a, b]
        and steps[a, i] + steps[i, c] == steps[a, c]
        and steps[b, i] + steps[i, c] == steps[b, c]
    )
    square = None if middle in (b, c) else cells[middle]

    def walk(p, q):
        return steps[index[p], index[q]]

    kinds = {
        "euc_dist": math.dist,
        "taxi_dist": lambda p, q: abs(p[0] - q[0]) + abs(p[1] - q[1]),
        "steps_between": walk,
    }
    expected = {"cheese_coord_norm": math.sqrt(cheese[0] ** 2 + cheese[1] ** 2)}
    for kind, between in kinds.items():
        expected |= {
            f"{kind}_cheese_top_right": between(cheese, corner),
            f"{kind}_cheese_5x5": min(between(cheese, cell) for cell in region),
            f"{kind}_cheese_decision_square": math.nan,
            f"{kind}_decision_square_top_right": math.nan,
            f"{kind}_decision_square_5x5": math.nan,
        }
        if square is not None:
            expected |= {
                f"{kind}_cheese_decision_square": between(cheese, square),
                f"{kind}_decision_square_top_right": between(square, corner),
                f"{kind}_decision_square_5x5": min(between(square, cell) for cell in region),
            }
    return expected


@pytest.mark.parametrize(("mode", "count"), [("easy", 60), ("hard", 20), ("memory", 8)])
def test_measures_are_their_definitions(mode, count):
    mazes = [Maze.from_seed(seed, mode) for seed in range(1000, 1000 + count)]
    table = measure_table(mazes)
    assert table.shape == (count, 16) and list(table.columns) == list(MEASURES)
    squares = 0
    for maze, row in zip(mazes, table.to_dict("records"), strict=True):
        expected = reference(maze)
        assert expected.keys() == row.keys()
        np.testing.assert_allclose(
            [row[name] for name in expected], list(expected.values()), rtol=1e-14
        )
        squares += not math.isnan(row["euc_dist_cheese_decision_square"])
    assert 0 < squares < count


def test_measures_equal_the_published_code():
    for (mode, seed), expected in PUBLISHED.items():
        (row,) = measure_table([Maze.from_seed(seed, mode)]).to_dict("records")
        assert row == pytest.approx(expected, rel=1e-12) and len(expected) == 16


def test_a_measure_that_does_not_exist_is_nan():
    level = Maze.from_seed(3)
    for maze in (level.with_cheese(), level.with_cheese(*level.free_cells()[2:4])):
        assert measure_table([maze]).isna().all(axis=None)
    cut = np.full((5, 5), SPACE)
    cut[1] = WALL
    cut[4, 4] = CHEESE
    maze = Maze.from_array(cut, Cell(0, 0), allow_disconnected=True)
    (row,) = measure_table([maze]).to_dict("records")
    assert math.isnan(row["steps_between_cheese_decision_square"])
    assert row["steps_between_cheese_top_right"] == 0
    beyond = maze.with_cheese(Cell(0, 4))
    (row,) = measure_table([beyond]).to_dict("records")
    assert math.isnan(row["steps_between_cheese_top_right"])
    assert row["taxi_dist_cheese_top_right"] == 4
    in_wall = level.with_mouse(Cell(0, 0), allow_wall=True)
    assert math.isnan(MEASURES["euc_dist_cheese_decision_square"](in_wall))


def test_tables_take_other_measures_too():
    mazes = [Maze.from_seed(seed) for seed in (3, 8)]
    one = "taxi_dist_cheese_top_right"
    table = measure_table(mazes, {one: MEASURES[one], "free": lambda maze: len(maze.free_cells())})
    assert table["free"].tolist() == [len(maze.free_cells()) for maze in mazes]
    assert table[one].tolist() == [MEASURES[one](maze) for maze in mazes]
    assert measure_table([]).shape == (0, 16)
    assert len({measure.sentence for measure in MEASURES.values()}) == 16
    with pytest.raises(TypeError):
        MEASURES["another"] = MEASURES[one]
