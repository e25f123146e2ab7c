"""`rlbilinear polynomial --quick` whole, and its parts where they can be known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from rlbilinear import QuadraticForm, eigenfilters, scale_eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.surrogate import polynomial_surrogate, regrouped
from rlbilinear.classifiers import Training
from rlbilinear.envs import Maze, observe
from rlbilinear.layer_subsets import compare_outputs
from rlbilinear.probes.trace import Writer

RECIPE = Training(epochs=100, learning_rate=1e-2, seed=3)


@pytest.fixture(scope="module")
def run():
    """Call the command's `main` as from a command line."""
    from rlbilinear.commands import polynomial

    return lambda *options: polynomial.main([*map(str, options)])


@pytest.fixture(scope="module")
def results(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("polynomial") / "results"
    run("--out", out, "--quick", "--no-progress")
    return out


@pytest.fixture(scope="module")
def images():
    from rlbilinear.studies.images.data import load

    return load("digits", limit=300)


@pytest.fixture(scope="module")
def history(images):
    from rlbilinear.studies.polynomials.classifiers import train

    return train(images, (64,), "relu", RECIPE, checkpoints=4)


@pytest.fixture(scope="module")
def found(images, history):
    from rlbilinear.studies.polynomials.study import approximated

    return approximated(images, [history], 2)


def test_every_figure_and_table_is_written(results):
    tables = {"through_training", "r2", "layers", "removals", "masks"}
    assert {p.stem for p in results.glob("*.csv")} == tables
    assert {p.stem for p in results.glob("*.png")} == tables | {"eigenvectors"}
    for path in results.glob("*.png"):
        assert imread(path)[::4, ::4, 0].std() > 0.05, path
    made = json.loads((results / "polynomial.json").read_text())
    assert made["options"]["activation"] == "relu" and "torch" in made["versions"]
    for path in results.glob("*.csv"):
        assert pd.read_csv(path).seed.nunique() == 2


@pytest.mark.slow
def test_the_agents_part_whole(run, tmp_path):
    small = {"channels": (6,), "blocks": (1,), "stem_kernel": 5, "stem_stride": 4, "features": 12}
    Agent.new("impala", **small).save(tmp_path / "relu")
    Agent.new("bimpala", **small | {"channels": 6}).save(tmp_path / "bilinear")
    out = tmp_path / "out"
    options = ("--agent", tmp_path / "relu", "--beside", tmp_path / "bilinear", "--no-progress")
    run("--out", out, "--quick", *options)
    assert {p.stem for p in out.glob("*.csv")} == {
        *("units", "tails", "ways", "policies", "play", "eigenfilters", "ablations")
    }
    ways = pd.read_csv(out / "ways.csv")
    assert ways.kl[ways.chosen].tolist() == [ways.kl.min()] and len(ways) > 4
    policies = pd.read_csv(out / "policies.csv").set_index(["agent", "replaced", "degree"])
    assert policies.query("replaced == 'nothing'").kl.eq(0).all()
    bilinear = policies.loc["bilinear"].query("degree == '2'")
    assert len(bilinear) == 2 and bilinear.kl.abs().max() < 1e-6  # its own polynomial


def test_agents_through_training(run, tmp_path, ends):
    small = {"channels": (6,), "blocks": (1,), "stem_kernel": 5, "stem_stride": 4, "features": 12}
    for seed in range(2):
        for frames in (512, 1024):
            agent = Agent.new("impala", game="coinrun", seed=seed, **small)
            with torch.no_grad():
                agent.layer("dense").bias.add_(frames / 512 - 1)
            agent.save(tmp_path / f"runs/seed{seed}/checkpoints/{frames:012d}/agent")
    out = tmp_path / "out"
    run("--out", out, "--training", tmp_path / "runs", "--states", "24", "--no-progress")
    table = pd.read_csv(out / "agent_training.csv")
    assert len(table) == 2 * 2 * 2 * 2 and set(table.layer) == {"block1.branch", "dense"}
    assert set(table.frames) == {512, 1024} and set(table.seed) == {"seed0", "seed1"}
    branch = table[table.layer == "block1.branch"]
    linear, quadratic = (branch[branch.degree == n].measured_median.to_numpy() for n in (1, 2))
    assert (linear < quadratic).all() and (quadratic < 1).all()
    dense = table.query("layer == 'dense' and degree == 1").pivot(index="seed", columns="frames")
    for column in ("gaussian_median", "measured_median"):  # biases so large that nothing is cut
        assert dense[column][1024].min() > 0.999 and dense[column][512].min() < 0.99
    said = ends(2, run, "--out", tmp_path / "none", "--training", out)
    assert "--training: no checkpoints/" in said


def test_tails_of_hidden_units():
    from scipy.stats import kurtosis, norm

    from rlbilinear.studies.polynomials.tails import tails

    small = {"channels": (6,), "blocks": (1,), "stem_kernel": 5, "stem_stride": 4, "features": 12}
    agent = regrouped(Agent.new("impala", **small))
    observations = observe([Maze.from_seed(seed) for seed in range(5)])
    (row,) = tails(agent, {"block1.branch": "block1.relu"}, observations).itertuples()

    def median(values):
        return np.quantile(values, 0.5, method="lower")  # as torch's

    layer = agent.layer("block1.branch")
    x = agent.activations(observations, ["block1.relu"])["block1.relu"]
    with torch.no_grad():
        y = layer[0](x).movedim(1, -1).flatten(0, -2).double().numpy()
    assert row.kurtosis == pytest.approx(median(kurtosis(y, fisher=False)), rel=1e-2)
    m, s = y.mean(0), y.std(0)
    assert row.active == pytest.approx(median((y > 0).mean(0)), abs=1e-6)
    assert row.active_gaussian == pytest.approx(median(norm.cdf(m / s)), abs=1e-3)
    expected = m * norm.cdf(m / s) + s * norm.pdf(m / s)
    hidden = y.clip(0)
    shift = np.abs(expected - hidden.mean(0)) / hidden.std(0)
    assert row.unit_shift == pytest.approx(median(shift), rel=2e-2)
    assert row.output_shift > 0 and row.cancelled > 0


def test_bad_options_are_refused(run, tmp_path, ends):
    for options, message in (
        (
            ("--activation", "step"),
            "--activation: unknown 'step'; choose from relu, gelu",
        ),
        (("--seeds", "0"), "--seeds: expected 1 or more, got 0"),
        (("--agent", "a", "--training", "b"), "--agent, --training: choose one of them"),
        (("--agent", "nobody"), "'nobody' is neither a folder nor an agent of the zoo"),
    ):
        assert message in ends(2, run, "--out", tmp_path / "out", *options)
    assert not list(tmp_path.iterdir())
    Agent.new("bimpala", channels=4, blocks=(1,), features=8).save(tmp_path / "bilinear")
    options = ("--out", tmp_path / "out", "--agent", tmp_path / "bilinear")
    assert "has no ReLU blocks" in ends(2, run, *options)


def test_checkpoints_are_of_one_training(images, history):
    from rlbilinear.studies.polynomials.classifiers import mlp, train

    steps = [checkpoint.step for checkpoint in history.checkpoints]
    assert steps == sorted({*steps}) and steps[:2] == [0, 1] and steps[-1] == 300
    torch.manual_seed(3)
    untrained = mlp(64, 10, (64,), "relu")
    assert torch.equal(untrained[0].weight, history.checkpoints[0].network[0].weight)
    again = train(images, (64,), "relu", RECIPE).trained
    assert torch.equal(again[0].weight, history.trained[0].weight)


def test_r2_through_training_is_that_of_the_network_then(images, history):
    from sklearn.metrics import log_loss

    from rlbilinear.studies.polynomials.study import through_training

    table = through_training(images, [history], 2)
    assert len(table) == 2 * len(history.checkpoints)
    assert (table.query("degree == 2").kl.values < table.query("degree == 1").kl.values).all()
    for step, network in history.checkpoints:
        linear = table.query(f"step == {step} and degree == 1")
        with torch.no_grad():
            probabilities = network(images.test).double().softmax(1)
        loss = log_loss(images.test_labels, probabilities)
        assert linear.network_loss.item() == pytest.approx(loss, rel=1e-5)
        x = images.train.double()
        # Of Gaussian inputs the best linear function is what least squares on samples finds.
        generator = torch.Generator().manual_seed(0)
        factor = torch.linalg.cholesky(x.T.cov(correction=0) + 1e-12 * torch.eye(64))
        drawn = torch.randn(20_000, 64, generator=generator, dtype=torch.float64) @ factor.T
        drawn = drawn + x.mean(0)
        with torch.no_grad():
            y = network.double()(drawn)
            network.float()
        features = torch.cat([drawn, torch.ones(len(drawn), 1)], 1)
        # pixels that are always dark have no variance: the minimum-norm solution
        fitted = features @ torch.linalg.lstsq(features, y, driver="gelsd").solution
        r2 = 1 - (y - fitted).var(0) / y.var(0)
        assert linear.gaussian_r2.item() == pytest.approx(r2.mean().item(), abs=5e-3)


def test_without_all_its_directions_a_linear_function_is_constant(images, found):
    from rlbilinear.studies.polynomials.study import removals

    table = removals(images, found, repeats=1).query("directions == 'linear approximant'")
    blind = table.query("predictor == 'linear' and k == k.max()").accuracy.item()
    shares = np.bincount(images.test_labels, minlength=10) / len(images.test_labels)
    assert np.isclose(shares, blind).any()
    assert table.query("k == 0").groupby("predictor").accuracy.max().min() > 0.7
    three = table.query("predictor == 'network' and k == 3")
    assert three.accuracy.item() < three.noise.item() - 0.1


def test_a_form_in_homogeneous_coordinates():
    from rlbilinear.studies.polynomials.study import homogeneous

    torch.manual_seed(0)
    left, right = torch.randn(2, 4, 5, dtype=torch.float64)
    linear, centre = torch.randn(2, 5, dtype=torch.float64)
    form = QuadraticForm(left, right, torch.randn(4).double(), linear, torch.tensor(2.0).double())
    x = torch.randn(7, 5, dtype=torch.float64)
    extended = torch.cat([x - centre, torch.ones(7, 1)], 1)
    torch.testing.assert_close(homogeneous(form, centre)(extended), form(x) - form(centre))


def test_masks_are_stronger_than_noise_of_their_norm(images, found):
    from rlbilinear.studies.polynomials.study import masked, masks_of

    for masks in masks_of(found[0]).values():
        torch.testing.assert_close(masks.masks.norm(dim=1), torch.ones(10).double())
    table = masked(images, found, (0.0, 0.5), repeats=2)
    means = table.groupby(["masks", "predictor", "size"])[["masked", "noise"]].mean()
    assert np.allclose(means.xs(0.0, level="size").masked, means.xs(0.0, level="size").noise)
    own = means.loc[("with linear part", "network", 0.5)]
    assert own.masked < own.noise - 0.1


def test_ablated_activations_of_a_bilinear_agent_are_those_of_ablated_weights():
    from rlbilinear.studies.polynomials.relu_filters import ablations

    agent = Agent.new("bimpala", channels=10, blocks=(1,), stem_stride=4, features=8)
    with torch.no_grad():
        agent.layer("action_net").weight.mul_(300)
        agent.layer("block1.bilinear").left.weight.mul_(10)
    observations = observe([Maze.from_seed(seed) for seed in range(6)])
    surrogate = polynomial_surrogate(agent, observations, ["block1.bilinear"])
    direction = nn.functional.normalize(torch.linspace(-1, 2, 10, dtype=torch.float64), dim=0)
    layer = agent.layer("block1.bilinear")
    writer = Writer("block1", "block1.bilinear", "pool1", direction, eigenfilters(layer, direction))
    table = ablations(
        agent, surrogate.replacement.polynomials, [writer], observations, 0, controls=2
    ).set_index("filters")
    for name, count in (("first 1", 1), ("first 8", 8), ("all", len(writer.filters.values))):
        edited = scale_eigenfilters(layer, direction, dict.fromkeys(range(count), 0.0))
        other = agent.with_layer("block1.bilinear", edited)
        expected = compare_outputs(agent.logits, other.logits, torch.as_tensor(observations)).kl
        assert table.kl[name] == pytest.approx(expected, rel=1e-3) and expected > 1e-4
    assert (table.control_max >= table.control).all() and (table.control > 0).all()
