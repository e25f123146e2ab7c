from collections import Counter

import numpy as np
import pytest

from rlbilinear.agents.expert_heist import ExpertHeists, on_the_way
from rlbilinear.envs import TRAINING, Heist, Levels, key_route
from rlbilinear.envs.heist_guide import expert_actions
from rlbilinear.envs.key_ways import key_ways

FEW = Levels(TRAINING.start, 6)


@pytest.fixture
def make():
    made = []

    def factory(num_envs=16, levels=TRAINING, seed=3, **options):
        made.append(ExpertHeists(num_envs, levels, seed, **options))
        return made[-1]

    yield factory
    for heists in made:
        heists.close()


def states(played):
    return [Heist.from_bytes(raw) for raw in played._env.get_states()]


def step(played, actions):
    played.step_async(np.asarray(actions))
    played.step_wait()


@pytest.mark.parametrize("mode", ["easy", "hard", "memory"])
def test_what_is_followed_is_what_the_simulator_plays(make, mode):
    played = make(mode=mode, new_level=0.05)
    random, seeds = np.random.default_rng(0), set()
    for _ in range(60):
        right = played.right
        assert right.any(1).all()
        expert = random.random(16) < 0.6
        step(played, np.where(expert, expert_actions(right), random.integers(15, size=16)))
        for index, heist in enumerate(states(played)):
            agent, guide = heist.entities[0], played._guide
            assert guide.agents.place[index].tolist() == [agent["x"], agent["y"]]
            assert guide.agents.speed[index].tolist() == [agent["vx"], agent["vy"]]
            held = guide._held[index, : len(heist.has_keys)]
            assert tuple(held.tolist()) == heist.has_keys
            seeds.add(heist.level_seed)
        assert np.array_equal(played.observations, played._env.observe())
    assert len(seeds) > 16 and all(seed in TRAINING for seed in seeds)


def test_steps_to_go_are_of_the_way_from_here(make):
    played = make(64)
    for _ in range(5):
        step(played, expert_actions(played.right))
    cells = [len(key_route(heist)) - 1 for heist in states(played)]
    assert np.allclose(played.steps_to_go, np.maximum(1.83 * np.array(cells), 1))


def test_levels_are_drawn_from_the_given_ones(make):
    played = make(4, FEW, new_level=0.5)
    seen = set()
    for _ in range(40):
        seen |= {heist.level_seed for heist in states(played)}
        step(played, np.full(4, 4))
    assert seen == set(FEW.first(6))


def test_how_often_levels_change(make):
    played = make(64, new_level=0.25)
    before, changes = [heist.level_seed for heist in states(played)], 0
    for _ in range(20):
        step(played, np.full(64, 4))  # stands still: no gem is reached
        after = [heist.level_seed for heist in states(played)]
        changes += sum(a != b for a, b in zip(after, before, strict=True))
        before = after
    assert changes / (64 * 20) == pytest.approx(0.25, abs=0.06)


def test_where_levels_start(make):
    assert all(h == Heist.from_seed(h.level_seed) for h in states(make(32, anywhere=0.0)))
    started = states(make(64, anywhere=1.0))
    assert sum(h == Heist.from_seed(h.level_seed) for h in started) < 10
    assert any(heist.held_keys for heist in started)


def test_a_start_on_the_way_is_a_state_that_play_leads_to():
    random, counts = np.random.default_rng(0), Counter()
    for seed in range(300):
        level = Heist.from_seed(seed)
        ways = key_ways(level)
        heist = on_the_way(level, ways, random)
        held = set(heist.held_keys)
        counts[len(level.keys), len(held)] += 1
        assert (heist.grid == level.grid).all() and heist.gem == level.gem
        assert {key.colour for key in heist.keys} == {key.colour for key in level.keys} - held
        gone = set(level.locks) - set(heist.locks)
        assert {lock.colour for lock in gone} <= held and set(heist.locks) <= set(level.locks)
        # The keys are the first ones of the way, and the gem can still be reached.
        keys = {cell: colour for colour, cell in level.keys}
        order = dict.fromkeys(keys[cell] for cell in ways.way(level) if cell in keys)
        assert held == set([*order][: len(held)])
        assert len(key_route(heist)) - 1 == ways.steps[sum(1 << k for k in held)][heist.agent]
        assert Heist.from_bytes(heist.to_bytes()) == heist
    for keys in range(4):
        with_keys = [counts[keys, held] for held in range(keys + 1)]
        assert min(with_keys) > 0.4 * np.mean(with_keys)


def test_the_seed_decides_everything(make):
    runs = [make(seed=seed) for seed in (1, 1, 2)]
    for _ in range(5):
        for played in runs:
            step(played, expert_actions(played.right))
    same, again, other = (played.observations for played in runs)
    assert np.array_equal(same, again)
    assert not np.array_equal(same, other)
