"""Where the time of training goes, against what each part takes alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from rlbilinear.agents import FastPPO, fast_ppo
from rlbilinear.benchmarks.measure import Comparison, Cost, measure
from rlbilinear.envs import ProcgenVecEnv

PLAYED, COLLECTED = 100, 10
"""Steps of all environments with which the simulator alone and halves are measured."""


class Stopwatch:
    """Adds up the seconds spent in some methods, a GPU's work included: nothing overlaps then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, timed."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            result = call(*args, **kwargs)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self._now() - start
            return result

        return run

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shares(
    name: str, model: FastPPO, env: ProcgenVecEnv, rollouts: int = 1
) -> Iterator[Comparison]:
    """Train, and compare each stage of the last rollout with its work done alone.

    Args:
        name: name of the row.
        model: to be trained.
        env: its simulator.
        rollouts: those before the last are to warm up.
    """
    size = model.n_steps * model.n_envs
    if rollouts > 1:
        model.learn(size * (rollouts - 1))
    watch = Stopwatch(model.device)
    policy, buffer = model.policy, model.rollout_buffer
    stages = [
        (env, "step_async", "simulator"),
        (env, "step_wait", "simulator"),
        (policy, "forward", "inference"),
        (policy, "predict_values", "inference"),
        (fast_ppo, "to_device", "copies"),
        (buffer, "add", "copies"),
        (buffer, "_gather", "minibatches"),
        (model, "collect_rollouts", "collecting"),
        (model, "train", "update"),
    ]
    with ExitStack() as patches:
        for owner, method, stage in stages:
            timed = watch.timed(stage, getattr(owner, method))
            patches.enter_context(mock.patch.object(owner, method, timed))
        model.learn(size, reset_num_timesteps=rollouts == 1)
    seconds = watch.seconds
    whole = seconds["collecting"] + seconds["update"]
    seconds["update"] -= seconds["minibatches"]
    collecting = seconds.pop("collecting")
    seconds["rest"] = collecting - sum(seconds[s] for s in ("simulator", "inference", "copies"))
    alone = {
        "simulator": ("the simulator alone", _simulator_alone(env)),
        "inference": ("the network's forward pass alone", _forward_alone(model)),
        "update": ("its forward and backward passes alone", _backward_alone(model)),
    }
    for stage, spent in seconds.items():
        words, other = alone.get(stage, ("", None))
        yield Comparison(
            f"{name}: {stage}, {spent / whole:.1%} of the time",
            Cost(spent / size, float("nan")),
            words,
            None if other is None else Cost(other, float("nan")),
        )


def halves(name: str, model: FastPPO, make: Callable[[int], ProcgenVecEnv]) -> Comparison:
    """Collect with half of the environments stepping while the network works on the other half.

    Args:
        name: name of the row.
        model: whose policy acts.
        make: makes an environment of so many copies.
    """
    whole = make(model.n_envs)
    parts = [make(model.n_envs // 2) for _ in range(2)]

    def act(seen: Any) -> np.ndarray:
        with torch.no_grad(), model.precision_mode.applied_to(model.policy):
            actions, *_ = model.policy(fast_ppo.to_device(seen, model.device))
        return actions.cpu().numpy()

    def in_turn() -> None:
        seen: Any = whole.observe()
        for _ in range(COLLECTED):
            seen, *_ = whole.step(act(seen))

    def overlapped() -> None:
        for part in parts:
            part.step_async(act(part.observe()))
        for _ in range(COLLECTED - 1):
            for part in parts:
                seen, *_ = part.step_wait()
                part.step_async(act(seen))
        for part in parts:
            part.step_wait()

    memory = model.device.type != "cuda"
    ours, other = (measure(way, memory=memory) for way in (overlapped, in_turn))
    for env in (whole, *parts):
        env.close()
    each = COLLECTED * model.n_envs
    return Comparison(
        f"{name}, collecting: a half steps while the network works on the other",
        ours._replace(seconds=ours.seconds / each),
        "all step, then the network",
        other._replace(seconds=other.seconds / each),
    )


def _simulator_alone(env: ProcgenVecEnv) -> float:
    """Return seconds a step of one environment, of random actions."""
    random = np.random.default_rng(0)
    actions = random.integers(env.action_space.n, size=(PLAYED, env.num_envs))  # type: ignore[attr-defined]

    def play() -> None:
        for each in actions:
            env.step(each)

    return measure(play, repeats=3).seconds / actions.size


def _forward_alone(model: FastPPO) -> float:
    """Return seconds a sample, in batches of all environments."""
    return _pass_alone(model, model.n_envs, torch.no_grad(), lambda features: None)


def _backward_alone(model: FastPPO) -> float:
    """Return seconds a sample, in the parts of the update, as often as it uses one."""
    size = model.micro_batch_size or model.batch_size
    once = _pass_alone(model, size, torch.enable_grad(), lambda features: features.sum().backward())
    return once * model.n_epochs


def _pass_alone(model: FastPPO, size: int, mode: Any, then: Callable[[Tensor], object]) -> float:
    """Time the body as it runs in training."""
    body = model.policy.features_extractor
    images = torch.rand(size, *model.observation_space.shape, device=model.device)  # type: ignore[misc]
    images = images.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with mode, model.precision_mode.applied_to(model.policy):
            for _ in range(5):
                model.policy.zero_grad()
                then(body(images))
        synchronize(model.device)

    return measure(run).seconds / (5 * size)
