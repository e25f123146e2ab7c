import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from rlbilinear.agents import DeviceRolloutBuffer

SPACES = {
    "image": spaces.Box(0, 255, (3, 6, 5), np.uint8),
    "floats": spaces.Box(-1, 1, (4,), np.float32),
    "doubles": spaces.Box(-1, 1, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "binary": spaces.MultiBinary(3),
}
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "binary": spaces.MultiBinary(2),
    "continuous": spaces.Box(-1, 1, (2,), np.float32),
}


def filled(kind, seen, acts, steps, num_envs, seed=0):
    """A buffer of random numbers; the same for every kind."""
    buffer = kind(steps, seen, acts, "cpu", gae_lambda=0.9, gamma=0.97, n_envs=num_envs)
    seen.seed(seed)
    acts.seed(seed)
    random = np.random.default_rng(seed)
    for _ in range(steps):
        buffer.add(
            np.stack([seen.sample() for _ in range(num_envs)]),
            np.stack([acts.sample() for _ in range(num_envs)]),
            random.normal(size=num_envs),
            random.random(num_envs) < 0.2,
            torch.tensor(random.normal(size=(num_envs, 1))).float(),
            torch.tensor(random.normal(size=num_envs)).float(),
        )
    last = torch.tensor(random.normal(size=(num_envs, 1))).float()
    buffer.compute_returns_and_advantage(last, random.random(num_envs) < 0.5)
    return buffer


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("acts", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("seen", SPACES.values(), ids=SPACES)
def test_minibatches_are_those_of_the_stock_buffer(seen, acts, num_envs):
    ours, stock = (
        filled(kind, seen, acts, 7, num_envs) for kind in (DeviceRolloutBuffer, RolloutBuffer)
    )
    attributes = ("observations", "actions", "values", "log_probs", "advantages", "returns")
    for name in (*attributes, "rewards", "episode_starts"):
        np.testing.assert_allclose(getattr(ours, name), getattr(stock, name), rtol=0, atol=1e-6)
    before = {name: getattr(ours, name).copy() for name in attributes}
    for batch_size in (None, 4, 7 * num_envs):
        np.random.seed(5)
        mine = list(ours.get(batch_size))
        np.random.seed(5)
        theirs = list(stock.get(batch_size))
        assert [len(b.actions) for b in mine] == [len(b.actions) for b in theirs]
        for one, two in zip(mine, theirs, strict=True):
            for name, tensor, other in zip(one._fields, one, two, strict=True):
                assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
                torch.testing.assert_close(tensor, other, rtol=0, atol=1e-6, msg=name)
    for name in attributes:
        np.testing.assert_array_equal(getattr(ours, name), before[name])


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_advantages_are_sums_of_discounted_errors(gae_lambda):
    """By the definition, in float64: sum over l of (gamma lambda)^l delta_(t+l) in the episode."""
    steps, envs, gamma = 40, 5, 0.99
    random = np.random.default_rng(1)
    buffer = DeviceRolloutBuffer(
        steps, SPACES["floats"], ACTIONS["discrete"], "cpu", gae_lambda, gamma, envs
    )
    rewards, values = random.normal(size=(2, steps + 1, envs)).astype(np.float32)
    starts = random.random((steps + 1, envs)) < 0.1
    for step in range(steps):
        buffer.add(
            np.zeros((envs, 4), np.float32),
            np.zeros(envs),
            rewards[step],
            starts[step],
            torch.tensor(values[step]),
            torch.zeros(envs),
        )
    buffer.compute_returns_and_advantage(torch.tensor(values[steps]), starts[steps])
    expected = np.zeros((steps, envs))
    for start in range(steps):
        weight = np.ones(envs)
        for step in range(start, steps):
            alive = ~starts[step + 1]
            delta = rewards[step] + gamma * values[step + 1].astype(float) * alive - values[step]
            expected[start] += weight * delta
            weight = weight * gamma * gae_lambda * alive
    np.testing.assert_allclose(buffer.advantages, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(buffer.returns, expected + values[:steps], rtol=0, atol=1e-5)


def test_images_stay_bytes_held_once_and_channels_last():
    space = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    buffer = DeviceRolloutBuffer(8, space, ACTIONS["discrete"], "cpu", n_envs=4)
    observations = np.random.default_rng(0).integers(0, 256, (9, 4, 3, 64, 64), np.uint8)
    place = buffer.observations.__array_interface__["data"][0]
    for rollout in range(2):
        buffer.reset()
        for step in range(8):
            given = observations[step + rollout]
            seen = given if step % 2 else np.ascontiguousarray(given.transpose(0, 2, 3, 1))
            seen = seen if step % 2 else seen.transpose(0, 3, 1, 2)  # as the simulator's lie
            buffer.add(seen, np.zeros(4), np.zeros(4), np.zeros(4), torch.zeros(4), torch.zeros(4))
        np.testing.assert_array_equal(buffer.observations, observations[rollout : rollout + 8])
        buffer.compute_returns_and_advantage(torch.zeros(4), np.zeros(4, bool))
        for batch in buffer.get(8):
            assert batch.observations.dtype == torch.uint8
            assert batch.observations.is_contiguous(memory_format=torch.channels_last)
        assert buffer.observations.__array_interface__["data"][0] == place
    observations[:] = 0  # the environment may use its memory again
    assert buffer.observations.any()


def test_what_cannot_be_held_or_is_not_complete_is_refused():
    with pytest.raises(ValueError, match=r"got Dict.*DictRolloutBuffer"):
        DeviceRolloutBuffer(2, spaces.Dict(x=spaces.Discrete(2)), ACTIONS["discrete"], "cpu")
    buffer = DeviceRolloutBuffer(2, spaces.Discrete(2), ACTIONS["discrete"], "cpu")
    with pytest.raises(ValueError, match="only 0 of 2 steps"):
        next(buffer.get(1))
