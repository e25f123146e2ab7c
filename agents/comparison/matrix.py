"""The matrix of runs: games x architectures x seeds, equal in all that is not named."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from rlbilinear.agents.network import AgentConfig, on_meta
from rlbilinear.agents.options import Hyperparameters, TrainOptions, check
from rlbilinear.agents.run import OPTIONS, Run
from rlbilinear.agents.scores import score_range
from rlbilinear.envs.games import check_game, check_mode

OWN = (
    "preset",
    *(f.name for f in fields(TrainOptions) if f.name in {h.name for h in fields(Hyperparameters)}),
)
"""Options of training that an architecture may have for itself."""


class Variant(NamedTuple):
    """An architecture in the comparison, with what it has for itself."""

    label: str
    architecture: str
    training: Mapping[str, Any]
    architecture_options: Mapping[str, Any]


class Entry(NamedTuple):
    """A place in the matrix, and the options of its run."""

    game: str
    architecture: str
    seed: int
    options: TrainOptions

    @property
    def run(self) -> Run:
        """The run's folder."""
        return Run(self.options.out)

    def __str__(self) -> str:
        return f"{self.game} {self.architecture} seed {self.seed}"


def variant(label: str) -> Variant:
    """Read an architecture as it is written on the command line.

    ``bimpala-small`` is that; ``bimpala-small,learning_rate=1e-4,kernel_size=5`` has a learning
    rate and a kernel size of its own.

    Raises:
        ValueError: it is not written so.
    """
    name, *settings = re.split(r",(?=\w+=)", label)  # not the commas of [16,32,32]
    given: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if not value or key in given:
            raise ValueError(
                f"{label!r}: after the name come settings, each once, such as "
                f"bimpala-small,learning_rate=1e-4,kernel_size=5; got {setting!r}"
            )
        given[key] = _value(value)
    if not name or "/" in label or label.startswith("."):
        raise ValueError(f"{label!r} is not an architecture's name")
    training = {key: value for key, value in given.items() if key in OWN}
    others = {key: value for key, value in given.items() if key not in OWN}
    return Variant(label, name, training, others)


def matrix(
    shared: TrainOptions, games: Sequence[str], architectures: Sequence[str], seeds: Sequence[int]
) -> list[Entry]:
    """Return all runs, seed by seed, so that a comparison under way is balanced.

    Args:
        shared: what all have in common; ``out`` is the folder of the comparison.
        games: ProcGen's.
        architectures: as `variant` reads them.
        seeds: of the runs.

    Raises:
        ValueError: something twice, nothing, or not accepted; the choices are listed.
    """
    axes = {"games": games, "architectures": architectures, "seeds": seeds}
    for name, values in axes.items():
        if not values or len({*values}) != len(values):
            raise ValueError(f"{name}: expected one or more distinct values, got {[*values]}")
    if min(seeds) < 0:
        raise ValueError(f"seeds are 0 or more, got {min(seeds)}")
    for game in games:
        check_game(game)
        check_mode(game, shared.mode)
        score_range(game, shared.mode)
    common = shared.architecture_arguments()
    variants = [variant(label) for label in architectures]
    for one in variants:
        parameters(one.architecture, {**common, **one.architecture_options})
    entries = [
        Entry(
            game,
            one.label,
            seed,
            replace(
                shared,
                out=place(shared.out, game, one.label, seed),
                game=game,
                architecture=one.architecture,
                architecture_options=json.dumps({**common, **one.architecture_options}),
                seed=seed,
                **one.training,
            ),
        )
        for seed in seeds
        for game in games
        for one in variants
    ]
    for entry in entries:
        check(entry.options)
    return entries


def find(out: Path) -> list[Entry]:
    """Return the runs that a folder of a comparison holds, ordered by game, architecture, seed.

    Raises:
        CheckpointError: one that cannot be read.
    """
    entries = []
    for file in out.glob(f"*/*/seed*/{OPTIONS}"):
        options = Run(file.parent).options()
        entries.append(Entry(options.game, file.parts[-3], options.seed, options))
    return sorted(entries, key=lambda entry: entry[:3])


def place(out: Path, game: str, label: str, seed: int) -> Path:
    """Return the folder of a run."""
    return out / game / label / f"seed{seed}"


def parameters(architecture: str, arguments: Mapping[str, Any]) -> int:
    """Return the number of weights of the agent, heads included.

    Raises:
        ValueError: there is no such architecture, or it does not take the arguments.
    """
    try:
        policy = on_meta(AgentConfig(architecture, "coinrun", dict(arguments)))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{architecture} with {dict(arguments)}: {error}") from error
    return sum(weight.numel() for weight in policy.parameters())


def _value(text: str) -> Any:
    """Read a value as JSON, and as text where it is none: silu needs no quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text
