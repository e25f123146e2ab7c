from itertools import chain

import numpy as np
import pandas as pd
import pytest

from rlbilinear.agents.edits.directions import remove_direction
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.probes.edited import Seen
from rlbilinear.probes.effects import (
    FACTORS,
    against_control,
    control_edits,
    dose_response,
    edit_direction,
    effects_of,
    matched_factor,
    mean_effects,
    move_effects,
    ways_to_edit,
)
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.study import CONTROLS


def test_effects_on_moves_by_hand():
    original = np.array([[0.7, 0.1, 0.1, 0.1, 0.0], [0.2, 0.8, 0, 0, 0], [0.0, 0, 1, 0, 0]])
    edited = np.array([[0.2, 0.6, 0.1, 0.1, 0.0], [0.1, 0.9, 0, 0, 0], [0.0, 0, 0, 1, 0]])
    table = move_effects(original, edited, np.array([0, 1, NO_MOVE]), np.array([4, 4, 5]))
    assert table["level"].tolist() == [4, 4, 5]
    assert np.allclose(table["loss"], [0.5, -0.1, np.nan], equal_nan=True)
    assert np.allclose(table["right"], [0, 1, np.nan], equal_nan=True)
    assert np.allclose(table["total_variation"], [0.5, 0.1, 1.0])
    assert table["finite"].tolist() == [1, 1, 1]
    edited[0] = np.nan
    table = move_effects(original, edited, np.array([0, 1, NO_MOVE]), np.array([4, 4, 5]))
    assert table.loc[0, ["loss", "right", "total_variation"]].isna().all()
    assert table["finite"].tolist() == [0, 1, 1]


def size_of_change(study, edited):
    """Root mean square change of the layer's output over the fitting levels, in vector norm."""
    after = edited.activations(study.fit.observations, [study.layer])[study.layer].double()
    return (after - study.fit.activations[study.layer]).square().sum(1).mean().sqrt().item()


@pytest.mark.parametrize("factor", [-2.0, 0.0, 0.5])
def test_controls_change_the_layers_output_as_much(study, factor):
    direction = study.directions["difference"]
    own = size_of_change(study, edit_direction(study, direction, factor))
    controls = control_edits(study, direction, factor)
    assert {kind: len(agents) for kind, agents in controls.items()} == {
        **dict.fromkeys(CONTROLS, 1),
        "random": len(study.random),
    }
    assert own > 1e-3
    for control in chain.from_iterable(controls.values()):
        assert size_of_change(study, control) == pytest.approx(own, rel=1e-4)
    unmatched = edit_direction(study, study.random[0], factor)
    assert size_of_change(study, unmatched) != pytest.approx(own, rel=1e-2)


def test_matched_factors(study):
    direction, control = study.directions["difference"], study.random[0]
    assert matched_factor(study, direction, control, 1.0) == 1
    assert matched_factor(study, direction, 3 * direction, 0.0) == pytest.approx(2 / 3)
    assert matched_factor(study, direction, direction, -0.5) == pytest.approx(-0.5)


def test_no_edit_has_no_effect_and_an_edit_its_own(study):
    states, levels = study.pairs.base, study.pairs.levels
    seen = Seen(study.agent, states.observations)
    edited = edit_direction(study, study.directions["difference"], -2.0)
    none, some = effects_of(seen, [study.agent, edited], states.moves, levels)
    assert not none[["loss", "total_variation"]].any(axis=None)
    original, after = (
        move_probabilities(agent, states.observations) for agent in (study.agent, edited)
    )
    pd.testing.assert_frame_equal(some, move_effects(original, after, states.moves, levels))
    assert some["total_variation"].max() > 0.1


def test_controls_are_averaged_state_by_state():
    tables = [pd.DataFrame({"level": [1, 2], "loss": values}) for values in ([0.1, 0.5], [0.3, 0])]
    mean = mean_effects(tables)
    assert mean["level"].tolist() == [1, 2] and np.allclose(mean["loss"], [0.2, 0.25])


def test_against_control_has_both_means_and_the_test_by_level():
    rng = np.random.default_rng(0)
    levels = np.repeat(np.arange(12), 3)
    loss = 0.1 * rng.standard_normal((2, 36))
    effect = pd.DataFrame({"level": levels, "loss": 0.5 + loss[0], "finite": 1.0})
    control = pd.DataFrame({"level": levels, "loss": loss[1], "finite": 1.0})
    row = against_control("edit", effect, control)
    assert (row["intervention"], row["metric"], row["levels"]) == ("edit", "loss", 12)
    assert row["effect"] == pytest.approx(effect["loss"].mean())
    assert row["control"] == pytest.approx(control["loss"].mean())
    assert row["difference"] == pytest.approx(row["effect"] - row["control"])
    assert row["low"] < row["effect"] < row["high"]
    assert row["p"] == 2 / 2**12  # all levels differ alike
    assert against_control("same", effect, effect)["p"] == 1
    control.loc[3, ["loss", "finite"]] = np.nan, 0
    row = against_control("edit", effect, control)
    assert row["effect"] == pytest.approx(effect["loss"].mean()) and row["finite"] == 1
    assert np.isnan([row["control"], row["difference"]]).all() and row["p"] == 1
    assert row["control_finite"] == pytest.approx(35 / 36)


def test_dose_response(study):
    direction = study.directions["difference"]
    table = dose_response(study, {"difference": direction})
    assert len(table) == len(FACTORS) * 2 * 2
    assert set(table["intervention"]) == {"difference", "random, sized as difference"}
    value = table.set_index(["kind", "factor", "metric"])["value"]
    kept = value["edit", 1.0, "right move"]
    assert kept == value["control", 1.0, "right move"]
    for kind in ("edit", "control"):
        assert value[kind, 1.0, "probability moved"] < 1e-4
        assert value[kind, -2.0, "probability moved"] > value[kind, 0.5, "probability moved"]
    states = study.pairs.base
    ablated = edit_direction(study, direction, 0.0)
    seen = Seen(study.agent, states.observations)
    (by_hand,) = effects_of(seen, [ablated], states.moves, study.pairs.levels)
    moved = by_hand["total_variation"].mean()
    assert value["edit", 0.0, "probability moved"] == pytest.approx(moved)


def test_ablation_is_one_function_in_weights_and_activations(study):
    table = ways_to_edit(study).set_index(["direction", "way", "space"])
    assert len(table) == 5 * len(study.directions)
    for name in study.directions:
        rows = table.loc[name]
        in_weights = rows.loc[("at its mean", "weights")]
        in_activations = rows.loc[("at its mean", "activations")]
        assert np.allclose(in_weights.to_numpy(), in_activations.to_numpy(), atol=1e-5)
        zero = rows.loc[("zero", "activations"), "loss"]
        assert zero != pytest.approx(in_weights["loss"], abs=1e-7)
    states, levels = study.pairs.base, study.pairs.levels
    direction = study.directions["probe"]
    removed = remove_direction(study.agent, study.layer, direction)
    seen = Seen(study.agent, states.observations)
    (by_hand,) = effects_of(seen, [removed], states.moves, levels)
    zeroed = table.loc[("probe", "zero", "activations"), "loss"]
    assert zeroed == pytest.approx(by_hand["loss"].mean(), abs=1e-5)
