"""Heists as values, in the real simulator: what is edited is what is then played."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.heist_things import Colour, Item
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import distances, shortest_path
from rlbilinear.envs.state import ENTITY, SPACE, WALL, parse
from rlbilinear.envs.state_checks import validate_state
from rlbilinear.envs.vecenv import ProcgenVecEnv

BLUE, GREEN, RED = Colour
STAY = 4
ROOM = np.full((5, 5), SPACE)
# A corridor: agent, a lock in its middle, the gem at its end.
CORRIDOR = np.full((7, 7), WALL)
CORRIDOR[3, :] = SPACE
LEFT_END, MIDDLE, RIGHT_END = Cell(3, 0), Cell(3, 3), Cell(3, 6)


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator("heist", num_threads=0)
    yield simulator
    simulator.close()


def put(simulator, heist):
    validate_state(heist.to_bytes(), "heist")
    simulator.set_unchecked(0, heist.to_bytes())


def now(simulator):
    return Heist.from_bytes(simulator.get_states()[0])


def step(simulator, action):
    simulator.act(np.array([action]))
    frame = simulator.observe()
    return float(frame.rewards[0]), bool(frame.first[0])


def follow(simulator, path, limit=600):
    """Steer along the cells; return the reward that came, None if the end was not reached."""
    path = list(path)
    for _ in range(limit):
        agent = now(simulator).entities[0]
        x, y = float(agent["x"]), float(agent["y"])
        while path and abs(path[0].column + 0.5 - x) < 0.3 and abs(path[0].row + 0.5 - y) < 0.3:
            del path[0]
        if not path:
            return 0.0
        sides = [path[0].column + 0.5 - x, path[0].row + 0.5 - y]
        right, up = (0 if abs(side) < 0.08 else int(np.sign(side)) for side in sides)
        action = 3 * (right + 1) + up + 1
        reward, done = step(simulator, action)
        if done:
            return reward
    return None


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_unedited_it_gives_the_same_bytes_and_says_what_is_in_them(mode):
    simulator = Simulator("heist", 12, mode=mode, num_threads=0, seed=3)
    random = np.random.default_rng(0)
    for _ in range(40):
        simulator.act(random.integers(15, size=12))
        simulator.observe()
    for raw, seed in zip(simulator.get_states(), simulator.info("level_seed"), strict=True):
        heist, state = Heist.from_bytes(raw), parse(raw)
        assert heist.to_bytes() == raw
        assert heist.mode == mode and heist.level_seed == seed
        assert heist.size == {"easy": 9, "hard": 13, "memory": 23}[mode]
        things = {kind: [] for kind in (0, 1, 2, 9, 11)}
        for e in state.entities:
            cell = Cell(int(np.floor(e["y"])), int(np.floor(e["x"])))
            things[int(e["type"])].append((int(e["image_theme"]), cell))
        assert [heist.agent] == [cell for _, cell in things[0]]
        assert list(heist.locks) == things[1] and list(heist.keys) == things[2]
        assert list(heist.gem) == [cell for _, cell in things[9]]
        held = [theme for theme, has in enumerate(state.tail.has_keys) if has]
        assert list(heist.held_keys) == held
        with pytest.raises(ValueError, match="read-only"):
            heist.entities["x"] = 0
    simulator.close()


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_from_seed_is_the_level_of_the_simulator(mode):
    simulator = Simulator("heist", 3, mode=mode, num_threads=0, seed=8)
    for raw in simulator.get_states():
        heist = Heist.from_bytes(raw)
        again = Heist.from_seed(heist.level_seed, mode)
        assert again == heist and hash(again) == hash(heist)
        options = parse(again.to_bytes()).options
        assert options == parse(raw).options._replace(game_n=0)
    simulator.close()


@pytest.mark.parametrize(("seed", "mode"), [(2, "easy"), (3, "easy"), (5, "hard"), (1, "memory")])
def test_the_route_takes_keys_opens_locks_and_reaches_the_gem(simulator, seed, mode):
    heist = Heist.from_seed(seed, mode)
    route = key_route(heist)
    assert route[0] == heist.agent and route[-1] in heist.gem
    for one, two in pairwise(route):
        assert abs(one.row - two.row) + abs(one.column - two.column) == 1
    for place, cell in enumerate(route):  # every lock on the way has been preceded by its key
        picked = [key.colour for key in heist.keys if key.cell in route[:place]]
        assert all(lock.colour in picked for lock in heist.locks if lock.cell == cell)
    put(simulator, heist)
    assert follow(simulator, route) == 10


def test_a_lock_stops_the_agent_and_a_key_that_is_given_opens_it(simulator):
    closed = Heist.from_array(CORRIDOR, LEFT_END, RIGHT_END, locks={GREEN: MIDDLE})
    assert closed.held_keys == () and closed.locks == (Item(GREEN, MIDDLE),)
    path = [Cell(3, column) for column in range(1, 7)]
    put(simulator, closed)
    assert follow(simulator, path, limit=60) is None
    assert now(simulator).agent == Cell(3, 2)
    given_wrong = closed.with_held_key(RED)
    put(simulator, given_wrong)
    assert follow(simulator, path, limit=60) is None
    given = closed.with_held_key(GREEN)
    put(simulator, given)
    assert follow(simulator, path[:-1]) == 0
    assert now(simulator).locks == () and now(simulator).held_keys == (GREEN,)
    put(simulator, given)
    assert follow(simulator, path) == 10
    assert given.with_held_key(GREEN, False) == closed


def test_a_key_that_is_laid_is_taken_up_and_opens_the_lock(simulator):
    start = Heist.from_array(
        CORRIDOR, LEFT_END, RIGHT_END, keys={RED: Cell(3, 1)}, locks={RED: MIDDLE}
    )
    put(simulator, start)
    assert follow(simulator, key_route(start)[:-1]) == 0
    assert now(simulator).keys == now(simulator).locks == () and now(simulator).held_keys == (RED,)


def test_removed_and_moved_things(simulator):
    start = Heist.from_array(CORRIDOR, LEFT_END, RIGHT_END, locks={BLUE: MIDDLE})
    path = [Cell(3, column) for column in range(1, 7)]
    open_way = start.with_locks(BLUE)
    assert open_way.locks == ()
    put(simulator, open_way)
    assert follow(simulator, path) == 10
    moved = start.with_locks(BLUE, Cell(3, 5)).with_gem(Cell(3, 4))
    put(simulator, moved)
    assert follow(simulator, path[:4]) == 10
    empty = open_way.with_gem()
    assert empty.gem == ()
    put(simulator, empty)
    assert follow(simulator, path) == 0
    assert start.with_keys(RED).to_bytes() == start.with_locks(RED).to_bytes() == start.to_bytes()
    keys = start.with_keys(BLUE, Cell(3, 1), Cell(3, 2)).with_keys(GREEN, Cell(3, 4))
    assert keys.keys == ((BLUE, Cell(3, 1)), (BLUE, Cell(3, 2)), (GREEN, Cell(3, 4)))
    assert keys.with_keys(BLUE, Cell(3, 2)).keys == ((BLUE, Cell(3, 2)), (GREEN, Cell(3, 4)))


def test_the_agent_stays_where_it_was_put(simulator):
    """A moving agent's speed would carry it on."""
    put(simulator, Heist.from_array(ROOM, Cell(2, 0), Cell(4, 4)))
    for _ in range(2):
        step(simulator, 7)
    moving = now(simulator)
    assert moving.entities["vx"][0] > 0.2
    put(simulator, moving)
    step(simulator, STAY)
    assert now(simulator).entities["x"][0] > moving.entities["x"][0] + 0.05
    put(simulator, moving.with_agent(Cell(1, 2)))
    for _ in range(3):
        step(simulator, STAY)
        agent = now(simulator).entities[0]
        assert (agent["x"], agent["y"], agent["vx"], agent["vy"]) == (2.5, 1.5, 0, 0)


