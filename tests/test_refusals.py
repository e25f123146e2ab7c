"""What public functions do not take, they refuse by an error that says what is expected."""

import numpy as np
import pytest
import torch

from rlbilinear import (
    BilinearLinear,
    BilinearStack,
    QuadraticForm,
    agents,
    compress,
    envs,
    estimate_gaussian,
    probes,
)
from rlbilinear.agents import Agent
from rlbilinear.agents.edits import directions, whole

OTHERS = [
    *(None, "nope", 3, -1, 1.5, float("nan"), [], {}, object(), b"x", True, 10**30, [None]),
    *(np.zeros(0), np.array(["a"]), torch.zeros(0), torch.full((4,), float("nan")), len),
]
"""Values that have little to do with what is asked for."""

MAZE = envs.Maze.from_seed(3)
CELL = MAZE.cheese[0]
LAYER = BilinearLinear(4, 3, hidden_features=5)
FORM = LAYER.quadratic_form(torch.ones(3))


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-small", channels=4, features=8)


@pytest.fixture(scope="module")
def seen():
    return envs.observe([MAZE])


OF_ENVIRONMENTS = {
    "components": envs.components,
    "dead_ends": envs.dead_ends,
    "is_connected": envs.is_connected,
    "is_tree": envs.is_tree,
    "on_distribution": envs.on_distribution,
    "off_distribution": envs.off_distribution,
    "distances": lambda x: envs.distances(x, CELL),
    "expert_moves": lambda x: envs.expert_moves(x, CELL),
    "shortest_path": lambda x: envs.shortest_path(x, CELL, CELL),
    "top_right": envs.top_right,
    "decision_square": envs.decision_square,
    "cheese_pair": envs.cheese_pair,
    "cheese_moved_pair": envs.cheese_moved_pair,
    "top_right_pair": envs.top_right_pair,
    "key_route": envs.key_route,
    "human_view": envs.human_view,
    "sample_levels": lambda x: envs.sample_levels(x, 3, seed=0),
    "unplayable, seeds": lambda x: None if is_empty(x) else envs.unplayable("maze", x),
    "unplayable, mode": lambda x: envs.unplayable("maze", [0], x),
    "pixel_to_cell": lambda x: None if is_whole(x) else envs.pixel_to_cell(x, 4, MAZE),
    "measure_table": lambda x: None if is_empty(x) else envs.measure_table(x),
    "from_seed": lambda x: None if is_whole(x) and x > 0 else envs.Maze.from_seed(x),
    "from_bytes": envs.Maze.from_bytes,
    "with_mouse": MAZE.with_mouse,
}

OF_THE_MATHS = {
    "compress": compress,
    "compress, tolerance": lambda x: None if x is None else compress(LAYER, x),
    "estimate_gaussian": estimate_gaussian,
    "QuadraticForm": lambda x: QuadraticForm(x, *list(vars(FORM).values())[1:]),
    "BilinearStack": lambda x: BilinearStack(x),
    "quadratic_form": LAYER.quadratic_form,
}

OF_GAMES = {
    "causal_concept": lambda x: probes.causal_concept(x, "cheese"),
    "causal_concept, name": lambda x: probes.causal_concept("maze", x),
    "causal_concepts": probes.causal_concepts,
    "game_data": lambda x: probes.game_data(x, "cheese"),
    "score_range": agents.score_range,
    "score_range, mode": lambda x: agents.score_range("maze", x),
    "random_subspace": lambda x: None if is_whole(x) else probes.random_subspace(x, 1, 0),
    "random_subspace, seed": lambda x: None if is_whole(x) else probes.random_subspace(8, 1, x),
    "Agent.new, seed": lambda x: None if is_whole(x) else Agent.new("bimpala-small", seed=x),
}

OF_AGENTS = {
    "evaluate": lambda agent, seen, x: agents.evaluate(x, [0], game="maze", progress=False),
    "logits": lambda agent, seen, x: agent.logits(x),
    "predict": lambda agent, seen, x: agent.predict(x),
    "layer": lambda agent, seen, x: agent.layer(x),
    "units": lambda agent, seen, x: agents.units(x),
    "value_form": lambda agent, seen, x: agents.value_form(x),
    "quadratic_surrogate": lambda agent, seen, x: probes.quadratic_surrogate(x, seen),
    "Mirror": lambda agent, seen, x: whole.Mirror()(x),
    "transplant": lambda agent, seen, x: whole.transplant(x, "block1"),
    "steer": lambda agent, seen, x: directions.steer(x, "block1", torch.zeros(4, 8, 8)),
    "steer, bias": lambda agent, seen, x: directions.steer(agent, "block1", x),
    "remove_direction": lambda agent, seen, x: directions.remove_direction(x, "b", torch.ones(4)),
    "activations": lambda agent, seen, x: probes.activations(agent, x, ["block1"]),
    "logits_under": lambda agent, seen, x: (
        None if is_empty(x) else probes.logits_under(agent, seen, x)
    ),
    "logits_after": lambda agent, seen, x: probes.logits_after(agent, "block1", x),
    "fields": lambda agent, seen, x: probes.fields(agent, x),
    "concept": lambda agent, seen, x: probes.concept(x),
}


def is_empty(x):
    return isinstance(x, list | dict | np.ndarray | torch.Tensor) and not len(x)


def is_whole(x):
    return isinstance(x, int) and not isinstance(x, bool)


def refuses(call):
    for other in OTHERS:
        try:
            call(other)
        except (ValueError, TypeError) as error:
            assert_says(error, other)
        except Exception as error:
            pytest.fail(f"{other!r}: {type(error).__name__}: {error}")


def assert_says(error, other):
    """Python's own words and torch's are no answer."""
    said = str(error)
    inner = ("object is not", "has no len", "has no attribute", "not supported between", "operand")
    assert not any(words in said for words in inner), f"{other!r}: {said}"


def callable_is_none(call):
    """A function that every test of a policy would have to run: it is one."""
    return lambda other: None if other is len else call(other)


@pytest.mark.parametrize("call", OF_ENVIRONMENTS.values(), ids=OF_ENVIRONMENTS)
def test_environments(call):
    refuses(call)


@pytest.mark.parametrize("call", OF_THE_MATHS.values(), ids=OF_THE_MATHS)
def test_maths(call):
    refuses(call)


@pytest.mark.parametrize("call", OF_GAMES.values(), ids=OF_GAMES)
def test_games(call):
    refuses(call)


@pytest.mark.parametrize("call", OF_AGENTS.values(), ids=OF_AGENTS)
def test_agents(agent, seen, call):
    refuses(callable_is_none(lambda other: call(agent, seen, other)))
