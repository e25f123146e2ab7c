"""A bad state ends the simulator's process: what these tests accept is given to it."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlbilinear.envs.contents import CONTENTS
from rlbilinear.envs.games import BACKGROUNDS, GAMES
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.observation import observe
from rlbilinear.envs.render import human_view
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import Generator, parse
from rlbilinear.envs.state_checks import validate_state
from rlbilinear.envs.tails import FIELDS, write_tail
from rlbilinear.envs.vecenv import ProcgenVecEnv


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator("maze", num_threads=0, seed=3)
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def good(simulator):
    return simulator.get_states()[0]


def accepted(simulator, raw):
    """Give a state to the simulator and play on into another level, unless it is refused."""
    try:
        simulator.set_states([raw])
    except ValueError:
        return False
    for action in (7, 5, -1, 7):
        simulator.act(np.array([action]))
        simulator.observe()
    simulator.get_states()
    return True


@pytest.fixture(scope="module")
def offsets(good):
    """Offsets of the fields: most of the bytes are the generators' texts, left out here."""
    state = parse(good)
    generators = (state.level_generator, state.generator, state.asset_generator)
    text = [range(at := good.index(g.text), at + len(g.text)) for g in generators]
    return [i for i in range(len(good) - 4) if not any(i + 3 in span or i in span for span in text)]


def test_a_good_state_is_accepted(simulator, good):
    assert accepted(simulator, good)


def test_every_cut_is_refused(good):
    for length in [*range(0, 400), *range(400, len(good), 97), len(good) - 1]:
        with pytest.raises(ValueError):
            validate_state(good[:length], "maze")
        with pytest.raises(ValueError):
            validate_state(good[:length] + good[-4:], "maze")


FUZZ = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(lambda value: struct.pack("<i", value)),
    st.integers(-2, 120).map(lambda value: struct.pack("<i", value)),
    st.floats(width=32).map(lambda value: struct.pack("<f", value)),
)


@FUZZ
@given(data=st.data())
def test_altered_fields_are_refused_or_harmless(simulator, good, offsets, data):
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.sampled_from(offsets))
        raw[offset : offset + 4] = data.draw(VALUES)
    accepted(simulator, bytes(raw))


@FUZZ
@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits_are_refused_or_harmless(simulator, good, flips):
    raw = bytearray(good)
    for position, bit in flips:
        raw[position % len(raw)] ^= 1 << bit
    accepted(simulator, bytes(raw))


@FUZZ
@given(head=st.integers(0, 400), junk=st.binary(max_size=200), keep_end=st.booleans())
def test_random_bytes_are_refused(good, head, junk, keep_end):
    raw = good[:head] + junk + (good[-4:] if keep_end else b"")
    with pytest.raises(ValueError):
        validate_state(raw, "maze")


def test_another_games_state_is_refused(good):
    with pytest.raises(ValueError, match="a state of maze, but the environment plays heist"):
        validate_state(good, "heist")


@pytest.mark.parametrize("game", ["bossfight", "chaser", "heist", "leaper", "plunder", "starpilot"])
def test_counts_in_a_games_own_fields_are_checked(game):
    simulator = Simulator(game, num_threads=0)
    state = parse(simulator.get_states()[0])
    simulator.close()
    validate_state(state.to_bytes(), game)
    huge = struct.pack("<i", 2**30)
    start = 8 if game == "heist" else 4 if game in ("leaper", "plunder") else 0
    tail = write_tail(state.tail)
    for wrong in (tail[:start] + huge + tail[start + 4 :], tail + b"\0\0\0\0", tail[:-4]):
        with pytest.raises(ValueError, match="own fields"):
            validate_state(state._replace(tail=wrong).to_bytes(), game)


def altered(good, block, **fields):
    state = parse(good)
    return state._replace(**{block: getattr(state, block)._replace(**fields)}).to_bytes()


@pytest.mark.parametrize(
    ("block", "fields", "message"),
    [
        ("options", {"distribution_mode": 2}, "distribution mode 2"),
        ("options", {"use_generated_assets": 1}, "generated assets"),
        ("options", {"level_seed_high": 0}, "level range"),
        ("episode", {"is_waiting_for_step": 1}, "step under way"),
        ("episode", {"reward": float("nan")}, "not finite"),
        ("view", {"background_index": 9}, "background 9"),
        ("view", {"bg_tile_ratio": 1e-30}, "background tiles"),
        ("world", {"visibility": 1e9}, "view of 1e"),
        ("world", {"main_width": 16}, "16x15 world"),
        ("generator", {"is_seeded": 0}, "unseeded"),
        ("asset_generator", {"text": b"1 2 3"}, "625 words"),
    ],
)
def test_the_message_says_what_is_wrong(good, block, fields, message):
    with pytest.raises(ValueError, match=message):
        validate_state(altered(good, block, **fields), "maze")


NOT_NAMED = [
    ("options", {"level_seed_high": 0}),
    ("episode", {"is_waiting_for_step": 1}),
    ("episode", {"reward": float("nan")}),
    ("view", {"maxspeed": float("inf")}),
    ("world", {"visibility": 1e9}),
    ("generator", {"text": b"1 2 3"}),
    ("entities", {"rx": 1e30}),
    ("entities", {"vx": float("nan")}),
]


