"""A critic that learned elsewhere, brought to what a PPO run's rewards are counted in."""

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
    """What a critic's values are multiplied by, and what is then added."""

    slope: float
    offset: float


def adopt_critic(model: FastPPO, steps: int, look: Callable[[], None] = lambda: None) -> Fit:
    """Let the agent play without learning, then scale and shift its critic to fit what it got.

    A critic predicts returns in the units of its own training: the game's, or those of another
    run's return normaliser. Until it has learned the new ones its gradient is many times the
    policy's, in the body that both share, and the agent forgets. Here the normaliser learns the
    scale of the returns, and the critic is `fitted` to it. No frame is counted, and the levels
    under way are left.

    Args:
        model: on a `VecNormalize`, before its first step. Its value head is changed in place.
        steps: of each environment.
        look: called before each step; what it raises ends this, with the critic as it was.

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

    An episode that the last step has not ended counts with what is then expected of it: the value
    after that step, scaled and shifted alike. So both sides of the regression depend on slope and
    offset, linearly; solved is that the rest is orthogonal to the values and to 1. This is
    least-squares temporal differences (Boyan 2002) on these two features, with lambda = 1: a lower
    one, as of the advantages in training, flattens good values of long episodes, because errors
    are counted in full and what is right only near the ends.

    Values that do not rise with the returns have slope 0: they know nothing of them, and only
    the offset is fitted.

    Args:
        values: of the observations at each step, and after the last.
        rewards: of each step.
        ends: whether the step ended an episode.
        gamma: discount.
    """
    given = torch.as_tensor(values, dtype=torch.float64)
    got = torch.as_tensor(rewards, dtype=torch.float64)
    goes_on = 1 - torch.as_tensor(ends, dtype=torch.float64)
    mean, spread = given.mean(), given.std()
    features = torch.stack([torch.ones_like(given), given - mean])
    none = torch.zeros_like(got)
    # of values that are 0: the discounted rewards; of a feature alone: the rest that it leaves
    returns = generalised_advantages(got, torch.zeros_like(given), goes_on, gamma, 1.0).flatten()
    rests = torch.stack(
        [generalised_advantages(none, f, goes_on, gamma, 1.0).flatten() for f in features]
    )
    seen = features[:, :-1].flatten(1)
    alone = -(returns.sum() / rests[0].sum()).item()
    if spread <= 1e-5 * (1 + mean.abs()):  # what is left of float32's digits is noise
        return Fit(0.0, alone)
    offset, slope = torch.linalg.solve(seen @ rests.T, -seen @ returns).tolist()
    return Fit(slope, offset - slope * mean.item()) if slope > 0 else Fit(0.0, alone)
