r"""Prepare an agent for sharing: half precision, its scores, and a card for people.

    rlbilinear publish runs/compare/coinrun/impala-small/seed0/agent \
        --out agents/zoo/coinrun-impala-small --about "A small IMPALA network that plays coinrun." \
        --hardware "one core of an AMD EPYC (Zen 4), 16 minutes"

The scores are those of the rounded weights. An agent in agents/zoo is loaded by its name.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro

from rlbilinear.agents import Agent, load
from rlbilinear.agents.checkpoint import CONFIG
from rlbilinear.agents.evaluation import BASELINES, evaluate, summary
from rlbilinear.agents.scores import training_levels
from rlbilinear.commands.outputs import check_folder, writing
from rlbilinear.commands.running import Command, Count
from rlbilinear.envs import EVALUATION


@dataclass(frozen=True)
class PublishOptions:
    """Score an agent, and store it in half precision with a card."""

    agent: tyro.conf.Positional[str]
    """a zoo agent, or a folder"""
    out: Path
    """folder to write; its name becomes the agent's name"""
    about: str
    """a sentence or two on what the agent is; the card starts with it"""
    hardware: str
    """hardware it was trained on, and for how long; for the card"""
    levels: Count = 1000
    """number of held-out levels on which it is scored"""
    mode: str | None = None
    """distribution mode of the game; by default that of the agent's training"""
    device: str = "auto"
    """device for scoring: auto | cpu | cuda | cuda:N | mps"""
    overwrite: bool = False
    """replace the agent in the folder"""
    progress: bool = True
    """show progress bars"""


def publish(options: PublishOptions) -> str:
    """Write the agent, and return its card.

    Raises:
        ValueError: unknown agent or mode, or weights that are not finite once rounded.
        FileExistsError: the folder exists.
    """
    check_folder(options.out, overwrite=options.overwrite, marker=CONFIG)
    agent = rounded(load(options.agent, options.device), options.device)
    if options.mode is None:
        options = replace(options, mode=agent.config.made.get("options", {}).get("mode", "easy"))
    scores = {kind: summary(episodes) for kind, episodes in played(agent, options)}
    made = {
        **agent.config.made,
        "hardware": {**agent.config.made.get("hardware", {}), "training": options.hardware},
        "scores": {
            "levels": f"levels 0 to {options.levels - 1}, held out",
            "command": command(options),
            **{kind: means(table) for kind, table in scores.items()},
        },
    }
    published = Agent(agent.policy, replace(agent.config, made=made))
    text = card(published, scores, options)
    with writing(options.out):
        published.save(options.out, dtype=torch.float16, overwrite=options.overwrite, card=text)
    return text


def rounded(agent: Agent, device: str) -> Agent:
    """Return the agent with its weights rounded to half precision."""
    with tempfile.TemporaryDirectory() as folder:
        agent.save(Path(folder) / "agent", dtype=torch.float16)
        return load(Path(folder) / "agent", device)


def played(agent: Agent, options: PublishOptions) -> Iterable[tuple[str, pd.DataFrame]]:
    """Play, and yield titles and episodes: those of the agent on held-out levels come first."""
    assert options.mode is not None
    levels = EVALUATION.first(options.levels)
    play = partial(evaluate, game=agent.config.game, mode=options.mode, progress=options.progress)
    yield "sampled", play(agent, levels)
    yield "greedy", play(agent, levels, greedy=True)
    if count := agent.config.made.get("options", {}).get("levels"):
        seen = training_levels(count).first(min(count, options.levels))
        yield f"sampled, on {len(seen):,} levels it was trained on", play(agent, seen)
    for kind, policy in BASELINES.items():
        yield kind, play(policy, levels)


def means(table: pd.DataFrame) -> dict[str, float]:
    """Return the means of a summary for the record."""
    return {name: round(float(mean), 4) for name, mean in table["mean"].items()}


def command(options: PublishOptions) -> str:
    """Return the command that computes the held-out scores again."""
    mode = "" if options.mode == "easy" else f" --mode {options.mode}"
    return f"rlbilinear evaluate {options.out.name} --levels {options.levels}{mode}"


def card(agent: Agent, scores: dict[str, pd.DataFrame], options: PublishOptions) -> str:
    """Return the card: what the agent is, what it scores, and how it was made."""
    count = sum(weight.numel() for weight in agent.policy.parameters())
    metrics = list(scores["sampled"].index)
    rows = [
        f"| {options.levels:,} held-out levels (0 to {options.levels - 1}), mean [95 % interval] | "
        + " | ".join(metrics),
        "| " + " | ".join(["---"] * (len(metrics) + 1)),
    ]
    for kind, table in scores.items():
        cells = (
            f"{row['mean']:.2f} [{row.low:.2f}, {row.high:.2f}]" for _, row in table.iterrows()
        )
        rows.append(f"| {kind} | " + " | ".join(cells))
    return "\n".join(
        [
            f"# {options.out.name}\n",
            f"{options.about} {count:,} parameters, stored in half precision "
            f"({count * 2 / 1e6:.1f} MB). The scores are those of the stored, rounded weights.\n",
            *(f"{row} |" for row in rows),
            f"\n`{command(options)}` computes those of the agent on held-out levels and of uniform "
            "actions.\n",
            "## How it was made\n",
            f"    {training(agent.config.made)}\n",
            f"{extent(agent.config.made)}, on {options.hardware}. "
            "All options and versions: `config.json`.\n",
            *origins(agent.config.made.get("from")),
        ]
    )


def training(made: Mapping[str, Any]) -> str:
    """Return the command that trained an agent, from its start: without ``--resume``."""
    return made.get("command", "not recorded").replace(" --resume", "")


def extent(made: Mapping[str, Any]) -> str:
    """Return how long an agent was trained, in frames."""
    return f"{made.get('frames', 0):,} frames, seed {made.get('options', {}).get('seed')}"


def origins(made: Mapping[str, Any] | str | None) -> Iterator[str]:
    """Yield how the agent that training started from was made, and the one before it."""
    if isinstance(made, Mapping):
        yield f"It started from an agent that was made by\n\n    {training(made)}\n"
        yield f"{extent(made)}.\n"
        yield from origins(made.get("from"))
    elif made is not None:
        yield f"It started from {made}.\n"


main = Command(PublishOptions, lambda options: print(publish(options)), __doc__)
