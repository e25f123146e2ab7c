"""The concepts that come with the package, on states of the real games."""

import functools
from itertools import islice

import numpy as np
import pytest

from rlbilinear.agents import Agent
from rlbilinear.envs import EVALUATION, FITTING
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.routes import key_route
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.solver import decision_square, distances, shortest_path
from rlbilinear.envs.state import SPACE, WALL, State, parse
from rlbilinear.envs.state_checks import validate_state
from rlbilinear.probes.causal.games import (
    WORLDS,
    causal_concept,
    causal_concepts,
    causal_world,
    game_data,
)
from rlbilinear.probes.causal.report import ask

ALL = [(game, name) for game in WORLDS for name in causal_concepts(game)]
PARTS = {  # of the state that the counterparts of a concept may differ in
    ("maze", "mouse"): {"entities"},
    ("heist", "keys held"): {"tail"},
    ("heist", "next thing"): {"tail", "entities"},  # by the keys held, or by the gem
    ("coinrun", "coin"): {"grid"},
    ("coinrun", "facing"): {"tail", "entities"},
}


@functools.cache  # several tests look at the same states
def drawn(game, name, count=6):
    """Draw states of levels with the concept, each with its counterpart if it has one."""
    world, rng = causal_world(game), np.random.default_rng(0)
    suiting = (level for level in FITTING.first(500) if world.suits(level, name))
    levels = [*islice(suiting, count)]
    bases = [world.sample_of(name)(level, rng) for level in levels for _ in range(6)]
    return [(base, world.concepts[name].counterfactual(base, rng)) for base in bases]


def as_state(value):
    return value if isinstance(value, State) else parse(value.to_bytes())


@pytest.mark.parametrize(("game", "name"), ALL)
def test_counterparts_differ_in_the_concept_only(game, name):
    concept = causal_concept(game, name)
    pairs = [(base, source) for base, source in drawn(game, name) if source is not None]
    assert pairs
    default = {"grid"} if game == "maze" else {"entities"}
    for base, source in pairs:
        one, two = as_state(base), as_state(source)
        changed = {
            part
            for part in State._fields
            if (
                getattr(one, part).tobytes() != getattr(two, part).tobytes()
                if part in ("grid", "entities")
                else getattr(one, part) != getattr(two, part)
            )
        }
        assert changed <= PARTS.get((game, name), default)
        assert changed and not np.array_equal(concept.label(base), concept.label(source))
        for state in (one, two):
            validate_state(state.to_bytes(), game)


@pytest.mark.parametrize(
    ("game", "name"), [each for each in ALL if causal_concept(*each).without is not None]
)
def test_states_without_a_concept_lack_it_and_nothing_else(game, name):
    concept = causal_concept(game, name)
    for base, _ in drawn(game, name)[:12]:
        without = as_state(concept.without(base))
        validate_state(without.to_bytes(), game)
        if concept.kind == "map":
            assert not concept.label(concept.without(base)).any()
        else:
            assert concept.behaviour(concept.without(base)) is None
        part = "entities" if game == "heist" else "grid"
        assert as_state(base)._replace(**{part: getattr(without, part)}).to_bytes() == (
            without.to_bytes()
        )


def test_which_concepts_a_state_can_be_without():
    """The mouse, walls, the side one faces and which keys are held are never absent."""
    always = {(g, n) for g, n in ALL if causal_concept(g, n).without is None}
    assert always == {
        ("maze", "mouse"),
        ("maze", "wall"),
        ("heist", "keys held"),
        ("coinrun", "facing"),
    }


@pytest.mark.parametrize("name", ["cheese", "mouse", "wall"])
def test_maze_maps_have_the_top_row_first(name):
    for base, _ in drawn("maze", name):
        found = {tuple(cell) for cell in np.argwhere(causal_concept("maze", name).label(base))}
        cells = {
            "cheese": base.cheese,
            "mouse": (base.mouse,),
            "wall": [tuple(cell) for cell in np.argwhere(base.grid == WALL)],
        }[name]
        assert found == {(base.size - 1 - row, column) for row, column in cells}


def test_places_are_where_the_labels_are():
    for game, name in ALL:
        concept = causal_concept(game, name)
        if concept.place is None:
            continue
        for base, _ in drawn(game, name)[:18]:
            label, (y, x) = concept.label(base), concept.place(base)
            assert label.sum() == 1
            assert label[int(y * len(label)), int(x * len(label))] == 1


