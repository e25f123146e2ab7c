"""Rescale a critic that was trained elsewhere to the reward units of a PPO run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from rlbilinear.agents.fast_ppo import FastPPO
from rlbilinear.agents.precision import to_device
from rlbilinear.agents.rollout_buffer import generalised_advantages


class Fit(NamedTuple):
    """The factor of a critic's values, and what is added to them then."""

    slope: float
    offset: float


def adopt_critic(model: FastPPO, steps: int, look: Callable[[], None] = lambda: None) -> Fit:
    """Let the agent play without learning, then scale and shift its critic to fit the returns.

    A critic predicts returns in the units of its own training: the game's, or those of another
    run's return normaliser. Until it has learned the new units, its gradient is many times the
    policy's in the body that both share, and the agent forgets. Here the normaliser learns the
    scale of the returns, and the critic is `fitted` to it. No frame is counted, and the episodes
    that were played are abandoned.

    Args:
        model: on a `VecNormalize`, before its first step. Its value head is changed in place.
        steps: of each environment.
        look: called before each step; if it raises, the critic stays unchanged.

    Raises:
        ValueError: the value head has no bias.
        FloatingPointError: expected returns are not finite.
    """
    env, head = model.get_vec_normalize_env(), model.policy.value_net
    assert isinstance(env, VecNormalize) and isinstance(head, nn.Linear)
    if head.bias is None:
        raise ValueError("the agent's value_net has no bias to be fitted: give it one of zeros")
    values, rewards, ends = [], [], []
    seen: Any = env.reset()  # an array: FastPPO refuses the rest
    for step in range(steps + 1):
        look()
        with torch.no_grad(), model.precision_mode.applied_to(model.policy):
            actions, value, _ = model.policy(to_device(seen, model.device))
        values.append(value.flatten().cpu().numpy())
        if step < steps:
            seen, _, dones, _ = env.step(actions.cpu().numpy())
            rewards.append(env.get_original_reward())
            ends.append(dones)
    predicted = np.stack(values)
    if not np.isfinite(predicted).all():
        raise FloatingPointError("the network's expected returns are not finite")
    scale = np.sqrt(env.ret_rms.var + env.epsilon)
    scaled = np.clip(np.stack(rewards) / scale, -env.clip_reward, env.clip_reward)
    fit = fitted(predicted, scaled, np.stack(ends), model.gamma)
    with torch.no_grad():
        head.weight.mul_(fit.slope)
        head.bias.mul_(fit.slope).add_(fit.offset)
    return fit


def fitted(
    values: Float[np.ndarray, "steps+1 envs"],
    rewards: Float[np.ndarray, "steps envs"],
    ends: Bool[np.ndarray, "steps envs"],
    gamma: float,
) -> Fit:
    """Return the slope and offset that bring values nearest to the discounted returns.

    An episode that is unfinished after the last step is completed by the value after that step,
    scaled and shifted alike. So both sides of the regression are linear in slope and offset; the
    solution makes the residual orthogonal to the values and to 1. This is least-squares temporal
    differences (Boyan 2002) on these two features, with lambda = 1. A lower lambda, as in the
    advantages of training, would flatten good values of long episodes: their errors count in full,
    but only near the ends do they have a return to be compared with.

    Values that do not increase with the returns get slope 0: they are uninformative, and only the
    offset is fitted.

    Args:
        values: those of the observations at each step, and after the last.
        rewards: those of each step.
        ends: whether the step ended an episode.
        gamma: discount factor.
    """
    given = torch.as_tensor(values, dtype=torch.float64)
    got = torch.as_tensor(rewards, dtype=torch.float64)
    goes_on = 1 - torch.as_tensor(ends, dtype=torch.float64)
    mean, spread = given.mean(), given.std()
    features = torch.stack([torch.ones_like(given), given - mean])
    none = torch.zeros_like(got)
    # with values of 0: the discounted rewards; with a feature as values: its residuals
    returns = generalised_advantages(got, torch.zeros_like(given), goes_on, gamma, 1.0).flatten()
    rests = torch.stack(
        [generalised_advantages(none, f, goes_on, gamma, 1.0).flatten() for f in features]
    )
    seen = features[:, :-1].flatten(1)
    alone = -(returns.sum() / rests[0].sum()).item()
    if spread <= 1e-5 * (1 + mean.abs()):  # differences are float32 rounding
        return Fit(0.0, alone)
    offset, slope = torch.linalg.solve(seen @ rests.T, -seen @ returns).tolist()
    return Fit(slope, offset - slope * mean.item()) if slope > 0 else Fit(0.0, alone)
