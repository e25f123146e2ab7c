"""PPO whose minibatches go through the network in parts, with the same gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch import Tensor, nn
from torch.nn import functional as F

from agents.rollout_buffer import DeviceRolloutBuffer

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class Losses(NamedTuple):
    """Means over the samples of a minibatch."""

    policy: Tensor
    """clipped surrogate"""
    value: Tensor
    """squared error"""
    entropy: Tensor
    """its negative"""
    clipped: Tensor
    """share of the samples whose ratio is out of range"""
    divergence: Tensor
    """of the old policy from the new, estimated"""
    total: Tensor
    """what is minimised"""


class FastPPO(PPO):
    """Stable-Baselines3's PPO with its rollouts on the device and its minibatches in parts.

    The activations of a large minibatch do not fit a processor's caches, and each is memory that
    the system must clear first; on a GPU they may not fit at all. So the network is given a part
    at a time, and the gradients of all parts are added before the step. Advantages are normalised
    over the whole minibatch: the loss, gradient and step are those of `PPO`, up to the rounding of
    sums. (A policy with batch normalisation sees parts: that is another loss.)

    Args:
        policy: as for `PPO`.
        env: as for `PPO`.
        micro_batch_size: samples in a part; None gives the network whole minibatches.
        precision: of the policy's body, in rollouts and updates alike; weights, heads and losses
            are float32. bfloat16 pays where the hardware has it, and is far slower elsewhere.
        rollout_buffer_class: None takes Stable-Baselines3's own.
        **kwargs: the rest of `PPO`'s, by name.

    Raises:
        ValueError: a part without samples, an unknown precision, or observations of several parts.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        micro_batch_size: int | None = None,
        precision: Precision = "float32",
        rollout_buffer_class: type[RolloutBuffer] | None = DeviceRolloutBuffer,
        **kwargs: Any,
    ) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be positive or None, got {micro_batch_size}")
        if precision not in PRECISIONS:
            raise ValueError(
                f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}"
            )
        self.micro_batch_size = micro_batch_size
        self.precision = precision
        super().__init__(policy, env, rollout_buffer_class=rollout_buffer_class, **kwargs)
        if isinstance(self.observation_space, spaces.Dict):
            raise ValueError(f"FastPPO takes no Dict observations, got {self.observation_space}")

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Collect a rollout, as `PPO` does."""
        with self._body():
            return super().collect_rollouts(*args, **kwargs)

    def train(self) -> None:
        """Update the policy by the rollout."""
        with self._body():
            self._train()

    @contextmanager
    def _body(self) -> Iterator[None]:
        """Run the policy's body in the precision asked for, and hand on what it gives in float32.

        Rollouts and updates must agree: else the first ratio of probabilities is not 1.
        """
        names = ("features_extractor", "pi_features_extractor", "vf_features_extractor")
        found = {getattr(self.policy, name, None) for name in names}
        bodies = [body for body in found if body is not None] if self.precision != "float32" else []
        for body in bodies:
            body.forward = self._reduced(body.forward)
        try:
            yield
        finally:
            for body in bodies:
                del body.forward  # the class's own again

    def _reduced(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def reduced(observations: Tensor) -> Tensor:
            with torch.autocast(self.device.type, getattr(torch, self.precision)):
                return forward(observations).float()

        return reduced

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
                self.policy.optimizer.zero_grad()
                seen.append(self._accumulate(minibatch, clip, clip_value))
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
        """Log what `PPO` logs; each row of `seen` is `Losses`, the last epoch from `epoch` on."""
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
