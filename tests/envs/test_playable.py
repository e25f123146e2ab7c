import numpy as np
import pytest

from rlbilinear.envs.games import GAMES
from rlbilinear.envs.playable import unplayable
from rlbilinear.envs.simulator import import_procgen


def by_force(game, seed, mode="easy"):
    """Whether each of procgen's 15 actions ends the level at the first step, without a reward."""
    for action in range(15):
        env = import_procgen().ProcgenGym3Env(
            num=1,
            env_name=game,
            start_level=seed,
            num_levels=1,
            distribution_mode=mode,
            num_threads=0,
        )
        env.act(np.array([action], np.int32))
        reward, _, first = env.observe()
        env.close()
        if not first[0] or reward[0] != 0:
            return False
    return True


@pytest.mark.parametrize(("game", "mode"), [("jumper", "easy"), ("jumper", "hard")])
def test_levels_that_are_over_at_once_are_found(game, mode):
    expected = [by_force(game, seed, mode) for seed in range(60)]
    found = unplayable(game, range(60), mode)
    assert found.dtype == bool and found.tolist() == expected
    assert 0 < sum(expected) < 60


def test_known_levels():
    assert np.flatnonzero(unplayable("jumper", range(30))).tolist() == [5, 11, 15, 16, 27]
    assert unplayable("caveflyer", [184, 185, 186]).tolist() == [False, True, False]
    assert by_force("caveflyer", 185)
    assert not unplayable("jumper", [9])[0], "it is over at once, but pays"


@pytest.mark.parametrize("game", [game for game in GAMES if game not in ("jumper", "caveflyer")])
def test_levels_of_other_games_can_be_played(game):
    """Dodgeball's too, in which some first steps are the last."""
    assert not unplayable(game, range(25)).any()


def test_none_are_asked_of_and_wrong_ones_are_refused():
    assert unplayable("maze", []).tolist() == []
    for wrong in (2**31 - 1, -1, 1.5, "12"):
        with pytest.raises(ValueError, match=r"level seeds are 0\.\.2147483646, got "):
            unplayable("maze", [3, wrong])
    with pytest.raises(ValueError, match="maze has no mode 'extreme'"):
        unplayable("maze", [3], "extreme")
