import dataclasses

import numpy as np
import pytest

from rlbilinear.envs.maze import Cell, Maze
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.render import cell_to_pixels, observe, pixel_to_cell
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import expert_moves
from rlbilinear.envs.state import CHEESE, SPACE, WALL, parse

MODES = ("easy", "hard", "memory")


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator("maze", num_threads=0)
    yield simulator
    simulator.close()


def image(simulator, maze):
    simulator.set_states([maze.to_bytes()])
    return simulator.observe().images[0].copy()


@pytest.mark.parametrize("mode", MODES)
def test_bytes_come_back_the_same_wherever_the_game_is(mode):
    simulator = Simulator("maze", 8, mode=mode, num_threads=0, seed=5)
    random = np.random.default_rng(0)
    for _ in range(30):
        for raw in simulator.get_states():
            assert Maze.from_bytes(raw).to_bytes() == raw
        simulator.act(random.integers(15, size=8))
    simulator.close()


@pytest.mark.parametrize("mode", MODES)
def test_from_seed_is_the_level_of_the_simulator(mode):
    simulator = Simulator("maze", 20, mode=mode, num_threads=0, seed=1)
    images = simulator.observe().images.copy()
    mazes = [Maze.from_bytes(raw) for raw in simulator.get_states()]
    made = [Maze.from_seed(maze.level_seed, mode) for maze in mazes]
    assert made == mazes
    assert [maze.margin for maze in made] == [maze.mouse.row for maze in mazes]
    simulator.set_states([maze.to_bytes() for maze in made])
    np.testing.assert_array_equal(simulator.observe().images, images)
    simulator.close()


def walk(simulator, maze, goal):
    """Play from the mouse to a cell by actions alone; return the simulator's state there."""
    simulator.set_states([maze.to_bytes()])
    action = {Move.LEFT: 1, Move.DOWN: 3, Move.UP: 5, Move.RIGHT: 7}
    moves = expert_moves(maze, goal)
    while (here := Maze.from_bytes(simulator.get_states()[0])).mouse != goal:
        simulator.act(np.array([action[Move(moves[here.mouse])]]))
    return here


def test_a_put_mouse_is_seen_as_one_that_walked(simulator):
    maze = Maze.from_seed(3).with_cheese()
    for goal in maze.free_cells()[::7]:
        walked = walk(simulator, maze, goal)
        seen = simulator.observe().images[0].copy()
        put = maze.with_mouse(goal).with_facing(walked.facing)
        assert put == walked
        np.testing.assert_array_equal(image(simulator, put), seen)


def test_moved_cheese_is_where_the_simulator_pays(simulator):
    maze = Maze.from_seed(3)
    (old,) = maze.cheese
    right = next(c for c in maze.free_cells() if Cell(c.row, c.column + 1) in maze.free_cells())
    new = Cell(right.row, right.column + 1)
    moved = maze.with_mouse(right).with_cheese(new)
    assert moved.cheese == (new,) and moved.grid[old] == SPACE
    simulator.set_states([moved.to_bytes()])
    simulator.act(np.array([7]))
    frame = simulator.observe()
    assert frame.rewards[0] == 10 and frame.first[0]


def test_a_wall_stops_the_mouse_and_its_absence_does_not(simulator):
    start, ahead = Cell(1, 1), Cell(1, 2)
    maze = Maze.from_array(np.full((4, 4), SPACE), start)
    for edited, end in ((maze.with_wall(ahead), start), (maze, ahead)):
        simulator.set_states([edited.to_bytes()])
        simulator.act(np.array([7]))
        assert Maze.from_bytes(simulator.get_states()[0]).mouse == end
    assert maze.with_wall(ahead).with_wall(ahead, present=False) == maze


def test_edits_equal_the_level_that_has_them(simulator):
    """Turn one level of the game into another by edits alone: the pictures agree."""
    one, two = Maze.from_seed(8), Maze.from_seed(21)
    assert one.grid.shape == two.grid.shape and one != two
    edited = one.with_cheese()
    for row in range(15):
        for column in range(15):
            cell = Cell(row, column)
            if cell != one.mouse:
                edited = edited.with_wall(cell, bool(two.grid[cell] == WALL))
    edited = edited.with_mouse(two.mouse)
    if one.mouse != two.mouse:
        edited = edited.with_wall(one.mouse, bool(two.grid[one.mouse] == WALL))
    edited = edited.with_cheese(*two.cheese).with_background(two.background)
    assert edited == two
    np.testing.assert_array_equal(image(simulator, edited), image(simulator, two))


