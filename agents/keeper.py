"""The callback by which a PPO run can be stopped, saved and followed at any moment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from agents import training_state
from agents.signals import StopRequest
from agents.training_state import State


class Keeper(BaseCallback):
    """Holds a run's state at the start of the rollout under way, and ends the run when asked.

    What is saved at a stop is that state, not the half-done rollout or update: it is exact, and
    there is nothing to wait for. Copying it takes milliseconds a rollout.

    Args:
        stop: looked at in every step of the environments, and where `watching`.
        keep: called before rollouts 1, 2, 3, 5, 9, ..., when 0, 1, 2, 4, 8, ... are done.
    """

    model: PPO
    state: State
    """At the start of the rollout under way, or at the end of training."""

    def __init__(self, stop: StopRequest, keep: Callable[[], None]) -> None:
        super().__init__()
        self._stop, self._keep = stop, keep

    @contextmanager
    def watching(self, policy: ActorCriticPolicy) -> Iterator[None]:
        """Look at every call of a policy whether the run is to stop, and whether it can go on.

        Raises:
            FloatingPointError: in such a call, when the action logits are not finite.
        """
        hooks = (
            policy.features_extractor.register_forward_pre_hook(lambda *_: self._stop.check()),
            policy.action_net.register_forward_hook(_check_finite),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _on_rollout_start(self) -> None:
        self.state = training_state.take(self.model)
        buffer = self.model.rollout_buffer
        rollouts = self.num_timesteps // (buffer.buffer_size * buffer.n_envs)
        if rollouts & (rollouts - 1) == 0:
            self._keep()

    def _on_step(self) -> bool:
        self._stop.check()
        return True

    def _on_training_end(self) -> None:
        self.state = training_state.take(self.model)


def _check_finite(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise FloatingPointError("the network's action logits are not finite")
