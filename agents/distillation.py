"""Learning from the shortest-path expert: a competent maze agent in two hours on two cores.

The student plays, and in every state it gets into the expert says what it would have done (Ross
et al. 2011, DAgger, with one gradient step for each state and no replay: replayed mazes are
memorised). The loss has the expert's move and, for the critic, its discounted return; nothing
in it says where cheese, mouse or walls are, so that a probe's finding is not planted.

The accuracy shown while training flatters: a maze stays in play for a dozen steps, and what is
learned from one of its states helps in the next. At high rates that was 0.99 shown against 0.96 on
fresh mazes; it fades as the rates fall. The scores on held-out levels are those to go by.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rlbilinear.agents import distill_state
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.evaluation import METRICS, evaluate
from rlbilinear.agents.expert import ExpertMazes
from rlbilinear.agents.folder import check_free, clear, locked, provenance, write_json
from rlbilinear.agents.muon import Muon
from rlbilinear.agents.network import HEADS, layer_name
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.envs import EVALUATION, MOVE_OF_ACTION, TRAINING
from rlbilinear.envs.games import check_mode

GAMMA = 0.999
REWARD = 10.0
PRECISIONS = ("float32", "bfloat16")
OPTIONS, AGENT, TRAINING_STATE = "options.json", "agent", "training.safetensors"
WINDOW = 100
"""Gradient steps that the scores of training are means over."""
MAX_SKIPPED = 20
"""Steps of the last `WINDOW` without a finite gradient at which a run stops."""

Optimisers = tuple[Muon, torch.optim.AdamW]


@dataclass(frozen=True)
class DistillOptions:
    """A run. The same options with ``resume`` continue it; with more frames, they prolong it."""

    out: Path
    """folder of the run"""
    architecture: str = "bimpala-compact"
    frames: int = 7_000_000
    """labelled states to learn from, each used once"""
    batch: int = 256
    """states in a gradient step, one of each environment"""
    groups: int = 4
    """sets of environments that take turns, so that successive batches differ"""
    matrix_rate: float = 2e-3
    """Muon's learning rate, for the weight matrices of hidden layers; it falls linearly to 0"""
    rate: float = 7e-4
    """AdamW's learning rate, for all other weights; it falls linearly to 0"""
    weight_decay: float = 0.01
    warmup: int = 100
    """gradient steps over which the rates rise"""
    max_gradient_norm: float = 1.0
    value_weight: float = 0.02
    """of the critic's loss, beside the actor's"""
    new_level: float = 1 / 24
    """probability at each step that an environment goes on to another level"""
    anywhere: float = 0.6
    """share of levels that start with the mouse at a random free cell"""
    mode: str = "easy"
    """the maze's distribution mode"""
    precision: str = "float32"
    """float32 or bfloat16, of the body and of Muon. bfloat16 is 1.8 times faster where the
    processor has it (avx512_bf16 or amx_bf16 among its flags), and many times slower elsewhere."""
    seed: int = 0
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    evaluation_levels: int = 256
    """held-out levels played at each checkpoint; 0 for none"""
    checkpoint_frames: int = 250_000
    """frames between checkpoints"""
    progress: bool = True
    """show a bar"""


def distill(options: DistillOptions, *, overwrite: bool = False, resume: bool = False) -> Agent:
    """Train an agent on fresh mazes to move as the shortest-path expert does.

    At every checkpoint the run's folder gets ``training.safetensors`` (what a resumed run needs),
    ``agent/`` (which `rlbilinear.agents.load` reads) and new scores in ``tensorboard/``.

    Args:
        options: the run.
        overwrite: replace a run that is in the folder.
        resume: go on from its last checkpoint, on other levels than before; all options but the
            architecture may be others than before.

    Raises:
        FileExistsError: the folder has something, and neither ``overwrite`` nor ``resume`` is on.
        FileNotFoundError: there is nothing to resume.
        BlockingIOError: another process runs in the folder.
        CheckpointError: the run to resume is of another architecture, or was altered.
        ValueError: an option is not accepted, or the run to resume has had its frames.
        FloatingPointError: the student's outputs are not finite, or its gradients stay so; the
            last checkpoint is kept.
    """
    _check(options)
    if overwrite and resume:
        raise ValueError("choose one of overwrite and resume")
    with locked(options.out):
        return _distill(options, overwrite=overwrite, resume=resume)


