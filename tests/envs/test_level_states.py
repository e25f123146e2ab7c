"""Level seeds against procgen itself, made with `start_level=seed, num_levels=1`."""

import numpy as np
import pytest

from rlbilinear.envs.games import GAMES, NUM_LEVELS
from rlbilinear.envs.level_states import _source, level_state
from rlbilinear.envs.simulator import Simulator, import_procgen
from rlbilinear.envs.state import parse
from rlbilinear.envs.vecenv import ProcgenVecEnv

SWITCHES = (
    {},
    {"use_backgrounds": False, "center_agent": False, "paint_vel_info": True},
    {"use_monochrome_assets": True, "restrict_themes": True},
)


class Stock:
    """One level in procgen's own environment."""

    def __init__(self, game, seed, mode="easy", **switches):
        self._env = import_procgen().ProcgenGym3Env(
            num=1,
            env_name=game,
            start_level=seed,
            num_levels=1,
            distribution_mode=mode,
            num_threads=0,
            **switches,
        )

    def observe(self):
        reward, observation, first = self._env.observe()
        return observation["rgb"][0].transpose(2, 0, 1).copy(), float(reward[0]), bool(first[0])

    def step(self, action):
        self._env.act(np.array([action], np.int32))
        return self.observe()

    def close(self):
        self._env.close()


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("game", GAMES)
def test_a_levels_state_is_that_of_a_simulator_made_for_it(game, switches):
    for mode in GAMES[game]:
        for seed in (0, 1, 2, 5, 77, 10**9, NUM_LEVELS - 1):
            alone = Simulator(
                game, mode=mode, num_levels=1, start_level=seed, num_threads=0, **switches
            )
            assert [level_state(game, seed, mode, **switches)] == alone.get_states()
            alone.close()


@pytest.mark.parametrize("game", GAMES)
def test_each_level_plays_as_in_procgen(game):
    """Same observations, rewards and ends for the same actions, episode after episode."""
    seeds = [7, 2**31 - 2, 5, 40]
    env = ProcgenVecEnv(game, 2, levels=seeds, num_threads=0)
    shown = env.reset()
    random = np.random.default_rng(0)
    playing = [info["level_index"] for info in env.reset_infos]
    assert [info["level_seed"] for info in env.reset_infos] == [seeds[i] for i in playing]
    stock = [Stock(game, seeds[index]) for index in playing]
    played, steps, returns = [[], []], [0, 0], [0.0, 0.0]
    for one, own in zip(stock, shown, strict=True):
        np.testing.assert_array_equal(one.observe()[0], own)
    while min(map(len, played)) < 4:
        actions = [-1 if steps[i] == 30 else int(random.integers(15)) for i in range(2)]
        shown, rewards, dones, infos = env.step(np.array(actions))
        for i, info in enumerate(infos):
            observation, reward, first = stock[i].step(actions[i])
            steps[i] += 1
            returns[i] += reward
            assert (rewards[i], dones[i]) == (np.float32(reward), first)
            if not first:
                assert info["level_seed"] == seeds[playing[i]]
                np.testing.assert_array_equal(shown[i], observation)
                continue
            assert info["prev_level_seed"] == seeds[playing[i]]
            assert info["prev_level_index"] == playing[i]
            assert info["episode"]["l"] == steps[i]
            assert info["episode"]["r"] == pytest.approx(returns[i], abs=1e-6)
            played[i].append(info["prev_level_index"])
            playing[i] = info["level_index"]
            assert info["level_seed"] == seeds[playing[i]]
            stock[i].close()
            stock[i] = Stock(game, seeds[playing[i]])
            np.testing.assert_array_equal(shown[i], stock[i].observe()[0])
            steps[i], returns[i] = 0, 0.0
    env.close()
    for one in stock:
        one.close()
    for i, indices in enumerate(played):
        assert indices == [(i + 2 * k) % len(seeds) for k in range(len(indices))]


