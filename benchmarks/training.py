"""PPO against Stable-Baselines3's own: each choice's share, every architecture, rollout memory.

Times are for one environment step, collected and trained on; memory is what training takes above
the model and the simulator, or what training and model take of a GPU. The same simulator, network
and hyperparameters (the ProcGen literature's; on a processor with rollouts of one minibatch). On
whatever device there is: a GPU is taken where there is one.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.agents import ARCHITECTURES, Agent, AgentPolicy, DeviceRolloutBuffer, FastPPO
from rlbilinear.agents.experts import EXPERTS
from rlbilinear.agents.network import find_device
from rlbilinear.agents.options import PRESETS
from rlbilinear.agents.ppo import CPU_MICRO_BATCH
from rlbilinear.agents.precision import Precision
from rlbilinear.benchmarks import rates
from rlbilinear.benchmarks.measure import Comparison, Cost, measure, peak_memory
from rlbilinear.benchmarks.single_file import ActorCritic, SingleFilePPO
from rlbilinear.benchmarks.stages import halves, shares, synchronize
from rlbilinear.envs import ProcgenVecEnv

PUBLISHED = PRESETS["published"]
MINIBATCH = PUBLISHED.num_envs * PUBLISHED.num_steps // PUBLISHED.minibatches
GAME, LEVELS = "coinrun", 200
SHOWN = ("impala", "bimpala-compact")
SHORT = 512
"""Samples of the rollout with which the other architectures are tried, for one epoch."""
TURNS = 3
"""How often they are: a rollout of less than a second says little alone."""
FASTER_ON_CPU, FASTER_ON_CUDA = {"impala": 2.0}, {"impala": 4.0, "bimpala-compact": 4.0}
"""Times faster than stock that is asked; of the others that they are not slower."""
LARGER = 1.3
"""Times its observations' size that a rollout may take."""
DEVICE = find_device("auto")
CUDA = DEVICE.type == "cuda"
ROLLOUT = PUBLISHED.num_envs * PUBLISHED.num_steps if CUDA else MINIBATCH


class Way(NamedTuple):
    """A way to train."""

    name: str
    buffer: type[RolloutBuffer] = DeviceRolloutBuffer
    channels_last: bool = True
    """the network converts observations, and its weights lie so; else it takes what comes"""
    fast: bool = True
    """by `FastPPO`, else by stock PPO"""
    precision: Precision = "float32"
    compile: bool = False


STOCK = Way("stock PPO", RolloutBuffer, channels_last=False, fast=False)
STEPS_BETWEEN = (
    Way("stock PPO + DeviceRolloutBuffer", channels_last=False, fast=False),
    Way("+ network channels last", fast=False),
)
PARTS = None if CUDA else CPU_MICRO_BATCH
"""Samples that `FastPPO` takes through the network at once in the update."""
ON_CPU = (Way(f"+ FastPPO, minibatches in parts of {CPU_MICRO_BATCH}"),)
BFLOAT16 = Way("all that, bfloat16", precision="bfloat16")
COMPILED = Way("all that, compiled", compile=True)
ON_CUDA = (
    Way("+ FastPPO, copies pinned"),
    Way("+ TF32", precision="tf32"),
    Way("+ bfloat16", precision="bfloat16"),
    Way("+ compiled to CUDA graphs", precision="bfloat16", compile=True),
)
OURS = (ON_CUDA if CUDA else ON_CPU)[-1]
"""What is asked to be faster."""


def comparisons() -> Iterable[Comparison]:
    """Measure training beside its passes and others, in steps from stock to ours, and memory."""
    yield from _rates()
    for name in SHOWN:
        yield from _one_by_one(name)
        yield from _stages(name)
    if not CUDA:  # compiling takes most of a minute, and has products to merge in this one
        yield _short("bimpala-compact", COMPILED, OURS)
    yield from _fused()
    for name in ARCHITECTURES:
        if name not in SHOWN:
            yield _asked(_short(name, OURS, STOCK), 1.0)
    yield _rollout_memory()


def _rates() -> Iterator[Comparison]:
    """Set distillation and PPO beside what the network's passes take, and PPO beside others'."""
    _begin_anew()
    precisions = ("float32", "bfloat16") if CUDA or _bfloat16() else ("float32",)
    for game, precision in product(EXPERTS, precisions):
        yield rates.distilling(game, "bimpala-compact", precision)
    for name in SHOWN:
        _begin_anew()
        envs = [_simulator(PUBLISHED.num_envs) for _ in range(3)]
        ours, stock = (
            _model(way, env, name, ROLLOUT, PUBLISHED.epochs)
            for way, env in zip((OURS, STOCK), envs, strict=False)
        )
        assert isinstance(ours, FastPPO)
        network = ActorCritic(*_plain_body(name), envs[2].action_space.n).to(DEVICE)  # type: ignore[attr-defined]
        steps, minibatches = ROLLOUT // PUBLISHED.num_envs, ROLLOUT // MINIBATCH
        loop = SingleFilePPO(network, envs[2], steps, minibatches, DEVICE)
        yield from rates.learning(name, ours, stock, loop, OURS.name)
        for env in envs:
            env.close()