def test_facing_changes_little_and_background_the_floor(simulator):
    maze = Maze.from_seed(3)
    left = image(simulator, maze.with_facing("left"))
    right = image(simulator, maze.with_facing("right"))
    rows, columns = np.nonzero((left != right).any(-1))
    cells = {pixel_to_cell(row, column, 15) for row, column in zip(rows, columns, strict=True)}
    assert cells == {maze.mouse}
    floors = [image(simulator, maze.with_background(index)) for index in range(9)]
    assert len({floor.tobytes() for floor in floors}) == 9
    simulator.set_states([maze.to_bytes()])
    simulator.act(np.array([7]))  # a step to the right, blocked or not, turns the mouse
    assert Maze.from_bytes(simulator.get_states()[0]).facing == "right"


SIZES = [
    *range(3, 33),
    *(pytest.param(size, marks=pytest.mark.slow) for size in (33, 40, 47, 50, 63, 64)),
]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_plays_in_every_mode(simulator, size):
    """A random walk among random walls: every move is blocked or not as the grid says."""
    random = np.random.default_rng(size)
    grid = np.where(random.random((size, size)) < 0.3, WALL, SPACE)
    grid[0, 0], grid[0, 1], grid[-1, -1] = SPACE, SPACE, SPACE
    action = {Move.LEFT: 1, Move.DOWN: 3, Move.UP: 5, Move.RIGHT: 7}
    for mode in MODES:
        maze = Maze.from_array(grid, Cell(0, 0), (), mode=mode, allow_disconnected=True)
        assert Maze.from_bytes(maze.to_bytes()) == maze and maze.margin == 0
        simulator.set_states([maze.to_bytes()])
        here = maze.mouse
        for move in random.integers(4, size=30).tolist():
            step = STEP_OF_MOVE[Move(move)]
            there = Cell(here.row + step[0], here.column + step[1])
            if min(there) >= 0 and max(there) < size and grid[there] != WALL:
                here = there
            simulator.act(np.array([action[Move(move)]]))
        assert Maze.from_bytes(simulator.get_states()[0]).mouse == here
        two = maze.with_cheese(Cell(0, 1), Cell(size - 1, size - 1))
        simulator.set_states([two.to_bytes()])
        simulator.act(np.array([7]))
        assert simulator.observe().rewards[0] == 10, "the first of two cheeses pays"


@pytest.mark.parametrize("size", range(3, 33))
def test_up_to_32_each_cell_is_drawn_in_its_own_pixels(size):
    random = np.random.default_rng(size)
    grid = np.where(random.random((size, size)) < 0.5, WALL, SPACE)
    grid[0, 0] = SPACE
    floor, walls = np.full_like(grid, SPACE), np.full_like(grid, WALL)
    walls[0, 0] = SPACE
    mazes = [
        Maze.from_array(cells, Cell(0, 0), (), allow_disconnected=True)
        for cells in (grid, floor, walls)
    ]
    drawn, free, blocked = observe(mazes).astype(int)
    for row, column in np.ndindex(size, size):
        if (row, column) == (0, 0):
            continue
        y, x = (
            (pixels.start + pixels.stop - 1) // 2
            for pixels in cell_to_pixels(Cell(row, column), size)
        )
        to_free, to_blocked = (
            np.abs(drawn[:, y, x] - other[:, y, x]).sum() for other in (free, blocked)
        )
        assert (to_blocked < to_free) == (grid[row, column] == WALL), (row, column)


