"""A critic that learned elsewhere, brought to what a PPO run's rewards are counted in."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.vec_env import VecNormalize

from agents.fast_ppo import FastPPO
from agents.rollout_buffer import generalised_advantages
from agents.running import to_device


def adopt_critic(model: FastPPO, steps: int) -> tuple[float, float]:
    """Let the agent play without learning, then scale and shift its critic to fit what it got.

    A critic predicts returns in the units of its own training: the game's, or those of another
    run's return normaliser. Until it has learned the new ones its gradient is many times the
    policy's, in the body that both share, and the agent forgets. Here the normaliser learns the
    scale of the returns, and the critic is `fitted` to it. No frame is counted, and the levels
    under way are left.

    Args:
        model: on a `VecNormalize`, before its first step. Its value head is changed in place.
        steps: of each environment.

    Returns:
        Slope and offset that the critic's values were given. (1, 0), which leaves them, if the
        values do not rise with the returns: then it is no critic of these.
    """
    env = model.get_vec_normalize_env()
    assert isinstance(env, VecNormalize)
    values, rewards, ends = [], [], []
    seen: Any = env.reset()  # an array: FastPPO refuses the rest
    for step in range(steps + 1):
        with torch.no_grad(), model.running.of(model.policy):
            actions, value, _ = model.policy(to_device(seen, model.device))
        values.append(value.flatten().cpu().numpy())
        if step < steps:
            seen, _, dones, _ = env.step(actions.cpu().numpy())
            rewards.append(env.get_original_reward())
            ends.append(dones)
    scale = np.sqrt(env.ret_rms.var + env.epsilon)
    scaled = np.clip(np.stack(rewards) / scale, -env.clip_reward, env.clip_reward)
    slope, offset = fitted(np.stack(values), scaled, np.stack(ends), model.gamma, model.gae_lambda)
    if not slope > 0:
        return 1.0, 0.0
    head = model.policy.value_net
    with torch.no_grad():
        head.weight.mul_(slope)
        head.bias.mul_(slope).add_(offset)
    return slope, offset


def fitted(
    values: Float[np.ndarray, "steps+1 envs"],
    rewards: Float[np.ndarray, "steps envs"],
    ends: Bool[np.ndarray, "steps envs"],
    gamma: float,
    gae_lambda: float,
) -> tuple[float, float]:
    """Return slope and offset with which values have nothing left to learn from their own targets.

    The targets of PPO's critic are its values plus generalised advantages, which are linear in
    rewards and values. So the values ``slope * values + offset`` whose squared distance from their
    own targets no further slope and offset would lower solve two linear equations: advantages are
    orthogonal to the values and to 1. It is the fixed point of least-squares temporal differences
    (Boyan 2002, LSTD(lambda)) on these two features.

    Args:
        values: of the observations at each step, and after the last.
        rewards: of each step.
        ends: whether the step ended an episode.
        gamma: discount.
        gae_lambda: of the advantages.
    """
    kept, got = (torch.as_tensor(array, dtype=torch.float64) for array in (values, rewards))
    goes_on = 1 - torch.as_tensor(ends, dtype=torch.float64)
    features = torch.stack([kept, torch.ones_like(kept)])
    none = torch.zeros_like(got)
    of_rewards = generalised_advantages(got, torch.zeros_like(kept), goes_on, gamma, gae_lambda)
    of_features = [generalised_advantages(none, f, goes_on, gamma, gae_lambda) for f in features]
    seen = features[:, :-1].flatten(1)
    products = seen @ torch.stack(of_features).flatten(1).T
    slope, offset = torch.linalg.lstsq(products, -seen @ of_rewards.flatten(), driver="gelsd")[0]
    return slope.item(), offset.item()