def _plain_body(architecture: str) -> tuple[nn.Module, int]:
    """Return an architecture's layers as anybody would write them, and how many features."""
    body: Any = Agent.new(architecture, game=GAME, device="cpu").policy.features_extractor
    return body.layers.to(memory_format=torch.contiguous_format), body.features_dim


def _one_by_one(architecture: str) -> Iterator[Comparison]:
    """Switch one choice on after the other; each row is set beside stock PPO."""
    stock, told = _train(STOCK, architecture, ROLLOUT, PUBLISHED.epochs)
    beyond = (BFLOAT16,) if not CUDA and _bfloat16() else ()
    for way in (*STEPS_BETWEEN, *(ON_CUDA if CUDA else ON_CPU), *beyond):
        cost, words = _train(way, architecture, ROLLOUT, PUBLISHED.epochs)
        row = Comparison(
            f"{architecture}: {way.name}; {words}", cost, f"{STOCK.name}; {told}", stock
        )
        asked = FASTER_ON_CUDA if CUDA else FASTER_ON_CPU
        yield _asked(row, asked.get(architecture, 1.0)) if way == OURS else row


def _bfloat16() -> bool:
    """Whether the processor has bfloat16 in hardware: elsewhere it is some 13 times slower."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _stages(architecture: str) -> Iterator[Comparison]:
    """Show where the time goes when all is switched on, and what overlapping would change."""
    _begin_anew()
    env = _simulator(PUBLISHED.num_envs)
    model = _model(OURS, env, architecture, ROLLOUT if CUDA else SHORT, PUBLISHED.epochs)
    assert isinstance(model, FastPPO)
    yield from shares(architecture, model, env, rollouts=2 if CUDA else 1)
    yield halves(architecture, model, _simulator)
    env.close()


def _fused() -> Iterator[Comparison]:
    """Run a bilinear layer's two convolutions as one, and as two: forward and backward."""
    for kernel in (3, 7):
        x = torch.randn(CPU_MICRO_BATCH, 32, 16, 16, device=DEVICE)
        weights = torch.randn(2, 32, 32, kernel, kernel, device=DEVICE)
        tensors = [
            tensor.contiguous(memory_format=torch.channels_last).requires_grad_()
            for tensor in (x, *weights)
        ]
        one, two = (
            measure(partial(_forward_and_back, way, tensors), memory=not CUDA)
            for way in (_as_one, _as_two)
        )
        yield Comparison(
            f"bilinear convolution, kernel {kernel}, forward and backward: left and right as one",
            one,
            "as two",
            two,
        )