@pytest.mark.parametrize("kind", [Maze, Heist])
@pytest.mark.parametrize(("block", "fields"), NOT_NAMED)
def test_a_value_is_drawn_whatever_else_its_bytes_say_and_played_only_when_all_is_sound(
    kind, block, fields
):
    game, sound = kind.__name__.lower(), kind.from_seed(2)
    state = parse(sound.to_bytes())
    part = getattr(state, block)
    if block == "entities":
        part = part.copy()
        ((name, value),) = fields.items()
        part[name][-1] = value
    else:
        part = part._replace(**fields)
    raw = state._replace(**{block: part}).to_bytes()
    read = kind.from_bytes(raw)
    assert read.to_bytes() == raw, "nothing is put right silently"
    seen, view = observe([read]), human_view(read)
    if block != "entities" or kind is Maze:  # a heist has its own things drawn
        np.testing.assert_array_equal(seen, observe([sound]))
        np.testing.assert_array_equal(view, human_view(sound))
    with pytest.raises(ValueError, match="the state has"):
        validate_state(raw, game)
    with pytest.raises(ValueError, match=r"levels\[1\]: the state has"):
        ProcgenVecEnv(game, 1, levels=[sound, read])


def test_what_is_played_can_be_read_except_heists_with_a_thing_outside():
    for game, kind in (("maze", Maze), ("heist", Heist)):
        for mode in GAMES[game]:
            for raw in rollout(game, mode, 40, 8):
                assert kind.from_bytes(raw).to_bytes() == raw
    state = parse(Heist.from_seed(2).to_bytes())
    entities = state.entities.copy()
    entities["x"][-1] = -3.0
    raw = state._replace(entities=entities).to_bytes()
    validate_state(raw, "heist")
    with pytest.raises(ValueError, match="something outside of the 9x9 world"):
        Heist.from_bytes(raw)


def test_players_and_cells_are_checked(good):
    state = parse(good)
    nobody = state._replace(entities=state.entities[:0]).to_bytes()
    with pytest.raises(ValueError, match="0 of type 0"):
        validate_state(nobody, "maze")
    for field, value in (("x", np.nan), ("rx", 1e9), ("grow_rate", 1.5), ("image_type", 100)):
        entities = state.entities.copy()
        entities[field] = value
        with pytest.raises(ValueError, match=r"entity|mouse|picture"):
            validate_state(state._replace(entities=entities).to_bytes(), "maze")
    grid = state.grid.copy()
    grid[0, 0] = 7
    with pytest.raises(ValueError, match="not wall, space or cheese"):
        validate_state(state._replace(grid=grid).to_bytes(), "maze")


def test_a_refused_state_leaves_all_environments_as_they_were():
    simulator = Simulator("maze", 2, num_threads=0)
    before = simulator.get_states()
    with pytest.raises(ValueError, match="state 1 of 2"):
        simulator.set_states([before[1], before[0][:-8]])
    assert simulator.get_states() == before
    simulator.close()


def test_generator_text_may_have_any_words(simulator, good):
    state = parse(good)
    words = Generator(1, b" ".join([b"0"] * 625))
    raw = state._replace(generator=words, level_generator=words).to_bytes()
    assert accepted(simulator, raw)


def test_every_game_has_its_tables():
    assert GAMES.keys() == BACKGROUNDS.keys() == FIELDS.keys() == CONTENTS.keys()


def rollout(game, mode, steps, every):
    """Yield the state of each of two environments in turn, in random play by held actions."""
    simulator = Simulator(game, 2, mode=mode, num_threads=0, seed=11)
    random = np.random.default_rng(2)
    actions = random.integers(15, size=2)
    for step in range(steps):
        actions = np.where(random.random(2) < 0.3, random.integers(15, size=2), actions)
        simulator.act(actions)
        if step % every == 0:
            yield simulator.get_states([step // every % 2])[0]
    simulator.observe()
    simulator.close()


PAIRS = [(game, mode) for game, modes in GAMES.items() for mode in modes]


@pytest.mark.parametrize(("game", "mode"), PAIRS)
def test_a_simulators_own_states_are_accepted(game, mode):
    for raw in rollout(game, mode, 60, 5):
        validate_state(raw, game, mode)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "mode"), PAIRS)
def test_a_simulators_own_states_are_accepted_for_long(game, mode):
    """Prints, with `pytest -s`, how many states there were, of how many levels and lengths."""
    levels, lengths, count = set(), set(), 0
    for raw in rollout(game, mode, 10_000, 5):
        state = parse(raw)
        assert state.to_bytes() == raw
        validate_state(raw, game, mode)
        count += 1
        levels.add(state.episode.current_level_seed)
        lengths.add(len(raw))
    print(
        f"\n{game:10} {mode:8} {count} states of {len(levels)} levels come back and are accepted, "
        f"{min(lengths)} to {max(lengths)} bytes"
    )
