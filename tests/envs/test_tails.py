import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear.envs.games import GAMES
from rlbilinear.envs.simulator import Simulator, template_state
from rlbilinear.envs.state import parse
from rlbilinear.envs.tails import (
    FIELDS,
    CoinrunTail,
    HeistTail,
    MazeTail,
    read_fields,
    read_tail,
    write_tail,
)

INT = st.integers(-(2**31), 2**31 - 1)
FLOAT = st.floats(width=32, allow_nan=False)


@given(
    st.one_of(
        st.builds(MazeTail, INT, INT),
        st.builds(HeistTail, INT, INT, st.lists(INT, max_size=5).map(tuple)),
        st.builds(CoinrunTail, FLOAT, INT, INT, INT, INT, FLOAT, FLOAT),
    )
)
def test_typed_tails_come_back(tail):
    game = {MazeTail: "maze", HeistTail: "heist", CoinrunTail: "coinrun"}[type(tail)]
    raw = write_tail(tail)
    assert read_tail(game, raw) == tail
    for wrong in (raw + b"\0\0\0\0", raw[:-4], raw[:-1], b""):
        with pytest.raises(ValueError, match=f"{game}'s own fields cannot be {len(wrong)} bytes"):
            read_tail(game, wrong)


@pytest.mark.parametrize("game", GAMES)
def test_fields_have_all_bytes_in_order(game):
    """Packed again by their kinds alone, the fields give the simulator's bytes."""
    tail = parse(template_state(game, "hard")).tail
    fields = read_fields(game, tail)
    assert list(fields) == [field.name for field in FIELDS[game]]
    packed = b""
    for field, value in zip(FIELDS[game], fields.values(), strict=True):
        if isinstance(value, np.ndarray):
            packed += struct.pack("<i", len(value)) + value.tobytes()
        else:
            packed += struct.pack("<f" if field.kind == "float" else "<i", value)
    assert packed == write_tail(tail)


def test_fields_follow_the_game():
    simulator = Simulator("coinrun", num_threads=0)
    before = parse(simulator.get_states()[0])
    assert isinstance(before.tail, CoinrunTail)
    assert (before.tail.gravity, before.tail.facing_right) == (pytest.approx(0.2), 1)
    assert before.tail.last_agent_y == before.entities["y"][0]
    for action in (1, 1):
        simulator.act(np.array([action]))
    after = parse(simulator.get_states()[0])
    simulator.observe()
    simulator.close()
    assert isinstance(after.tail, CoinrunTail)
    assert (after.tail.facing_right, after.tail.has_support) == (0, 1)


def test_held_keys_open_locks():
    simulator = Simulator("heist", 20, num_threads=0)
    for raw in simulator.get_states():
        state = parse(raw)
        assert isinstance(state.tail, HeistTail)
        assert state.tail.num_keys == len(state.tail.has_keys) and not any(state.tail.has_keys)
        assert state.tail.world_dim == state.world.main_width == 9
        themes = state.entities["image_theme"][state.entities["type"] == 1]
        assert set(themes) <= set(range(state.tail.num_keys))
    simulator.close()
