"""procgen's own names of arguments, at each door: ours, Stable-Baselines3's and gymnasium's."""

import gymnasium
import numpy as np
import pytest

from rlbilinear.envs import ProcgenVecEnv, Simulator
from rlbilinear.envs.simulator import import_procgen

MAZE = "rlbilinear/procgen-maze-v0"
DOORS = {
    "simulator": lambda **options: Simulator("maze", **{"num_envs": 2, **options}),
    "Stable-Baselines3": lambda **options: ProcgenVecEnv("maze", 2, **options),
    "make": lambda **options: gymnasium.make(MAZE, **options),
    "make_vec": lambda **options: gymnasium.make_vec(MAZE, 2, **options),
}


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


def first_observations(env):
    if isinstance(env, Simulator):
        return env.observe().images.copy()
    if isinstance(env, ProcgenVecEnv):
        return env.reset().transpose(0, 2, 3, 1)
    return env.reset()[0]


def test_procgens_names_are_taken(door):
    """And mean what they mean in procgen: the very levels of its `rand_seed`."""
    env = DOORS[door](distribution_mode="hard", rand_seed=11, num_levels=0, start_level=0)
    stock = import_procgen().ProcgenGym3Env(
        num=1 if door == "make" else 2,
        env_name="maze",
        distribution_mode="hard",
        rand_seed=11,
        num_levels=2**31 - 1,
        num_threads=0,
    )
    shown = stock.observe()[1]["rgb"]
    np.testing.assert_array_equal(
        first_observations(env), shown[0] if door == "make" else shown, strict=True
    )
    env.close()
    stock.close()


def test_the_number_of_copies_has_procgens_name_too():
    for make in (Simulator, ProcgenVecEnv):
        env = make(env_name="maze", num=3, num_threads=0)
        assert env.num_envs == 3
        env.close()
    with pytest.raises(ValueError, match="num is procgen's name of num_envs: got num=3 and num_e"):
        ProcgenVecEnv("maze", 2, num=3)
    env = ProcgenVecEnv("maze", 2, num=2, num_threads=0)  # the same twice
    assert env.num_envs == 2
    env.close()


def test_both_names_at_once_are_refused_where_they_differ(door):
    message = (
        "distribution_mode is procgen's name of mode: got distribution_mode='hard' and mode='e"
    )
    with pytest.raises(ValueError, match=message):
        DOORS[door](distribution_mode="hard", mode="easy")
    with pytest.raises(ValueError, match="rand_seed is procgen's name of seed"):
        DOORS[door](rand_seed=1, seed=2)
    env = DOORS[door](distribution_mode="hard", mode="hard")
    env.close()
    with pytest.raises(ValueError, match="maze has no mode 'extreme'"):
        DOORS[door](distribution_mode="extreme")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("distribution_mod", "distribution_mode"),
        ("use_background", "use_backgrounds"),
        ("modes", "mode"),
        ("randseed", "rand_seed"),
        ("num_level", "num_levels"),
    ],
)
def test_near_misses_are_named_and_what_is_accepted_is_listed(door, wrong, near):
    with pytest.raises(ValueError) as error:
        DOORS[door](**{wrong: "hard"})
    said = str(error.value)
    assert f"unknown options '{wrong}' (did you mean '{near}'?); accepted are env_name, " in said
    for name in ("mode", "num_levels", "start_level", "seed", "center_agent", "use_backgrounds"):
        assert f" {name}," in said
    assert "procgen's names distribution_mode for mode" in said


def test_what_is_near_nothing_is_refused_without_a_guess(door):
    with pytest.raises(ValueError, match=r"unknown options 'zzz'; accepted are"):
        DOORS[door](zzz=1)


@pytest.mark.parametrize("mode", ["", 0, False, ["hard"]])
def test_a_mode_that_is_none_is_never_taken_for_easy(door, mode):
    with pytest.raises(ValueError, match="maze has no mode"):
        DOORS[door](mode=mode)
