"""Integrated gradients: how much each channel and position of a layer adds to what the agent does.

By captum, which the extra `attribution` installs. The method is that of Sundararajan, Taly and Yan
(2017), from a layer's output on a baseline to its output on the state: the attributions of all
channels and positions add up to the change of the agent's output.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.envs import ACTIONS_OF_MOVE, Move, observe
from rlbilinear.probes.dataset import ActivationDataset
from rlbilinear.statistics import bootstrap_interval

Output = Callable[[Float[Tensor, "n actions"]], Float[Tensor, "n"]]
"""From action logits to one number for each state."""

STEPS = 64
"""Points of Gauss and Legendre's rule along the way. What is integrated is exact when it is a
polynomial of degree below 2 STEPS; ReLUs and max-pools after the layer leave a gap."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each channel and position of a layer adds, state by state.

    Attributes:
        layer: whose output it is.
        values: values of each element of the layer's output.
        change: of the agent's output, from the baseline to the state.
    """

    layer: str
    values: Float[np.ndarray, "n channels *positions"]
    change: Float[np.ndarray, "n"]

    @property
    def channels(self) -> Float[np.ndarray, "n channels"]:
        """What each channel adds, over all positions."""
        return self.values.reshape(*self.values.shape[:2], -1).sum(2)

    @property
    def gap(self) -> Float[np.ndarray, "n"]:
        """By how much the sum of all attributions misses the change: the integration's error."""
        return self.channels.sum(1) - self.change


def log_odds(logits: Float[Tensor, "n actions"]) -> Float[Tensor, "n 5"]:
    """Return the log odds of each move: of its actions' probability against all others'.

    In the order of `rlbilinear.envs.Move`.
    """
    moves = sorted(ACTIONS_OF_MOVE)
    groups = [[*ACTIONS_OF_MOVE[move]] for move in moves]
    others = [
        [a for other in moves if other != move for a in ACTIONS_OF_MOVE[other]] for move in moves
    ]
    return torch.stack(
        [
            logits[:, own].logsumexp(1) - logits[:, rest].logsumexp(1)
            for own, rest in zip(groups, others, strict=True)
        ],
        1,
    )


def integrated_gradients(
    agent: Agent,
    layer: str,
    observations: Observations,
    baselines: Observations,
    output: Move | Sequence[Move] | Output,
    *,
    steps: int = STEPS,
    batch: int = 16,
) -> Attribution:
    """Attribute the change of an output between baselines and states to a layer's elements.

    Args:
        agent: whose layer; computed in the dtype of its weights.
        layer: a step of the forward pass.
        observations: the states.
        baselines: one for each state, such as the same maze without its cheese; or one for all,
            such as a black picture.
        output: what is attributed: the log odds of a move, or of one move for each state; or a
            smooth function of the action logits, such as ``lambda logits: logits[:, 3]``.
        steps: points of the integration; more make the gap smaller.
        batch: states at a time; each is run at all points.

    Raises:
        ImportError: captum is not installed; the message names the extra.
        ValueError: unknown layer, one that has no output of its own, baselines or an output of
            another shape, or no positive number of steps.
    """
    captum = _captum()
    count, base = len(observations), torch.as_tensor(baselines)
    if len(base) not in (1, count):
        raise ValueError(f"expected 1 baseline or {count}, one for each state, got {len(base)}")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch are positive, got {steps} and {batch}")
    agent.activations(observations[:1], [layer])  # says what is wrong with a layer or a picture
    agent.activations(base[:1], [layer])
    policy, like = agent.policy, next(agent.policy.parameters())
    of_logits, moves = _output(output, count)

    def pixels(pictures: Tensor) -> Tensor:
        return (pictures.float() / 255).to(like)  # as the policy does, rounded to float32

    def forward(images: Tensor, wanted: Tensor) -> Tensor:
        result = of_logits(policy.action_net(policy.features_extractor(images)), wanted)
        if result.shape != (len(images),):
            raise ValueError(
                "expected an output of one number for each state, got shape "
                f"{tuple(result.shape)} for {len(images)} states"
            )
        return result

    method = captum.LayerIntegratedGradients(forward, agent.layer(layer))
    values, changes = [], []
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        images = pixels(torch.as_tensor(observations[rows]))
        blank = pixels(base[rows] if len(base) > 1 else base).expand_as(images)
        wanted = moves[rows].to(like.device)
        found = method.attribute(
            images, blank, additional_forward_args=wanted, n_steps=steps, method="gausslegendre"
        )
        with torch.no_grad():
            change = forward(images, wanted) - forward(blank, wanted)
        values.append(found.detach().double().cpu().numpy())
        changes.append(change.double().cpu().numpy())
    return Attribution(layer, np.concatenate(values), np.concatenate(changes))


