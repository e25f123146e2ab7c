"""A rollout buffer that stays on the training device, for any Stable-Baselines3 PPO or A2C."""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor


class DeviceRolloutBuffer(RolloutBuffer):
    """Stable-Baselines3's rollout buffer, held as tensors on the training device.

    ``PPO("CnnPolicy", env, rollout_buffer_class=DeviceRolloutBuffer)``

    It yields the minibatches that `RolloutBuffer` yields, from the same random numbers.
    Observations keep the dtype of their space (images stay uint8) and are held once: the memory is
    reused by every rollout, and nothing is reordered before the minibatches are drawn. Images lie
    channels last in memory, as convolutions run fastest, whatever their shape says.

    ``observations``, ``actions``, ``values``, ``log_probs``, ``advantages`` and ``returns`` read
    as numpy arrays (steps, envs, ...), before `get` and after: views where the device is the
    CPU, else copies. ``rewards`` and ``episode_starts`` are numpy arrays, as the environment gives
    them, and go to the device once a rollout.

    Args:
        buffer_size: steps of each environment.
        observation_space: any but Dict and Tuple.
        action_space: any that Stable-Baselines3 takes.
        device: of the tensors; "auto" as in Stable-Baselines3.
        gae_lambda: of the advantages; 1 gives Monte-Carlo returns.
        gamma: discount.
        n_envs: environments.

    Raises:
        ValueError: the observations are of several parts.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
    ) -> None:
        if isinstance(observation_space, spaces.Dict | spaces.Tuple):
            raise ValueError(
                f"DeviceRolloutBuffer takes Box, Discrete, MultiDiscrete and MultiBinary "
                f"observations, got {observation_space}; Stable-Baselines3's DictRolloutBuffer "
                f"takes Dict"
            )
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            gae_lambda=gae_lambda,
            gamma=gamma,
            n_envs=n_envs,
        )

    def reset(self) -> None:
        """Begin a rollout. What the last one left is overwritten, not cleared."""
        if not hasattr(self, "_observations"):
            self._allocate()
        self.rewards = np.zeros((self.buffer_size, self.n_envs), np.float32)
        self.episode_starts = np.zeros((self.buffer_size, self.n_envs), np.float32)
        super(RolloutBuffer, self).reset()

    def _allocate(self) -> None:
        """Make the tensors (envs, steps, ...), the order in which samples are counted."""
        self._image = len(self.obs_shape) == 3
        shape = (*self.obs_shape[1:], self.obs_shape[0]) if self._image else self.obs_shape
        dtype = torch.from_numpy(np.empty(0, self.observation_space.dtype)).dtype
        self._observations = self._zeros(*shape, dtype=dtype)
        self._actions = self._zeros(self.action_dim)
        self._values, self._log_probs = self._zeros(), self._zeros()
        self._advantages, self._returns = self._zeros(), self._zeros()

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.n_envs, self.buffer_size, *shape, dtype=dtype, device=self.device)

    def add(
        self,
        obs: np.ndarray | Tensor,
        action: np.ndarray | Tensor,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Float[Tensor, "..."],
        log_prob: Float[Tensor, "..."],
    ) -> None:
        """Add a step of every environment.

        Args:
            obs: what the policy saw (envs, ...).
            action: what it did (envs,) or (envs, parts).
            reward: what it got (envs,).
            episode_start: whether ``obs`` is an episode's first (envs,).
            value: the policy's estimates, of envs numbers.
            log_prob: log probabilities of the actions, of envs numbers.
        """
        seen = torch.as_tensor(obs).reshape(self.n_envs, *self.obs_shape)
        done = torch.as_tensor(action).reshape(self.n_envs, self.action_dim)
        # copies from memory that is not pinned have read it when they return
        self._observations[:, self.pos] = seen.movedim(1, -1) if self._image else seen
        self._actions[:, self.pos] = done
        self._values[:, self.pos] = value.detach().flatten()
        self._log_probs[:, self.pos] = log_prob.detach().flatten()
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.pos += 1
        self.full = self.pos == self.buffer_size

    @torch.no_grad()
    def compute_returns_and_advantage(
        self, last_values: Float[Tensor, "..."], dones: Bool[np.ndarray, " envs"]
    ) -> None:
        """Estimate advantages and returns on the device.

        Args:
            last_values: estimates for the observations after the last step, of envs numbers.
            dones: whether the last step ended an episode.
        """
        starts = np.concatenate([self.episode_starts[1:], np.asarray(dones, np.float32)[None]])
        last = last_values.detach().to(self._values).reshape(1, self.n_envs)
        advantages = generalised_advantages(
            torch.as_tensor(self.rewards, device=self.device),
            torch.cat([self._values.T, last]),
            1 - torch.as_tensor(starts, device=self.device),
            self.gamma,
            self.gae_lambda,
        )
        self._advantages.copy_(advantages.T)
        torch.add(self._advantages, self._values, out=self._returns)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the rollout once, in random order, by minibatches gathered on the device.

        Args:
            batch_size: samples in each, the last may have fewer; None yields all at once.

        Raises:
            ValueError: the rollout is not complete.
        """
        if not self.full:
            raise ValueError(f"only {self.pos} of {self.buffer_size} steps have been added")
        order = np.random.permutation(self.buffer_size * self.n_envs)
        samples = torch.as_tensor(order, device=self.device)
        for batch in samples.split(batch_size or len(samples)):
            yield self._gather(batch)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> RolloutBufferSamples:
        return self._gather(torch.as_tensor(batch_inds, device=self.device))

    def _gather(self, samples: Int[Tensor, " batch"]) -> RolloutBufferSamples:
        """Return these samples, counted environment by environment."""
        tensors = (
            *(self._observations, self._actions, self._values),
            *(self._log_probs, self._advantages, self._returns),
        )
        seen, *others = (t.flatten(0, 1).index_select(0, samples) for t in tensors)
        return RolloutBufferSamples(seen.movedim(-1, 1) if self._image else seen, *others)

    @property
    def observations(self) -> np.ndarray:  # type: ignore[override]
        """What the policy saw, (steps, envs, ...)."""
        seen = self._observations
        return _by_step(seen.movedim(-1, 2) if self._image else seen)

    @property
    def actions(self) -> Float[np.ndarray, "steps envs parts"]:  # type: ignore[override]
        """What it did."""
        return _by_step(self._actions)

    @property
    def values(self) -> Float[np.ndarray, "steps envs"]:  # type: ignore[override]
        """The policy's estimates of the returns."""
        return _by_step(self._values)

    @property
    def log_probs(self) -> Float[np.ndarray, "steps envs"]:  # type: ignore[override]
        """Log probabilities of the actions."""
        return _by_step(self._log_probs)

    @property
    def advantages(self) -> Float[np.ndarray, "steps envs"]:  # type: ignore[override]
        """Generalised advantage estimates."""
        return _by_step(self._advantages)

    @property
    def returns(self) -> Float[np.ndarray, "steps envs"]:  # type: ignore[override]
        """Advantages plus values: what the values are fitted to."""
        return _by_step(self._returns)


def generalised_advantages(
    rewards: Float[Tensor, "steps envs"],
    values: Float[Tensor, "steps+1 envs"],
    goes_on: Float[Tensor, "steps envs"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "steps envs"]:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438).

    The operations on each number, and their order, are those of Stable-Baselines3.

    Args:
        rewards: rewards of each step.
        values: values of the observations at each step, and after the last.
        goes_on: 0 where the step ended an episode, else 1.
        gamma: discount.
        gae_lambda: 0 gives temporal differences, 1 Monte-Carlo returns less values.
    """
    deltas = rewards + gamma * values[1:] * goes_on - values[:-1]
    decays = gamma * gae_lambda * goes_on
    advantages = torch.empty_like(deltas)
    advantage = torch.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        advantage = deltas[step] + decays[step] * advantage
        advantages[step] = advantage
    return advantages


def _by_step(tensor: Tensor) -> np.ndarray:
    return tensor.transpose(0, 1).cpu().numpy()