@pytest.mark.parametrize(("side", "world"), [(9, 15), (3, 25), (15, 15), (8, 10), (4, 4)])
def test_an_array_in_the_middle_of_a_world(side, world):
    grid = np.full((side, side), SPACE)
    grid[1, 1] = WALL
    maze = Maze.from_array(grid, Cell(1, 0), Cell(side - 1, side - 2), world=world)
    border = (world - side) // 2
    assert (maze.size, maze.maze_dim, maze.margin) == (world, side, border)
    assert maze.mouse == Cell(1 + border, border)
    assert maze.cheese == (Cell(side - 1 + border, side - 2 + border),)
    assert (maze.inner_grid() == WALL).sum() == 1 and maze.grid[1 + border, 1 + border] == WALL
    np.testing.assert_array_equal(maze.inner_grid() == WALL, grid == WALL)
    assert Maze.from_bytes(maze.to_bytes()) == maze


def test_the_inner_grid_of_a_level_in_its_world_is_the_level():
    for mode, world in zip(MODES, (15, 25, 31), strict=True):
        level = Maze.from_seed(3, mode)
        made = Maze.from_array(
            level.inner_grid(),
            Cell(0, 0),
            mode=mode,
            world=world,
            background=level.background,
        )
        assert made == level and made.maze_dim == level.maze_dim


def test_a_mouse_in_a_wall_and_cheese_in_its_place_when_asked_for(simulator):
    level = Maze.from_seed(3)
    out = next(cell for cell in level.free_cells() if level.grid[cell.row, cell.column + 1] == WALL)
    wall = Cell(out.row, out.column + 1)
    inside = level.with_mouse(wall, allow_wall=True)
    assert inside.mouse == wall and (inside.grid == level.grid).all()
    simulator.set_states([inside.to_bytes()])
    simulator.act(np.array([4]))
    assert Maze.from_bytes(simulator.get_states()[0]).mouse == wall
    simulator.act(np.array([1]))
    assert Maze.from_bytes(simulator.get_states()[0]).mouse == out, "it walks out"
    simulator.act(np.array([7]))
    assert Maze.from_bytes(simulator.get_states()[0]).mouse == out, "and not back"
    replaced = level.with_cheese(wall, allow_wall=True)
    assert replaced.cheese == (wall,) and len(replaced.free_cells()) == len(level.free_cells()) + 1
    both = Maze.from_array(level.grid, wall, wall, allow_wall=True)
    assert both.mouse == wall and both.cheese == (wall,)


def test_disconnected_mazes_name_a_cell_unless_asked_for():
    grid = np.full((5, 5), SPACE)
    grid[2] = WALL
    with pytest.raises(
        ValueError,
        match=r"disconnected: no way leads from the mouse on Cell\(row=0, column=4\) to "
        r"Cell\(row=3, column=0\) and 9 more free cells; allow_disconnected=True",
    ):
        Maze.from_array(grid, Cell(0, 4))
    maze = Maze.from_array(grid, Cell(0, 4), allow_disconnected=True)
    joined = maze.with_wall(Cell(2, 2), False)
    message = r"wall on .*row=2, column=2\) would cut off .*row=3, column=0\) and 9 more"
    with pytest.raises(ValueError, match=message):
        joined.with_wall(Cell(2, 2), keep_connected=True)
    assert joined.with_wall(Cell(2, 2)) == maze
    assert joined.with_wall(Cell(4, 4), keep_connected=True).grid[4, 4] == WALL
    assert maze.with_wall(Cell(4, 4), keep_connected=True).grid[4, 4] == WALL, "cut off before"


def test_from_array_keeps_or_replaces_the_grids_cheese_and_finds_the_margin():
    grid = np.full((7, 7), WALL)
    grid[2:5, 2:5] = SPACE
    grid[4, 4] = CHEESE
    maze = Maze.from_array(grid, Cell(2, 2))
    assert maze.cheese == (Cell(4, 4),) and (maze.margin, maze.maze_dim) == (2, 3)
    assert Maze.from_array(grid, Cell(2, 2), ()).cheese == ()
    assert Maze.from_array(grid, Cell(2, 2), Cell(3, 3)).cheese == (Cell(3, 3),)
    grid[:] = WALL
    assert maze.free_cells()[0] == Cell(2, 2), "the array was copied"


