"""The options of learning from an expert, and which of them are accepted."""

from dataclasses import dataclass
from pathlib import Path

from rlbilinear.agents.experts import check_has_expert
from rlbilinear.envs import EVALUATION
from rlbilinear.envs.games import LARGEST_SEED, check_mode

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class DistillOptions:
    """A run. The same options with ``resume`` continue it; more frames extend it."""

    out: Path
    """folder of the run"""
    architecture: str = "bimpala-compact"
    game: str = "maze"
    """maze | heist"""
    frames: int = 7_000_000
    """labelled states to learn from, each used once"""
    batch: int = 256
    """states in a gradient step, one from each environment"""
    groups: int = 4
    """sets of environments that take turns, so that consecutive batches differ"""
    matrix_rate: float = 2e-3
    """Muon's learning rate, for the weight matrices of hidden layers; it falls linearly to 0"""
    rate: float = 7e-4
    """AdamW's learning rate, for all other weights; it falls linearly to 0"""
    weight_decay: float = 0.01
    warmup: int = 100
    """gradient steps over which the rates rise"""
    max_gradient_norm: float = 1.0
    value_weight: float = 0.02
    """weight of the critic's loss; the actor's has weight 1"""
    new_level: float = 1 / 24
    """probability at each step that an environment changes to another level"""
    anywhere: float = 0.6
    """share of levels that start elsewhere: with the mouse at a random free cell, or the heist's
    agent at one, some keys held"""
    mode: str = "easy"
    """the game's distribution mode"""
    precision: str = "float32"
    """precision of the body and of Muon: float32 | bfloat16. bfloat16 is 1.8 times faster on
    processors with avx512_bf16 or amx_bf16, and many times slower on others"""
    seed: int = 0
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps"""
    evaluation_levels: int = 256
    """held-out levels played at each checkpoint; 0 for none"""
    checkpoint_frames: int = 250_000
    """frames between checkpoints"""
    progress: bool = True
    """show a progress bar"""


def check(options: DistillOptions) -> None:
    """Raise ValueError for an option that is not accepted; `Agent.new` checks the rest."""
    if options.precision not in PRECISIONS:
        raise ValueError(
            f"unknown precision {options.precision!r}; choose from {', '.join(PRECISIONS)}"
        )
    check_has_expert(options.game)
    check_mode(options.game, options.mode)
    for name in ("batch", "groups", "warmup", "checkpoint_frames"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(options, name)}")
    if options.frames < options.batch:
        raise ValueError(
            f"frames must be at least one batch, {options.batch}, got {options.frames}"
        )
    for name in ("matrix_rate", "rate", "max_gradient_norm"):
        if not 0 < getattr(options, name) < float("inf"):
            raise ValueError(f"{name} must be above 0 and finite, got {getattr(options, name)}")
    if not 0 <= options.seed <= LARGEST_SEED:
        raise ValueError(f"seed must be in 0..{LARGEST_SEED}, got {options.seed}")
    for name in ("weight_decay", "value_weight"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise ValueError(f"{name} must be 0 or more and finite, got {getattr(options, name)}")
    for name in ("new_level", "anywhere"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"{name} must be in 0..1, got {getattr(options, name)}")
    EVALUATION.first(options.evaluation_levels)