def test_walls_are_put_and_taken(simulator):
    start = Heist.from_array(CORRIDOR, LEFT_END, RIGHT_END)
    path = [Cell(3, column) for column in range(1, 7)]
    put(simulator, start.with_wall(MIDDLE))
    assert follow(simulator, path, limit=60) is None
    put(simulator, start.with_wall(MIDDLE).with_wall(MIDDLE, False))
    assert follow(simulator, path) == 10


def test_held_keys_are_shown_even_of_colours_that_the_level_lacks(simulator):
    start = Heist.from_array(ROOM, Cell(2, 2), Cell(0, 0))
    seen = []
    for heist in (start, *(start.with_held_key(colour) for colour in Colour)):
        put(simulator, heist)
        seen.append(simulator.observe().images[0].copy())
    for one in range(4):
        for two in range(one):
            assert (seen[one] != seen[two]).any()
    # The icons are those that the simulator makes itself.
    icons = start.with_held_key(RED).entities
    own = Heist.from_seed(2).entities
    compared = [name for name in ENTITY.names if name != "life_time"]
    for e in (icons, own):
        assert (e["type"] == 11).sum() == 3
    assert (
        icons[icons["type"] == 11][compared].tolist() == own[own["type"] == 11][compared].tolist()
    )


@pytest.mark.parametrize("size", [3, 4, 10, 25, 64])
@pytest.mark.parametrize("mode", ["easy", "memory"])
def test_worlds_of_any_size_are_played(simulator, size, mode):
    corner, other = Cell(0, 0), Cell(size - 1, size - 1)
    heist = Heist.from_array(np.full((size, size), SPACE), corner, other, mode=mode)
    assert Heist.from_bytes(heist.to_bytes()) == heist
    put(simulator, heist)
    assert follow(simulator, key_route(heist)) == 10


