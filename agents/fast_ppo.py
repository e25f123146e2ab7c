"""PPO that keeps its rollouts on the device and splits minibatches into smaller parts."""

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.agents.precision import Precision, PrecisionMode, to_device
from rlbilinear.agents.rollout_buffer import DeviceRolloutBuffer


class Losses(NamedTuple):
    """Means over the samples of a minibatch."""

    policy: Tensor
    """clipped surrogate"""
    value: Tensor
    """squared error"""
    entropy: Tensor
    """its negative"""
    clipped: Tensor
    """share of the samples whose ratio is clipped"""
    divergence: Tensor
    """estimated KL divergence of the new policy from the old"""
    total: Tensor
    """the loss that is minimised"""


class FastPPO(PPO):
    """Stable-Baselines3's PPO with its rollouts on the device and its minibatches in parts.

    The activations of a large minibatch do not fit a processor's caches, and the system must clear
    their memory first; on a GPU they may not fit at all. So the network runs on one part at a
    time, and the gradients of all parts are added before the step. Advantages are normalised over
    the whole minibatch: the loss, gradient and step equal those of `PPO`, up to the rounding of
    sums. (With batch normalisation the loss differs, because each part is normalised alone.)

    Observations are copied to the device once, on CUDA through pinned memory and without waiting;
    only the actions are copied back.

    Rollouts and updates use the same precision and compilation: otherwise the first ratios of
    probabilities would not be 1. Callbacks, evaluation and saved models see the plain policy.

    Args:
        policy: as for `PPO`.
        env: as for `PPO`.
        micro_batch_size: samples in a part; None for whole minibatches.
        precision: float32, tf32 (all matrix products, CUDA only) or bfloat16 (the policy's body
            only: weights, heads and losses are float32). bfloat16 is faster where the hardware
            supports it, and far slower elsewhere.
        compile: compile the policy's body by ``torch.compile``, on CUDA with CUDA graphs. This
            takes a minute at the start. Hooks on the body's layers may not be called. PyTorch
            compiles the same code for at most 8 models or numbers of samples; after that it runs
            uncompiled, with a warning. ``torch.compiler.reset()`` between models starts afresh.
        bootstrap_time_limits: where a time limit ended an episode, add the value expected beyond
            it, as `PPO` does; False treats it as any other end.
        rollout_buffer_class: None for Stable-Baselines3's own.
        **kwargs: the other arguments of `PPO`, by name.

    Raises:
        ValueError: ``micro_batch_size`` below 1, a precision that is unknown or not supported on
            the device, or Dict observations.
    """

    _last_obs: Any  # an array: Dict observations are refused

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        micro_batch_size: int | None = None,
        precision: Precision = "float32",
        compile: bool = False,
        bootstrap_time_limits: bool = True,
        rollout_buffer_class: type[RolloutBuffer] | None = DeviceRolloutBuffer,
        **kwargs: Any,
    ) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be positive or None, got {micro_batch_size}")
        self.micro_batch_size, self.precision, self.compile = micro_batch_size, precision, compile
        self.bootstrap_time_limits = bootstrap_time_limits
        super().__init__(policy, env, rollout_buffer_class=rollout_buffer_class, **kwargs)

    def _setup_model(self) -> None:
        if isinstance(self.observation_space, spaces.Dict):
            raise ValueError(f"FastPPO takes no Dict observations, got {self.observation_space}")
        self.precision_mode = PrecisionMode(self.precision, self.compile, self.device)
        super()._setup_model()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "precision_mode"]

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect a rollout, step by step as `PPO` does; callbacks find the same local variables.

        Returns:
            False if a callback ended it before ``n_rollout_steps`` of each environment.
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        on_device = isinstance(rollout_buffer, DeviceRolloutBuffer)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()
        n_steps, new_obs = 0, self._last_obs
        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            obs_tensor = to_device(self._last_obs, self.device)
            with torch.no_grad(), self.precision_mode.applied_to(self.policy):
                chosen, values, log_probs = self.policy(obs_tensor)
            actions = chosen.cpu().numpy()
            clipped_actions = self._within_bounds(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            n_steps += 1
            if self.bootstrap_time_limits:
                self._add_values_beyond_time_limits(rewards, dones, infos)
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.reshape(-1, 1)
            seen: Any = obs_tensor if on_device else self._last_obs
            done: Any = chosen if on_device else actions
            rollout_buffer.add(seen, done, rewards, self._last_episode_starts, values, log_probs)
            self._last_obs, self._last_episode_starts = new_obs, dones
        with torch.no_grad(), self.precision_mode.applied_to(self.policy):
            values = self.policy.predict_values(to_device(new_obs, self.device))
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _within_bounds(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions for the environment: continuous ones unscaled or clipped."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return self.policy.unscale_action(actions)
        return np.clip(actions, self.action_space.low, self.action_space.high)

    def _add_values_beyond_time_limits(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        """Add to the rewards, in place, the values beyond time limits that ended episodes."""
        ended = [
            index
            for index in np.flatnonzero(dones)
            if infos[index].get("TimeLimit.truncated", False)
            and infos[index].get("terminal_observation") is not None
        ]
        if ended:
            last = np.stack([infos[index]["terminal_observation"] for index in ended])
            with torch.no_grad(), self.precision_mode.applied_to(self.policy, compiled=False):
                values = self.policy.predict_values(to_device(last, self.device))
            rewards[ended] += self.gamma * values.flatten().cpu().numpy()

    def train(self) -> None:
        """Update the policy with the rollout."""
        with self.precision_mode.applied_to(self.policy):
            self._train()

    def _train(self) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        clip_value = (
            None
            if self.clip_range_vf is None
            else self.clip_range_vf(self._current_progress_remaining)  # type: ignore[operator]
        )
        seen: list[Tensor] = []
        stopped = False
        for _ in range(self.n_epochs):
            epoch = len(seen)
            for minibatch in self.rollout_buffer.get(self.batch_size):
                self._zero_gradients()
                seen.append(self._accumulate(minibatch, clip, clip_value))
                del minibatch  # before the next is gathered
                divergence = Losses(*seen[-1]).divergence
                stopped = self.target_kl is not None and divergence.item() > 1.5 * self.target_kl
                if stopped:
                    break
                nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
            self._n_updates += 1
            if stopped:
                break
        self._record(torch.stack(seen).cpu(), epoch, clip, clip_value)

    def _zero_gradients(self) -> None:
        """Reset the gradients; with CUDA graphs they are accumulated in memory of their own.

        Otherwise the first part's gradient would stay where the graph wrote it, and the second
        part would overwrite it (PyTorch's issue 169545).
        """
        graphs = self.compile and self.device.type == "cuda"
        if graphs:
            for weight in self.policy.parameters():
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        self.policy.optimizer.zero_grad(set_to_none=not graphs)

    def _accumulate(
        self, minibatch: RolloutBufferSamples, clip: float, clip_value: float | None
    ) -> Tensor:
        """Add the gradient of a minibatch's loss to the weights'; return `Losses` as one tensor."""
        advantages = minibatch.advantages
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        minibatch = minibatch._replace(advantages=advantages)
        size = self.micro_batch_size or len(advantages)
        sums = torch.zeros(len(Losses._fields), device=advantages.device)
        for columns in zip(*(tensor.split(size) for tensor in minibatch), strict=True):
            part = RolloutBufferSamples(*columns)
            share = len(part.advantages) / len(advantages)
            losses = self._losses(part, clip, clip_value)
            (share * losses.total).backward()
            sums += share * torch.stack(losses).detach()
        return sums

    def _losses(self, part: RolloutBufferSamples, clip: float, clip_value: float | None) -> Losses:
        """Return Stable-Baselines3's losses; the advantages are already normalised."""
        actions = part.actions
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, entropies = self.policy.evaluate_actions(part.observations, actions)
        values = values.flatten()
        log_ratio = log_prob - part.old_log_prob
        ratio = torch.exp(log_ratio)
        bounded = torch.clamp(ratio, 1 - clip, 1 + clip)
        policy = -torch.min(part.advantages * ratio, part.advantages * bounded).mean()
        if clip_value is not None:
            change = torch.clamp(values - part.old_values, -clip_value, clip_value)
            values = part.old_values + change
        value = F.mse_loss(part.returns, values)
        # a distribution without a closed form says None: the log probability is an estimate
        entropy = torch.mean(log_prob) if entropies is None else -torch.mean(entropies)
        return Losses(
            policy,
            value,
            entropy,
            ((ratio - 1).abs() > clip).float().mean(),
            ((ratio - 1) - log_ratio).mean(),
            policy + self.ent_coef * entropy + self.vf_coef * value,
        )

    def _record(self, seen: Tensor, epoch: int, clip: float, clip_value: float | None) -> None:
        """Log what `PPO` logs; each row of `seen` is `Losses`, the last epoch begins at `epoch`."""
        mean = Losses(*seen.mean(0).tolist())
        record = self.logger.record
        record("train/entropy_loss", mean.entropy)
        record("train/policy_gradient_loss", mean.policy)
        record("train/value_loss", mean.value)
        record("train/approx_kl", Losses(*seen[epoch:].mean(0).tolist()).divergence)
        record("train/clip_fraction", mean.clipped)
        record("train/loss", Losses(*seen[-1].tolist()).total)
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        record("train/explained_variance", explained)
        if hasattr(self.policy, "log_std"):
            record("train/std", torch.exp(self.policy.log_std).mean().item())
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", clip)
        if clip_value is not None:
            record("train/clip_range_vf", clip_value)
