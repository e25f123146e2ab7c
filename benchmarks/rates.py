"""Frames a second and core: of distillation and PPO, beside the network's passes alone.

The passes alone are what nothing can be faster than with this network: of distillation one forward
and backward pass for each frame; of PPO one forward pass to act, and one forward and backward pass
for each frame and epoch. All ways take turns in one process. On a processor time is the
processor's, of all threads; on a GPU it is that on the clock.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

from rlbilinear.agents import Agent, FastPPO
from rlbilinear.agents.distill_options import DistillOptions
from rlbilinear.agents.distillation import chances, gradient_step, make_optimisers
from rlbilinear.agents.network import find_device
from rlbilinear.agents.precision import PrecisionMode
from rlbilinear.benchmarks.measure import Comparison, Cost
from rlbilinear.benchmarks.single_file import SingleFilePPO
from rlbilinear.benchmarks.stages import synchronize

SHARE = 0.85
"""Of the passes' rate, that training is asked to reach."""
STEPS = 4
"""Gradient steps of distillation that are timed together."""
TURNS, BUDGET = 9, 60.0
"""The most turns that ways take, and the seconds after which no turn is begun; at least 3 are."""
DEVICE = find_device("auto")


def distilling(game: str, architecture: str, precision: str) -> Comparison:
    """Set the learning from an expert beside the passes of its student."""
    options = DistillOptions(
        Path(), architecture=architecture, game=game, precision=precision, device=str(DEVICE)
    )
    agent = Agent.new(architecture, game=game, device=options.device)
    policy, optimisers = agent.policy, make_optimisers(agent.policy, options)
    generator, levels = chances(options, 0)
    mode = PrecisionMode("bfloat16" if precision == "bfloat16" else "float32", False, DEVICE)
    images = random_images(options.batch, agent.config.observation_shape)

    def learn() -> None:
        for _ in range(STEPS):
            gradient_step(policy, optimisers, next(levels), options, generator)

    def passes() -> None:
        with mode.applied_to(policy):
            forward_and_back(policy.features_extractor, images, STEPS)

    with closing(levels):
        for _ in range(options.groups):  # which begin their levels, and then play at once
            learn()
        found = in_turns({"learning": learn, "passes": passes})
    frames = STEPS * options.batch
    return beside_passes(f"{architecture}, {precision}: distillation of {game}", found, frames)


def learning(
    name: str, ours: FastPPO, stock: PPO, loop: SingleFilePPO, way: str
) -> Iterator[Comparison]:
    """Set PPO beside the passes of its network, Stable-Baselines3's own, and a single-file loop.

    Args:
        name: of the network, which all have.
        ours: set up as the rest, with rollouts of the same size.
        stock: Stable-Baselines3's.
        loop: as CleanRL's.
        way: what ours is, in words.
    """
    size = ours.n_steps * ours.n_envs
    body, mode = ours.policy.features_extractor, ours.precision_mode
    part = ours.micro_batch_size or ours.batch_size
    shape = ours.observation_space.shape or ()
    acting, updating = random_images(ours.n_envs, shape), random_images(part, shape)

    def passes() -> None:
        with mode.applied_to(ours.policy):
            with torch.no_grad():
                for _ in range(ours.n_steps):
                    body(acting)
            forward_and_back(body, updating, ours.n_epochs * size // part)

    calls: dict[str, Callable[[], object]] = {
        "learning": partial(ours.learn, size, reset_num_timesteps=False),
        "passes": passes,
        "stock PPO": partial(stock.learn, size, reset_num_timesteps=False),
        "a single-file loop as CleanRL's": loop.learn,
    }
    found = in_turns(calls)
    yield beside_passes(f"{name}: {way}, rollouts of {size}", found, size)
    for other in [*calls][2:]:
        yield Comparison(
            f"{name}: {way}, rollouts of {size}",
            Cost(found["learning"] / size, np.nan),
            f"{other}; {size / found[other]:.0f} frames a second",
            Cost(found[other] / size, np.nan),
        )


def beside_passes(task: str, found: Mapping[str, float], frames: int) -> Comparison:
    """Compare the time of learning with that of the passes, for so many frames."""
    ours, passes = (Cost(found[name] / frames, np.nan) for name in ("learning", "passes"))
    return Comparison(
        f"{task}; {1 / ours.seconds:.0f} frames a second",
        ours,
        f"the network's passes alone; {1 / passes.seconds:.0f}",
        passes,
        f"at least {SHARE:g} of their rate",
        passes.seconds >= SHARE * ours.seconds,
    )


def in_turns(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each call; they take turns, in an order that is reversed."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for turn in range(TURNS):
        if turn >= 3 and time.perf_counter() - begin > BUDGET:
            break
        for name in [*calls][:: 1 if turn % 2 else -1]:
            start = now()
            calls[name]()
            seconds[name].append(now() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def now() -> float:
    """Return seconds of the processor, or on the clock where a GPU does the work."""
    if DEVICE.type == "cpu":
        return time.process_time()
    synchronize(DEVICE)
    return time.perf_counter()


def forward_and_back(body: nn.Module, images: Tensor, times: int) -> None:
    """Take images through a network, and the gradient of the sum of its features back."""
    for _ in range(times):
        body.zero_grad()
        body(images).sum().backward()


def random_images(count: int, shape: tuple[int, ...]) -> Tensor:
    """Return noise, as the body takes it."""
    images = torch.rand(count, *shape, device=DEVICE)
    return images.contiguous(memory_format=torch.channels_last)
