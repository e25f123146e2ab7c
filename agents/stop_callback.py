"""The callback by which a PPO run can be stopped and saved at any moment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from rlbilinear.agents import training_state
from rlbilinear.agents.signals import StopRequest
from rlbilinear.agents.training_state import Snapshot


class StopCallback(BaseCallback):
    """Holds a snapshot of the start of the current rollout, and ends the run when asked.

    A run that is stopped saves this snapshot, not the half-done rollout or update: it is exact,
    and there is nothing to wait for. Taking it costs about 50 ms a rollout of 64 environments.

    A run that diverges is ended too, by limits that no healthy run reaches, so that there is
    nothing to tune: numbers that are not finite, and, in half of a rollout's frames, expected
    returns larger than the clipped rewards can add up to. (On single frames, polynomials exceed
    this from the start. The size of gradients says little: they are clipped, and Adam's steps do
    not depend on it. TensorBoard shows it.)

    Args:
        stop: checked in every step of the environments, and inside `watching`.
        keep: called when 0, 1, 2, 4, 8, ... rollouts are done.
    """

    model: PPO
    snapshot: Snapshot
    """Of the start of the current rollout, or of the end of training."""

    def __init__(self, stop: StopRequest, keep: Callable[[], None]) -> None:
        super().__init__()
        self._stop, self._keep = stop, keep
        self._stoppable = False

    @contextmanager
    def watching(self, policy: ActorCriticPolicy) -> Iterator[None]:
        """Check at every call of a policy whether the run is to stop, and its action logits.

        Raises:
            FloatingPointError: in such a call, when the action logits are not finite.
        """
        hooks = (
            policy.features_extractor.register_forward_pre_hook(lambda *_: self._look()),
            policy.action_net.register_forward_hook(_check_finite),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _on_rollout_start(self) -> None:
        self._hold()

    def _on_step(self) -> bool:
        self._look()
        return True

    def _on_rollout_end(self) -> None:
        self._check_values(self.model.rollout_buffer.values)

    def _on_training_end(self) -> None:
        self._hold()

    def _hold(self) -> None:
        """Take a snapshot, if training can continue from it."""
        self._stoppable = False
        policy, observations = self.model.policy, self.model._last_obs
        with torch.no_grad():
            features = policy.extract_features(policy.obs_to_tensor(observations)[0])  # type: ignore[arg-type]
            policy.action_net(features)  # its logits are checked where `watching`
            self._check_values(policy.value_net(features).cpu().numpy())
        self.snapshot = training_state.take(self.model)
        self._stoppable = True
        buffer = self.model.rollout_buffer
        rollouts = self.num_timesteps // (buffer.buffer_size * buffer.n_envs)
        if rollouts & (rollouts - 1) == 0:
            self._keep()

    def _look(self) -> None:
        if self._stoppable:
            self._stop.check()

    def _check_values(self, values: Float[np.ndarray, "..."]) -> None:
        typical, bound = np.median(np.abs(values)), _largest_return(self.model)
        if not typical <= bound:
            raise FloatingPointError(
                f"expected returns have a median of {typical:.3g}, but the normalised rewards "
                f"cannot add up to more than {bound:.3g}"
            )


def _largest_return(model: PPO) -> float:
    """Return the most that discounted rewards, clipped by the normaliser, can add up to."""
    _, normaliser = training_state.environments(model)
    return normaliser.clip_reward / (1 - model.gamma) if model.gamma < 1 else float("inf")


def _check_finite(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise FloatingPointError("the network's action logits are not finite")