def _distill(options: DistillOptions, *, overwrite: bool, resume: bool) -> Agent:
    out, state_file = options.out, options.out / TRAINING_STATE
    if not resume:
        check_free(out, overwrite=overwrite, marker=OPTIONS)
    elif not state_file.is_file():
        raise FileNotFoundError(f"there is nothing to resume: no {state_file}")
    agent = Agent.new(options.architecture, seed=options.seed, device=options.device)
    optimisers = make_optimisers(agent.policy, options)
    done = distill_state.restore(state_file, agent, optimisers) if resume else 0
    first, total = done // options.batch, options.frames // options.batch
    if first >= total:
        raise ValueError(f"{out} has had {done} frames: to prolong it, give more than that")
    if overwrite:
        clear(out, marker=OPTIONS)
    made = {
        "options": {k: v for k, v in asdict(options).items() if k not in ("out", "progress")},
        "levels": str(TRAINING),
        **({"resumed_at_frames": done} if resume else {}),
        **provenance(),
    }
    write_json(out / OPTIONS, made)

    every = max(1, options.checkpoint_frames // options.batch)
    recent: deque[dict[str, float]] = deque(maxlen=WINDOW)
    generator, mazes = _chances(options, first)
    started = time.monotonic()
    with (
        closing(mazes),
        SummaryWriter(str(out / "tensorboard"), purge_step=done + 1) as writer,
        tqdm(
            total=total * options.batch,
            initial=first * options.batch,
            desc="learning",
            unit="frame",
            unit_scale=True,
            disable=not options.progress,
        ) as bar,
    ):
        for step in range(first, total):
            set_rates(optimisers, options, step)
            recent.append(gradient_step(agent.policy, optimisers, next(mazes), options, generator))
            if sum(row["skipped"] for row in recent) >= MAX_SKIPPED:
                raise FloatingPointError(f"{MAX_SKIPPED} of {len(recent)} gradients are not finite")
            means = {name: float(np.mean([row[name] for row in recent])) for name in recent[0]}
            bar.set_postfix(accuracy=f"{means['accuracy']:.3f}", refresh=False)
            bar.update(options.batch)
            frames, last = (step + 1) * options.batch, step + 1 == total
            if (step + 1) % WINDOW == 0 or last:
                speed = (frames - first * options.batch) / (time.monotonic() - started)
                _write(writer, "train", {**means, "frames_per_second": speed}, frames)
            if (step + 1) % every == 0 or last:
                distill_state.write(state_file, agent, optimisers, frames)
                scores = held_out_scores(agent, options) if options.evaluation_levels else {}
                _write(writer, "held_out_levels", scores, frames)
                writer.flush()
                facts = {"frames": frames, "scores": scores or None}
                agent = Agent(agent.policy, replace(agent.config, made={**made, **facts}))
                agent.save(out / AGENT, overwrite=True)
    return agent


def make_optimisers(policy: AgentPolicy, options: DistillOptions) -> Optimisers:
    """Muon for the weight matrices between the first layer and the heads, AdamW for the rest."""
    ends = ("stem", *HEADS)
    named = {layer_name(name): weight for name, weight in policy.named_parameters()}
    hidden = {
        name: weight
        for name, weight in named.items()
        if weight.ndim >= 2 and name.split(".")[0] not in ends
    }
    rest = [weight for name, weight in named.items() if name not in hidden]
    return (
        Muon(
            hidden.values(),
            options.matrix_rate,
            weight_decay=options.weight_decay,
            dtype=getattr(torch, options.precision),
        ),
        torch.optim.AdamW(rest, options.rate, weight_decay=options.weight_decay),
    )


def student_loss(
    policy: AgentPolicy, mazes: ExpertMazes, options: DistillOptions
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "envs actions"]]:
    """Return the losses in the mazes' present states, and the student's log-probabilities.

    Actions that move the mouse alike count as one: the actor's loss is minus the log of the
    probability of the expert's *move*. The critic's target is the expert's discounted return.
    """
    observations = torch.as_tensor(mazes.observations, device=policy.device)
    with torch.autocast(
        policy.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"
    ):
        features = policy.extract_features(observations)
    assert isinstance(features, Tensor)  # one body for actor and critic
    features = features.float()
    log_probabilities = policy.action_net(features).log_softmax(1)
    values = policy.value_net(features).squeeze(1)

    expert = torch.as_tensor(mazes.moves, device=policy.device)
    moves = torch.as_tensor(MOVE_OF_ACTION.copy(), device=policy.device)
    others = moves != expert[:, None]
    actor = -log_probabilities.masked_fill(others, -torch.inf).logsumexp(1).mean()
    to_go = torch.as_tensor(mazes.steps_to_go, device=policy.device)
    critic = F.mse_loss(values, REWARD * GAMMA ** (to_go - 1.0))
    accuracy = (moves[log_probabilities.argmax(1)] == expert).float().mean()
    losses = {
        "loss": actor + options.value_weight * critic,
        "actor": actor,
        "critic": critic,
        "accuracy": accuracy,
    }
    return losses, log_probabilities.detach()