def test_where_the_agent_can_go_depends_on_the_keys():
    grid = np.full((5, 5), WALL)
    grid[2, :] = grid[:, 2] = SPACE
    heist = Heist.from_array(
        grid,
        Cell(2, 0),
        Cell(2, 4),
        keys={BLUE: Cell(0, 2), RED: Cell(4, 2)},
        locks={BLUE: Cell(3, 2), RED: Cell(2, 3)},
    )
    assert heist.passable().sum() == 9 - 2 and len(heist.free_cells()) == 7
    assert heist.passable([BLUE]).sum() == heist.passable([RED]).sum() == 8
    assert heist.passable(Colour).sum() == 9
    assert distances(heist.walls(), Cell(2, 0))[2, 4] == -1
    assert distances(heist.walls([RED]), Cell(2, 0))[2, 4] == 4
    assert distances(heist.walls(), Cell(2, 0))[0, 2] == 4
    assert len(shortest_path(heist.walls([BLUE]), Cell(2, 0), Cell(4, 2))) == 5
    # Down for the blue key, up for the red one, back and to the right.
    route = key_route(heist)
    assert len(route) - 1 == 4 + 4 + 4
    assert [cell for cell in route if cell in ((0, 2), (4, 2))] == [(0, 2), (4, 2)]
    assert len(key_route(heist.with_held_key(BLUE))) - 1 == 4 + 4
    assert key_route(heist, Cell(0, 2)) == shortest_path(heist.walls(), Cell(2, 0), Cell(0, 2))
    with pytest.raises(ValueError, match="no way from"):
        key_route(heist.with_keys(BLUE))
    with pytest.raises(ValueError, match="no gem"):
        key_route(heist.with_gem())
    with pytest.raises(ValueError, match="is a wall"):
        key_route(heist, Cell(0, 0))


def test_edits_last_in_environments():
    start = Heist.from_seed(2)
    levels = [start.with_agent(start.gem[0]).with_held_key(RED), start.with_locks(BLUE)]
    env = ProcgenVecEnv("heist", 2, levels=levels, num_threads=0)
    for _ in range(3):
        assert [Heist.from_bytes(raw) for raw in env.get_states()] == levels
        _, rewards, dones, _ = env.step(np.array([STAY, -1]))
        assert rewards.tolist() == [10, 0] and dones.all()
    env.close()
    env = ProcgenVecEnv.at_cells(start, num_threads=0)
    assert [Heist.from_bytes(raw).agent for raw in env.get_states()] == list(start.free_cells())
    env.close()


cells = st.builds(Cell, st.integers(0, 8), st.integers(0, 8))
colours = st.sampled_from(Colour)
edits = st.one_of(
    st.tuples(st.just("with_agent"), cells),
    st.tuples(st.just("with_gem"), cells),
    st.tuples(st.just("with_keys"), colours, cells, cells),
    st.tuples(st.just("with_locks"), colours, cells),
    st.tuples(st.just("with_keys"), colours),
    st.tuples(st.just("with_locks"), colours),
    st.tuples(st.just("with_held_key"), colours, st.booleans()),
    st.tuples(st.just("with_wall"), cells, st.booleans()),
    st.tuples(st.just("with_background"), st.integers(0, 8)),
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 5), changes=st.lists(edits, max_size=8))
def test_whatever_is_edited_the_simulator_takes_and_keeps(simulator, seed, changes):
    start = heist = Heist.from_seed(seed)
    before = start.to_bytes()
    for name, *arguments in changes:
        try:
            heist = getattr(heist, name)(*arguments)
        except ValueError as error:
            assert "cannot" in str(error)
    assert start.to_bytes() == before, "the heist that was edited is as it was"
    put(simulator, heist)
    assert now(simulator) == heist
    assert now(simulator).to_bytes() == heist.to_bytes()
    for action in (7, 5, 1, 3, 4):
        step(simulator, action)


