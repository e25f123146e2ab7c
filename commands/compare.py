r"""Compare architectures: train games x architectures x seeds alike, and report what came out.

    rlbilinear compare --games coinrun fruitbot --architectures bimpala-small impala-small \
        --seeds 0 1 2 --levels 200 --frames 1000000 --out runs/compare

Each run is in OUT/GAME/ARCHITECTURE/seedN and is the same as one of ``rlbilinear train``. The same
command resumes a comparison that was stopped: finished runs are kept, stopped ones are resumed.
With --report-only nothing is trained, and the report is made from the runs in the folder. Training
options apply to all runs; options of one architecture follow its name:
bimpala-small,learning_rate=1e-4,kernel_size=5. Differences are those of architectures given first
minus those given later. If Ray is installed (extra ``ray``), it distributes
the runs, on this machine or, with --address, on a cluster, whose machines must all share the folder
OUT. The report (text, CSV, PNG, TensorBoard) is in OUT/report.
"""

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import tyro
from tqdm import tqdm

from rlbilinear.agents.comparison import figures as draw
from rlbilinear.agents.comparison import spread, summary, tables, tensorboard, text
from rlbilinear.agents.comparison.matrix import Entry, find, matrix
from rlbilinear.agents.folder import new_folder, provenance, write_json
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.run_status import Progress, Standing, standing
from rlbilinear.commands.outputs import check_folder, tensorboard_command, writing
from rlbilinear.commands.running import Command, Failed, Several

REPORT, MARKER = "report", "report.json"


@dataclass(frozen=True)
class CompareOptions(TrainOptions):
    """Compare architectures by training them alike."""

    out: Path
    """folder of the comparison"""
    architecture_options: str = "{}"
    """options of every architecture, as JSON: {"kernel_size": 3}"""
    games: Several[str] = ()
    """ProcGen games; with --report-only, by default all in the folder"""
    architectures: Several[str] = ()
    """names, each with its own options after commas: bimpala-small,learning_rate=1e-4"""
    seeds: Several[int] = ()
    """seeds of the runs; three or more give meaningful intervals"""
    report_only: bool = False
    """make the report without training"""
    final_levels: int = 200
    """levels of each set, training and held-out, on which the final agents are scored"""
    skip_unplayable: bool = False
    """leave out levels that are over at the first step without a reward, whatever the agent does"""
    margin: float = 0.1
    """normalised scores that differ by less count as comparable"""
    ray: bool = True
    """distribute runs by Ray if it is installed"""
    address: str | None = None
    """address of a Ray cluster (auto, HOST:PORT); by default Ray runs on this machine"""
    cpus_per_run: int | None = None
    """CPUs and threads of a run; by default 1 with Ray, and torch's own choice without"""
    gpus_per_run: float | None = None
    """GPUs of a run with Ray (0.25: four share one); by default 1, and 0 on the CPU"""
    game: tyro.conf.Suppress[str] = ""
    architecture: tyro.conf.Suppress[str | None] = None
    seed: tyro.conf.Suppress[int] = 0
    init_from: tyro.conf.Suppress[str | None] = None


def _compare(options: CompareOptions) -> None:
    """Train what is missing, and report."""
    check(options)
    runs = chosen(options)
    place = options.out / REPORT
    check_folder(place, overwrite=True, marker=MARKER)
    failed = [] if options.report_only else train_missing(options, runs)
    for line in failed:
        print(line, file=sys.stderr)
    print(report(options, runs))
    print(f"\nFigures and tables: {place}")
    print(f"TensorBoard: {tensorboard_command(place)} (of all runs: --logdir {options.out})")
    if failed:
        raise Failed(f"{len(failed)} of {len(runs)} runs failed; the same command retries them")


def check(options: CompareOptions) -> None:
    """Raise ValueError where an option of the comparison itself is out of range."""
    if options.final_levels < 2:
        raise ValueError(f"final_levels must be 2 or more, got {options.final_levels}")
    if not options.margin > 0:
        raise ValueError(f"margin must be positive, got {options.margin}")
    if options.cpus_per_run is not None and options.cpus_per_run < 1:
        raise ValueError(f"cpus_per_run must be 1 or more, got {options.cpus_per_run}")
    if options.gpus_per_run is not None and not options.gpus_per_run >= 0:
        raise ValueError(f"gpus_per_run must be 0 or more, got {options.gpus_per_run}")


