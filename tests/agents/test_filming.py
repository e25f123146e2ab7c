import numpy as np
import pytest
import torch

from rlbilinear import agents
from rlbilinear.agents import filming
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.agents.filming import film
from rlbilinear.envs import EVALUATION, ProcgenVecEnv, videos


@pytest.fixture(scope="module")
def agent():
    return agents.load("maze-bimpala-compact", device="cpu")


def endings(monkeypatch, agent, levels, **arguments):
    """Film, and return the frames with what is written of how episodes ended."""
    seen = {}
    drawn = videos.side_by_side

    def watch(films, **named):
        seen.update({name: (own.ending, len(own.frames)) for name, own in films.items()})
        return drawn(films, **named)

    monkeypatch.setattr(videos, "side_by_side", watch)
    return film(agent, levels, **arguments), seen


def test_films_are_the_episodes_that_are_scored(monkeypatch, agent):
    levels = EVALUATION.first(3)
    table = evaluate(agent, levels, progress=False)
    frames, seen = endings(monkeypatch, agent, levels)
    assert table["success"].all()
    for level, steps in zip(table["level"], table["steps"], strict=True):
        assert seen[f"level {level}"] == (f"completed\nat step {steps}", steps + 1)
    assert frames.shape[0] == table["steps"].max() + 1
    assert frames.shape[1:] == (2 * 208, 264, 3)


def test_films_draw_nothing_from_the_run(agent):
    torch.manual_seed(1)
    np.random.seed(1)
    env = ProcgenVecEnv("maze", 2, num_levels=10, seed=5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), env.get_states()
    first = film(agent, EVALUATION.first(2), steps=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert env.get_states() == before[2]
    env.close()
    assert np.array_equal(first, film(agent, EVALUATION.first(2), steps=5))


def test_pictures_are_the_observations_enlarged_over_what_the_agent_thinks(agent):
    level = EVALUATION.first(2)[1]
    frames = film(agent, [level], steps=4)
    env = ProcgenVecEnv("maze", 1, start_level=level, num_levels=1)
    seen = env.reset()
    env.close()
    enlarged = seen[0].transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)
    top = frames.shape[1] - filming.SIDE - filming.STRIP
    assert len(frames) == 4  # cut: the picture after the last step has no thought
    assert np.array_equal(frames[0, top : top + filming.SIDE], enlarged)
    strip = frames[0, -filming.STRIP :]
    probabilities = agent.logits(seen)[0].softmax(0).numpy()
    floor = filming.STRIP - 14
    for action, probability in enumerate(probabilities):
        column = strip[: floor + 1, 4 + filming.BAR * action]
        height = (column != 255).any(1).sum() - 1
        assert height == round(float(probability) * (floor - 2)), action


def test_films_need_levels(agent):
    with pytest.raises(ValueError, match="at least one level"):
        film(agent, [])