def _as_one(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    both = F.conv2d(x, torch.cat([left, right]), padding=left.shape[-1] // 2)
    one, two = both.chunk(2, 1)
    return one * two


def _as_two(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    one, two = (F.conv2d(x, weight, padding=left.shape[-1] // 2) for weight in (left, right))
    return one * two


def _forward_and_back(way: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    for _ in range(3):
        torch.autograd.grad(way(*tensors).sum(), tensors)
    synchronize(DEVICE)


def _short(architecture: str, way: Way, other: Way) -> Comparison:
    """Compare two ways by turns, on a smaller minibatch and for one epoch: medians of the turns."""
    turns = [[_train(each, architecture, SHORT, 1) for each in (other, way)] for _ in range(TURNS)]
    medians = (sorted(of_one)[TURNS // 2] for of_one in zip(*turns, strict=True))
    (theirs, told), (ours, words) = medians
    return Comparison(
        f"{architecture}, minibatch {SHORT}, 1 epoch: {way.name}; {words}",
        ours,
        f"{other.name}; {told}",
        theirs,
    )


def _asked(row: Comparison, times: float) -> Comparison:
    assert row.other is not None
    met = row.other.seconds >= times * row.ours.seconds
    return row._replace(target=f"at least {times:g} times faster", met=met)


def _simulator(copies: int) -> ProcgenVecEnv:
    return ProcgenVecEnv(GAME, copies, num_levels=LEVELS)


def _train(way: Way, architecture: str, rollout: int, epochs: int) -> tuple[Cost, str]:
    """Train on rollouts, of which the last is timed: cost of a step, and rate and shares in words.

    What compiles itself is warmed up by others: a CUDA graph runs as such from its third call on.
    """
    _begin_anew()
    before = torch.cuda.memory_reserved() if CUDA else 0
    env = _simulator(PUBLISHED.num_envs)
    model = _model(way, env, architecture, rollout, epochs)
    clock = Clock()
    warming = 3 if way.compile and CUDA else 1 if way.compile or CUDA else 0
    try:
        megabytes = peak_memory(lambda: model.learn((warming + 1) * rollout, callback=clock))
    finally:
        env.close()
    if CUDA:
        megabytes = (torch.cuda.max_memory_reserved() - before) / 2**20
    seconds = clock.collecting + clock.updating
    words = f"{rollout / seconds:.0f} steps a second, {clock.updating / seconds:.0%} of it update"
    return Cost(seconds / rollout, megabytes), words


def _begin_anew() -> None:
    """Forget what earlier models compiled, of which PyTorch allows 8 graphs, and had of the GPU."""
    torch.compiler.reset()
    gc.collect()  # models are in cycles
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _model(way: Way, env: ProcgenVecEnv, architecture: str, rollout: int, epochs: int) -> PPO:
    arguments: dict[str, Any] = {
        "learning_rate": PUBLISHED.learning_rate,
        "n_steps": rollout // PUBLISHED.num_envs,
        "batch_size": min(rollout, MINIBATCH),
        "n_epochs": epochs,
        "gamma": PUBLISHED.gamma,
        "gae_lambda": PUBLISHED.gae_lambda,
        "clip_range": PUBLISHED.clip_range,
        "clip_range_vf": PUBLISHED.clip_range_vf,
        "ent_coef": PUBLISHED.entropy_coefficient,
        "vf_coef": PUBLISHED.value_coefficient,
        "max_grad_norm": PUBLISHED.max_grad_norm,
        "rollout_buffer_class": way.buffer,
        "policy_kwargs": {"architecture": architecture},
        "seed": 0,
        "device": DEVICE,
    }
    normalised = VecNormalize(env, norm_obs=False, gamma=PUBLISHED.gamma)
    if way.fast:
        model: PPO = FastPPO(
            AgentPolicy,
            normalised,
            micro_batch_size=PARTS,
            precision=way.precision,
            compile=way.compile,
            **arguments,
        )
    else:
        model = PPO(AgentPolicy, normalised, **arguments)
    if not way.channels_last:
        body: Any = model.policy.features_extractor
        body.layers.to(memory_format=torch.contiguous_format)
        body.forward = body.layers.forward
    model.set_logger(Logger(None, []))
    return model


class Clock(BaseCallback):
    """Seconds of a run's last rollout, and of the update after it."""

    collecting = updating = 0.0

    def _on_rollout_start(self) -> None:
        self._start = self._now()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._end = self._now()
        self.collecting = self._end - self._start

    def _on_training_end(self) -> None:
        self.updating = self._now() - self._end

    def _now(self) -> float:
        synchronize(DEVICE)
        return time.perf_counter()


def _rollout_memory() -> Comparison:
    """Fill a rollout of the published size, and take an epoch of minibatches from it."""
    env = ProcgenVecEnv(GAME, PUBLISHED.num_envs, num_levels=LEVELS)
    ours = measure(lambda: _fill_and_take(DeviceRolloutBuffer, env), repeats=3)
    stock = measure(lambda: _fill_and_take(RolloutBuffer, env), repeats=3)
    env.close()
    size = PUBLISHED.num_envs * PUBLISHED.num_steps * 3 * 64 * 64 / 2**20
    return Comparison(
        f"{PUBLISHED.num_envs} x {PUBLISHED.num_steps} observations ({size:.0f} MB as bytes), "
        f"an epoch of minibatches: {ours.megabytes / size:.2f} times their size",
        ours,
        f"Stable-Baselines3's buffer: {stock.megabytes / size:.2f} times",
        stock,
        target=f"at most {LARGER:g} times their size",
        met=ours.megabytes <= LARGER * size,
    )


def _fill_and_take(kind: type[RolloutBuffer], env: ProcgenVecEnv) -> None:
    envs = env.num_envs
    buffer = kind(PUBLISHED.num_steps, env.observation_space, env.action_space, "cpu", n_envs=envs)
    seen, zeros, estimates = env.observe(), np.zeros(envs), torch.zeros(envs)
    for _ in range(PUBLISHED.num_steps):
        buffer.add(seen, zeros, zeros, zeros, estimates, estimates)
    buffer.compute_returns_and_advantage(estimates, zeros)
    for batch in buffer.get(MINIBATCH):
        del batch  # as `FastPPO` does, before the next is gathered