def chosen(options: CompareOptions) -> list[Entry]:
    """Return the runs of the matrix, or with ``report_only`` those in the folder.

    Raises:
        ValueError: there are no runs, or an option is not accepted.
    """
    if not options.report_only:
        shared = {field.name: getattr(options, field.name) for field in fields(TrainOptions)}
        return matrix(TrainOptions(**shared), options.games, options.architectures, options.seeds)
    found = find(options.out)
    kept = found
    for axis in ("game", "architecture", "seed"):
        asked = getattr(options, f"{axis}s")
        there = dict.fromkeys(getattr(run, axis) for run in found)
        if missing := [str(value) for value in asked if value not in there]:
            raise ValueError(
                f"{axis}s: {options.out} has no runs of {', '.join(missing)}; "
                f"it has {', '.join(map(str, there)) or 'none'}"
            )
        kept = [run for run in kept if not asked or getattr(run, axis) in asked]
    if not kept:
        raise ValueError(f"--report-only: {options.out} has no runs")
    order = {name: place for place, name in enumerate(options.architectures)}
    return sorted(kept, key=lambda run: order.get(run.architecture, 0))


def train_missing(options: CompareOptions, runs: Sequence[Entry]) -> list[str]:
    """Run all runs to completion, and return a line for each that failed.

    Raises:
        ValueError: a folder holds another run; found before anything starts.
        KeyboardInterrupt: stopped.
    """
    standings = examine(runs)
    for run, (progress, frames) in zip(runs, standings, strict=True):
        print(f"{run}: {progress.value}" + (f", {frames:,} frames" if frames else ""))
    if all(progress is Progress.FINISHED for progress, _ in standings):
        return []
    failed = []
    with closing(outcomes(options, runs)) as ended:  # what is under way is stopped if this is
        for number, (run, error) in enumerate(ended, 1):
            tqdm.write(f"{number} of {len(runs)}: {run}: {'failed' if error else 'finished'}")
            if error is not None:
                failed.append(f"{run}: {error}")
    return failed


def examine(runs: Sequence[Entry]) -> list[Standing]:
    """Return how far each run is.

    Raises:
        ValueError: runs that cannot be started or resumed, each with the reason.
    """
    standings, refused = [], []
    for run in runs:
        try:
            standings.append(standing(run.options))
        except (ValueError, OSError) as error:
            refused.append(str(error))
    if refused:
        raise ValueError("nothing was started: " + "; ".join(refused))
    return standings


def outcomes(
    options: CompareOptions, runs: Sequence[Entry]
) -> Generator[spread.Outcome, None, None]:
    """Run them, by Ray or one after another.

    Raises:
        ValueError: a cluster or GPUs are asked for without Ray.
    """
    if options.address is not None and not options.ray:
        raise ValueError("--address is for Ray: remove --no-ray")
    if options.ray and (spread.ray is not None or options.address is not None):
        there = spread.connect(options.address)
        given = spread.resources(options.device, options.cpus_per_run, options.gpus_per_run)
        print(f"{there}; each run takes {given.cpus} CPUs, {given.gpus:g} GPUs", flush=True)
        if options.address is not None:
            print(f"{options.out.absolute()} must be a folder that all machines share")
        yield from spread.by_ray(
            runs, given, final_levels=options.final_levels, progress=options.progress
        )
        return
    if options.gpus_per_run is not None:
        raise ValueError("--gpus-per-run is for Ray, which is not installed or not used")
    if options.ray:
        print("Ray is not installed (pip install 'rlbilinear[ray]'): ", end="")
    print("training one run after another", flush=True)
    yield from spread.one_after_another(
        runs, final_levels=options.final_levels, threads=options.cpus_per_run
    )


def report(options: CompareOptions, runs: Sequence[Entry]) -> str:
    """Read all runs, write the report, and return it as text.

    Raises:
        OSError: it cannot be written.
    """
    found = tables.collect(
        runs,
        frames=max(run.options.frames for run in runs),
        final_levels=options.final_levels,
        device=options.device,
        progress=options.progress,
        skip_unplayable=options.skip_unplayable,
    )
    scores = summary.summarise(found)
    over_games = summary.aggregate(found)
    pairs = summary.paired_differences(found, margin=options.margin)
    said = text.report(found, scores, over_games, pairs, options.margin)
    pictures = {"curves": draw.curves(found)}
    if len(found.final):
        pictures["returns"] = draw.returns(found)
        pictures["normalised"] = draw.normalised(found, over_games)
    if len(pairs):
        pictures["differences"] = draw.differences(found, pairs, options.margin)
    written = {
        "runs": found.status,
        "evaluations": found.evaluations,
        "summary": scores,
        "aggregate": over_games,
        "differences": pairs,
    }
    place = options.out / REPORT
    with writing(place), new_folder(place, overwrite=True, marker=MARKER) as folder:
        for name, table in written.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        for name, picture in pictures.items():
            picture.savefig(folder / f"{name}.png", dpi=130)
        (folder / "report.txt").write_text(said + "\n")
        tensorboard.write(folder / "tensorboard", found, pictures, said)
        counts = {"frames": found.frames, "final_levels": options.final_levels}
        rules = {"margin": options.margin, "skip_unplayable": options.skip_unplayable}
        write_json(folder / MARKER, {**counts, **rules, **provenance()})
    return said


main = Command(
    CompareOptions, _compare, __doc__, lambda _: "the same command resumes the comparison"
)