def _output(
    output: Move | Sequence[Move] | Output, count: int
) -> tuple[Callable[[Tensor, Tensor], Tensor], Int[Tensor, "n"]]:
    """Return the output as a function of logits and of one number for each state, and those."""
    if callable(output):
        return (lambda logits, _: output(logits)), torch.zeros(count, dtype=torch.long)
    wanted = [output] * count if isinstance(output, int | np.integer) else list(output)
    if len(wanted) != count or not all(each in ACTIONS_OF_MOVE for each in wanted):
        raise ValueError(
            f"the output is a Move, one for each of {count} states, or a function of the logits; "
            f"got {output!r}"
        )
    return (
        lambda logits, moves: log_odds(logits).gather(1, moves[:, None])[:, 0],
        torch.as_tensor([int(each) for each in wanted]),
    )


def attribution_table(
    agent: Agent,
    data: ActivationDataset,
    layers: Iterable[str],
    *,
    output: Move | Sequence[Move] | Output | None = None,
    baselines: Observations | None = None,
    steps: int = STEPS,
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Attribute to each channel of several layers, on the states of a dataset.

    Args:
        agent: whose layers.
        data: states, with the level of each.
        layers: steps of the forward pass.
        output: of `integrated_gradients`; the log odds of each state's most likely move when None.
        baselines: of `integrated_gradients`; the same states without their cheese when None, so
            that what is attributed is what the cheese changes. States without one then add nothing.
        steps: number of steps of the integration.
        seed: seed of the bootstrap.
        n_resamples: number of resamples of the bootstrap by level.

    Returns:
        A row for each channel of each layer: ``layer``, ``channel``, ``attribution`` (mean over
        states) with its interval ``low`` and ``high`` over levels; ``size`` (mean of the absolute
        value); ``share`` of all channels' sizes; ``change``, the mean change of the output, to
        which a layer's attributions add up; and ``gap``, the largest error of that sum in a state.

    Raises:
        ImportError: captum is not installed; the message names the extra.
        ValueError: as of `integrated_gradients`; no layer.
    """
    names = list(dict.fromkeys(layers))
    if not names:
        raise ValueError("expected at least one layer")
    if baselines is None:
        baselines = observe([maze.with_cheese() for maze in data.mazes])
    if output is None:
        likeliest = log_odds(agent.logits(data.observations)).argmax(1)
        output = [Move(index) for index in likeliest.tolist()]
    rows = []
    for name in names:
        found = integrated_gradients(agent, name, data.observations, baselines, output, steps=steps)
        channels = found.channels
        sizes = np.abs(channels).mean(0)
        for channel, values in enumerate(channels.T):
            interval = bootstrap_interval(values, data.levels, seed=seed, n_resamples=n_resamples)
            rows.append(
                {
                    "layer": name,
                    "channel": channel,
                    "attribution": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "size": sizes[channel],
                    "share": sizes[channel] / max(sizes.sum(), np.finfo(float).tiny),
                    "change": found.change.mean(),
                    "gap": np.abs(found.gap).max(),
                }
            )
    return pd.DataFrame(rows)


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise ImportError(
            f"attribution needs captum ({error}): pip install 'rlbilinear[attribution]'"
        ) from error
    return captum.attr
