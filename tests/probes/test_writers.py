import numpy as np
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import remove_direction, steer
from rlbilinear.probes.writers import writer_maps, writer_shares

CHANNELS = 6


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1, channels=CHANNELS, blocks=(3, 2), features=12)


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def direction():
    return torch.tensor([1.0, -2, 0.5, 0, 3, 1])


@pytest.mark.parametrize(
    ("layer", "writers"),
    [
        ("stem", ["stem"]),
        ("pool1", ["pool1"]),
        ("block1", ["pool1", "block1.bilinear"]),
        ("block3", ["pool1", "block1.bilinear", "block2.bilinear", "block3.bilinear"]),
        ("block5", ["pool2", "block4.bilinear", "block5.bilinear"]),
    ],
)
def test_what_the_writers_add_is_the_output(agent, observations, direction, layer, writers):
    maps = writer_maps(agent, layer, direction, observations)
    assert list(maps) == writers
    output = agent.activations(observations, [layer])[layer].double()
    expected = torch.einsum("c,nchw->nhw", direction.double(), output).numpy()
    assert np.allclose(sum(maps.values()), expected, atol=1e-5)


def test_after_edits_of_skips_and_biases_too(agent, observations, direction):
    edited = remove_direction(agent, "block2", direction.flip(0), 0.3)
    edited = steer(edited, "block2", torch.randn(CHANNELS, 16, 16))
    edited = steer(edited, "pool1", torch.ones(CHANNELS, 16, 16))
    maps = writer_maps(edited, "block3", direction, observations)
    assert set(maps) == {
        "pool1",
        "block1.bilinear",
        "block2.layer.bilinear",
        "block3.bilinear",
        "block2 bias",
    }
    output = edited.activations(observations, ["block3"])["block3"].double()
    expected = torch.einsum("c,nchw->nhw", direction.double(), output).numpy()
    assert np.allclose(sum(maps.values()), expected, atol=1e-5)
    shares = writer_shares(maps).set_index("writer")["share"]
    assert shares["block2 bias"] == 0 and shares.sum() == pytest.approx(1)


def test_shares_by_hand():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(50, 2, 2))
    place = np.array([[5.0, -5], [0, 100]])  # constant in the observations: no variance
    maps = {"skip": 3 * signal + place, "branch": -signal}
    counterfactual = {"skip": 3 * signal + place, "branch": -signal + 1}
    table = writer_shares(maps, counterfactual)
    assert list(table.columns) == ["writer", "quantity", "share"]
    shares = table.pivot(index="writer", columns="quantity", values="share")
    assert shares.loc["skip", "variance"] == pytest.approx(3 / 2)
    assert shares.loc["branch", "variance"] == pytest.approx(-1 / 2)
    assert shares.loc["skip", "counterfactual difference"] == pytest.approx(0)
    assert shares.loc["branch", "counterfactual difference"] == pytest.approx(1)


def test_bad_input_is_refused(agent, observations, direction):
    with pytest.raises(ValueError, match=r"direction of shape \(5,\) does not fit"):
        writer_maps(agent, "pool1", direction[:5], observations)
    with pytest.raises(ValueError, match="does not fit"):
        writer_maps(agent, "dense", torch.ones(12), observations)
    flat = {"skip": np.ones((3, 2, 2))}
    with pytest.raises(ValueError, match="nothing to share out"):
        writer_shares(flat)
    with pytest.raises(ValueError, match="differ in writers or shapes"):
        writer_shares({"skip": np.eye(3)[:, None]}, {"branch": np.eye(3)[:, None]})
