"""Options of a PPO run: hyperparameters, checks, and what tells two runs apart."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

from rlbilinear.agents.checkpoint import CheckpointError
from rlbilinear.agents.network import AgentConfig, on_meta
from rlbilinear.agents.precision import Precision
from rlbilinear.envs.games import LARGEST_SEED


@dataclass(frozen=True)
class Hyperparameters:
    """PPO's hyperparameters.

    The defaults are those of the ProcGen literature (Cobbe et al. 2020, table 2).
    """

    learning_rate: float = 5e-4
    num_envs: int = 64
    """copies of the game"""
    num_steps: int = 256
    """steps of each copy in a rollout"""
    minibatches: int = 8
    """minibatches per epoch"""
    epochs: int = 3
    """passes over each rollout"""
    gamma: float = 0.999
    """discount"""
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    """how far the policy's probability ratio may move from 1"""
    clip_range_vf: float | None = None
    """how far a value estimate may move; None: no clipping. Stable-Baselines3 clips differently
    from the published code, which has 0.2: its gradient is zero once a value has moved too far, in
    either direction"""
    value_coefficient: float = 0.25
    """weight of the squared error of values; the published 0.5 multiplies half the squared error"""
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5
    bootstrap_time_limits: bool = False
    """add the estimated value of the last state where a time limit ended an episode"""


PRESETS = {
    "published": Hyperparameters(),
    "bilinear": Hyperparameters(learning_rate=1e-4),
}
"""``published`` suits ReLU networks; ``bilinear`` is from the bilinear paper's code."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run. The same options with ``resume`` continue it."""

    out: Path
    """folder of the run"""
    game: str = "coinrun"
    """one of the 16 ProcGen games"""
    architecture: str | None = None
    """architecture of the network; by default bimpala, or that of ``init_from``"""
    architecture_options: str = "{}"
    """options of the architecture, as JSON: {"kernel_size": 7, "gate": "silu"}"""
    init_from: str | None = None
    """agent to start from: a zoo agent or a folder; its critic is fitted first"""
    preset: str = "published"
    """hyperparameters: published | bilinear"""
    learning_rate: float | None = None
    """overrides the preset's learning rate"""
    num_envs: int | None = None
    """overrides the preset's number of environments"""
    num_steps: int | None = None
    """overrides the preset's number of steps per rollout of each environment"""
    minibatches: int | None = None
    """overrides the preset's number of minibatches per epoch"""
    epochs: int | None = None
    """overrides the preset's number of passes over each rollout"""
    entropy_coefficient: float | None = None
    """overrides the preset's entropy coefficient"""
    clip_range_vf: float | None = None
    """how far an update may move a value estimate, as Stable-Baselines3 clips it; no preset does"""
    frames: int = 25_000_000
    """frames to train for, rounded up to whole rollouts"""
    mode: str = "easy"
    """distribution mode of the game"""
    levels: int = 0
    """number of training levels; 0 for all that are reserved for training"""
    held_out: int = 100
    """number of levels to evaluate on; none of them is trained on"""
    evaluate_every: int = 500_000
    """frames between evaluations; 0 for none"""
    film_every: int = 1_000_000
    """frames between videos of held-out episodes, taken at evaluations; 0 for none"""
    save_every: int = 200_000
    """frames between checkpoints"""
    seed: int = 0
    """seed of the weights, the environments and the sampled actions"""
    precision: Precision = "float32"
    """precision of the network's body; tf32 needs CUDA, `rlbilinear doctor` measures bfloat16"""
    compile: bool = False
    """compile the network's body by torch.compile, on CUDA as CUDA graphs; this takes a minute"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    progress: bool = True
    """show a progress bar"""

    def hyperparameters(self) -> Hyperparameters:
        """Return the preset's hyperparameters, overridden by those that were given.

        Raises:
            ValueError: unknown preset; the choices are listed.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; choose from {', '.join(PRESETS)}")
        names = {field.name for field in fields(Hyperparameters)} & {*vars(self)}
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(PRESETS[self.preset], **given)

    @property
    def new_architecture(self) -> str:
        """The architecture of a new agent."""
        return "bimpala" if self.architecture is None else self.architecture

    def architecture_arguments(self) -> dict[str, Any]:
        """Return the architecture's options as a dictionary.

        Raises:
            ValueError: they are not a JSON object.
        """
        try:
            arguments = json.loads(self.architecture_options)
        except ValueError as error:
            arguments = error
        if not isinstance(arguments, dict):
            raise ValueError(
                'architecture_options must be a JSON object, such as {"kernel_size": 7}; '
                f"got {self.architecture_options!r}"
            )
        return arguments


