"""The callback by which a PPO run can be stopped, saved and followed at any moment."""

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
from rlbilinear.agents.training_state import State


class Keeper(BaseCallback):
    """Holds a run's state at the start of the rollout under way, and ends the run when asked.

    What is saved at a stop is that state, not the half-done rollout or update: it is exact, and
    there is nothing to wait for. Copying it takes about 50 ms a rollout of 64 environments.

    It also ends a run that diverges, at what no healthy one can come to, so that there is nothing
    to tune: numbers that are not finite, and in half of a rollout's frames expected returns beyond
    what the clipped rewards can add up to. (On single frames, polynomials have such from the
    start. The size of gradients says little: they are clipped, and Adam's steps do not depend on
    it. It is in TensorBoard.)

    Args:
        stop: looked at in every step of the environments, and where `watching`.
        keep: called when 0, 1, 2, 4, 8, ... rollouts are done.
    """

    model: PPO
    state: State
    """At the start of the rollout under way, or at the end of training."""

    def __init__(self, stop: StopRequest, keep: Callable[[], None]) -> None:
        super().__init__()
        self._stop, self._keep = stop, keep
        self._stoppable = False

    @contextmanager
    def watching(self, policy: ActorCriticPolicy) -> Iterator[None]:
        """Look at every call of a policy whether the run is to stop, and whether it can go on.

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
        """Hold the state, if the policy can go on from it."""
        self._stoppable = False
        policy, observations = self.model.policy, self.model._last_obs
        with torch.no_grad():
            features = policy.extract_features(policy.obs_to_tensor(observations)[0])  # type: ignore[arg-type]
            policy.action_net(features)  # its logits are checked where `watching`
            self._check_values(policy.value_net(features).cpu().numpy())
        self.state = training_state.take(self.model)
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
                f"expected returns of {typical:.3g} (median), of normalised rewards that cannot "
                f"add up to more than {bound:.3g}"
            )


def _largest_return(model: PPO) -> float:
    """Return what discounted rewards add up to at most, clipped as the normaliser does."""
    _, normaliser = training_state.environments(model)
    return normaliser.clip_reward / (1 - model.gamma) if model.gamma < 1 else float("inf")


def _check_finite(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise FloatingPointError("the network's action logits are not finite")
