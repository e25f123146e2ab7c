"""PPO in one plain loop, as CleanRL's `ppo_procgen.py`_ has it, to set beside this package's.

What makes its speed is kept: observations stored as float32, rows of pixels last, and divided by
255 at each pass; whole minibatches at once; values clipped, with the larger of both losses; rewards
scaled by a running deviation of the returns, and clipped; every tensor on one device; float32.
What is not kept: its network (that of whoever calls), its wrappers of gym, its logging.

.. _ppo_procgen.py: https://github.com/vwxyzjn/cleanrl/blob/09f7a7f/cleanrl/ppo_procgen.py
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn
from torch.distributions import Categorical

from rlbilinear.envs import ProcgenVecEnv

LEARNING_RATE, ADAM_EPSILON = 5e-4, 1e-5
GAMMA, LAMBDA = 0.999, 0.95
EPOCHS = 3
CLIP, ENTROPY, VALUE, MAX_NORM = 0.2, 0.01, 0.5, 0.5
LARGEST_REWARD = 10.0


class ActorCritic(nn.Module):
    """A body and two heads, on observations with channels last."""

    def __init__(self, body: nn.Module, features: int, actions: int) -> None:
        super().__init__()
        self.body = body
        self.actor, self.critic = nn.Linear(features, actions), nn.Linear(features, 1)

    def forward(
        self, observations: Float[Tensor, "n height width 3"]
    ) -> tuple[Categorical, Float[Tensor, "n"]]:
        """Return what the actor does, and the critic's estimates."""
        hidden = self.body(observations.permute(0, 3, 1, 2) / 255.0)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).flatten()


@dataclass
class SingleFilePPO:
    """A network in training.

    Attributes:
        network: trained.
        env: played.
        steps: of each environment in a rollout.
        minibatches: of a rollout, in each epoch.
        device: of all tensors.
    """

    network: ActorCritic
    env: ProcgenVecEnv
    steps: int
    minibatches: int
    device: torch.device
    _returns: RunningMeanStd = field(default_factory=lambda: RunningMeanStd(shape=()))

    def __post_init__(self) -> None:
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), lr=LEARNING_RATE, eps=ADAM_EPSILON
        )
        self._running = np.zeros(self.env.num_envs)
        self._observations = self._seen(self.env.reset())
        self._done = torch.zeros(self.env.num_envs, device=self.device)

    def learn(self) -> None:
        """Collect a rollout, and make an update of it."""
        shape = (self.steps, self.env.num_envs)
        seen = torch.zeros((*shape, *self._observations.shape[1:]), device=self.device)
        actions = torch.zeros(shape, dtype=torch.int64, device=self.device)
        logs, rewards, dones, values = (torch.zeros(shape, device=self.device) for _ in range(4))
        for step in range(self.steps):
            seen[step], dones[step] = self._observations, self._done
            with torch.no_grad():
                chosen, values[step] = self.network(self._observations)
                actions[step] = chosen.sample()
                logs[step] = chosen.log_prob(actions[step])
            observations, reward, done, _ = self.env.step(actions[step].cpu().numpy())
            rewards[step] = torch.as_tensor(self._scaled(reward, done), device=self.device)
            self._observations = self._seen(observations)
            self._done = torch.as_tensor(done, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            _, after = self.network(self._observations)
        advantages = self._advantages(rewards, values, dones, after)
        self._update(
            seen.flatten(0, 1),
            *(each.flatten() for each in (actions, logs, values, advantages)),
        )

    def _seen(self, observations: object) -> Float[Tensor, "envs height width 3"]:
        pixels_last = np.ascontiguousarray(np.moveaxis(np.asarray(observations), 1, -1))
        return torch.as_tensor(pixels_last, dtype=torch.float32, device=self.device)

    def _scaled(self, reward: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Divide rewards by the running deviation of the discounted returns, and clip them."""
        self._running = self._running * GAMMA + reward
        self._returns.update(self._running)
        self._running[done] = 0
        scaled = reward / np.sqrt(self._returns.var + 1e-8)
        return np.clip(scaled, -LARGEST_REWARD, LARGEST_REWARD).astype(np.float32)

    def _advantages(
        self,
        rewards: Float[Tensor, "steps envs"],
        values: Float[Tensor, "steps envs"],
        dones: Float[Tensor, "steps envs"],
        after: Float[Tensor, "envs"],
    ) -> Float[Tensor, "steps envs"]:
        """Return generalised advantages (Schulman et al. 2016)."""
        found, last = torch.zeros_like(rewards), torch.zeros_like(after)
        going = 1 - torch.cat([dones[1:], self._done[None]])
        following = torch.cat([values[1:], after[None]])
        for step in reversed(range(self.steps)):
            error = rewards[step] + GAMMA * following[step] * going[step] - values[step]
            found[step] = last = error + GAMMA * LAMBDA * going[step] * last
        return found

    def _update(
        self,
        seen: Float[Tensor, "n height width 3"],
        actions: Int64[Tensor, "n"],
        logs: Float[Tensor, "n"],
        values: Float[Tensor, "n"],
        advantages: Float[Tensor, "n"],
    ) -> None:
        returns, order = advantages + values, np.arange(len(seen))
        for _ in range(EPOCHS):
            np.random.shuffle(order)
            for part in np.array_split(order, self.minibatches):
                chosen, estimates = self.network(seen[part])
                ratio = (chosen.log_prob(actions[part]) - logs[part]).exp()
                gain = advantages[part]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                actor = torch.maximum(-gain * ratio, -gain * clipped).mean()
                near = values[part] + (estimates - values[part]).clamp(-CLIP, CLIP)
                errors = [(each - returns[part]).square() for each in (estimates, near)]
                critic = 0.5 * torch.maximum(*errors).mean()
                loss = actor - ENTROPY * chosen.entropy().mean() + VALUE * critic
                self._optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
                self._optimiser.step()
