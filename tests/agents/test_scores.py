"""The ranges that normalise returns, and which levels a run learns from."""

import pytest

from rlbilinear.agents.scores import SCORE_RANGES, score_range, training_levels
from rlbilinear.envs import EVALUATION, TRAINING
from rlbilinear.envs.games import GAMES


def test_every_game_has_a_range_in_both_modes():
    assert set(SCORE_RANGES) == {"easy", "hard"}
    for ranges in SCORE_RANGES.values():
        assert set(ranges) == set(GAMES)
        assert all(low < high for low, high in ranges.values())


def test_published_returns_normalise_as_they_should():
    low, high = score_range("maze")
    # PPO on 200 levels of maze, easy, gets 9.35 and 5.53 on others: near the top, near nothing
    assert (9.35 - low) / (high - low) == pytest.approx(0.87)
    assert (5.53 - low) / (high - low) == pytest.approx(0.106)
    assert score_range("jumper", "easy") == (3, 10) and score_range("jumper", "hard") == (1, 10)


def test_what_has_no_range_is_said():
    with pytest.raises(ValueError, match="modes easy and hard, not 'memory'"):
        score_range("maze", "memory")
    with pytest.raises(ValueError, match="unknown game 'pong'"):
        score_range("pong")


@pytest.mark.parametrize("count", [0, 1, 200])
def test_training_levels_are_never_held_out(count):
    levels = training_levels(count)
    assert not levels.overlaps(EVALUATION)
    assert levels.start == TRAINING.start and levels.count == (count or TRAINING.count)