def held_out_scores(agent: Agent, options: DistillOptions) -> dict[str, float]:
    """Play held-out levels by the sampled policy; return the means of its `METRICS`."""
    results = evaluate(
        agent,
        EVALUATION.first(options.evaluation_levels),
        mode=options.mode,
        seed=options.seed,
        progress=False,
    )
    return {name: float(results[name].mean()) for name in METRICS}


def gradient_step(
    policy: AgentPolicy,
    optimisers: Optimisers,
    mazes: ExpertMazes,
    options: DistillOptions,
    generator: torch.Generator,
) -> dict[str, float]:
    """Make one gradient step on the mazes' present states, while they go on to the next.

    Returns:
        The losses, the accuracy, the gradient's norm before clipping, and whether the step was
        skipped (1) because that was not finite.

    Raises:
        FloatingPointError: the student's outputs are not finite: there is nothing to learn from.
    """
    losses, log_probabilities = student_loss(policy, mazes, options)
    if not losses["loss"].isfinite():
        raise FloatingPointError("the student's outputs are not finite")
    probabilities = log_probabilities.exp().cpu()
    mazes.step_async(torch.multinomial(probabilities, 1, generator=generator).squeeze(1).numpy())
    for optimiser in optimisers:
        optimiser.zero_grad()
    losses["loss"].backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), options.max_gradient_norm)
    finite = bool(norm.isfinite())
    if finite:
        for optimiser in optimisers:
            optimiser.step()
    numbers = {name: loss.item() for name, loss in losses.items()}
    return {**numbers, "gradient_norm": norm.item(), "skipped": float(not finite)}


def set_rates(optimisers: Optimisers, options: DistillOptions, step: int) -> None:
    """Let the learning rates rise over the first steps, and fall linearly to 0 all the way."""
    share = min(1.0, (step + 1) / options.warmup) * (1 - step * options.batch / options.frames)
    for optimiser, rate in zip(optimisers, (options.matrix_rate, options.rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * share


def _check(options: DistillOptions) -> None:
    """Raise ValueError for an option that is not accepted, but what `Agent.new` checks."""
    if options.precision not in PRECISIONS:
        raise ValueError(
            f"unknown precision {options.precision!r}; choose from {', '.join(PRECISIONS)}"
        )
    check_mode("maze", options.mode)
    for name in ("batch", "groups", "warmup", "checkpoint_frames"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(options, name)}")
    if options.frames < options.batch:
        raise ValueError(f"frames must be at least one batch, {options.batch}: {options.frames}")
    for name in ("matrix_rate", "rate", "max_gradient_norm"):
        if not 0 < getattr(options, name) < float("inf"):
            raise ValueError(f"{name} must be above 0 and finite, got {getattr(options, name)}")
    for name in ("weight_decay", "value_weight", "seed"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise ValueError(f"{name} must be 0 or more and finite, got {getattr(options, name)}")
    for name in ("new_level", "anywhere"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"{name} must be in 0..1, got {getattr(options, name)}")
    EVALUATION.first(options.evaluation_levels)


def _chances(
    options: DistillOptions, step: int
) -> tuple[torch.Generator, Generator[ExpertMazes, None, None]]:
    """Return what draws the student's actions and its mazes from this step on.

    A run that is resumed gets others than it began with.
    """
    words = np.random.SeedSequence([options.seed, step]).generate_state(options.groups + 1)
    actions, *seeds = (int(word) >> 1 for word in words)  # the simulator's seeds have 31 bits
    return torch.Generator().manual_seed(actions), _turns(options, seeds)


def _turns(options: DistillOptions, seeds: list[int]) -> Generator[ExpertMazes, None, None]:
    """Let groups of mazes take turns; each finishes its step when it is its turn again."""
    groups = [
        ExpertMazes(
            options.batch,
            TRAINING,
            seed,
            mode=options.mode,
            new_level=options.new_level,
            anywhere=options.anywhere,
        )
        for seed in seeds
    ]
    try:
        yield from groups
        while True:
            for group in groups:
                group.step_wait()
                yield group
    finally:
        for group in groups:
            group.close()


def _write(writer: SummaryWriter, section: str, values: dict[str, float], frames: int) -> None:
    for name, value in values.items():
        writer.add_scalar(f"{section}/{name}", value, frames)