def test_the_drawing():
    heist = Heist.from_array(
        CORRIDOR, LEFT_END, RIGHT_END, keys={RED: Cell(3, 1)}, locks={BLUE: MIDDLE}, held=[GREEN]
    )
    row = "██████████████"
    assert (
        str(heist) == "\n".join([row] * 3 + ["AAKr  Lb    GG"] + [row] * 3) + "\nkeys held: green"
    )
    upper = Heist.from_array(ROOM, Cell(4, 0))
    assert str(upper).splitlines()[0] == "AA", "the top row comes first"
    assert str(upper).endswith("keys held: none")


def test_what_is_refused():
    heist = Heist.from_array(CORRIDOR, LEFT_END, RIGHT_END, locks={BLUE: MIDDLE})
    wall, outside = Cell(0, 0), Cell(7, 0)
    for edit in (
        lambda cell: heist.with_agent(cell),
        lambda cell: heist.with_gem(cell),
        lambda cell: heist.with_keys(RED, cell),
        lambda cell: heist.with_locks(RED, cell),
    ):
        with pytest.raises(ValueError, match=r"cannot put .* on Cell\(row=0, column=0\).*a wall"):
            edit(wall)
        with pytest.raises(ValueError, match="outside of the 7x7 world"):
            edit(outside)
        with pytest.raises(ValueError, match=r"a position is a Cell\(row, column\)"):
            edit((3, 3))
    with pytest.raises(ValueError, match="a blue lock is there, whose key it does not hold"):
        heist.with_agent(MIDDLE)
    inside = heist.with_held_key(BLUE).with_agent(MIDDLE)
    with pytest.raises(ValueError, match="cannot take the key: the agent is in its lock"):
        inside.with_held_key(BLUE, False)
    with pytest.raises(ValueError, match="the agent is there, without key"):
        heist.with_locks(RED, LEFT_END)
    for cell, what in ((LEFT_END, "the agent"), (MIDDLE, "a lock"), (RIGHT_END, "a gem")):
        with pytest.raises(ValueError, match=f"cannot put a wall on .* {what} is there"):
            heist.with_wall(cell)
    with pytest.raises(ValueError, match=r"colours are .*BLUE.*RED.*got 0"):
        heist.with_keys(0, MIDDLE)
    with pytest.raises(ValueError, match=r"backgrounds are 0\.\.8, got 9"):
        heist.with_background(9)
    with pytest.raises(ValueError, match="of maze, not of heist"):
        Heist.from_bytes(Maze.from_seed(0).to_bytes())
    with pytest.raises(ValueError, match="no mode 'extreme'"):
        Heist.from_seed(0, "extreme")
    with pytest.raises(ValueError, match="level seeds are"):
        Heist.from_seed(-1)
    with pytest.raises(ValueError, match=r"square, 3 to 64 .* got shape \(3, 4\)"):
        Heist.from_array(np.full((3, 4), SPACE), Cell(0, 0))
    with pytest.raises(ValueError, match=r"51 \(wall\), 100 \(space\); got \[2\]"):
        Heist.from_array(np.full((3, 3), 2), Cell(0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(tail=s.tail._replace(has_keys=(0,))), "the level has 1 colours"),
        (lambda s: s._replace(tail=s.tail._replace(world_dim=8)), "in a world of 8"),
        (lambda s: s._replace(grid=np.full((9, 9), 2)), "not wall or space"),
        (lambda s: s._replace(entities=edited(s, 0, x=np.nan)), "outside of the 9x9"),
        (lambda s: s._replace(entities=edited(s, 0, y=9)), "outside of the 9x9"),
        (lambda s: s._replace(entities=edited(s, 1, type=0)), "one agent"),
        (lambda s: s._replace(entities=edited(s, 1, type=5)), "an entity of type 5"),
    ],
)
def test_states_that_no_heist_can_be_read_from(change, message):
    state = parse(Heist.from_seed(2).to_bytes())
    with pytest.raises(ValueError, match=message):
        Heist.from_bytes(change(state).to_bytes())


def edited(state, index, **fields):
    entities = state.entities.copy()
    for name, value in fields.items():
        entities[name][index] = value
    return entities
