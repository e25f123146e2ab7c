"""What a PPO run is asked to be: options, hyperparameters, and what makes it another run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rlbilinear.agents.network import AgentConfig
from rlbilinear.agents.precision import Precision


@dataclass(frozen=True)
class Hyperparameters:
    """PPO's. The defaults are those of the ProcGen literature (Cobbe et al. 2020, table 2)."""

    learning_rate: float = 5e-4
    num_envs: int = 64
    """copies of the game"""
    num_steps: int = 256
    """steps of each copy in a rollout"""
    minibatches: int = 8
    """an epoch is split into"""
    epochs: int = 3
    """times that a rollout is used"""
    gamma: float = 0.999
    """discount"""
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    """of the policy's ratio"""
    clip_range_vf: float | None = None
    """of values. The published 0.2 is of another form, which Stable-Baselines3 has not: its own has
    no gradient where a value moved too far, whatever the direction. None: not clipped"""
    value_coefficient: float = 0.25
    """of the squared error; the published 0.5 is of half of it"""
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5
    bootstrap_time_limits: bool = False
    """whether values stand in for what a time limit cut off"""


PRESETS = {
    "published": Hyperparameters(),
    "bilinear": Hyperparameters(learning_rate=1e-4),
}
"""``published`` for ReLU networks; ``bilinear`` from the bilinear paper's code."""


@dataclass(frozen=True)
class TrainOptions:
    """A training run. Running the same options with ``resume`` continues it."""

    out: Path
    """folder of the run"""
    game: str = "coinrun"
    """one of ProcGen's 16"""
    architecture: str | None = None
    """of the network; bimpala when not given, or that of ``init_from``"""
    architecture_options: str = "{}"
    """its own, as JSON: {"kernel_size": 7, "gate": "silu"}"""
    init_from: str | None = None
    """agent to continue from: a name of the zoo or a folder; its critic is fitted first"""
    preset: str = "published"
    """published | bilinear: hyperparameters"""
    learning_rate: float | None = None
    """instead of the preset's"""
    num_envs: int | None = None
    """instead of the preset's"""
    num_steps: int | None = None
    """instead of the preset's"""
    minibatches: int | None = None
    """instead of the preset's"""
    epochs: int | None = None
    """instead of the preset's"""
    entropy_coefficient: float | None = None
    """instead of the preset's"""
    clip_range_vf: float | None = None
    """how far an update may move a value estimate, in Stable-Baselines3's way; presets have none"""
    frames: int = 25_000_000
    """to train for, in whole rollouts"""
    mode: str = "easy"
    """the game's distribution mode"""
    levels: int = 0
    """number of training levels; 0 for all that are set apart for training"""
    held_out: int = 100
    """number of levels to evaluate on, disjoint from the training levels"""
    evaluate_every: int = 500_000
    """frames between evaluations; 0 for none"""
    film_every: int = 1_000_000
    """frames between films of held-out episodes, taken at evaluations; 0 for none"""
    save_every: int = 200_000
    """frames between checkpoints"""
    seed: int = 0
    precision: Precision = "float32"
    """float32 | tf32 | bfloat16: of the network's body. tf32 is for CUDA. bfloat16 is faster where
    it is in hardware (recent GPUs, avx512_bf16), far slower elsewhere: compare steps a second"""
    compile: bool = False
    """the network's body, by torch.compile (on CUDA as CUDA graphs): a minute at the start"""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    progress: bool = True
    """show a bar"""

    def hyperparameters(self) -> Hyperparameters:
        """Return the preset with what was given instead.

        Raises:
            ValueError: unknown preset; the choices are listed.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; choose from {', '.join(PRESETS)}")
        names = {field.name for field in fields(Hyperparameters)} & {*vars(self)}
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(PRESETS[self.preset], **given)

    def architecture_arguments(self) -> dict[str, Any]:
        """Return the architecture's options as a dictionary.

        Raises:
            ValueError: they are no JSON object.
        """
        try:
            arguments = json.loads(self.architecture_options)
        except ValueError as error:
            arguments = error
        if not isinstance(arguments, dict):
            raise ValueError(
                'architecture_options are a JSON object, such as {"kernel_size": 7}; '
                f"got {self.architecture_options!r}"
            )
        return arguments


def check(options: TrainOptions) -> None:
    """Refuse numbers that no run can have.

    Raises:
        ValueError: one is out of its range, or the preset is unknown.
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
    for name, zero in (("levels", "all"), ("evaluate_every", "none"), ("film_every", "none")):
        if numbers[name] < 0:
            raise ValueError(f"{name} must be positive, or 0 for {zero}, got {numbers[name]}")
    for name in ("learning_rate", "clip_range_vf"):
        if numbers[name] is not None and not numbers[name] > 0:
            raise ValueError(f"{name} must be positive, got {numbers[name]}")
    if not chosen.entropy_coefficient >= 0:
        raise ValueError(
            f"entropy_coefficient must not be negative, got {chosen.entropy_coefficient}"
        )
    rollout = chosen.num_envs * chosen.num_steps
    if rollout % chosen.minibatches:
        raise ValueError(f"a rollout of {rollout} frames has no {chosen.minibatches} equal parts")


def identity(options: TrainOptions) -> dict[str, Any]:
    """Return what makes a run another run: its options, but for those that may be others later."""
    return recorded_identity(recorded(options))


def recorded_identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run another run, of what `recorded` returns; presets are resolved.

    A run of an older version has the defaults of the options that came later.
    """
    record = {**recorded(TrainOptions(Path())), **record}
    hyperparameters = {**asdict(Hyperparameters()), **record["hyperparameters"]}
    left_out = {"hyperparameters", "preset", "frames", "device", "film_every", *hyperparameters}
    options = {name: value for name, value in record.items() if name not in left_out}
    return {**options, **hyperparameters}


def check_same_run(run: Path, record: Mapping[str, Any], options: TrainOptions) -> None:
    """Refuse what would continue a run with other options.

    Args:
        run: its folder.
        record: what `recorded` returned for it.
        options: given now.

    Raises:
        ValueError: they make it another run; each option is named.
    """
    before, given = recorded_identity(record), identity(options)
    others = [
        f"{name} was {before[name]!r}, is {given[name]!r}"
        if name in given
        else f"this version has no option {name}, it was {before[name]!r}"
        for name in before
        if before[name] != given.get(name)
    ]
    if others:
        raise ValueError(f"{run} is another run: {'; '.join(others)}")


def recorded(options: TrainOptions) -> dict[str, Any]:
    """Return the options for the record, with the hyperparameters in full."""
    kept = {k: v for k, v in asdict(options).items() if k not in ("out", "progress")}
    return {
        **kept,
        "architecture_options": options.architecture_arguments(),
        "hyperparameters": asdict(options.hyperparameters()),
    }


def compared(options: TrainOptions, config: AgentConfig) -> dict[str, Any]:
    """Return what tells runs apart, with the same names in every run."""
    hyperparameters = asdict(options.hyperparameters())
    left_out = {"hyperparameters", "frames", "device", *hyperparameters}
    left_out |= {"evaluate_every", "film_every", "save_every"}
    kept = {k: v for k, v in recorded(options).items() if k not in left_out}
    return {
        **kept,
        "init_from": options.init_from or "",
        "architecture": config.architecture,
        "architecture_options": json.dumps(config.architecture_kwargs),
        **hyperparameters,
    }
