"""What each game alone demands: refused in Python, and the simulator does die of it."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlbilinear.envs.contents import CONTENTS
from rlbilinear.envs.entity import ENTITY
from rlbilinear.envs.simulator import Simulator, template_state
from rlbilinear.envs.state import parse
from rlbilinear.envs.state_checks import validate_state
from rlbilinear.envs.tails import FIELDS, read_fields

simulators = {}


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    for simulator in simulators.values():
        simulator.close()


def fresh(game, mode="easy"):
    """Return a simulator after some steps, and its state."""
    if (game, mode) not in simulators:
        simulator = simulators[game, mode] = Simulator(game, mode=mode, num_threads=0, seed=5)
        for action in (4, 7, 9):
            simulator.act(np.array([action]))
        simulator.observe()
    simulator = simulators[game, mode]
    return simulator, parse(simulator.get_states()[0])


def with_fields(state, **changes):
    """Return the state with other own fields, whatever the game."""
    fields = {**read_fields(state.game, state.tail), **changes}
    tail = b""
    for field in FIELDS[state.game]:
        value = fields[field.name]
        if field.kind in ("int", "float"):
            tail += struct.pack("<i" if field.kind == "int" else "<f", value)
        else:
            dtype = {"ints": "<i4", "floats": "<f4", "entities": ENTITY}[field.kind]
            tail += struct.pack("<i", len(value)) + np.asarray(value, dtype).tobytes()
    return state._replace(tail=tail)


def with_things(state, chosen, **changes):
    """Return the state with other values in its things of a type, or in all."""
    entities = state.entities.copy()
    where = slice(None) if chosen is None else entities["type"] == chosen
    assert len(entities[where])
    for name, value in changes.items():
        entities[name][where] = value
    return state._replace(entities=entities)


def without(state, chosen):
    return state._replace(entities=state.entities[state.entities["type"] != chosen])


def copies(state, chosen, number, **changes):
    """Return the state with many of its first thing of a type, that pass the grid."""
    thing = state.entities[state.entities["type"] == chosen][:1].repeat(number)
    thing["smart_step"] = 0
    for name, value in changes.items():
        thing[name] = value
    return state._replace(entities=np.concatenate([thing, state.entities]))


def chased(state, **changes):
    """Return a chaser's state with one more enemy, in the centre of a free cell at first."""
    cell = int(read_fields("chaser", state.tail)["free_cells"][0])
    side = state.world.main_width
    at = {"x": cell % side + 0.5, "y": cell // side + 0.5, "smart_step": 1, "rx": 0.5, "ry": 0.5}
    return copies(state, 4, 1, type=6, image_type=6, **{**at, **changes})


def walled(state):
    """Return a chaser's state with its first free cell walled in, but for one side."""
    grid = state.grid.copy()
    cell = int(read_fields("chaser", state.tail)["free_cells"][0])
    row, column = divmod(cell, grid.shape[1])
    for near in ((row + 1, column), (row, column + 1)):
        if grid[near] != 5:
            grid[near] = 5
            break
    free = (grid != 5).ravel()
    return with_fields(
        state._replace(grid=grid), is_space_vec=free, free_cells=np.flatnonzero(free)
    )


@pytest.fixture(scope="module")
def dies():
    """A function: whether a process ends when its simulator is put into a state, and plays on."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("doomed.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as doomed:

        def dies(game, state, actions, mode="easy"):
            played = [int(action) for action in actions]
            asked = {"game": game, "mode": mode, "state": state.to_bytes().hex(), "actions": played}
            doomed.stdin.write(json.dumps(asked) + "\n")
            doomed.stdin.flush()
            code = int(doomed.stdout.readline())
            assert code != -signal.SIGALRM, f"{game} hangs"
            return code != 0

        yield dies
        doomed.stdin.close()


DEADLY = {
    "no boss": ("bossfight", lambda s: without(s, 2), "no boss"),
    "no shields": ("bossfight", lambda s: without(s, 3), "no shields"),
    "no goal": ("jumper", lambda s: without(s, 1), "no goal"),
    "no player": ("bigfish", lambda s: without(s, 0), "0 of type 0"),
    "no lanes": ("plunder", lambda s: with_fields(s, num_lanes=0, spawn_prob=1.0), "num_lanes 0"),
    "a boxed-in enemy": (
        "chaser",
        lambda s: with_fields(chased(s), is_space_vec=np.zeros(s.grid.size)),
        "another list of spaces",
    ),
    "no free cells": (
        "chaser",
        lambda s: with_fields(s, free_cells=[], total_enemies=100),
        "0 free_cells",
    ),
    "ground of no theme": ("climber", lambda s: with_fields(s, wall_theme=-1), "wall_theme -1"),
    "a picture of no theme": (
        "coinrun",
        lambda s: with_things(s, 0, image_theme=-1),
        "image_theme -1",
    ),
    "a low world": (
        "coinrun",
        lambda s: s._replace(
            grid=s.grid[:2],
            episode=s.episode._replace(grid_size=128),
            world=s.world._replace(main_height=2),
        ),
        "64x2 world, where coinrun needs 64x64",
    ),
    "a cell that cannot be drawn": (
        "miner",
        lambda s: s._replace(grid=np.full_like(s.grid, 101)),
        "cell 101",
    ),
    "cheese outside": (
        "maze",
        lambda s: with_things(
            s._replace(world=s.world._replace(out_of_bounds_object=2)), 0, x=-1.5
        ),
        "2 outside the world, where maze has 51",
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to lose")
@pytest.mark.parametrize("what", DEADLY)
def test_what_ends_the_process_is_refused(what, dies):
    game, change, message = DEADLY[what]
    simulator, state = fresh(game)
    assert not dies(game, state, (4, -1, 7))
    changed = change(state)
    with pytest.raises(ValueError, match=message):
        simulator.set_states([changed.to_bytes()])
    assert dies(game, changed, (4, 4, -1, 7))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to lose")
def test_a_chaser_of_a_smaller_mode_gets_dead_ends_and_is_refused(dies):
    """The simulator keeps its first mode's maze generator, and cuts its mazes to the state's."""
    state = parse(template_state("chaser", "easy"))
    assert dies("chaser", state, np.random.default_rng(0).integers(15, size=2000), "hard")
    for mode in ("hard", "extreme"):
        with pytest.raises(ValueError, match="chaser of 11 cells a side"):
            validate_state(state.to_bytes(), "chaser", mode)
    validate_state(state.to_bytes(), "chaser", "easy")


REFUSED = {
    # game, change, message
    "a theme beyond an array": ("leaper", lambda s: with_things(s, 0, image_theme=5), "variant 5"),
    "a saw's theme": ("coinrun", lambda s: copies(s, 0, 1, type=2, image_theme=1), "variant 1"),
    "a frog like a log": (
        "leaper",
        lambda s: with_things(s, 0, image_type=1, image_theme=0),
        "a frog's",
    ),
    "a wall among things": ("dodgeball", lambda s: copies(s, 0, 1, type=51), "of type 51; dodgeba"),
    "a type beyond all": ("dodgeball", lambda s: copies(s, 0, 1, type=10**9), "type 1000000000"),
    "a negative type": ("dodgeball", lambda s: copies(s, 0, 1, type=-1), "of type -1"),
    "a key without a ring": (
        "heist",
        lambda s: copies(
            s._replace(tail=s.tail._replace(has_keys=(0,))),
            0,
            1,
            type=2,
            image_type=2,
            image_theme=2,
        ),
        "theme 2 with keys of 1",
    ),
    "more rings than themes": (
        "heist",
        lambda s: s._replace(tail=s.tail._replace(has_keys=(0, 0, 0, 0))),
        "4 has_keys",
    ),
    "another world than the grid": (
        "heist",
        lambda s: s._replace(tail=s.tail._replace(world_dim=10)),
        "in a world of 10",
    ),
    "locks on a heap": (
        "heist",
        lambda s: copies(
            s._replace(tail=s.tail._replace(has_keys=(0, 0, 0))), 0, 9, type=1, smart_step=0
        ),
        "9 of them in the way",
    ),
    "crates on a heap": (
        "coinrun",
        lambda s: copies(s, 0, 9, type=20),
        "9 of them in the way",
    ),
    "a long wall": ("dodgeball", lambda s: copies(s, 0, 1, type=1, rx=90, ry=0.1), "300 times"),
    "a flat barrier": ("fruitbot", lambda s: copies(s, 0, 1, type=1, rx=1, ry=0), "300 times"),
    "no attack modes": ("bossfight", lambda s: with_fields(s, attack_modes=[]), "0 attack_modes"),
    "a boss that divides by zero": (
        "bossfight",
        lambda s: with_fields(s, round_health=0),
        "round_health 0",
    ),
    "an endless velocity": (
        "bossfight",
        lambda s: with_fields(s, boss_vel_timeout=0),
        "boss_vel_timeout 0",
    ),
    "ships of no kind": ("plunder", lambda s: with_fields(s, image_permutation=[6]), "permutation"),
    "ships beyond the targets": (
        "plunder",
        lambda s: with_fields(s, target_bools=[0]),
        "a ship of a kind beyond the 1",
    ),
    "lanes without speeds": ("plunder", lambda s: with_fields(s, num_lanes=6), "6 lanes"),
    "more kinds than ships": (
        "plunder",
        lambda s: with_fields(s, num_current_ship_types=7),
        "7 kinds of ships",
    ),
    "NaN speeds": ("plunder", lambda s: with_fields(s, lane_vels=[np.nan] * 5), "lane_vels nan"),
    "a planet that fires": (
        "starpilot",
        lambda s: copies(s, 0, 1, type=9, fire_time=3),
        "type 9 that fires",
    ),
    "a spawner of no type": (
        "starpilot",
        lambda s: with_fields(
            s, spawners=copies(s, 0, 1, type=33).entities[:1], total_prob_weight=0
        ),
        "type 33",
    ),
    "another list of spaces": (
        "chaser",
        lambda s: with_fields(s, is_space_vec=np.ones(s.grid.size)),
        "another list of spaces",
    ),
    "a free cell in a wall": (
        "chaser",
        lambda s: with_fields(s, free_cells=[10**6]),
        "a free cell that is a wall",
    ),
    "a dead end": ("chaser", walled, "a dead end"),
    "an enemy off the middle": ("chaser", lambda s: chased(s, x=1.6), "leave the corridors"),
    "an enemy that drifts": ("chaser", lambda s: chased(s, vx=0.3), "leave the corridors"),
    "an enemy through walls": (
        "chaser",
        lambda s: chased(s, vx=0.5, smart_step=0),
        "leave the corridors",
    ),
    "a thing that stays when outside": (
        "ninja",
        lambda s: with_things(s, None, auto_erase=0),
        "auto_erase",
    ),
    "a thing that grows for ever": (
        "ninja",
        lambda s: copies(s, 0, 1, type=7, grow_rate=1.1, expire_time=-1),
        "grows",
    ),
    "two players": ("ninja", lambda s: copies(s, 0, 1), r"has 2 of type 0 \(player\), not one"),
    "a fish that collides": (
        "bigfish",
        lambda s: copies(s, 0, 1, type=2, smart_step=1),
        r"type 2 that collides with the grid; of those in bigfish types \[0\] do",
    ),
    "a crowd that collides": (
        "ninja",
        lambda s: copies(s, 0, 101, type=7, smart_step=1),
        r"10\d entities that collide with 1",
    ),
    "a fast thing": ("ninja", lambda s: with_things(s, 0, vx=50.0), "speed of 50"),
    "too many things": (
        "ninja",
        lambda s: copies(s, 0, 700, type=7),
        r"70\d entities, accepted 700",
    ),
    "a picture without a colour": (
        "bigfish",
        lambda s: with_things(
            s._replace(options=s.options._replace(use_monochrome_assets=1)), 0, image_type=70
        ),
        "picture 70",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_harms_is_refused(what):
    game, change, message = REFUSED[what]
    _, state = fresh(game)
    validate_state(state.to_bytes(), game, "easy")
    with pytest.raises(ValueError, match=message):
        validate_state(change(state).to_bytes(), game, "easy")


def test_an_enemy_may_be_put_into_the_maze_and_finds_its_way():
    simulator, state = fresh("chaser")
    simulator.set_states([chased(state).to_bytes()])
    for _ in range(60):
        simulator.act(np.array([4]))
        validate_state(simulator.get_states()[0], "chaser", "easy")
    simulator.observe()


def test_a_chaser_takes_no_state_of_a_larger_maze(dies):
    """Its generator has no room for the next level."""
    small, _ = fresh("chaser", "easy")
    _, state = fresh("chaser", "hard")
    validate_state(state.to_bytes(), "chaser")
    with pytest.raises(ValueError, match="of 13 cells a side, but the environment was made for 11"):
        small.set_states([state.to_bytes()])
    assert dies("chaser", state, (4, -1, 7))


def test_modes_are_the_games():
    _, state = fresh("bigfish")
    with pytest.raises(ValueError, match="bigfish has no mode 'memory'"):
        validate_state(state.to_bytes(), "bigfish", "memory")
    with pytest.raises(ValueError, match="unknown game 'fish'"):
        validate_state(state.to_bytes(), "fish")


@pytest.mark.parametrize("game", CONTENTS)
def test_all_pictures_that_are_accepted_are_drawn(game):
    """Each in each variant: a table that allowed too many would end this process."""
    simulator, state = fresh(game)
    themes = np.full(100, 10)
    themes[54:60] = 1
    themes[list(CONTENTS[game].themes)] = list(CONTENTS[game].themes.values())
    pictures = [(p, v) for p in range(100) for v in range(min(10, themes[p]))]
    plain = {
        "chaser": 2,
        "climber": 1,
        "dodgeball": 8,
        "fruitbot": 7,
        "heist": 9,
        "leaper": 1,
        "plunder": 6,
    }
    kind = plain.get(game, max(k for k in CONTENTS[game].things if k not in (20, 54, 59)))
    fields = {"type": 59 if game == "coinrun" else kind, "fire_time": -1}
    for start in range(0, len(pictures), 400):
        part = np.array(pictures[start : start + 400])
        many = copies(state, 0, len(part), **fields, image_type=part[:, 0], image_theme=part[:, 1])
        if game == "maze":  # of which the mouse alone is accepted
            simulator.set_unchecked(0, many.to_bytes())
        else:
            simulator.set_states([many.to_bytes()])
        simulator.observe()
