import struct

import numpy as np
import pytest

from rlbilinear.envs.games import GAMES
from rlbilinear.envs.simulator import Simulator, template_state
from rlbilinear.envs.state import END_MARKER, ENTITY, Options, State, parse

PAIRS = [(game, mode) for game, modes in GAMES.items() for mode in modes]


@pytest.mark.parametrize(("game", "mode"), PAIRS)
def test_dump_of_parse_is_the_same_bytes(game, mode):
    simulator = Simulator(game, 2, mode=mode, num_threads=0)
    random = np.random.default_rng(0)
    for steps in (0, 1, 5, 20):
        for _ in range(steps):
            simulator.act(random.integers(15, size=2))
        states = simulator.get_states()
        images = simulator.observe().images.copy()
        assert [State.from_bytes(raw).to_bytes() for raw in states] == states
        simulator.set_states(states)
        assert simulator.get_states() == states
        np.testing.assert_array_equal(simulator.observe().images, images)
    simulator.close()


def test_fields_have_the_values_the_simulator_was_given():
    simulator = Simulator("coinrun", mode="hard", num_levels=7, start_level=100, num_threads=0)
    for _ in range(3):
        simulator.act(np.array([7]))
    state = parse(simulator.get_states()[0])
    simulator.observe()
    assert ENTITY.itemsize == 124
    assert (state.game, state.options.distribution_mode) == ("coinrun", 1)
    assert (state.options.level_seed_low, state.options.level_seed_high) == (100, 107)
    assert (state.episode.cur_time, state.episode.timeout, state.episode.action) == (3, 1000, 7)
    assert state.episode.current_level_seed == simulator.info("level_seed")[0]
    assert state.grid.shape == (state.world.main_height, state.world.main_width) == (64, 64)
    assert not state.grid.flags.writeable


def test_parse_refuses_what_is_no_state():
    with pytest.raises(ValueError, match="bytes, got str"):
        parse("state")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="end marker"):
        parse(b"")
    with pytest.raises(ValueError, match="cut short"):
        parse(END_MARKER)
    with pytest.raises(ValueError, match="version 1"):
        parse(b"\1\0\0\0\4\0\0\0maze" + END_MARKER)
    with pytest.raises(ValueError, match=r"unknown game 'mazf'.*bigfish.*starpilot"):
        parse(b"\0\0\0\0\4\0\0\0mazf" + END_MARKER)
    with pytest.raises(ValueError, match="count of 2147483647"):
        parse(b"\0\0\0\0\xff\xff\xff\x7fmaze" + END_MARKER)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("level_seed_low", [0, 500])
def test_states_of_forks_are_refused_by_name(game, level_seed_low):
    """As procgenAISC writes them: five more ints behind use_sequential_levels."""
    state = parse(template_state(game, "easy"))
    state = state._replace(options=state.options._replace(level_seed_low=level_seed_low))
    raw = state.to_bytes()
    at = 8 + len(game) + 4 * (Options._fields.index("use_sequential_levels") + 1)
    fork = raw[:at] + struct.pack("<5i", 0, 10, 1, 0, 1) + raw[at:]
    with pytest.raises(ValueError, match=r"a fork of ProcGen: procgenAISC .* five more options"):
        parse(fork)
    own_game = fork[:4] + struct.pack("<i", len(game) + 5) + game.encode() + b"_aisc"
    with pytest.raises(ValueError, match="a fork of ProcGen"):
        parse(own_game + fork[8 + len(game) :])
    with pytest.raises(ValueError, match=r"unknown game|cut short|count of|grid of|own fields"):
        parse(raw[:at] + struct.pack("<4i", 0, 10, 1, 0) + raw[at:])