def test_what_outlives_a_level_does_not_reach_the_next():
    """Level 5 of miner has its exit above the start, and nothing has counted the diamonds yet."""
    up = 5
    env = ProcgenVecEnv("miner", 1, levels=[3, 5], num_threads=0)
    env.step(np.array([-1]))
    assert env.get_states() == [level_state("miner", 5)]
    stock = Stock("miner", 5)
    _, rewards, dones, (info,) = env.step(np.array([up]))
    assert (rewards[0], dones[0]) == stock.step(up)[1:] == (10, True)
    assert info["prev_level_complete"]
    env.close()
    stock.close()
    left_over = parse(level_state("miner", 5))._replace(tail=(3).to_bytes(4, "little"))
    later = Simulator("miner", num_threads=0)
    later.set_states([left_over.to_bytes()])
    later.act(np.array([up]))
    assert later.observe().rewards[0] == 0
    later.close()


def test_levels_have_the_mode_and_switches_asked_for():
    env = ProcgenVecEnv("chaser", 2, levels=[4], mode="extreme", use_backgrounds=False)
    stock = Stock("chaser", 4, "extreme", use_backgrounds=False)
    assert env.mode == "extreme"
    for shown in env.reset():
        np.testing.assert_array_equal(shown, stock.observe()[0])
    env.close()
    stock.close()


def test_random_order_and_numpys_numbers():
    seeds = np.arange(90, 95)
    env = ProcgenVecEnv("coinrun", 3, levels=seeds, order="random", seed=8, num_threads=0)
    env.reset()
    drawn = [[info["level_seed"] for info in env.reset_infos]]
    for _ in range(5):
        *_, infos = env.step(np.full(3, -1))
        drawn.append([info["level_seed"] for info in infos])
    expected = [90 + np.random.default_rng([8, i]).integers(5, size=6) for i in range(3)]
    np.testing.assert_array_equal(np.array(drawn).T, expected)
    env.close()


def test_many_levels_are_asked_of_one_simulator():
    """Each one that is made leaves something behind in cffi's caches."""
    level_state("maze", 0)
    made = _source.cache_info().misses
    assert len({level_state("maze", seed) for seed in range(2000, 2100)}) == 100
    assert _source.cache_info().misses == made


def test_what_is_refused():
    for wrong in (-1, 2**31 - 1, 2**31, 2**40):
        with pytest.raises(ValueError, match=rf"level seeds are 0\.\.2147483646, got {wrong}"):
            level_state("maze", wrong)
        with pytest.raises(ValueError, match=rf"levels\[1\]: level seeds are .*, got {wrong}"):
            ProcgenVecEnv("maze", 1, levels=[3, wrong])
    for wrong in (1.5, "12", True, None, b"state"):
        with pytest.raises(ValueError, match=r"levels\[1\]: expected a level seed, as levels\[0\]"):
            ProcgenVecEnv("maze", 1, levels=[3, wrong])
    for extra in ({"num_levels": 3}, {"start_level": 3}):
        with pytest.raises(ValueError, match="levels= says which there are: leave out num_levels"):
            ProcgenVecEnv("maze", 1, levels=[3], **extra)
    with pytest.raises(ValueError, match="levels of its own: no level is exact"):
        ProcgenVecEnv("maze", 1, levels=[3], use_sequential_levels=True)
    with pytest.raises(ValueError, match="use_backgrounds must be True or False, got 1"):
        ProcgenVecEnv("maze", 1, levels=[3], use_backgrounds=1)
    with pytest.raises(ValueError, match="unknown game 'pong'"):
        level_state("pong", 1)
    with pytest.raises(ValueError, match="maze has no mode 'extreme'"):
        level_state("maze", 1, "extreme")
    with pytest.raises(ValueError, match=r"unknown options 'use_background' .*'use_backgrounds'"):
        level_state("maze", 1, use_background=True)