def test_walls_open_and_close():
    added = [
        int((source.grid == WALL).sum() - (base.grid == WALL).sum())
        for base, source in drawn("maze", "wall")
        if source is not None
    ]
    assert {*added} == {-1, 1}


def test_maze_behaviour_and_classes_are_the_solvers():
    steps = {(0, -1): 0, (-1, 0): 1, (1, 0): 2, (0, 1): 3}
    move, decision, distance = (
        causal_concept("maze", name) for name in ("next move", "decision", "distance")
    )
    for base, source in drawn("maze", "next move"):
        for maze in (base, source):
            if maze is None:
                continue
            goal = maze.cheese[0]
            first, second = shortest_path(maze, maze.mouse, goal)[:2]
            step = (second.row - first.row, second.column - first.column)
            assert move.label(maze) == move.behaviour(maze) == steps[step]
            assert decision.label(maze) == (decision_square(maze) == maze.mouse)
            far = distances(maze, goal)[maze.mouse]
            assert distance.label(maze) == sum(far >= edge for edge in (5, 10, 20))
        assert source is None or move.label(base) != move.label(source)
    assert move.behaviour(base.with_cheese()) is None
    assert move.behaviour(base.with_mouse(base.cheese[0])) is None


def test_heist_behaviour_and_classes_are_those_of_the_route():
    held, thing = causal_concept("heist", "keys held"), causal_concept("heist", "next thing")
    seen = set()
    for base, source in drawn("heist", "next thing"):
        for heist in (base, source):
            if heist is None:
                continue
            assert isinstance(heist, Heist)
            way = key_route(heist)
            keys = {key.cell: key.colour for key in heist.keys}
            wanted = [1 + keys[c] for c in way if c in keys and keys[c] not in heist.held_keys]
            assert thing.label(heist) == (wanted or [0])[0]
            assert held.label(heist) == sum(2**colour for colour in heist.held_keys)
            seen.add(int(thing.label(heist)))
        assert source is None or thing.label(base) != thing.label(source)
    assert len(seen) >= 3


def test_heist_steps_are_what_single_actions_do():
    """In the simulator, an action of each behaviour moves the agent that way."""
    world, steps = causal_world("heist"), {0: (-1, 0), 1: (0, -1), 2: (0, 1), 3: (1, 0), 4: (0, 0)}
    room = Heist.from_array(np.full((9, 9), SPACE), agent=Cell(4, 4))
    simulator = Simulator("heist", num_threads=0)
    for action, behaviour in enumerate(world.behaviours.tolist()):
        simulator.set_states([room.to_bytes()])
        simulator.act(np.array([action], np.int32))
        simulator.observe()
        player = parse(simulator.get_states()[0]).entities[0]
        moved = (np.sign(round(player["x"] - 4.5, 3)), np.sign(round(player["y"] - 4.5, 3)))
        assert moved == steps[behaviour] if behaviour in steps else 0 not in moved
    simulator.close()


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="come for maze, heist, coinrun; got 'chess'"):
        causal_concepts("chess")
    with pytest.raises(ValueError, match=r"choose from cheese, mouse, .* for maze; got 'queen'"):
        causal_concept("maze", "queen")
    with pytest.raises(ValueError, match="levels: expected at least 5, got 2"):
        game_data("maze", "cheese", levels=2)
    agent = Agent.new("bimpala-small", game="fruitbot", channels=2, blocks=(1, 1), features=4)
    with pytest.raises(ValueError, match="come for maze, heist, coinrun; got 'fruitbot'"):
        ask(agent, "cheese")


def test_data_are_of_fitting_and_evaluation_levels():
    data = game_data("heist", "blue key", fit_levels=5, levels=5, states_per_level=2)
    assert all(FITTING.start <= level < FITTING.stop for level in data.fit.groups)
    assert all(EVALUATION.start <= level < EVALUATION.stop for level in data.pairs.groups)
    assert isinstance(data.behaviours, np.ndarray) and data.other_name == "gem"


def test_a_concept_is_asked_about_by_name():
    agent = Agent.new("bimpala-small", game="maze", channels=2, blocks=(1, 1), features=4)
    report = ask(
        agent, "mouse", fit_levels=6, levels=6, layer="pool1", rank=1, controls=1, progress=False
    )
    assert report.settings["concept"] == "mouse"
    assert {*report.tables["effects"]["claim"]} == {"sufficient", "necessary", "steerable"}
