"""Learning from a shortest-path expert: a competent maze agent in two hours on two cores.

The student plays, and in every state it reaches, the expert gives the actions it would have taken
(DAgger, Ross et al. 2011, with one gradient step for each state and no replay: replayed mazes are
memorised). The loss uses the expert's actions and, for the critic, its discounted return; it does
not use where cheese, mouse or walls are, nor in heists which keys are held or what is fetched next,
so a probe cannot find what the loss has put there.

The accuracy shown while training is too high: a maze stays in play for a dozen steps, and what is
learned from one of its states helps in the next. At high learning rates it was 0.99, against 0.96
on fresh mazes; the gap shrinks as the rates fall. Judge by the scores on held-out levels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rlbilinear.agents import distill_state
from rlbilinear.agents.agent import Agent
from rlbilinear.agents.distill_options import DistillOptions, check
from rlbilinear.agents.evaluation import METRICS, evaluate
from rlbilinear.agents.expert_levels import ExpertLevels
from rlbilinear.agents.experts import EXPERTS
from rlbilinear.agents.folder import provenance
from rlbilinear.agents.muon import Muon
from rlbilinear.agents.network import HEADS, layer_name
from rlbilinear.agents.policy import AgentPolicy
from rlbilinear.agents.run import DISTILLED, FAILURES, TENSORBOARD, Run
from rlbilinear.envs import EVALUATION, TRAINING

GAMMA = 0.999
REWARD = 10.0
WINDOW = 100
"""Training scores are means over this many last gradient steps."""
KEPT_STEPS = 64
"""Gradient steps after which an agent is first kept; then after twice, four times, ... as many."""
MAX_SKIPPED = 20
"""Steps without a finite gradient, among the last `WINDOW`, at which a run stops."""

Optimisers = tuple[Muon, torch.optim.AdamW]
Experts = ExpertLevels[Any]


def distill(options: DistillOptions, *, overwrite: bool = False, resume: bool = False) -> Agent:
    """Train an agent on fresh levels to act as the game's shortest-path expert does.

    At every checkpoint, ``training.safetensors`` (what a resumed run needs) and ``agent/`` (which
    `rlbilinear.agents.load` reads) are written in the run's folder, and scores in ``tensorboard/``.
    ``trajectory/`` has agents along training, in half precision: untrained, and after 64, 128,
    256, ... gradient steps.

    Args:
        options: the run.
        overwrite: replace the run that is in the folder.
        resume: continue the run that is in the folder from its last checkpoint, on other levels
            than before; all options but the architecture and the game may differ.

    Raises:
        FileExistsError: the folder is not empty, and neither ``overwrite`` nor ``resume`` is on.
        FileNotFoundError: there is nothing to resume.
        BlockingIOError: another process runs in the folder.
        OSError: the folder cannot be written; the last checkpoint is kept, and named.
        CheckpointError: the run to resume has another architecture or game, or was altered.
        ValueError: an option is not accepted, or the run to resume has had its frames.
        FloatingPointError: the student's outputs are not finite, or its gradients stay so; the
            last checkpoint is kept, and named.
    """
    check(options)
    with Run.open(options.out, overwrite=overwrite, resume=resume) as run:
        learning = _build(run, options)
        try:
            return learning.learn()
        except FAILURES as error:
            raise run.failure(error, learning.frames) from error


@dataclass
class _Learning:
    """A run that is built: the student, what is recorded of it, and its frames so far."""

    run: Run
    options: DistillOptions
    agent: Agent
    optimisers: Optimisers
    record: dict[str, Any]
    frames: int

    def learn(self) -> Agent:
        """Train to the end, saving on the way, and return the agent."""
        run, options = self.run, self.options
        first, total = self.frames // options.batch, options.frames // options.batch
        every = max(1, options.checkpoint_frames // options.batch)
        recent: deque[dict[str, float]] = deque(maxlen=WINDOW)
        run.begin()
        run.write_record(self.record)
        if first == 0:
            run.keep(self.agent, 0)
        generator, levels = chances(options, first)
        started = time.monotonic()
        with (
            closing(levels),
            SummaryWriter(str(run.folder / TENSORBOARD), purge_step=self.frames + 1) as writer,
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
                set_rates(self.optimisers, options, step)
                recent.append(
                    gradient_step(
                        self.agent.policy, self.optimisers, next(levels), options, generator
                    )
                )
                if sum(row["skipped"] for row in recent) >= MAX_SKIPPED:
                    raise FloatingPointError(
                        f"{MAX_SKIPPED} of {len(recent)} gradients are not finite"
                    )
                means = {name: float(np.mean([row[name] for row in recent])) for name in recent[0]}
                bar.set_postfix(accuracy=f"{means['accuracy']:.3f}", refresh=False)
                bar.update(options.batch)
                self.frames, last = (step + 1) * options.batch, step + 1 == total
                if (step + 1) % WINDOW == 0 or last:
                    speed = (self.frames - first * options.batch) / (time.monotonic() - started)
                    _write(writer, "train", {**means, "frames_per_second": speed}, self.frames)
                if _kept(step + 1):
                    run.keep(self.agent, self.frames)
                if (step + 1) % every == 0 or last:
                    self._save(writer)
            if first == total:  # it was killed after its last step
                self._save(writer)
        return self.agent

    def _save(self, writer: SummaryWriter) -> None:
        """Write what a resumed run needs, then the agent with its scores."""
        state = self.run.folder / DISTILLED
        distill_state.write(state, self.agent, self.optimisers, self.frames)
        scores = held_out_scores(self.agent, self.options) if self.options.evaluation_levels else {}
        _write(writer, "held_out_levels", scores, self.frames)
        writer.flush()
        made = {**self.record, "frames": self.frames, "scores": scores or None}
        self.agent = Agent(self.agent.policy, replace(self.agent.config, made=made))
        self.run.finish(self.agent)


def _build(run: Run, options: DistillOptions) -> _Learning:
    """Build a new run, or the resumed one as it was at its last checkpoint.

    Raises:
        FileNotFoundError: there is nothing to resume.
        ValueError: options that are not accepted, or a run that has had its frames.
        CheckpointError: the run to resume has another architecture or game, or was altered.
    """
    state = run.folder / DISTILLED
    if run.resumed and not state.is_file():
        raise FileNotFoundError(f"there is nothing to resume: no {state}")
    agent = Agent.new(
        options.architecture, game=options.game, seed=options.seed, device=options.device
    )
    optimisers = make_optimisers(agent.policy, options)
    done = distill_state.restore(state, agent, optimisers) if run.resumed else 0
    left = options.frames // options.batch - done // options.batch
    if left < 0 or (left == 0 and run.trained_frames == done):
        raise ValueError(
            f"{run.folder} has had {done:,} frames already, {options.frames:,} are asked for: "
            "ask for more to extend it"
        )
    record = {
        "options": {k: v for k, v in asdict(options).items() if k not in ("out", "progress")},
        "levels": str(TRAINING),
        **({"resumed_at_frames": done} if run.resumed else {}),
        **provenance(),
    }
    return _Learning(run, options, agent, optimisers, record, done)


def make_optimisers(policy: AgentPolicy, options: DistillOptions) -> Optimisers:
    """Return Muon for the matrices between first layer and heads, and AdamW for the rest."""
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
    policy: AgentPolicy, expert: Experts, options: DistillOptions
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "envs actions"]]:
    """Return the losses in the levels' current states, and the student's log-probabilities.

    The actor's loss is minus the log of the probability of the expert's actions *together*: which
    of them it prefers is the student's own. The critic's target is the expert's discounted return.
    """
    observations = torch.as_tensor(expert.observations, device=policy.device)
    with torch.autocast(
        policy.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"
    ):
        features = policy.extract_features(observations)
    assert isinstance(features, Tensor)  # one body for actor and critic
    features = features.float()
    log_probabilities = policy.action_net(features).log_softmax(1)
    values = policy.value_net(features).squeeze(1)

    right = torch.as_tensor(expert.right, device=policy.device)
    actor = -log_probabilities.masked_fill(~right, -torch.inf).logsumexp(1).mean()
    to_go = torch.as_tensor(expert.steps_to_go, device=policy.device)
    critic = F.mse_loss(values, REWARD * GAMMA ** (to_go - 1.0))
    accuracy = right.gather(1, log_probabilities.argmax(1, keepdim=True)).float().mean()
    losses = {
        "loss": actor + options.value_weight * critic,
        "actor": actor,
        "critic": critic,
        "accuracy": accuracy,
    }
    return losses, log_probabilities.detach()


def held_out_scores(agent: Agent, options: DistillOptions) -> dict[str, float]:
    """Play held-out levels with sampled actions; return the means of the `METRICS`."""
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
    expert: Experts,
    options: DistillOptions,
    generator: torch.Generator,
) -> dict[str, float]:
    """Make one gradient step on the levels' current states, while these make their next step.

    Returns:
        The losses, the accuracy, the gradient's norm before clipping, and whether the step was
        skipped (1) because that was not finite.

    Raises:
        FloatingPointError: the student's outputs are not finite.
    """
    losses, log_probabilities = student_loss(policy, expert, options)
    if not losses["loss"].isfinite():
        raise FloatingPointError("the student's outputs are not finite")
    probabilities = log_probabilities.exp().cpu()
    expert.step_async(torch.multinomial(probabilities, 1, generator=generator).squeeze(1).numpy())
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
    """Set learning rates that rise over the first steps, and fall linearly to 0 at the end."""
    share = min(1.0, (step + 1) / options.warmup) * (1 - step * options.batch / options.frames)
    for optimiser, rate in zip(optimisers, (options.matrix_rate, options.rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * share


def chances(
    options: DistillOptions, step: int
) -> tuple[torch.Generator, Generator[Experts, None, None]]:
    """Return the random generator of the student's actions, and its levels, from this step on.

    A resumed run gets other ones than it began with.
    """
    words = np.random.SeedSequence([options.seed, step]).generate_state(options.groups + 1)
    actions, *seeds = (int(word) >> 1 for word in words)  # the simulator's seeds have 31 bits
    return torch.Generator().manual_seed(actions), _in_turns(options, seeds)


def _in_turns(options: DistillOptions, seeds: list[int]) -> Generator[Experts, None, None]:
    """Let groups of levels take turns; each finishes its step when its next turn comes."""
    groups = [
        EXPERTS[options.game](
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


def _kept(steps: int) -> bool:
    """Whether an agent is kept after so many steps: `KEPT_STEPS` times a power of two."""
    times, rest = divmod(steps, KEPT_STEPS)
    return rest == 0 and times.bit_count() == 1


def _write(writer: SummaryWriter, section: str, values: dict[str, float], frames: int) -> None:
    for name, value in values.items():
        writer.add_scalar(f"{section}/{name}", value, frames)
