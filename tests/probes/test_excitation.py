import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from rlbilinear.probes.excitation import along, ascend, strongest_patches
from rlbilinear.probes.information import _information, pixel_information
from rlbilinear.probes.patches import Frames


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)
    return [
        Frames(pictures[i : i + 4], np.arange(i, i + 4) // 2, np.zeros(4, int)) for i in (0, 4, 8)
    ]


@pytest.mark.parametrize("layer", ["pool1", "block2"])
def test_ascent_beats_pictures_and_moves_what_it_says(bilinear_agent, frames, layer):
    direction = torch.eye(6)[1]
    found = ascend(bilinear_agent, layer, direction, (3, 4), steps=60, smoothness=0.05, energy=0.01)
    pictures = np.concatenate([batch.observations for batch in frames])
    real = bilinear_agent.activations(pictures, [layer])[layer][:, 1, 3, 4]
    assert found.activation > real.max()
    assert found.picture.min() >= 0 and found.picture.max() <= 1
    rounded = (found.picture * 255).round().astype(np.uint8)[None]
    again = bilinear_agent.activations(rounded, [layer])[layer][0, 1, 3, 4].item()
    assert again == pytest.approx(found.activation, rel=0.1)


def test_more_regularisation_is_smoother(bilinear_agent):
    direction = torch.eye(6)[0]
    rough, smooth = (
        np.abs(
            np.diff(ascend(bilinear_agent, "pool1", direction, steps=40, smoothness=w).picture)
        ).mean()
        for w in (0.0, 1000.0)
    )
    assert smooth < rough / 2


def test_strongest_patches_are_the_largest_of_each_level(bilinear_agent, frames):
    direction = torch.tensor([1.0, -1, 0, 0, 2, 0])
    pictures = np.concatenate([batch.observations for batch in frames])
    levels = np.concatenate([batch.levels for batch in frames])
    output = bilinear_agent.activations(pictures, ["pool1"])["pool1"]
    maps = np.einsum("nchw,c->nhw", output.numpy(), direction.numpy()).reshape(12, -1)
    best = sorted((maps[levels == level].max() for level in set(levels)), reverse=True)[:4]
    found = strongest_patches(bilinear_agent, "pool1", direction, frames, count=4)
    assert [patch.response for patch in found] == pytest.approx(best, rel=1e-5)
    patch = found[0]
    top, left, bottom, right = patch.pixels
    hidden = np.full_like(patch.observation, 7)
    hidden[:, top:bottom, left:right] = patch.observation[:, top:bottom, left:right]
    y, x = patch.position
    again = bilinear_agent.activations(hidden[None], ["pool1"])["pool1"][0, :, y, x] @ direction
    assert again.item() == pytest.approx(patch.response, rel=1e-4)


def test_refusals(bilinear_agent, frames):
    with pytest.raises(ValueError, match="block1 has 6 channels: expected a direction of as many"):
        ascend(bilinear_agent, "block1", torch.ones(5))
    with pytest.raises(ValueError, match=r"no position \(99, 0\)"):
        ascend(bilinear_agent, "block1", torch.ones(6), (99, 0))
    with pytest.raises(ValueError, match="choose from"):
        strongest_patches(bilinear_agent, "nowhere", torch.ones(6), frames)
    assert along(torch.ones(2, 3), "dense", torch.ones(3), None).tolist() == [3, 3]


def test_information_counts_as_scikit_learn():
    rng = np.random.default_rng(0)
    pixels, codes = rng.integers(0, 4, (200, 5)), rng.integers(0, 4, 200)
    pixels[:, 0] = codes
    expected = [mutual_info_score(codes, column) for column in pixels.T]
    assert _information(pixels, codes, 4) == pytest.approx(expected, abs=1e-6)


def test_information_lies_where_the_activation_reads():
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (800, 3, 5, 6), dtype=np.uint8)
    activation = pictures[:, 1, 2, 3] + 0.1 * rng.standard_normal(800)
    found = pixel_information(pictures, activation)
    assert found[2, 3] == pytest.approx(np.log(8), abs=0.15)  # less what counting so few costs
    others = np.delete(found.ravel(), 2 * 6 + 3)
    assert np.abs(others).max() < 0.1
    with pytest.raises(ValueError, match="8 bins need 64 pictures or more, got 10"):
        pixel_information(pictures[:10], activation[:10])
    with pytest.raises(ValueError, match="not all the same"):
        pixel_information(pictures, np.ones(800))
