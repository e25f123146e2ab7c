import numpy as np
import pytest
import torch

from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import Maze, expert_moves, observe
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.planting import GAINS, along, plantings, steering_table
from rlbilinear.probes.retargeting import cheese_maps
from rlbilinear.probes.study import CONTROLS, unit
from rlbilinear.probes.subspaces import component


@pytest.fixture(scope="module")
def maps(study):
    mazes = [Maze.from_seed(level) for level in np.unique(study.fit.levels).tolist()]
    found = cheese_maps(study.agent, study.layer, mazes, per_cell=2)
    return {cell: each.double() for cell, each in found.items()}


@pytest.fixture(scope="module")
def planted(study, maps):
    return plantings(study, maps)


@pytest.fixture(scope="module")
def table(study, maps, planted):
    return steering_table(study, maps, planted, study.directions)


def test_along_is_the_component_or_written_elsewhere():
    change = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    one, other = unit(np.arange(1.0, 7)), unit(np.array([1.0, -1, 0, 2, 0, 0]))
    assert torch.allclose(along(change, one), component(change, one[None]))
    elsewhere = along(change, one, other)
    assert torch.allclose(elsewhere, component(elsewhere, other[None]))
    norms = along(change, one).flatten(1).norm(dim=1)
    assert torch.allclose(elsewhere.flatten(1).norm(dim=1), norms)


def test_plantings_are_states_alike_but_for_the_cheese(study, maps, planted):
    assert len(planted.targets) == len(planted.moves) == len(planted.levels) > 3
    for index, target in enumerate(planted.targets):
        own, real = planted.own[index], planted.real[index]
        assert not planted.erased[index].cheese and target in maps
        assert real.cheese == (target,) != own.cheese and own.cheese[0] in maps
        assert own.with_cheese() == real.with_cheese() == planted.erased[index]
        assert planted.moves[index] == expert_moves(real, target)[real.mouse]
        assert planted.moves[index] != expert_moves(own, own.cheese[0])[own.mouse]
        assert own.level_seed == planted.levels[index]


def test_pairs_without_a_map_are_left_out(study, maps, planted):
    left = plantings(study, {cell: m for cell, m in maps.items() if cell != planted.targets[0]})
    assert planted.targets[0] not in left.targets and len(left.targets) < len(planted.targets)
    with pytest.raises(ValueError, match="fit to more levels"):
        plantings(study, {})


def right(agent, maze, move):
    return float(move_probabilities(agent, observe([maze])).argmax() == move)


def test_each_condition_is_that_of_an_edited_agent(study, maps, planted, table):
    """Against agents edited one by one, whose weights hold the bias map."""
    found = table.set_index(["condition", "gain", "state"])
    agent, layer, difference = study.agent, study.layer, study.directions["difference"]
    for state in range(0, len(planted.targets), 2):
        move = planted.moves[state]
        new, old = maps[planted.targets[state]], maps[planted.own[state].cheese[0]]
        expected = {
            ("planted: difference", 2.0): (planted.erased, 2 * along(new, difference)),
            ("beside: probe", 1.0): (planted.own, along(new, study.directions["probe"])),
            ("moved: difference", 1.5): (planted.own, 1.5 * along(new - old, difference)),
            ("moved: all channels", 0.5): (planted.own, 0.5 * (new - old)),
            ("no cheese", 1.0): (planted.erased, 0 * new),
            ("own cheese", 1.0): (planted.own, 0 * new),
            ("real cheese", 1.0): (planted.real, 0 * new),
        }
        for (condition, gain), (mazes, bias) in expected.items():
            edited = steer(agent, layer, bias)
            moves = move_probabilities(edited, observe([mazes[state]]))[0]
            row = found.loc[(condition, gain, state)]
            assert row["probability"] == pytest.approx(moves[move], abs=1e-4), condition
            assert row["right"] == (moves.argmax() == move), condition


@pytest.mark.parametrize("kind", CONTROLS)
def test_controls_of_a_kind_are_averaged(study, maps, planted, table, kind):
    rows = table[(table["condition"] == f"moved: {kind}") & (table["gain"] == 1.0)]
    difference = study.directions["difference"]
    for state in range(0, len(planted.targets), 3):
        change = maps[planted.targets[state]] - maps[planted.own[state].cheese[0]]
        moves = [
            move_probabilities(
                steer(study.agent, study.layer, along(change, difference, control)),
                observe([planted.own[state]]),
            )[0, planted.moves[state]]
            for control in study.controls[kind]
        ]
        assert rows["probability"].iloc[state] == pytest.approx(np.mean(moves), abs=1e-4)


def test_all_conditions_have_a_row_a_state(planted, table):
    conditions = table.groupby(["condition", "gain"]).size()
    assert (conditions == len(planted.targets)).all()
    assert len(conditions) == 3 + len(GAINS) * ((3 + len(CONTROLS)) * 3 + 2)
