import numpy as np
import pytest

from envs.games import GAMES
from envs.simulator import Simulator
from envs.state import END_MARKER, ENTITY, parse


@pytest.mark.parametrize(
    ("game", "mode"), [(game, mode) for game, modes in GAMES.items() for mode in modes]
)
def test_dump_of_parse_is_the_same_bytes(game, mode):
    simulator = Simulator(game, 2, mode=mode, num_threads=0)
    random = np.random.default_rng(0)
    for _ in range(3):
        for _ in range(5):
            simulator.act(random.integers(15, size=2))
        states = simulator.get_states()
        images = simulator.observe().images.copy()
        assert [parse(raw).to_bytes() for raw in states] == states
        simulator.set_states(states)  # every real state passes the checks
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