def check(options: TrainOptions) -> None:
    """Refuse options that no run can have.

    Raises:
        ValueError: a number is out of its range, the preset is unknown, or the architecture does
            not accept its options.
    """
    chosen = options.hyperparameters()
    numbers = {**vars(options), **asdict(chosen)}
    for name in (
        "frames",
        "save_every",
        "held_out",
        "num_envs",
        "num_steps",
        "minibatches",
        "epochs",
    ):
        if numbers[name] < 1:
            raise ValueError(f"{name} must be positive, got {numbers[name]}")
    if not 0 <= options.seed <= LARGEST_SEED:
        raise ValueError(f"seed must be in 0..{LARGEST_SEED}, got {options.seed}")
    for name, zero in (("levels", "all"), ("evaluate_every", "none"), ("film_every", "none")):
        if numbers[name] < 0:
            raise ValueError(f"{name} must be positive, or 0 for {zero}, got {numbers[name]}")
    for name in ("learning_rate", "clip_range_vf"):
        if numbers[name] is not None and not 0 < numbers[name] < inf:
            raise ValueError(f"{name} must be positive and finite, got {numbers[name]}")
    if not 0 <= chosen.entropy_coefficient < inf:
        raise ValueError(
            f"entropy_coefficient must be 0 or more and finite, got {chosen.entropy_coefficient}"
        )
    rollout = chosen.num_envs * chosen.num_steps
    if rollout % chosen.minibatches:
        raise ValueError(
            f"{rollout} frames per rollout are not divisible by {chosen.minibatches} minibatches"
        )
    if options.init_from is None:
        _check_architecture(options)


def _check_architecture(options: TrainOptions) -> None:
    """Raise ValueError where the network cannot be built."""
    name, arguments = options.new_architecture, options.architecture_arguments()
    try:
        on_meta(AgentConfig(name, options.game, arguments))
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot be built with architecture_options {arguments}: {error}"
        ) from error


def identity(options: TrainOptions) -> dict[str, Any]:
    """Return the options that tell two runs apart: all but those that may change when resuming."""
    return recorded_identity(recorded(options))


def recorded_identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `identity` of a run from what `recorded` returned; presets are resolved.

    Options that a run's version did not have yet take their defaults.
    """
    record = {**recorded(TrainOptions(Path())), **record}
    hyperparameters = {**asdict(Hyperparameters()), **record["hyperparameters"]}
    left_out = {"hyperparameters", "preset", "frames", "device", "film_every", *hyperparameters}
    options = {name: value for name, value in record.items() if name not in left_out}
    return {**options, **hyperparameters}


def check_same_run(run: Path, record: Mapping[str, Any], options: TrainOptions) -> None:
    """Refuse to continue a run with different options.

    Args:
        run: its folder.
        record: what `recorded` returned for it.
        options: those given now.

    Raises:
        ValueError: options differ that must not; each is named.
    """
    before, given = recorded_identity(record), identity(options)
    others = [
        f"{name} was {before[name]!r}, is {given[name]!r}"
        if name in given
        else f"{name} was {before[name]!r}, and this version has no such option"
        for name in before
        if before[name] != given.get(name)
    ]
    if others:
        raise ValueError(f"{run} holds another run: {'; '.join(others)}")


def check_length(run: Path, frames: int, options: TrainOptions) -> None:
    """Refuse a run that was trained for longer than is asked for now.

    Raises:
        ValueError: it was, by a rollout or more.
    """
    chosen = options.hyperparameters()
    if frames >= options.frames + chosen.num_envs * chosen.num_steps:
        raise ValueError(
            f"{run} was trained for {frames:,} frames, {options.frames:,} are asked for: "
            "ask for more to extend it, or choose another folder for a shorter run"
        )


def recorded(options: TrainOptions) -> dict[str, Any]:
    """Return the options for the record, with the hyperparameters in full."""
    kept = {k: v for k, v in asdict(options).items() if k not in ("out", "progress")}
    return {
        **kept,
        "architecture_options": options.architecture_arguments(),
        "hyperparameters": asdict(options.hyperparameters()),
    }


def check_record(record: Mapping[str, Any]) -> None:
    """Refuse recorded options that are not those of a PPO run, of this version or another.

    Raises:
        ValueError: some are missing, or of another type.
    """
    hyperparameters = record.get("hyperparameters")
    if not isinstance(hyperparameters, dict):
        raise ValueError("its options lack hyperparameters")
    defaults = recorded(TrainOptions(Path()))
    for name, value in (*record.items(), *hyperparameters.items()):
        default = defaults.get(name)
        scalar = default is None and isinstance(value, str | int | float | None)
        if not scalar and not isinstance(value, type(default)):
            raise ValueError(f"option {name} cannot be {value!r:.80}")


def from_record(out: Path, record: Mapping[str, Any]) -> TrainOptions:
    """Return the options of a run from what `recorded` returned, as far as this version has them.

    Args:
        out: the run's folder.
        record: its recorded options, as `check_record` accepts them.

    Raises:
        CheckpointError: they are of a version without ``architecture_options``.
    """
    if "architecture_options" not in record:
        raise CheckpointError(f"{out} is of a version that recorded no architecture_options")
    known = {field.name for field in fields(TrainOptions)}
    given = {name: value for name, value in record.items() if name in known}
    arguments = json.dumps(given.pop("architecture_options"))
    return TrainOptions(**{**given, "out": out, "architecture_options": arguments})


def compared(options: TrainOptions, config: AgentConfig) -> dict[str, Any]:
    """Return the options by which runs are compared, under the same names for every run."""
    hyperparameters = asdict(options.hyperparameters())
    left_out = {"hyperparameters", "frames", "device", *hyperparameters}
    left_out |= {"evaluate_every", "film_every", "save_every"}
    kept = {k: v for k, v in recorded(options).items() if k not in left_out}
    return {
        **kept,
        "init_from": "" if options.init_from is None else options.init_from,
        "architecture": config.architecture,
        "architecture_options": json.dumps(config.architecture_kwargs),
        **hyperparameters,
    }
