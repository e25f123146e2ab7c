import numpy as np
import pytest
import torch

from rlbilinear import agents, eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.agents.heads import policy_form, trunk_shape
from rlbilinear.convolution import as_convolution
from rlbilinear.probes.patches import Frames, played_frames, top_activations, windows_through
from rlbilinear.receptive import Rectangle

BLOCK, BEFORE = "block2.bilinear", "block1"


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1)


@pytest.fixture(scope="module")
def batches():
    """Frames of 9 levels, in batches that split levels."""
    rng = np.random.default_rng(0)
    observations = rng.integers(0, 256, (40, 3, 64, 64), np.uint8)
    levels, steps = np.arange(40) % 9 + 100, np.arange(40) // 9
    return [
        Frames(observations[part], levels[part], steps[part])
        for part in np.array_split(np.arange(40), [7, 20, 21])
    ]


@pytest.fixture(scope="module")
def filters(agent):
    """Both signs of values are among the first six."""
    u = torch.randn(32, generator=torch.Generator().manual_seed(0))
    found = eigenfilters(agent.layer(BLOCK), u, 6)
    assert found.values.amin() < 0 < found.values.amax()
    return found


def everything(agent, filters, batches, weights=1.0):
    """All contributions at once, and the level and step of each frame."""
    observations, levels, steps = (np.concatenate(each) for each in zip(*batches, strict=True))
    maps = filters.maps(agent.activations(observations, [BEFORE])[BEFORE])
    return (maps * weights).numpy(), levels, steps


@pytest.mark.parametrize("apart", ["level", "frame"])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_pass_finds_what_sorting_everything_does(agent, filters, batches, apart, weighted):
    weights = torch.randn(16, 16) if weighted else None
    found = top_activations(agent, BEFORE, filters, batches, count=4, apart=apart, weights=weights)
    maps, levels, steps = everything(agent, filters, batches, 1.0 if weights is None else weights)
    assert found.frames == 40
    keys = levels if apart == "level" else np.arange(40)
    for i in range(6):
        peaks, totals = np.abs(maps[:, i]).max((1, 2)), maps[:, i].sum((1, 2))
        for kept, sizes in ((found.patches[i], peaks), (found.observations[i], np.abs(totals))):
            best = sorted((max(sizes[keys == key]) for key in np.unique(keys)), reverse=True)[:4]
            np.testing.assert_allclose([abs(each.contribution) for each in kept], best, rtol=1e-5)
        for patch in found.patches[i]:
            (n,) = np.flatnonzero((levels == patch.level) & (steps == patch.step))
            value = maps[n, i][patch.position]
            assert patch.contribution == pytest.approx(value, rel=1e-5)
            if not weighted:
                assert np.sign(patch.contribution) == np.sign(filters.values[i])
                expected = filters.values[i] * patch.response**2
                assert patch.contribution == pytest.approx(float(expected), rel=1e-5)


def test_a_patch_is_under_the_filter_and_its_pixels_are_all_that_count(agent, filters, batches):
    found = top_activations(agent, BEFORE, filters, batches, count=2)
    rng = np.random.default_rng(1)
    for i, patches in enumerate(found.patches):
        for patch in patches:
            y, x = patch.position
            assert patch.window == (y - 1, x - 1, y + 2, x + 2)
            top, left, bottom, right = patch.pixels
            assert patch.image.shape == (3, bottom - top, right - left)
            assert 0 <= top < bottom <= 64 and 0 <= left < right <= 64
            other = rng.integers(0, 256, (3, 64, 64), np.uint8)
            inside = other.copy()
            inside[:, top:bottom, left:right] = patch.image
            seen = agent.activations(np.stack([inside, other]), [BEFORE])[BEFORE]
            same, changed = filters._convolve(seen, filters.filters)[:, i, y, x].tolist()
            assert same == pytest.approx(patch.response, rel=1e-4)
            assert changed != pytest.approx(patch.response, rel=1e-2)


def test_the_table_has_a_row_a_patch(agent, filters, batches):
    found = top_activations(agent, BEFORE, filters, batches, count=3)
    table = found.table()
    assert len(table) == 18
    first = table.iloc[0]
    assert (first["level"], first["pixels_top"]) == (
        found.patches[0][0].level,
        found.patches[0][0].pixels.top,
    )


def test_a_dense_layer_reads_whole_maps(agent, batches):
    conv = as_convolution(agent.layer("dense"), trunk_shape(agent))
    u = agent.layer("action_net").weight[3].detach()
    found = top_activations(agent, "block7", eigenfilters(conv, u, 2), batches, count=1)
    (patch,) = found.patches[0]
    assert patch.position == (0, 0)
    assert patch.window == (0, 0, 8, 8)
    assert patch.pixels == (0, 0, 64, 64)
    values, vectors = policy_form(agent, 3).eigh(1)
    flat = agent.activations(patch.observation[None], ["flatten"])["flatten"].double()
    expected = float(values[0] * (flat @ vectors[0]) ** 2)
    assert patch.contribution == pytest.approx(expected, rel=1e-4)


def test_windows_through_the_trunk(agent):
    stem, pool, *blocks = windows_through(agent, "block2")
    assert stem.stride == (2, 2) and stem.kernel == (5, 5) and pool.kernel == (3, 3)
    assert [block.reads(Rectangle(2, 2, 3, 3)) for block in blocks] == [(1, 1, 4, 4)] * 2
    relu = windows_through(Agent.new("impala-compact"), "block1")
    assert len(relu) == 4


def test_frames_are_those_of_play():
    """The same levels and random choices as `evaluate`: the same episodes, step by step."""
    agent = agents.load("maze-bimpala-compact", device="cpu")
    levels = [3, 5, 8]
    frames = list(played_frames(agent, levels, chunk=2, seed=4))
    seen = [(level, step) for f in frames for level, step in zip(f.levels, f.steps, strict=True)]
    assert len({*seen}) == len(seen)
    lengths = [sum(level == each for level, _ in seen) for each in levels]
    assert lengths == evaluate(agent, levels, seed=4, progress=False)["steps"].tolist()
    assert frames[0].observations.shape == (2, 3, 64, 64)
    assert frames[-1].levels.tolist() == [8]


def test_bad_input_is_refused(agent, filters, batches):
    with pytest.raises(ValueError, match="choose from stem, pool1, block1"):
        top_activations(agent, "block2.bilinear", filters, batches)
    with pytest.raises(ValueError, match="level, frame; got 0 and 'level'"):
        top_activations(agent, BEFORE, filters, batches, count=0)
    with pytest.raises(ValueError, match=r"maps' shape \(16, 16\), got \(8, 8\)"):
        top_activations(agent, BEFORE, filters, batches, weights=torch.ones(8, 8))
    with pytest.raises(ValueError, match="got Flatten"):
        top_activations(agent, "flatten", filters, batches)
