"""What is done on a GPU: its tests, the benchmark of training, and the agents that take long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rlbilinear.agents.comparison.matrix import matrix
from rlbilinear.agents.distill_options import DistillOptions
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.precision import Precision
from rlbilinear.studies.gpu.slices import Job

Step = Literal["tests", "benchmark", "distill", "compare", "train"]
STEPS: tuple[Step, ...] = get_args(Step)

MAZE, HEIST = (1, 2, 3, 4), (0, 1, 2)
DISTILLED = (
    ("maze", "bimpala-compact", 2_600_000, MAZE),
    ("maze", "impala-compact", 1_600_000, MAZE),
    ("heist", "bimpala-compact", 4_000_000, HEIST),
    ("heist", "impala-compact", 4_000_000, HEIST),
)
"""Games with an expert, architectures, frames of the shipped recipe, and seeds."""

SIZE_MATCHED = (
    "bimpala-small",
    "impala-small",
    "impala-matched,match=bimpala-small",
    "bimpala-small,gate=silu",
)
PUBLISHED = ("bimpala,kernel_size=3,preset=bilinear", "impala-matched,match=bimpala,kernel_size=3")


@dataclass(frozen=True)
class Plan:
    """Sizes of what is done.

    Attributes:
        device: that runs on it.
        distilled: as `DISTILLED`.
        compared_games: games of the size-matched comparison, and the number of seeds.
        compared: its architectures.
        compared_frames: of each of its runs.
        published: networks that are trained in mazes as in the literature.
        published_frames: of each.
        held_out: levels of each evaluation on the way.
    """

    device: str = "cuda"
    distilled: tuple[tuple[str, str, int, tuple[int, ...]], ...] = DISTILLED
    compared_games: tuple[tuple[str, int], ...] = (("coinrun", 5),)
    compared: tuple[str, ...] = SIZE_MATCHED
    compared_frames: int = 1_000_000
    published: tuple[str, ...] = PUBLISHED
    published_frames: int = 25_000_000
    held_out: int = 100

    @property
    def precision(self) -> Precision:
        """Of the networks' bodies."""
        return "bfloat16" if self.device == "cuda" else "float32"


TINY = Plan(
    device="cpu",
    distilled=(("maze", "impala-compact", 256, (1,)),),
    compared_games=(("coinrun", 1),),
    compared=("bimpala-small,gate=silu",),
    compared_frames=64,
    published=("bimpala,kernel_size=3,channels=8,preset=bilinear",),
    published_frames=64,
    held_out=1,
)
"""One run of each kind, in a minute on a processor, to see that it runs."""


def jobs(plan: Plan, out: Path, steps: Sequence[Step] = STEPS) -> list[Job]:
    """Return the programs of the steps, in the order in which they are to run.

    Args:
        plan: their sizes.
        out: folder for everything that they write.
        steps: which of `STEPS`.

    Raises:
        ValueError: a step that is not one of them.
    """
    makers: dict[str, Callable[[], list[Job]]] = {
        "tests": lambda: [_tests(out)],
        "benchmark": lambda: [_benchmark(out)],
        "distill": lambda: _distill(plan, out),
        "compare": lambda: _compare(plan, out),
        "train": lambda: _train(plan, out),
    }
    if unknown := [step for step in steps if step not in makers]:
        raise ValueError(f"unknown step {', '.join(unknown)}; choose from {', '.join(STEPS)}")
    return [job for step in steps for job in makers[step]()]


def _tests(out: Path) -> Job:
    report = f"--junit-xml={out / 'cuda-tests.xml'}"
    only = ("-m", "cuda", "-n", "6", "-p", "no:cacheprovider", report, "tests")
    return Job("tests", ("-m", "pytest", "-q", *only), alone=True)


def _benchmark(out: Path) -> Job:
    return Job(
        "benchmark",
        ("-m", "rlbilinear", "benchmark", "training", "--out", str(out / "benchmark")),
        alone=True,
        threads=8,
    )


def _distill(plan: Plan, out: Path) -> list[Job]:
    made = []
    for game, architecture, frames, seeds in plan.distilled:
        for seed in seeds:
            options = DistillOptions(
                out / "distilled" / game / architecture / f"seed{seed}",
                game=game,
                architecture=architecture,
                frames=frames,
                seed=seed,
                device=plan.device,
                precision=plan.precision,
                evaluation_levels=plan.held_out,
                checkpoint_frames=500_000,
                progress=False,
            )
            made.append(_of(options, "distill", f"distill-{game}-{architecture}-{seed}"))
    return made


def _compare(plan: Plan, out: Path) -> list[Job]:
    made = []
    for game, seeds in plan.compared_games:
        shared = TrainOptions(
            out / "compared",
            frames=plan.compared_frames,
            levels=200,
            held_out=plan.held_out,
            evaluate_every=200_000,
            film_every=0,
            device=plan.device,
            precision=plan.precision,
            progress=False,
            **_tiny_rollouts(plan),
        )
        made += _runs(matrix(shared, [game], plan.compared, range(seeds)))
    return made


def _train(plan: Plan, out: Path) -> list[Job]:
    shared = TrainOptions(
        out / "published",
        frames=plan.published_frames,
        held_out=plan.held_out,
        film_every=0,
        device=plan.device,
        precision=plan.precision,
        progress=False,
        **_tiny_rollouts(plan),
    )
    return _runs(matrix(shared, ["maze"], plan.published, [0]))


def _tiny_rollouts(plan: Plan) -> dict[str, Any]:
    few = plan.compared_frames < 10_000
    return {"num_envs": 2, "num_steps": 16, "minibatches": 1} if few else {}


def _runs(entries: Sequence[Any]) -> list[Job]:
    return [
        _of(each.options, "train", f"{each.game}-{each.architecture}-{each.seed}")
        for each in entries
    ]


def _of(options: DistillOptions | TrainOptions, command: str, name: str) -> Job:
    flags = [word for field in fields(options) for word in _flag(options, field)]
    safe = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    return Job(safe, ("-m", "rlbilinear", command, *flags), run=options.out)


def _flag(options: Any, field: Field[Any]) -> list[str]:
    """Return an option as it is given on the command line, if it is not the default."""
    value = getattr(options, field.name)
    if field.default is not MISSING and value == field.default:
        return []
    flag = field.name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]
