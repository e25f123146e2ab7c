"""The ways of heists, against brute force in small worlds and `key_route` in the game's."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbilinear.envs.grid import Cell, cells_of
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour
from rlbilinear.envs.key_ways import key_ways
from rlbilinear.envs.moves import STEP_OF_MOVE, Move
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.state import SPACE, WALL

MOVES = [STEP_OF_MOVE[Move(move)] for move in range(4)]


@st.composite
def heists(draw):
    """Worlds of 3 to 5 cells a side: any walls, keys and locks, one or two gems."""
    size = draw(st.integers(3, 5))
    codes = st.sampled_from([SPACE, SPACE, SPACE, WALL])
    grid = np.array(draw(st.lists(codes, min_size=size**2, max_size=size**2))).reshape(size, size)
    grid[0, 0] = SPACE
    cells = st.sampled_from(cells_of(grid != WALL))
    some = st.lists(cells, max_size=2, unique=True)
    heist = Heist.from_array(grid, Cell(0, 0), draw(st.lists(cells, min_size=1, max_size=2)))
    for colour in draw(st.lists(st.sampled_from(Colour), unique=True)):
        heist = heist.with_keys(colour, *draw(some))
        locks = [cell for cell in draw(some) if cell != Cell(0, 0)]
        heist = heist.with_locks(colour, *locks)
    return heist


def outcome(heist, held, cell, move):
    """What the rules make of a move: the cell and the keys held then; None where it is blocked."""
    there = Cell(cell.row + move[0], cell.column + move[1])
    inside = 0 <= there.row < heist.size and 0 <= there.column < heist.size
    if not inside or heist.grid[there] == WALL:
        return None
    if any(not held >> colour & 1 for colour, at in heist.locks if at == there):
        return None
    for colour, at in heist.keys:
        held |= (at == there) << colour
    return held, there


def brute_force(heist):
    """The steps from every cell with every set of keys, improved until nothing changes."""
    sets = range(1 << len(heist.has_keys))
    states = [(held, cell) for held in sets for cell in cells_of(heist.grid != WALL)]
    steps = {state: 0 if state[1] in heist.gem else np.inf for state in states}
    changed = True
    while changed:
        changed = False
        for held, cell in states:
            for move in MOVES:
                after = outcome(heist, held, cell, move)
                if after is not None and steps[after] + 1 < steps[held, cell]:
                    steps[held, cell], changed = steps[after] + 1, True
    return steps


@given(heists())
@settings(max_examples=60, deadline=None)
def test_steps_and_moves_are_those_of_brute_force(heist):
    ways, expected = key_ways(heist), brute_force(heist)
    locks, keys = heist.locks, heist.keys
    for (held, cell), steps in expected.items():
        if any(at == cell and not held >> colour & 1 for colour, at in locks):
            assert ways.steps[held][cell] == -1  # nobody can be there
            continue
        lying = sum({1 << colour for colour, at in keys if at == cell and not held >> colour & 1})
        steps = expected[held | lying, cell]
        assert ways.steps[held][cell] == (-1 if steps == np.inf else steps)
        for number, move in enumerate(MOVES):
            after = outcome(heist, held, cell, move)
            begins = 0 < steps < np.inf and after is not None and expected[after] == steps - 1
            assert ways.moves[held][cell][number] == begins
    walls = heist.grid == WALL
    assert (ways.steps[:, walls] == -1).all() and not ways.moves[:, walls].any()


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_ways_of_levels_are_as_long_as_the_route(mode):
    most = 0
    for seed in range(40):
        heist = Heist.from_seed(seed, mode)
        ways = key_ways(heist)
        way = ways.way(heist)
        assert len(way) == len(key_route(heist)) == ways.steps[0][heist.agent] + 1
        assert way[0] == heist.agent and way[-1] in heist.gem
        held = 0
        for here, there in pairwise(way):
            move = there.row - here.row, there.column - here.column
            held, reached = outcome(heist, held, here, move)
            assert reached == there
        most = max(most, held.bit_count())
    assert most == 3  # keys were taken on the way


def test_where_there_is_no_way():
    """The gem behind a lock whose key is nowhere."""
    grid = np.full((3, 3), WALL)
    grid[1] = SPACE
    heist = Heist.from_array(grid, Cell(1, 0), Cell(1, 2), locks={Colour.BLUE: Cell(1, 1)})
    ways = key_ways(heist)
    assert ways.steps[:, 1].tolist() == [[-1, -1, 0], [2, 1, 0]]
    right = [[False] * 4] * 3, [[False, False, False, move < 2] for move in range(3)]
    assert ways.moves[:, 1].tolist() == list(right)
    with pytest.raises(ValueError, match="no way from Cell"):
        ways.way(heist)
    with pytest.raises(ValueError, match="no gem"):
        key_ways(heist.with_gem())


def test_a_key_that_is_needed_is_fetched_first():
    """On a key without having touched it: no move, until it is held."""
    grid = np.full((5, 5), SPACE)
    grid[:, 3] = WALL
    grid[2, 3] = SPACE
    heist = Heist.from_array(
        grid,
        Cell(0, 0),
        Cell(2, 4),
        keys={Colour.GREEN: Cell(4, 0)},
        locks={Colour.GREEN: Cell(2, 3)},
    )
    ways = key_ways(heist)
    assert ways.steps[0][0, 0] == 4 + 2 + 4
    assert not ways.moves[0][4, 0].any() and ways.moves[2][4, 0].any()
    assert (ways.steps[:, 2, 3] != -1).tolist() == [False, False, True, True]