def test_a_maze_is_a_value():
    maze = Maze.from_seed(3)
    before = maze.to_bytes()
    other = maze.with_cheese(maze.mouse).with_background(1).with_facing("right")
    assert maze.to_bytes() == before and maze != other
    assert maze == Maze.from_seed(3) and hash(maze) == hash(Maze.from_seed(3))
    assert len({maze, Maze.from_bytes(before), other}) == 2
    assert maze != "maze"
    with pytest.raises(dataclasses.FrozenInstanceError):
        maze.mouse = Cell(0, 0)
    for one in (maze, Maze.from_bytes(before), other):
        with pytest.raises(ValueError, match="read-only"):
            one.grid[0, 0] = SPACE


def test_what_a_maze_does_not_name_is_kept(simulator):
    simulator.set_states([Maze.from_seed(3).to_bytes()])
    for _ in range(5):
        simulator.act(np.array([4]))
    raw = simulator.get_states()[0]
    edited = parse(Maze.from_bytes(raw).with_cheese().to_bytes())
    source = parse(raw)
    assert edited.episode == source.episode and edited.episode.cur_time == 5
    assert edited.generator == source.generator and edited.options == source.options
    assert Maze.from_bytes(raw).level_seed == 3


def test_text_shows_the_top_row_first():
    grid = np.array([[SPACE, SPACE, WALL], [WALL, SPACE, WALL], [WALL, SPACE, CHEESE]])
    drawn = str(Maze.from_array(grid, Cell(0, 0)))
    assert drawn == "██  C\n██  ██\nM   ██"
    assert str(Maze.from_array(grid, Cell(2, 2))) == "██  MC\n██  ██\n    ██"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.with_mouse(Cell(0, 0)), r"put the mouse on Cell\(row=0, column=0\): it is a"),
        (lambda m: m.with_mouse(Cell(0, 15)), r"column=15\) is outside of the 15x15 world"),
        (lambda m: m.with_mouse(Cell(3.0, 3)), r"got Cell\(row=3\.0, column=3\)"),
        (lambda m: m.with_mouse((3, 3)), r"a position is a Cell\(row, column\), got \(3, 3\)"),
        (lambda m: m.with_cheese(m.mouse, Cell(-1, 0)), r"row=-1, column=0\) is outside"),
        (lambda m: m.with_wall(m.mouse), "the mouse is there"),
        (lambda m: m.with_wall(m.cheese[0]), "cheese is there"),
        (lambda m: m.with_facing("up"), "'left' or 'right', not 'up'"),
        (lambda m: m.with_background(9), r"0\.\.8, got 9"),
        (lambda m: Maze.from_seed(0, "extreme"), "easy, hard, memory"),
        (lambda m: Maze.from_array(m.grid[:14], m.mouse), r"square.*\(14, 15\)"),
        (lambda m: Maze.from_array(np.full((2, 2), SPACE), Cell(0, 0)), "3 to 64"),
        (lambda m: Maze.from_array(np.full((65, 65), SPACE), Cell(0, 0)), "3 to 64"),
        (lambda m: Maze.from_array(m.grid, m.mouse, world=18), r"side 15, 17, .*; got 18"),
        (lambda m: Maze.from_array(m.grid, m.mouse, world=13), r"side 15, 17, .*; got 13"),
        (lambda m: Maze.from_array(m.grid, m.mouse, Cell(0, 0)), "put cheese on .*column=0"),
        (lambda m: Maze.from_array(m.grid, m.mouse, [Cell(9, 99)]), "column=99.* is outside"),
        (lambda m: m.with_mouse(Cell(0, 15), allow_wall=True), "is outside"),
        (lambda m: Maze.from_array(m.grid * 0, m.mouse), r"51 \(wall\).*got \[0\]"),
        (lambda m: Maze.from_array(m.grid * 1.0, m.mouse), "float64"),
        (lambda m: Maze.from_array(np.full((5, 5), WALL), m.mouse), "no free cell"),
        (lambda m: Maze.from_array(m.grid, Cell(0, 0)), "it is a wall"),
        (lambda m: Maze.from_bytes(m.to_bytes()[:-5]), "end marker"),
    ],
)
def test_wrong_input_is_refused_with_the_reason(edit, message):
    with pytest.raises(ValueError, match=message):
        edit(Maze.from_seed(3))


def test_another_games_state_is_no_maze():
    simulator = Simulator("heist", num_threads=0)
    with pytest.raises(ValueError, match="state of heist, not of maze"):
        Maze.from_bytes(simulator.get_states()[0])
    simulator.close()
