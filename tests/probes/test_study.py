from itertools import chain

import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.envs import EVALUATION, FITTING, TRAINING
from rlbilinear.probes.concepts import cheese_position, cheese_presence, mouse_presence
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.reading import fit_probe
from rlbilinear.probes.study import CONTROLS, DIRECTIONS, LEAST, Sizes, map_layers, prepare, unit


def test_levels_for_fitting_and_evaluation_are_disjoint(study):
    fitted = {*study.fit.levels.tolist(), *study.fit_pairs.levels.tolist()}
    held_out = {*study.held_out.levels.tolist(), *study.pairs.levels.tolist()}
    assert held_out == {*study.absent.levels.tolist()}
    assert fitted == {*FITTING.first(12)} and held_out == {*EVALUATION.first(6)}
    assert not fitted & held_out
    assert not any(level in TRAINING for level in fitted | held_out)


def test_pairs_are_of_the_same_levels_in_the_same_order(study):
    assert np.array_equal(study.pairs.levels, study.absent.levels)
    assert not any(maze.cheese for maze in study.absent.source.mazes)


def test_directions_are_what_they_are_called(study):
    assert list(study.directions) == list(DIRECTIONS)
    assert list(study.controls) == list(CONTROLS)
    for direction in (*study.directions.values(), *chain.from_iterable(study.controls.values())):
        assert direction.shape == (6,) and direction.dtype == torch.float64
        assert direction.norm().item() == pytest.approx(1, abs=1e-12)
    weights = study.probe.coef_
    assert np.allclose(study.directions["probe"], weights / np.linalg.norm(weights))
    rows = np.moveaxis(study.fit.activations["block2"], 1, -1).reshape(-1, 6)
    pattern = np.cov(rows.T.astype(float)) @ weights
    assert np.allclose(study.directions["pattern"], pattern / np.linalg.norm(pattern))
    base, source = (
        study.agent.activations(states.observations, ["block2"])["block2"]
        for states in (study.fit_pairs.base, study.fit_pairs.source)
    )
    changes = (source - base).double().movedim(1, -1).reshape(-1, 6)
    leading = torch.linalg.svd(changes, full_matrices=False).Vh[0]
    assert abs(leading @ study.directions["difference"]).item() == pytest.approx(1, abs=1e-6)


def test_controls_are_other_directions(study):
    assert len(study.random) == 2
    assert abs(study.random[0] @ study.random[1]) < 0.99
    assert abs(study.permuted @ study.directions["probe"]) < 0.99
    (mouse,) = study.controls["mouse probe"]
    fitted = fit_probe(study.fit, "block2", mouse_presence, study.probe)
    assert np.allclose(mouse, fitted.direction / np.linalg.norm(fitted.direction))
    assert abs(mouse @ study.directions["probe"]) < 0.99


def test_the_untrained_control_is_of_the_same_shape_with_other_weights(study):
    blank = study.untrained
    assert blank.config.architecture == study.agent.config.architecture
    own, initial = (each.layer("block1.bilinear").left.weight for each in (study.agent, blank))
    assert own.shape == initial.shape and not torch.equal(own, initial)


def test_spread_is_the_root_mean_square_departure_from_the_mean(study):
    maps = torch.from_numpy(study.fit.activations["block2"]).double()
    direction = unit(np.arange(1.0, 7.0))
    along = torch.einsum("c,nchw->nhw", direction, maps)
    departure = along - along.mean(0)
    assert study.spread(direction) == pytest.approx(departure.square().mean().sqrt().item())
    assert torch.allclose(study.mean, maps.mean(0))


def test_probes_of_all_layers_are_of_the_kind_of_the_given_one(bilinear_agent, study):
    given = fit_probe(study.fit, "block2", cheese_presence, LinearProbe(alphas=(50.0,)))
    sizes = Sizes(**LEAST)
    other = prepare(
        bilinear_agent, "block2", cheese_presence, probe=given, sizes=sizes, progress=False
    )
    assert other.probe is given and other.probes["block2"] is given
    assert list(other.probes) == list(other.layers)
    assert {probe.alpha_ for probe in other.probes.values()} == {50.0}
    assert np.allclose(other.directions["probe"], unit(given.direction))


def test_layers_with_maps(bilinear_agent, relu_agent):
    assert map_layers(bilinear_agent) == (
        "stem", "pool1", "block1", "block2", "pool2", "block3", "block4"
    )  # fmt: skip
    assert map_layers(relu_agent) == (
        "stem", "pool1", "block1", "conv2", "pool2", "block2", "relu1"
    )  # fmt: skip


@pytest.mark.parametrize("layer", ["block9", "dense", "block2.bilinear"])
def test_unknown_layers_are_refused_with_the_choices(bilinear_agent, layer):
    with pytest.raises(
        ValueError, match=rf"'{layer}'; choose from auto, stem, pool1, block1.*block4$"
    ):
        prepare(bilinear_agent, layer, cheese_presence)


def test_what_cannot_be_studied_is_refused_with_the_choices(bilinear_agent):
    with pytest.raises(ValueError, match=r"'cheese_position'; choose from cheese_presence"):
        prepare(bilinear_agent, "block2", cheese_position)
    runner = Agent.new("bimpala-compact", game="coinrun", channels=4, blocks=(1, 1), features=8)
    with pytest.raises(ValueError, match="needs a maze agent, this one plays coinrun"):
        prepare(runner, "block2", cheese_presence)


def test_probes_that_do_not_fit_are_refused(bilinear_agent, study):
    with pytest.raises(ValueError, match="not fitted"):
        prepare(bilinear_agent, "block2", cheese_presence, probe=LinearProbe())
    dense = LinearProbe(kind="position", spatial="dense")
    dense = fit_probe(study.fit, "block2", cheese_position, dense)
    with pytest.raises(ValueError, match=r"each of the 6 channels of block2, got.*\(2, 6, 16, 16"):
        prepare(bilinear_agent, "block2", cheese_presence, probe=dense)
    with pytest.raises(ValueError, match="probe: it was fitted at block2, not at block1"):
        prepare(bilinear_agent, "block1", cheese_presence, probe=study.probe)


@pytest.mark.parametrize("name", LEAST)
def test_too_small_sizes_are_refused(name):
    least = LEAST[name]
    assert getattr(Sizes(**LEAST), name) == least
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
        Sizes(**{name: least - 1})
